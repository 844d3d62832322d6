//! What the users of the world ask for.
//!
//! In: the store and chance. Out: writes, made by the same `control::request` that the API uses. Refused requests are part
//! of the game.

use control::{networks, request};
use objects::{
    Availability, ContainerSpec, EndpointSpec, FailureAction, IdSource, IpamConfig, IpamOptions, Limit,
    Nanos, NetworkAttachmentConfig, NetworkSpec, Node, NodeSpec, NodeState, Placement, PlacementPreference,
    PortConfig, PublishMode, ResolutionMode, ResourceRequirements, Resources, RestartCondition,
    RestartPolicy, Service, ServiceMode, ServiceSpec, SpreadOver, TaskSpec, Timestamp, UpdateConfig,
    UpdateOrder,
};
use store::{Store, Write};

use crate::agent::{BAD_IMAGE, ONCE_IMAGE};
use crate::chance::Chance;

/// Services that exist at the same time at most.
const MAX_SERVICES: usize = 4;

/// One request of a user; empty when it is refused.
pub fn request(store: &Store, now: Timestamp, ids: &mut IdSource, chance: &mut Chance) -> Vec<Write> {
    let services: Vec<_> = store.services().cloned().collect();
    let Some(service) = chance.pick(&services) else { return create(store, ids, chance) };
    match chance.below(10) {
        0 | 1 if services.len() < MAX_SERVICES => create(store, ids, chance),
        0 => request::remove_service(store, &service.id).unwrap_or_default(),
        1..=3 => scale(store, service, chance),
        4 | 5 => update(store, service, chance),
        6 => request::rollback_service(store, &service.id, service.meta.version, now).unwrap_or_default(),
        7 => force(store, service),
        8 if chance.percent(30) => network(store, ids),
        _ => node(store, chance),
    }
}

fn create(store: &Store, ids: &mut IdSource, chance: &mut Chance) -> Vec<Write> {
    let mode =
        if chance.percent(25) { ServiceMode::global() } else { ServiceMode::replicas(chance.below(7)) };
    let name = format!("s{}", chance.below(100));
    let spec = ServiceSpec { name, mode, ..ServiceSpec::default() };
    request::create_service(store, randomise(spec, chance), ids).map_or(Vec::new(), |(_, writes)| writes)
}

fn scale(store: &Store, service: &Service, chance: &mut Chance) -> Vec<Write> {
    let mut spec = service.spec.clone();
    if spec.replicas().is_some() {
        spec.mode = ServiceMode::replicas(chance.below(9));
    }
    change(store, service, spec)
}

fn update(store: &Store, service: &Service, chance: &mut Chance) -> Vec<Write> {
    change(store, service, randomise(service.spec.clone(), chance))
}

fn force(store: &Store, service: &Service) -> Vec<Write> {
    let mut spec = service.spec.clone();
    spec.task_template.force_update += 1;
    change(store, service, spec)
}

fn change(store: &Store, service: &Service, spec: ServiceSpec) -> Vec<Write> {
    request::update_service(store, &service.id, service.meta.version, spec).unwrap_or_default()
}

/// Image whose tasks last.
const GOOD_IMAGE: &str = "web:good";

/// Whether the tasks of a service last.
pub fn is_healed(service: &Service) -> bool {
    service.spec.task_template.container_spec.as_ref().is_none_or(|container| container.image == GOOD_IMAGE)
}

/// Gives a service an image whose tasks last.
pub fn heal(store: &Store, service: &Service) -> Vec<Write> {
    let mut spec = service.spec.clone();
    if let Some(container) = &mut spec.task_template.container_spec {
        container.image = GOOD_IMAGE.to_owned();
    }
    change(store, service, spec)
}

/// The networks that every world has, as name and subnet: one with room, one that is soon full.
const NETWORKS: [(&str, &str); 3] = [("ingress", ""), ("net", ""), ("tight", "10.99.0.0/29")];

/// A network that comes and goes.
const EXTRA: &str = "extra";

/// The networks of a new world.
pub fn first_networks(store: &mut Store, now: Timestamp, ids: &mut IdSource) -> Vec<Write> {
    let mut all = Vec::new();
    for (name, subnet) in NETWORKS {
        let writes = make_network(store, name, subnet, ids);
        store.apply(store.applied() + 1, now, &writes).expect("nobody else writes");
        all.extend(writes);
    }
    all
}

fn make_network(store: &Store, name: &str, subnet: &str, ids: &mut IdSource) -> Vec<Write> {
    let config = IpamConfig { subnet: subnet.to_owned(), ..IpamConfig::default() };
    let ipam_options = Some(IpamOptions { configs: vec![config], ..IpamOptions::default() });
    let ingress = name == "ingress";
    let spec = NetworkSpec { name: name.to_owned(), ingress, ipam_options, ..NetworkSpec::default() };
    networks::create(store, ids.next(), spec).unwrap_or_default()
}

/// Makes the network that comes and goes, or removes it.
fn network(store: &Store, ids: &mut IdSource) -> Vec<Write> {
    match store.network_named(EXTRA) {
        Some(known) => networks::remove(store, &known.id).unwrap_or_default(),
        None => make_network(store, EXTRA, "", ids),
    }
}

fn attachments(chance: &mut Chance) -> Vec<NetworkAttachmentConfig> {
    let mut names = vec!["net", "tight", EXTRA];
    names.rotate_left(chance.below(3) as usize);
    names.truncate(1 + chance.below(2) as usize);
    let attach = |name: &str| NetworkAttachmentConfig { target: name.to_owned(), ..Default::default() };
    names.into_iter().map(attach).collect()
}

/// Changes the availability or a label of a node.
fn node(store: &Store, chance: &mut Chance) -> Vec<Write> {
    let nodes: Vec<_> = store.nodes().cloned().collect();
    let Some(node) = chance.pick(&nodes) else { return Vec::new() };
    let mut spec = node.spec.clone();
    match chance.below(4) {
        0 => spec.availability = Availability::Drain,
        1 => spec.availability = Availability::Pause,
        2 => drop(spec.labels.insert("zone".to_owned(), zone(chance))),
        _ => spec.availability = Availability::Active,
    }
    request::update_node(store, &node.id, node.meta.version, spec).unwrap_or_default()
}

/// A node of the world.
pub fn new_node(number: u64, ids: &mut IdSource, chance: &mut Chance) -> Node {
    let mut node = Node { id: ids.next(), ..Node::default() };
    node.description.hostname = format!("n{number}");
    node.description.resources =
        Resources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30, ..Resources::default() };
    node.status.state = NodeState::Ready;
    node.spec = NodeSpec::default();
    node.spec.labels.insert("zone".to_owned(), zone(chance));
    node
}

fn zone(chance: &mut Chance) -> String {
    ["east", "west"][chance.below(2) as usize].to_owned()
}

/// A service that differs in whatever chance says.
fn randomise(mut spec: ServiceSpec, chance: &mut Chance) -> ServiceSpec {
    let image = match chance.below(8) {
        0 => BAD_IMAGE.to_owned(),
        1 => ONCE_IMAGE.to_owned(),
        other => format!("web:{other}"),
    };
    let container = ContainerSpec { image, ..ContainerSpec::default() };
    spec.task_template = TaskSpec {
        container_spec: Some(container),
        restart_policy: chance.percent(70).then(|| restart(chance)),
        placement: chance.percent(40).then(|| placement(chance)),
        resources: chance.percent(30).then(|| reservation(chance)),
        networks: if chance.percent(40) { attachments(chance) } else { Vec::new() },
        ..spec.task_template
    };
    spec.update_config = chance.percent(70).then(|| update_config(chance));
    spec.rollback_config = chance.percent(30).then(|| update_config(chance));
    spec.endpoint_spec = chance.percent(30).then(|| {
        let mode = if chance.percent(20) { PublishMode::Host } else { PublishMode::Ingress };
        let published_port = [0, 80, 81][chance.below(3) as usize];
        let port =
            PortConfig { target_port: 80, published_port, publish_mode: mode, ..PortConfig::default() };
        EndpointSpec { ports: vec![port], ..EndpointSpec::default() }
    });
    if spec.endpoint_spec.is_none() && chance.percent(20) {
        spec.endpoint_spec = Some(EndpointSpec { mode: ResolutionMode::Dnsrr, ..EndpointSpec::default() });
    }
    spec
}

fn restart(chance: &mut Chance) -> RestartPolicy {
    let condition =
        [RestartCondition::Any, RestartCondition::Any, RestartCondition::OnFailure, RestartCondition::None];
    RestartPolicy {
        condition: condition[chance.below(4) as usize],
        delay: Some(chance.millis(8000)),
        max_attempts: chance.percent(40).then(|| chance.below(4)),
        window: chance.percent(30).then(|| chance.millis(60_000)),
    }
}

fn placement(chance: &mut Chance) -> Placement {
    let mut placement = Placement::default();
    if chance.percent(50) {
        placement.constraints.push(format!("node.labels.zone=={}", zone(chance)));
    }
    if chance.percent(50) {
        let spread = Some(SpreadOver { spread_descriptor: "node.labels.zone".to_owned() });
        placement.preferences.push(PlacementPreference { spread });
    }
    if chance.percent(30) {
        placement.max_replicas = 1 + chance.below(3);
    }
    placement
}

fn reservation(chance: &mut Chance) -> ResourceRequirements {
    let nano_cpus = (1 + chance.below(15) as i64) * 100_000_000;
    let reservations = Some(Resources { nano_cpus, ..Resources::default() });
    ResourceRequirements { reservations, limits: Some(Limit::default()) }
}

fn update_config(chance: &mut Chance) -> UpdateConfig {
    let action = [FailureAction::Pause, FailureAction::Continue, FailureAction::Rollback];
    let order = [UpdateOrder::StopFirst, UpdateOrder::StartFirst];
    UpdateConfig {
        parallelism: chance.below(4),
        delay: chance.millis(3000),
        monitor: if chance.percent(50) { Nanos::ZERO } else { chance.millis(7000) },
        failure_action: action[chance.below(3) as usize],
        max_failure_ratio: [0.0, 0.3, 1.0][chance.below(3) as usize],
        order: order[chance.below(2) as usize],
    }
}

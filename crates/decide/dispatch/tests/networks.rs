//! What nodes are told of networks: following marked news leads to what everything says, for every node.

use std::sync::Arc;

use dispatch::{Marks, Told};
use objects::{
    ContainerSpec, ContainerStatus, Driver, Endpoint, EndpointVirtualIp, IpamConfig, IpamOptions, Network,
    NetworkAttachment, NetworkAttachmentConfig, Node, NodeId, PortConfig, ResolutionMode, Service,
    ServiceSpec, Task, TaskSpec, TaskState, Timestamp, VXLAN_OPTION,
};
use proptest::prelude::*;
use store::{Store, Write};
use wire::network::{Networks, apply};
use wire::session::Assignments;

const NOW: Timestamp = Timestamp::from_secs(100);

fn network(id: &str, third: u8, ingress: bool) -> Network {
    let config = IpamConfig {
        subnet: format!("10.0.{third}.0/24"),
        gateway: format!("10.0.{third}.1"),
        ..IpamConfig::default()
    };
    let options = [(VXLAN_OPTION.to_owned(), format!("{}", 4097 + u32::from(third)))].into();
    let mut network = Network {
        id: id.into(),
        ipam_options: Some(IpamOptions { configs: vec![config], ..IpamOptions::default() }),
        driver_state: Driver { name: "overlay".to_owned(), options },
        ..Network::default()
    };
    network.spec.name = format!("name-{id}");
    network.spec.ingress = ingress;
    network
}

fn node(id: &str, last: u8) -> Node {
    let mut node = Node { id: id.into(), ..Node::default() };
    node.status.addr = format!("192.0.2.{last}");
    let addresses = vec![format!("10.0.0.{last}/24")];
    node.internal.ingress = Some(NetworkAttachment { network: "mesh".into(), addresses });
    node
}

fn task(id: &str, node: &str, state: TaskState, networks: &[&str]) -> Task {
    let container = ContainerSpec { hostname: "box".to_owned(), ..ContainerSpec::default() };
    let spec = Arc::new(TaskSpec { container_spec: Some(container), ..TaskSpec::default() });
    let mut task = Task {
        id: id.into(),
        service_id: "s".into(),
        slot: 1,
        node_id: node.into(),
        spec,
        ..Task::default()
    };
    task.internal.service_name = "web".to_owned();
    task.status.state = state;
    task.desired_state = TaskState::Running;
    let attach = |network: &&str| NetworkAttachment {
        network: (*network).into(),
        addresses: vec![format!("10.0.1.{}/24", 10 + id.len())],
    };
    task.networks_attachments = networks.iter().map(attach).collect();
    task
}

fn service(networks: &[&str], mode: ResolutionMode) -> Service {
    let asked = |id: &&str| NetworkAttachmentConfig {
        target: (*id).to_owned(),
        aliases: vec!["db".to_owned()],
        ..NetworkAttachmentConfig::default()
    };
    let mut spec = ServiceSpec { name: "web".to_owned(), ..ServiceSpec::default() };
    spec.task_template.networks = networks.iter().filter(|id| **id != "mesh").map(asked).collect();
    spec.endpoint_spec = Some(objects::EndpointSpec { mode, ..Default::default() });
    let mut service = Service::new("s".into(), spec);
    let vip = |id: &&str| EndpointVirtualIp { network_id: (*id).into(), addr: "10.0.1.2/24".to_owned() };
    let port = PortConfig { published_port: 80, target_port: 8080, ..PortConfig::default() };
    service.endpoint = Endpoint {
        ports: vec![port],
        virtual_ips: networks.iter().filter(|_| mode == ResolutionMode::Vip).map(vip).collect(),
        ..Endpoint::default()
    };
    service
}

fn store() -> Store {
    let mut store = Store::new();
    let networks = [network("mesh", 0, true), network("a", 1, false), network("b", 2, false)];
    let nodes = [node("m", 11), node("n", 12)];
    let writes: Vec<Write> = networks
        .into_iter()
        .map(|it| Write::Create(it.into()))
        .chain(nodes.into_iter().map(|it| Write::Create(it.into())))
        .collect();
    store.apply(1, NOW, &writes).expect("an empty store takes them");
    store
}

fn everything(store: &Store, node: &str) -> Networks {
    let mut networks = Networks::new();
    apply(&mut networks, &Told::everything(store, &node.into()).1);
    networks
}

#[test]
fn a_node_is_told_of_the_networks_that_it_uses() {
    let mut store = store();
    let mut running = task("t", "n", TaskState::Running, &["mesh", "a"]);
    running.status.container_status =
        Some(ContainerStatus { container_id: "0123456789abcdef".to_owned(), ..ContainerStatus::default() });
    let writes = [
        Write::Create(service(&["mesh", "a"], ResolutionMode::Vip).into()),
        Write::Create(running.into()),
        Write::Create(task("late", "", TaskState::Pending, &["b"]).into()),
    ];
    store.apply(2, NOW, &writes).unwrap();
    let told = everything(&store, "n");
    assert_eq!(told.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["a", "mesh"]);
    let a = &told["a"];
    assert_eq!((a.vni, a.data_path_port, a.peers.len()), (4098, 4789, 1));
    assert_eq!(a.endpoints["t"].names, ["web.1.t", "0123456789ab", "box"]);
    assert!(a.endpoints["t"].is_serving);
    let web = &a.services["s"];
    assert_eq!((web.aliases.as_slice(), web.vips.len(), web.ports.len()), (&["db".to_owned()][..], 1, 0));
    let mesh = &told["mesh"];
    assert_eq!((mesh.services["s"].ports.len(), mesh.peers.len()), (1, 2));
    assert_eq!(mesh.peers["m"].addresses, ["10.0.0.11".parse::<std::net::IpAddr>().unwrap()]);
    let other = everything(&store, "m");
    assert_eq!(other.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["mesh"]);
    assert_eq!(other["mesh"].endpoints.len(), 1);
}

/// A task's id, its node, what becomes of it.
type Act = (u8, u8, u8, u8);

fn writes(store: &Store, (kind, which, node_number, what): Act) -> Vec<Write> {
    let on = ["m", "n"][usize::from(node_number % 2)];
    let networks: &[&str] = [&["a"][..], &["b"], &["mesh", "a"], &["a", "b"], &[]][usize::from(what % 5)];
    match kind {
        // A task is made, goes on, ends, or goes.
        0..=5 => {
            let id = "t".repeat(1 + usize::from(which % 4));
            let Some(known) = store.task(&id.as_str().into()) else {
                return vec![Write::Create(task(&id, on, TaskState::Assigned, networks).into())];
            };
            let mut next = Task::clone(known);
            match what % 4 {
                0 => return vec![Write::remove(Arc::clone(known))],
                1 => next.status.state = next.status.state.max(TaskState::Running),
                2 => next.desired_state = TaskState::Shutdown,
                _ => next.status.state = next.status.state.max(TaskState::Failed),
            }
            vec![Write::update(next)]
        }
        6 => {
            let mode = if what % 2 == 0 { ResolutionMode::Vip } else { ResolutionMode::Dnsrr };
            let made = service(networks, mode);
            match store.service(&"s".into()) {
                None => vec![Write::Create(made.into())],
                Some(known) if what == 7 => vec![Write::remove(Arc::clone(known))],
                Some(known) => vec![Write::update(Service { meta: known.meta, ..made })],
            }
        }
        7 => {
            let known = store.node(&on.into()).expect("nodes stay");
            let mut next = Node::clone(known);
            match which % 2 {
                0 => next.status.addr = format!("192.0.2.{}", 20 + what),
                _ => next.internal.encryption_generation = what.into(),
            }
            vec![Write::update(next)]
        }
        _ => match store.network(&"b".into()) {
            Some(known) => vec![Write::remove(Arc::clone(known))],
            None => vec![Write::Create(network("b", 2, false).into())],
        },
    }
}

proptest! {
    #[test]
    fn following_marked_news_leads_to_what_everything_says(
        acts in prop::collection::vec((0u8..9, any::<u8>(), any::<u8>(), 0u8..8), 1..60),
        often in 1usize..4,
    ) {
        let mut store = store();
        let mut sessions: Vec<(NodeId, Told, Networks, Marks)> = ["m", "n"]
            .map(|id| {
                let (told, all) = Told::everything(&store, &id.into());
                let mut networks = Networks::new();
                apply(&mut networks, &all);
                (id.into(), told, networks, Marks::default())
            })
            .into();
        for (number, act) in acts.into_iter().enumerate() {
            let index = store.applied() + 1;
            let writes = writes(&store, act);
            let changes = store.apply(index, NOW, &writes).expect("nobody else writes");
            let mut marks = Marks::default();
            changes.iter().for_each(|change| marks.note(&store, change));
            for (id, touched) in &marks.networks {
                let told = sessions.iter_mut().filter(|session| session.1.networks().contains(id));
                told.for_each(|session| session.3.merge(id, touched));
            }
            if number % often != 0 {
                continue;
            }
            for (node, told, networks, marks) in &mut sessions {
                if let Some(news) = told.news(&store, &std::mem::take(marks)) {
                    apply(networks, &news);
                }
                let expect = everything(&store, node.as_str());
                prop_assert_eq!(&*networks, &expect);
                prop_assert_eq!(told.news(&store, &Marks::default()), None::<Assignments>);
            }
        }
    }
}

//! Addresses of tasks, services and nodes over whole steps: who gets one, who waits, what a new leader finds.

use std::collections::BTreeMap;

use control::{Dirty, networks, request, step};
use objects::{
    Cluster, ClusterSpec, ContainerSpec, EndpointSpec, IdSource, IpamConfig, IpamOptions, Nanos,
    NetworkAttachmentConfig, NetworkSpec, Node, NodeState, PortConfig, ResolutionMode, ServiceId,
    ServiceMode, ServiceSpec, Task, TaskSpec, TaskState, TaskStatus, Timestamp,
};
use proptest::prelude::*;
use store::{Store, Write};

struct Shell {
    store: Store,
    dirty: Dirty,
    now: Timestamp,
    ids: IdSource,
}

fn spec(name: &str, replicas: u64, networks: &[&str], ports: &[u32]) -> ServiceSpec {
    let target = |name: &&str| NetworkAttachmentConfig { target: (*name).to_owned(), ..Default::default() };
    let container = ContainerSpec { image: "web:1".to_owned(), ..Default::default() };
    let task_template = TaskSpec {
        container_spec: Some(container),
        networks: networks.iter().map(target).collect(),
        ..Default::default()
    };
    let port = |port: &u32| PortConfig { published_port: *port, target_port: 80, ..Default::default() };
    let endpoint_spec = Some(EndpointSpec { ports: ports.iter().map(port).collect(), ..Default::default() });
    let mode = ServiceMode::replicas(replicas);
    ServiceSpec { name: name.to_owned(), mode, task_template, endpoint_spec, ..Default::default() }
}

impl Shell {
    fn new(nodes: &[&str]) -> Self {
        let mut shell = Self {
            store: Store::new(),
            dirty: Dirty::everything(),
            now: Timestamp::from_secs(1_000_000),
            ids: IdSource::from_seed([9; 32]),
        };
        let cluster =
            Cluster { id: "c".into(), spec: ClusterSpec::default().with_defaults(), ..Default::default() };
        let nodes = nodes.iter().map(|id| {
            let mut node = Node { id: (*id).into(), ..Node::default() };
            node.status.state = NodeState::Ready;
            Write::Create(node.into())
        });
        let writes: Vec<_> = [Write::Create(cluster.into())].into_iter().chain(nodes).collect();
        shell.commit(&writes);
        shell
    }

    fn commit(&mut self, writes: &[Write]) {
        let index = self.store.applied() + 1;
        let changes = self.store.apply(index, self.now, writes).expect("nobody else writes");
        changes.iter().for_each(|change| self.dirty.note(change));
    }

    /// Makes a network; an empty subnet is the next one of the pools.
    fn network(&mut self, name: &str, subnet: &str, ingress: bool) {
        let config = IpamConfig { subnet: subnet.to_owned(), ..Default::default() };
        let ipam_options = Some(IpamOptions { configs: vec![config], ..Default::default() });
        let spec = NetworkSpec { name: name.to_owned(), ingress, ipam_options, ..Default::default() };
        let writes = networks::create(&self.store, name.into(), spec).expect("it overlaps nothing");
        self.commit(&writes);
    }

    fn step(&mut self) {
        let decision = step(&self.store, &mut self.dirty, self.now, &mut self.ids);
        self.commit(&decision.writes);
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            let decision = step(&self.store, &mut self.dirty, self.now, &mut self.ids);
            if decision.writes.is_empty() {
                assert!(self.dirty.is_true_to(&self.store));
                return;
            }
            self.commit(&decision.writes);
        }
        panic!("the steps never come to rest");
    }

    fn create(&mut self, spec: ServiceSpec) -> ServiceId {
        let (id, writes) = request::create_service(&self.store, spec, &mut self.ids).expect("a valid spec");
        self.commit(&writes);
        id
    }

    fn update(&mut self, id: &ServiceId, change: impl FnOnce(&mut ServiceSpec)) {
        let service = self.store.service(id).expect("it is there");
        let mut spec = service.spec.clone();
        change(&mut spec);
        let writes =
            request::update_service(&self.store, id, service.meta.version, spec).expect("it is valid");
        self.commit(&writes);
    }

    fn remove(&mut self, id: &ServiceId) {
        let writes = request::remove_service(&self.store, id).expect("it is there");
        self.commit(&writes);
    }

    /// Their nodes tell of tasks: those that are wanted run, others have stopped.
    fn report(&mut self) {
        let observed = |task: &Task| {
            let state = if task.is_wanted() { TaskState::Running } else { TaskState::Shutdown };
            task.observed(TaskStatus { state, ..Default::default() }, self.now).map(Write::update)
        };
        let tasks = self.store.tasks().filter(|task| task.status.state >= TaskState::Assigned);
        let writes: Vec<_> = tasks.filter_map(|task| observed(task)).collect();
        self.commit(&writes);
    }

    /// What all tasks have, sorted: `network address …`.
    fn addresses(&self) -> Vec<String> {
        let attachments = self.store.tasks().flat_map(|task| &task.networks_attachments);
        let mut all: Vec<_> =
            attachments.map(|it| format!("{} {}", it.network, it.addresses.join(" "))).collect();
        all.sort();
        all
    }

    fn errors(&self) -> BTreeMap<String, usize> {
        let mut errors = BTreeMap::new();
        for task in self.store.tasks().filter(|task| !task.status.err.is_empty()) {
            *errors.entry(task.status.err.clone()).or_default() += 1;
        }
        errors
    }

    /// No address belongs to two, and each lies in its network.
    fn must_be_sane(&self) {
        let mut owners: BTreeMap<(String, String), String> = BTreeMap::new();
        let live = self.store.tasks().filter(|task| !task.is_terminal());
        let of_tasks = live.flat_map(|task| {
            let attachments = task.networks_attachments.iter();
            attachments.flat_map(|it| {
                it.addresses.iter().map(|ip| (it.network.clone(), ip.clone(), task.id.to_string()))
            })
        });
        let of_services = self.store.services().flat_map(|service| {
            let vips = service.endpoint.virtual_ips.iter();
            vips.map(|vip| (vip.network_id.clone(), vip.addr.clone(), service.id.to_string()))
        });
        let of_nodes = self.store.nodes().flat_map(|node| {
            let own = node.internal.ingress.iter();
            own.flat_map(|own| {
                own.addresses.iter().map(|ip| (own.network.clone(), ip.clone(), node.id.to_string()))
            })
        });
        for (network, address, owner) in of_tasks.chain(of_services).chain(of_nodes) {
            let known = self.store.network(&network).map(|network| network.subnets()).unwrap_or_default();
            let bare: std::net::IpAddr =
                address.split('/').next().expect("a text").parse().expect("an address");
            let is_inside = |subnet: &objects::Subnet| {
                let is_edge = [subnet.net.network(), subnet.gateway].contains(&bare)
                    || (bare.is_ipv4() && bare == subnet.net.broadcast());
                subnet.range.contains(&bare) && !is_edge
            };
            assert!(known.is_empty() || known.iter().any(is_inside), "{owner} has {address} of {network}");
            let before = owners.insert((network.to_string(), address.clone()), owner.clone());
            assert_eq!(before, None, "{owner} has {address} of {network}, too");
        }
    }
}

#[test]
fn a_created_service_has_addresses_and_nodes_after_one_commit() {
    let mut shell = Shell::new(&["a", "b"]);
    shell.network("ingress", "", true);
    shell.network("net", "", false);
    shell.settle();
    let own: Vec<_> = shell.store.nodes().map(|it| it.internal.ingress.clone().unwrap().addresses).collect();
    assert_eq!(own, [["10.0.0.2/24"], ["10.0.0.3/24"]]);
    shell.create(spec("web", 2, &["net"], &[80]));
    shell.step();
    assert!(shell.store.tasks().all(|task| task.status.state == TaskState::Assigned));
    let expect = ["ingress 10.0.0.5/24", "ingress 10.0.0.6/24", "net 10.0.1.3/24", "net 10.0.1.4/24"];
    assert_eq!(shell.addresses(), expect);
    let first = shell.store.tasks().next().unwrap();
    assert_eq!(first.networks_attachments[0].network.as_str(), "ingress");
    shell.must_be_sane();
}

#[test]
fn tasks_on_networks_of_their_nodes_need_no_address() {
    let mut shell = Shell::new(&["a"]);
    for network in ["host", "bridge", "none"] {
        shell.create(spec(network, 1, &[network], &[]));
    }
    shell.settle();
    assert!(shell.store.tasks().all(|task| task.status.state == TaskState::Assigned));
    assert_eq!(shell.addresses(), [""; 0]);
}

#[test]
fn a_full_network_is_told_in_one_step_and_is_in_nobodys_way() {
    let mut shell = Shell::new(&["a"]);
    shell.network("small", "10.7.0.0/29", false);
    shell.network("large", "", false);
    // A virtual address and four tasks are what a /29 has room for.
    let full = shell.create(spec("full", 6, &["small"], &[]));
    shell.create(spec("other", 3, &["large"], &[]));
    shell.step();
    let text = "no available IPv4 addresses on network small (10.7.0.0/29)".to_owned();
    assert_eq!(shell.errors(), BTreeMap::from([(text, 2)]));
    let placed = shell.store.tasks().filter(|task| task.status.state == TaskState::Assigned).count();
    assert_eq!(placed, 7);
    shell.settle();
    // Another service there has no virtual address.
    let late = shell.create(spec("late", 1, &["small"], &[]));
    shell.step();
    let text = "service late has no virtual address on network small".to_owned();
    assert_eq!(shell.errors().get(&text), Some(&1));
    shell.update(&full, |spec| spec.mode = ServiceMode::replicas(2));
    shell.settle();
    shell.report();
    shell.settle();
    assert_eq!(shell.errors(), BTreeMap::new());
    assert_eq!(shell.store.service(&late).unwrap().endpoint.virtual_ips.len(), 1);
    assert!(shell.store.tasks_of_service(&late).all(|task| task.networks_attachments.len() == 1));
    shell.must_be_sane();
}

#[test]
fn a_service_changes_between_virtual_addresses_and_names_of_its_tasks() {
    let mut shell = Shell::new(&["a"]);
    shell.network("net", "", false);
    let id = shell.create(spec("web", 1, &["net"], &[]));
    shell.settle();
    let vips = |shell: &Shell| shell.store.service(&id).unwrap().endpoint.virtual_ips.len();
    assert_eq!(vips(&shell), 1);
    let mode = |mode| move |spec: &mut ServiceSpec| spec.endpoint_spec.as_mut().unwrap().mode = mode;
    shell.update(&id, mode(ResolutionMode::Dnsrr));
    shell.settle();
    assert_eq!(vips(&shell), 0);
    shell.update(&id, mode(ResolutionMode::Vip));
    shell.settle();
    assert_eq!(vips(&shell), 1);
}

#[test]
fn a_service_moves_to_another_network_with_new_tasks() {
    let mut shell = Shell::new(&["a"]);
    shell.network("one", "", false);
    shell.network("two", "", false);
    let id = shell.create(spec("web", 1, &["one"], &[]));
    shell.settle();
    shell.report();
    shell.update(&id, |spec| spec.task_template.networks[0].target = "two".to_owned());
    for _ in 0..4 {
        shell.settle();
        shell.report();
        shell.now = shell.now + Nanos::from_secs(10);
    }
    let running = shell.store.tasks().filter(|task| task.is_wanted() && !task.is_terminal());
    let on: Vec<_> = running.map(|task| task.networks_attachments[0].network.to_string()).collect();
    assert_eq!(on, ["two"]);
}

#[test]
fn a_network_that_a_service_lost_its_last_task_on_can_be_removed() {
    let mut shell = Shell::new(&["a"]);
    shell.network("net", "", false);
    let id = shell.create(spec("web", 2, &["net"], &[]));
    shell.settle();
    shell.remove(&id);
    shell.settle();
    // As `stack rm` does: the tasks are still stopping.
    assert_eq!(networks::remove(&shell.store, &"net".into()).map(|writes| writes.len()), Ok(1));
}

#[test]
fn a_node_has_its_place_on_ingress_while_it_exists() {
    let mut shell = Shell::new(&["a", "b"]);
    shell.network("ingress", "", true);
    shell.settle();
    let known = shell.store.node(&"a".into()).unwrap().clone();
    shell.commit(&[Write::remove(known)]);
    let writes = networks::remove(&shell.store, &"ingress".into()).expect("no service needs it");
    shell.commit(&writes);
    assert_eq!(shell.store.node(&"b".into()).unwrap().internal.ingress, None);
    shell.network("mesh", "", true);
    shell.settle();
    let own = shell.store.node(&"b".into()).unwrap().internal.ingress.clone().unwrap();
    assert_eq!((own.network.as_str(), own.addresses), ("mesh", vec!["10.0.0.2/24".to_owned()]));
}

#[derive(Debug, Clone)]
enum Act {
    Create(u64, bool),
    Scale(usize, u64),
    Remove(usize),
    Report,
    Fail(usize),
    NewLeader,
    Mode(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0u64..5, any::<bool>()).prop_map(|(replicas, ports)| Act::Create(replicas, ports)),
        (0usize..4, 0u64..7).prop_map(|(which, replicas)| Act::Scale(which, replicas)),
        (0usize..4).prop_map(Act::Remove),
        Just(Act::Report),
        (0usize..8).prop_map(Act::Fail),
        Just(Act::NewLeader),
        (0usize..4).prop_map(Act::Mode),
    ]
}

fn play(shell: &mut Shell, act: Act) {
    let nth = |shell: &Shell, which: usize| {
        let count = shell.store.services().count();
        shell.store.services().nth(which % count.max(1)).map(|service| service.id.clone())
    };
    match act {
        Act::Create(replicas, has_ports) => {
            let number = shell.store.applied();
            let ports = if has_ports { [2000 + number as u32].to_vec() } else { Vec::new() };
            shell.create(spec(&format!("s{number}"), replicas, &["net", "six"], &ports));
        }
        Act::Scale(which, replicas) => {
            if let Some(id) = nth(shell, which) {
                shell.update(&id, |spec| spec.mode = ServiceMode::replicas(replicas));
            }
        }
        Act::Mode(which) => {
            if let Some(id) = nth(shell, which)
                .filter(|id| !shell.store.service(id).expect("it is there").spec.needs_ingress())
            {
                shell.update(&id, |spec| {
                    let endpoint = spec.endpoint_spec.get_or_insert_default();
                    endpoint.mode = match endpoint.mode {
                        ResolutionMode::Vip => ResolutionMode::Dnsrr,
                        ResolutionMode::Dnsrr => ResolutionMode::Vip,
                    };
                });
            }
        }
        Act::Remove(which) => {
            if let Some(id) = nth(shell, which) {
                shell.remove(&id);
            }
        }
        Act::Report => shell.report(),
        Act::Fail(which) => {
            let task =
                shell.store.tasks().filter(|it| it.status.state == TaskState::Running).nth(which).cloned();
            let status = TaskStatus { state: TaskState::Failed, ..Default::default() };
            let failed = task.and_then(|task| task.observed(status, shell.now));
            shell.commit(&failed.map(Write::update).into_iter().collect::<Vec<_>>());
        }
        Act::NewLeader => shell.dirty = Dirty::everything(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn addresses_belong_to_one_and_nobody_waits_for_one_that_is_free(acts in prop::collection::vec(act(), 1..40)) {
        let mut shell = Shell::new(&["a", "b"]);
        shell.network("ingress", "10.9.0.0/28", true);
        shell.network("net", "10.8.0.0/28", false);
        shell.network("six", "fd00:8::/125", false);
        for act in acts {
            play(&mut shell, act);
            shell.settle();
            shell.must_be_sane();
            shell.now = shell.now + Nanos::from_secs(7);
        }
        // What was to happen by now happens first.
        shell.settle();
        let known = shell.store.clone();
        shell.dirty = Dirty::everything();
        shell.settle();
        prop_assert!(known.services().eq(shell.store.services()), "a new leader gives services other addresses");
        let waiting = |store: &Store| store.tasks().filter(|it| it.status.err.contains("address")).count();
        prop_assert_eq!(waiting(&known), waiting(&shell.store), "somebody waited for nothing");
    }
}

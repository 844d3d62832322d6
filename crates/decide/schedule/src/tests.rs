//! Table and property tests of placement.

use std::collections::{BTreeMap, BTreeSet};

use objects::{
    Availability, Driver, Network, NetworkAttachment, NetworkSpec, Node, NodeState, Placement,
    PlacementPreference, PortConfig, PublishMode, ResourceRequirements, Resources, SpreadOver, Task, TaskId,
    TaskSpec, TaskState, Timestamp,
};
use proptest::prelude::*;
use store::{Store, Write};

use crate::{Loads, Outcome, place};

const NOW: Timestamp = Timestamp::from_secs(1000);

fn node(id: &str) -> Node {
    let mut node = Node { id: id.into(), ..Node::default() };
    node.status.state = NodeState::Ready;
    node.description.resources = Resources { nano_cpus: 1000, memory_bytes: 1000, ..Resources::default() };
    node
}

fn labelled(id: &str, zone: &str) -> Node {
    let mut node = node(id);
    node.spec.labels.insert("zone".to_owned(), zone.to_owned());
    node
}

fn task(slot: u64, placement: Placement) -> Task {
    let spec = TaskSpec { placement: Some(placement), ..TaskSpec::default() };
    let mut task = Task {
        id: TaskId::from(format!("t{slot:04}")),
        service_id: "s".into(),
        slot,
        spec: spec.into(),
        desired_state: TaskState::Running,
        ..Task::default()
    };
    task.status.state = TaskState::Pending;
    task
}

fn reserving(slot: u64, nano_cpus: i64) -> Task {
    let reservations = Some(Resources { nano_cpus, ..Resources::default() });
    let resources = Some(ResourceRequirements { reservations, limits: None });
    let mut task = task(slot, Placement::default());
    task.spec = TaskSpec { resources, ..TaskSpec::default() }.into();
    task
}

struct Placed {
    nodes: BTreeMap<TaskId, String>,
    errors: BTreeMap<TaskId, String>,
    outcome: Outcome,
}

impl Placed {
    fn on(&self, task: u64) -> &str {
        self.nodes.get(&TaskId::from(format!("t{task:04}"))).map_or("", String::as_str)
    }

    fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for node in self.nodes.values() {
            *counts.entry(node.as_str()).or_default() += 1;
        }
        counts
    }
}

/// A network whose traffic is encrypted.
fn secret_network() -> Network {
    let options = BTreeMap::from([("encrypted".to_owned(), String::new())]);
    let driver_configuration = Some(Driver { name: "overlay".to_owned(), options });
    let spec = NetworkSpec { name: "secret".to_owned(), driver_configuration, ..NetworkSpec::default() };
    Network { id: "secret".into(), spec, ..Network::default() }
}

/// Places all waiting tasks of a store with these nodes and tasks.
fn run(nodes: Vec<Node>, tasks: Vec<Task>) -> Placed {
    let mut store = Store::new();
    let mut loads = Loads::new();
    let nodes = nodes.into_iter().map(|node| Write::Create(node.into()));
    let networks = [Write::Create(secret_network().into())];
    let writes: Vec<_> = networks
        .into_iter()
        .chain(nodes)
        .chain(tasks.into_iter().map(|task| Write::Create(task.into())))
        .collect();
    store.apply(1, NOW, &writes).unwrap();
    store.nodes().for_each(|node| loads.note_node(&node.id, Some(node)));
    store.tasks().for_each(|task| loads.note_task(None, Some(task)));
    let mut draft = store.draft();
    let waiting: BTreeSet<_> = store.tasks().map(|task| task.id.clone()).collect();
    let outcome = place(&mut draft, &mut loads, waiting, NOW);
    loads.forget_assumed();
    assert!(loads == Loads::of(&store), "what was assumed is taken back");
    let (mut nodes, mut errors) = (BTreeMap::new(), BTreeMap::new());
    for id in store.tasks().map(|task| &task.id) {
        let task = draft.task(id).unwrap();
        if task.status.state == TaskState::Assigned {
            nodes.insert(id.clone(), task.node_id.to_string());
        } else {
            errors.insert(id.clone(), task.status.err.clone());
        }
    }
    Placed { nodes, errors, outcome }
}

fn check_error(nodes: Vec<Node>, task: Task, expect: &str) {
    let id = task.id.clone();
    let placed = run(nodes, vec![task]);
    assert_eq!(placed.errors.get(&id).map_or("placed", String::as_str), expect);
}

#[test]
fn ties_go_to_the_lowest_node_id() {
    let placed = run(vec![node("b"), node("a"), node("c")], vec![task(1, Placement::default())]);
    assert_eq!(placed.on(1), "a");
}

#[test]
fn tasks_wait_when_no_node_exists() {
    check_error(vec![], task(1, Placement::default()), "no suitable node");
}

#[test]
fn replicas_fill_nodes_evenly_whatever_else_runs_there() {
    for count in [3, 30] {
        let mut busy = task(9000, Placement::default());
        (busy.service_id, busy.node_id) = ("other".into(), "a".into());
        busy.status.state = TaskState::Running;
        let mut tasks: Vec<_> = (1..=count).map(|slot| task(slot, Placement::default())).collect();
        tasks.push(busy);
        let placed = run(vec![node("a"), node("b"), node("c")], tasks);
        let even = count as usize / 3;
        assert_eq!(placed.counts(), BTreeMap::from([("a", even), ("b", even), ("c", even)]));
        assert_eq!(placed.on(1), "b", "the least loaded node comes first");
    }
}

#[test]
fn each_filter_explains_itself() {
    let paused = || {
        let mut paused = node("p");
        paused.spec.availability = Availability::Pause;
        paused
    };
    check_error(
        vec![paused()],
        task(1, Placement::default()),
        "no suitable node (1 node not available for new tasks)",
    );
    let wants = |text: &str| Placement { constraints: vec![text.to_owned()], ..Placement::default() };
    check_error(
        vec![node("a"), node("b"), paused()],
        task(1, wants("node.id==x")),
        "no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks)",
    );
    check_error(vec![node("a")], reserving(1, 1001), "no suitable node (insufficient resources on 1 node)");
    let platforms = vec![objects::Platform { os: "plan9".to_owned(), ..Default::default() }];
    check_error(
        vec![node("a")],
        task(1, Placement { platforms, ..Placement::default() }),
        "no suitable node (unsupported platform on 1 node)",
    );
}

#[test]
fn tasks_of_an_encrypted_network_go_where_the_kernel_encrypts() {
    let mut able = node("b");
    able.internal.encryption_generation = 7;
    let on = |network: &str| {
        let mut task = task(1, Placement::default());
        task.networks_attachments =
            vec![NetworkAttachment { network: network.into(), addresses: Vec::new() }];
        task
    };
    assert_eq!(run(vec![node("a"), able.clone()], vec![on("secret")]).on(1), "b");
    assert_eq!(run(vec![node("a"), able], vec![on("other")]).on(1), "a");
    check_error(
        vec![node("a"), node("b")],
        on("secret"),
        "no suitable node (no ESP for encrypted networks in the kernel of 2 nodes)",
    );
    let mut of_node = on("secret");
    of_node.node_id = "a".into();
    check_error(vec![node("a")], of_node, "no ESP for encrypted networks in the kernel of 1 node");
}

#[test]
fn a_host_port_is_taken_once_per_node_and_a_replica_limit_holds() {
    let host = |slot| {
        let mut task = task(slot, Placement::default());
        let port =
            PortConfig { published_port: 80, publish_mode: PublishMode::Host, ..PortConfig::default() };
        task.internal.ports = vec![port];
        task
    };
    let placed = run(vec![node("a"), node("b")], (1..=3).map(host).collect());
    assert_eq!(placed.nodes.len(), 2);
    assert_eq!(
        placed.errors.values().collect::<Vec<_>>(),
        ["no suitable node (host-mode port already in use on 2 nodes)"]
    );
    assert!(placed.outcome.unplaced[0].needs_room);
    let limited = |slot| task(slot, Placement { max_replicas: 2, ..Placement::default() });
    let placed = run(vec![node("a")], (1..=12).map(limited).collect());
    assert_eq!(placed.nodes.len(), 2);
    assert!(
        placed.errors.values().all(|error| error == "no suitable node (max replicas per node limit exceed)")
    );
}

#[test]
fn preferences_even_out_branches_before_nodes() {
    let spread = Some(SpreadOver { spread_descriptor: "node.labels.zone".to_owned() });
    let placement = Placement { preferences: vec![PlacementPreference { spread }], ..Placement::default() };
    let nodes = vec![labelled("a", "east"), labelled("b", "west"), labelled("c", "west"), node("d")];
    let placed = run(nodes, (1..=12).map(|slot| task(slot, placement.clone())).collect());
    assert_eq!(placed.counts(), BTreeMap::from([("a", 4), ("b", 2), ("c", 2), ("d", 4)]));
}

#[test]
fn a_branch_without_room_leaves_its_share_to_the_others() {
    let spread = Some(SpreadOver { spread_descriptor: "node.labels.zone".to_owned() });
    let preferences = vec![PlacementPreference { spread }];
    let mut small = labelled("a", "east");
    small.description.resources.nano_cpus = 100;
    let tasks = (1..=6).map(|slot| {
        let mut task = reserving(slot, 100);
        let spec = TaskSpec {
            placement: Some(Placement { preferences: preferences.clone(), ..Placement::default() }),
            ..(*task.spec).clone()
        };
        task.spec = spec.into();
        task
    });
    let placed = run(vec![small, labelled("b", "west")], tasks.collect());
    assert_eq!(placed.counts(), BTreeMap::from([("a", 1), ("b", 5)]));
}

#[test]
fn a_node_where_the_slot_failed_often_comes_last() {
    let mut failing = task(1, Placement::default());
    let failed = objects::Restart { at: NOW, node: "a".into(), failed: true };
    failing.internal.restarts.recent = vec![failed; 5];
    assert_eq!(run(vec![node("a"), node("b")], vec![failing.clone()]).on(1), "b");
    failing.internal.restarts.recent.pop();
    assert_eq!(run(vec![node("a"), node("b")], vec![failing]).on(1), "a");
}

#[test]
fn a_task_made_for_its_node_is_confirmed_or_told_the_bare_reasons() {
    let global = |node: &str| {
        let mut task = task(0, Placement::default());
        task.node_id = node.into();
        task
    };
    assert_eq!(run(vec![node("a")], vec![global("a")]).on(0), "a");
    let mut drained = node("a");
    drained.spec.availability = Availability::Drain;
    check_error(vec![drained], global("a"), "1 node not available for new tasks");
}

proptest! {
    #[test]
    fn nodes_are_never_overbooked_and_tasks_only_wait_for_good_reason(
        room in prop::collection::vec(0i64..6, 1..6),
        wishes in prop::collection::vec(1i64..4, 1..20),
    ) {
        let nodes: Vec<_> = room.iter().enumerate().map(|(number, cpus)| {
            let mut node = node(&format!("n{number}"));
            node.description.resources.nano_cpus = *cpus;
            node
        }).collect();
        let tasks: Vec<_> = wishes.iter().enumerate().map(|(slot, cpus)| {
            let mut task = reserving(slot as u64 + 1, *cpus);
            // Every wish is a group of its own.
            task.internal.spec_version = *cpus as u64;
            task
        }).collect();
        let placed = run(nodes, tasks.clone());
        let mut free: BTreeMap<String, i64> =
            room.iter().enumerate().map(|(number, cpus)| (format!("n{number}"), *cpus)).collect();
        for task in &tasks {
            if let Some(node) = placed.nodes.get(&task.id) {
                *free.get_mut(node).unwrap() -= task.spec.reservations().unwrap().nano_cpus;
            }
        }
        prop_assert!(free.values().all(|cpus| *cpus >= 0));
        for task in tasks.iter().filter(|task| !placed.nodes.contains_key(&task.id)) {
            prop_assert!(free.values().all(|cpus| *cpus < task.spec.reservations().unwrap().nano_cpus));
            prop_assert!(placed.errors[&task.id].starts_with("no suitable node (insufficient resources on"));
        }
    }

    #[test]
    fn nodes_that_are_alike_differ_by_one_task_at_most(nodes in 1usize..8, tasks in 1u64..40) {
        let placed = run(
            (0..nodes).map(|number| node(&format!("n{number}"))).collect(),
            (1..=tasks).map(|slot| task(slot, Placement::default())).collect(),
        );
        let counts = placed.counts();
        let most = counts.values().max().copied().unwrap_or(0);
        let least = if counts.len() < nodes { 0 } else { counts.values().min().copied().unwrap_or(0) };
        prop_assert!(most - least <= 1, "{:?}", counts);
        prop_assert_eq!(placed.nodes.len() as u64, tasks);
    }
}

/// How long it takes is printed, not judged: debug builds and busy machines say little.
#[test]
fn ten_thousand_tasks_find_their_nodes_among_a_thousand() {
    let nodes = (0..1000).map(|number| node(&format!("n{number:04}"))).collect();
    let placed = run(nodes, (1..=10_000).map(|slot| task(slot, Placement::default())).collect());
    assert!(placed.counts().values().all(|count| *count == 10));
}

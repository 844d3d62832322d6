//! Whole steps: from a request to placed tasks, and what happens when a commit is refused.

use control::{Decision, Dirty, Reason, request, step};
use objects::{
    Availability, Cluster, ClusterSpec, ContainerSpec, EndpointSpec, FailureAction, IdSource, Nanos, Node,
    NodeState, PortConfig, ResourceRequirements, Resources, ServiceId, ServiceMode, ServiceSpec, Task,
    TaskSpec, TaskState, TaskStatus, Timestamp, UpdateConfig,
};
use store::{Kind, Store, Write};

struct Shell {
    store: Store,
    dirty: Dirty,
    now: Timestamp,
    ids: IdSource,
}

fn node(id: &str) -> Node {
    let mut node = Node { id: id.into(), ..Node::default() };
    node.status.state = NodeState::Ready;
    node.description.resources =
        Resources { nano_cpus: 1_000_000_000, memory_bytes: 1 << 30, ..Default::default() };
    node
}

fn spec(replicas: u64) -> ServiceSpec {
    let container = ContainerSpec { image: "web:1".to_owned(), ..Default::default() };
    let task_template = TaskSpec { container_spec: Some(container), ..Default::default() };
    let mode = ServiceMode::replicas(replicas);
    ServiceSpec { name: "web".to_owned(), mode, task_template, ..Default::default() }
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
        let mut writes = vec![Write::Create(cluster.into())];
        writes.extend(nodes.iter().map(|id| Write::Create(node(id).into())));
        shell.commit(&writes);
        shell
    }

    fn commit(&mut self, writes: &[Write]) {
        let index = self.store.applied() + 1;
        let changes = self.store.apply(index, self.now, writes).expect("nobody else writes");
        changes.iter().for_each(|change| self.dirty.note(change));
    }

    fn step(&mut self) -> Decision {
        step(&self.store, &mut self.dirty, self.now, &mut self.ids)
    }

    fn settle(&mut self) -> Decision {
        for _ in 0..20 {
            let decision = self.step();
            if decision.writes.is_empty() {
                return decision;
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

    fn report(&mut self, state: TaskState) {
        let writes: Vec<_> = self
            .store
            .tasks()
            .filter(|task| task.is_wanted() && !task.node_id.is_empty())
            .filter_map(|task| task.observed(TaskStatus { state, ..Default::default() }, self.now))
            .map(Write::update)
            .collect();
        self.commit(&writes);
    }

    fn tasks(&self, is_meant: impl Fn(&Task) -> bool) -> usize {
        self.store.tasks().filter(|task| is_meant(task)).count()
    }
}

#[test]
fn what_was_to_happen_later_happens_although_the_clock_is_set_back() {
    let mut shell = Shell::new(&["a"]);
    shell.create(spec(1));
    shell.settle();
    shell.report(TaskState::Running);
    shell.settle();
    shell.report(TaskState::Failed);
    let waits_until = shell.settle().wake_at.expect("a restart has a delay");
    shell.now = waits_until - Nanos::from_secs(3600);
    shell.settle();
    let desired: Vec<_> = shell.store.tasks().map(|task| task.desired_state).collect();
    assert!(desired.contains(&TaskState::Running), "{desired:?}");
}

#[test]
fn a_created_service_has_all_its_tasks_on_nodes_after_one_commit() {
    let mut shell = Shell::new(&["a", "b"]);
    shell.create(spec(200));
    let decision = shell.step();
    shell.commit(&decision.writes);
    assert_eq!(shell.tasks(|task| task.status.state == TaskState::Assigned), 200);
    assert_eq!(shell.store.tasks_on_node(&"a".into()).count(), 100);
    let last = shell.settle();
    assert_eq!(last.wake_at, None);
    assert!(shell.dirty.is_clean());
}

#[test]
fn tasks_beyond_the_budget_of_a_step_follow_in_the_next() {
    let mut shell = Shell::new(&["a"]);
    shell.create(spec(2500));
    shell.settle();
    assert_eq!(shell.store.task_count(), 2500);
}

#[test]
fn a_step_without_changes_writes_nothing_and_wants_nothing() {
    let mut shell = Shell::new(&["a"]);
    shell.create(spec(3));
    shell.settle();
    shell.report(TaskState::Running);
    shell.settle();
    let idle = shell.step();
    assert!(idle.writes.is_empty() && idle.wake_at.is_none() && idle.reasons.is_empty());
    shell.dirty = Dirty::everything();
    assert!(shell.step().writes.is_empty(), "a new leader has nothing to add");
}

#[test]
fn a_refused_decision_is_made_again_from_what_is_true_now() {
    let mut shell = Shell::new(&["a"]);
    let id = shell.create(spec(3));
    let stale = shell.step();
    // A user is faster than the commit.
    let version = shell.store.service(&id).unwrap().meta.version;
    let faster = request::update_service(&shell.store, &id, version, spec(5)).unwrap();
    shell.commit(&faster);
    let refused = shell.store.apply(shell.store.applied() + 1, shell.now, &stale.writes);
    assert_eq!(refused.unwrap_err().to_string(), "update out of sequence");
    shell.settle();
    assert_eq!(shell.store.task_count(), 5);
}

#[test]
fn a_decision_that_vanished_is_made_again() {
    let mut shell = Shell::new(&["a"]);
    shell.create(spec(3));
    let lost = shell.step();
    assert!(!lost.writes.is_empty() && !shell.dirty.is_clean());
    shell.settle();
    assert_eq!(shell.store.task_count(), 3);
    assert!(shell.dirty.is_true_to(&shell.store));
}

#[test]
fn a_task_without_a_node_says_why_and_is_placed_when_one_comes() {
    let mut shell = Shell::new(&[]);
    shell.create(spec(1));
    let decision = shell.step();
    assert!(
        matches!(&decision.reasons[..], [Reason::NoNode { because, .. }] if because == "no suitable node")
    );
    shell.commit(&decision.writes);
    shell.settle();
    assert_eq!(shell.tasks(|task| task.status.err == "no suitable node"), 1);
    shell.commit(&[Write::Create(node("a").into())]);
    shell.settle();
    assert_eq!(shell.tasks(|task| task.node_id.as_str() == "a"), 1);
}

#[test]
fn a_task_that_waits_for_room_is_placed_when_another_ends() {
    let mut shell = Shell::new(&["a"]);
    let reserving = |name: &str| {
        let mut spec = spec(1);
        spec.name = name.to_owned();
        let reservations = Some(Resources { nano_cpus: 600_000_000, ..Default::default() });
        spec.task_template.resources = Some(ResourceRequirements { reservations, limits: None });
        spec
    };
    let first = shell.create(reserving("a"));
    shell.settle();
    shell.create(reserving("b"));
    shell.settle();
    assert_eq!(shell.tasks(|task| task.status.state == TaskState::Pending), 1);
    let writes = request::remove_service(&shell.store, &first).unwrap();
    shell.commit(&writes);
    shell.settle();
    assert_eq!(
        shell.tasks(|task| task.status.state == TaskState::Pending),
        1,
        "the old task has not stopped"
    );
    let stopping = shell.store.tasks().find(|task| !task.is_wanted()).unwrap();
    let status = TaskStatus { state: TaskState::Shutdown, ..Default::default() };
    let stopped = Write::update(stopping.observed(status, shell.now).unwrap());
    shell.commit(&[stopped]);
    shell.settle();
    assert_eq!(shell.tasks(|task| task.status.state == TaskState::Assigned), 1);
}

#[test]
fn room_for_one_is_offered_to_few_of_many_that_wait_and_room_for_many_to_many() {
    let mut shell = Shell::new(&["a"]);
    let mut wanted = spec(1);
    let reserving = |nano_cpus| {
        let reservations = Some(Resources { nano_cpus, ..Default::default() });
        Some(ResourceRequirements { reservations, limits: None })
    };
    wanted.name = "first".to_owned();
    wanted.task_template.resources = reserving(1_000_000_000);
    let first = shell.create(wanted.clone());
    shell.settle();
    wanted.name = "many".to_owned();
    wanted.mode = ServiceMode::replicas(500);
    wanted.task_template.resources = reserving(50_000_000);
    shell.create(wanted);
    shell.settle();
    let waiting = |shell: &Shell| shell.tasks(|task| task.status.state == TaskState::Pending);
    assert_eq!(waiting(&shell), 500);
    // What is gone from the store is gone from its node.
    let ended = shell.store.tasks_of_service(&first).next().unwrap().clone();
    shell.commit(&[Write::Remove {
        kind: Kind::Task,
        id: ended.id.to_string(),
        read_version: ended.meta.version,
    }]);
    let mut looked_at = 0;
    loop {
        let decision = shell.step();
        looked_at += decision.reasons.iter().filter(|reason| matches!(reason, Reason::NoNode { .. })).count();
        if decision.writes.is_empty() {
            break;
        }
        shell.commit(&decision.writes);
    }
    assert_eq!(waiting(&shell), 480, "as many as fit");
    assert!(looked_at < 100, "{looked_at} were looked at in vain");
    // A reason that is another one now is told to every task.
    shell.commit(&[Write::Create(node("b").into())]);
    shell.settle();
    assert_eq!(waiting(&shell), 460);
    assert_eq!(shell.tasks(|task| task.status.err.contains("on 2 nodes")), 460);
    assert!(shell.dirty.is_true_to(&shell.store));
}

#[test]
fn a_restart_delay_is_a_time_to_wake_at_and_a_new_leader_waits_for_the_rest_of_it() {
    let mut shell = Shell::new(&["a"]);
    shell.create(spec(1));
    shell.settle();
    shell.report(TaskState::Failed);
    let due = shell.now + Nanos::from_secs(5);
    assert_eq!(shell.settle().wake_at, Some(due));
    shell.now = shell.now + Nanos::from_secs(3);
    shell.dirty = Dirty::everything();
    assert_eq!(shell.settle().wake_at, Some(due));
    shell.now = due;
    assert_eq!(shell.settle().wake_at, None);
    assert_eq!(shell.tasks(|task| task.desired_state == TaskState::Running), 1);
}

#[test]
fn an_automatic_rollback_gives_the_service_its_old_ports_again() {
    let publish = |image: &str, port| {
        let mut spec = spec(1);
        spec.task_template.container_spec.as_mut().unwrap().image = image.to_owned();
        let ports = vec![PortConfig { target_port: 80, published_port: port, ..Default::default() }];
        spec.endpoint_spec = Some(EndpointSpec { ports, ..Default::default() });
        spec.update_config =
            Some(UpdateConfig { failure_action: FailureAction::Rollback, ..Default::default() });
        spec
    };
    let mut shell = Shell::new(&["a"]);
    let ingress = objects::NetworkSpec { name: "ingress".to_owned(), ingress: true, ..Default::default() };
    let writes = control::networks::create(&shell.store, "ingress".into(), ingress).unwrap();
    shell.commit(&writes);
    let id = shell.create(publish("web:1", 8080));
    shell.settle();
    shell.report(TaskState::Running);
    shell.settle();
    let version = shell.store.service(&id).unwrap().meta.version;
    let writes = request::update_service(&shell.store, &id, version, publish("web:2", 9090)).unwrap();
    shell.commit(&writes);
    shell.settle();
    shell.report(TaskState::Failed);
    shell.settle();
    let service = shell.store.service(&id).unwrap();
    assert_eq!(service.endpoint.ports[0].published_port, 8080);
    assert!(service.update_status.as_ref().unwrap().message.starts_with("update rolled back due to failure"));
}

#[test]
fn a_drained_node_is_left_and_a_paused_one_is_not() {
    let mut shell = Shell::new(&["a", "b"]);
    shell.create(spec(4));
    shell.settle();
    shell.report(TaskState::Running);
    shell.settle();
    for (availability, expect) in [(Availability::Pause, 2), (Availability::Drain, 0)] {
        let found = shell.store.node(&"a".into()).unwrap().clone();
        let spec = objects::NodeSpec { availability, ..found.spec.clone() };
        let writes = request::update_node(&shell.store, &found.id, found.meta.version, spec).unwrap();
        shell.commit(&writes);
        shell.settle();
        assert_eq!(shell.tasks(|task| task.is_wanted() && task.node_id.as_str() == "a"), expect);
    }
    assert_eq!(shell.tasks(|task| task.is_wanted() && task.node_id.as_str() == "b"), 4);
}

/// Found by the simulator (seed 902): the reason to stop a task may be gone before the decision is committed.
#[test]
fn a_node_that_is_back_just_now_keeps_its_tasks() {
    let mut shell = Shell::new(&["a"]);
    let (_, writes) = request::create_service(&shell.store, spec(1), &mut shell.ids).expect("a valid spec");
    shell.commit(&writes);
    shell.settle();
    let change = |shell: &mut Shell, state| {
        let mut node = Node::clone(shell.store.node(&"a".into()).expect("it is known"));
        node.status.state = state;
        shell.commit(&[Write::update(node)]);
    };
    change(&mut shell, NodeState::Down);
    let decision = shell.step();
    assert!(!decision.writes.is_empty(), "the task of a lost node is replaced");
    change(&mut shell, NodeState::Ready);
    let index = shell.store.applied() + 1;
    let refused = shell.store.apply(index, shell.now, &decision.writes).expect_err("the node was read");
    assert_eq!(refused.to_string(), "update out of sequence");
    shell.settle();
    assert_eq!(shell.store.tasks().filter(|task| task.is_wanted()).count(), 1);
    assert_eq!(shell.store.task_count(), 1);
}

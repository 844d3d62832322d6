//! How fast decisions and store are at the size that is promised: 5,000 nodes and 150,000 tasks.
//!
//! In: nothing, or the start of a section's name as argument. Out: one line per measurement: rate, time and what it is
//! held against. Never fails by slowness: machines differ, people compare. `cargo bench -p control`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints what it measured"
)]

use std::time::{Duration, Instant};

use control::{Dirty, Parts};
use dispatch::{Marks, Told};
use membership::{LeaseTimes, Leases, Moment};
use objects::{
    Cluster, ClusterSpec, ContainerSpec, IdSource, Nanos, Node, NodeState, Resources, Service, ServiceMode,
    ServiceSpec, Task, TaskId, TaskSpec, TaskState, TaskStatus, Timestamp,
};
use schedule::Loads;
use store::{Change, Store, Write};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn main() {
    let wanted = std::env::args().nth(1).filter(|argument| !argument.starts_with("--")).unwrap_or_default();
    let sections: [(&str, fn()); 6] = [
        ("schedule", bench_schedule),
        ("step", bench_step),
        ("leader", bench_leader),
        ("store", bench_store),
        ("dispatch", bench_dispatch),
        ("leases", bench_leases),
    ];
    for (_, section) in sections.iter().filter(|(name, _)| name.starts_with(&wanted)) {
        section();
    }
}

/// Prints how long `count` things took together.
fn say(what: &str, count: usize, took: Duration, goal: &str) {
    let rate = count as f64 / took.as_secs_f64();
    let each = took.as_secs_f64() * 1e6 / count as f64;
    println!("{what:<58} {rate:>12.0}/s {each:>11.2} µs each {:>9.1} ms  {goal}", took.as_secs_f64() * 1e3);
}

fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let result = run();
    (result, begin.elapsed())
}

/// A swarm, its leader's memory, and a log index.
struct Swarm {
    store: Store,
    dirty: Dirty,
    ids: IdSource,
    now: Timestamp,
}

impl Swarm {
    fn new(nodes: usize) -> Self {
        let mut ids = IdSource::from_seed([5; 32]);
        let spec = ClusterSpec::default().with_defaults();
        let mut writes = vec![Write::Create(Cluster { id: ids.next(), spec, ..Cluster::default() }.into())];
        for number in 0..nodes {
            let mut node = Node { id: ids.next(), ..Node::default() };
            node.description.hostname = format!("host-{number}");
            node.description.resources =
                Resources { nano_cpus: 64_000_000_000, memory_bytes: 256 << 30, ..Resources::default() };
            node.spec.labels.insert("zone".to_owned(), format!("z{}", number % 3));
            node.status.state = NodeState::Ready;
            writes.push(Write::Create(node.into()));
        }
        let mut store = Store::new();
        store.apply(1, NOW, &writes).unwrap();
        Self { store, dirty: Dirty::everything(), ids, now: NOW }
    }

    fn service(&mut self, replicas: u64, change: impl FnOnce(&mut ServiceSpec)) -> Service {
        let container = ContainerSpec {
            image: "registry.example.com/team/web:1.2.3".to_owned(),
            env: (0..8).map(|number| format!("VARIABLE_{number}=value {number}")).collect(),
            ..ContainerSpec::default()
        };
        let task_template = TaskSpec { container_spec: Some(container), ..TaskSpec::default() };
        let id = self.ids.next();
        let mut spec = ServiceSpec {
            name: format!("service-{id}"),
            mode: ServiceMode::replicas(replicas),
            task_template,
            ..ServiceSpec::default()
        };
        change(&mut spec);
        Service::new(id, spec)
    }

    fn commit(&mut self, writes: &[Write]) -> Vec<Change> {
        let index = self.store.applied() + 1;
        let changes = self.store.apply(index, self.now, writes).unwrap();
        changes.iter().for_each(|change| self.dirty.note(change));
        changes
    }

    /// Steps until there is nothing to write; how many tasks were written, and how long deciding alone took.
    fn settle(&mut self) -> (usize, Duration) {
        let (mut written, mut deciding) = (0, Duration::ZERO);
        loop {
            let (decision, took) =
                timed(|| control::step(&self.store, &mut self.dirty, self.now, &mut self.ids));
            deciding += took;
            if decision.writes.is_empty() {
                if decision.wake_at.is_some_and(|at| at <= self.now) {
                    continue;
                }
                return (written, deciding);
            }
            let mut parts = Parts::new(&self.store, decision.writes);
            while let Some(entry) = parts.next() {
                written += self.commit(&entry).len();
                parts.committed(self.store.applied());
            }
        }
    }

    /// Every task reports the next state of a task's life.
    fn report_all(&mut self, state: TaskState) -> (usize, Duration) {
        let tasks: Vec<_> = self.store.tasks().cloned().collect();
        let mut took = Duration::ZERO;
        for batch in tasks.chunks(1000) {
            let writes: Vec<_> = batch.iter().filter_map(|task| report(task, state, self.now)).collect();
            took += timed(|| self.commit(&writes)).1;
        }
        (tasks.len(), took)
    }
}

fn report(task: &Task, state: TaskState, now: Timestamp) -> Option<Write> {
    let status = TaskStatus { state, timestamp: now, ..TaskStatus::default() };
    task.observed(status, now).map(Write::update)
}

/// Places `services` times `replicas` tasks on 1,000 nodes, with nothing else around it.
fn place(what: &str, services: usize, replicas: u64, change: impl Fn(&mut ServiceSpec)) {
    let mut swarm = Swarm::new(1000);
    let mut loads = Loads::new();
    swarm.store.nodes().for_each(|node| loads.note_node(&node.id, Some(node)));
    let (mut placed, mut took) = (0, Duration::ZERO);
    for _ in 0..services {
        let service = swarm.service(replicas, &change);
        let spec = std::sync::Arc::new(service.spec.task_template.clone());
        let mut draft = swarm.store.draft();
        let mut waiting: Vec<TaskId> = Vec::new();
        for slot in 1..=replicas {
            let mut task =
                Task { id: swarm.ids.next(), service_id: service.id.clone(), slot, ..Task::default() };
            task.spec = std::sync::Arc::clone(&spec);
            task.status.state = TaskState::Pending;
            task.desired_state = TaskState::Running;
            waiting.push(task.id.clone());
            draft.put_task(task);
        }
        let (outcome, span) = timed(|| schedule::place(&mut draft, &mut loads, waiting, NOW));
        placed += outcome.placed;
        took += span;
        loads.forget_assumed();
        draft.touched_tasks().for_each(|(_, task)| loads.note_task(None, task.map(AsRef::as_ref)));
    }
    assert_eq!(placed as u64, services as u64 * replicas);
    say(&format!("schedule: {services} services of {replicas} on 1,000 nodes"), placed, took, what);
}

fn bench_schedule() {
    place("must 100,000/s", 10, 10_000, |_| {});
    place("must 100,000/s", 100, 1000, |_| {});
    place("must 100,000/s", 3000, 10, |_| {});
    place("", 20_000, 1, |_| {});
    place("with a spread over labels", 100, 1000, |spec| {
        let spread = objects::SpreadOver { spread_descriptor: "node.labels.zone".to_owned() };
        let preference = objects::PlacementPreference { spread: Some(spread) };
        let placement = objects::Placement { preferences: vec![preference], ..objects::Placement::default() };
        spec.task_template.placement = Some(placement);
    });
    place("with reservation and constraint", 100, 1000, |spec| {
        let constraints = vec!["node.labels.zone!=z1".to_owned()];
        spec.task_template.placement =
            Some(objects::Placement { constraints, ..objects::Placement::default() });
        let reservations = Some(Resources { nano_cpus: 1_000_000, ..Resources::default() });
        spec.task_template.resources =
            Some(objects::ResourceRequirements { reservations, ..objects::ResourceRequirements::default() });
    });
}

/// 5,000 nodes with 1,500 services of 100 tasks that run.
fn large() -> Swarm {
    let mut swarm = Swarm::new(5000);
    let (mut written, mut deciding) = (0, Duration::ZERO);
    let (_, all) = timed(|| {
        for _ in 0..1500 {
            let service = swarm.service(100, |_| {});
            swarm.commit(&[Write::Create(service.into())]);
            let (count, took) = swarm.settle();
            written += count;
            deciding += took;
        }
    });
    say("step: decide 150,000 new tasks on 5,000 nodes", written, deciding, "");
    say("step: the same, committed and noted", written, all, "must 4,000 starts/s");
    let (count, took) = swarm.report_all(TaskState::Running);
    say("step: status of a running task, 1,000 per entry", count, took, "");
    swarm.settle();
    swarm
}

fn bench_step() {
    let mut swarm = large();
    let (_, took) = timed(|| swarm.settle());
    say("step: nothing to do", 1, took, "");
    let rounds = 200;
    let (mut creating, mut failing) = (Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        let service = swarm.service(1, |_| {});
        swarm.commit(&[Write::Create(service.into())]);
        creating += swarm.settle().1;
        let task = swarm.store.tasks().nth(round * 700).unwrap().clone();
        let write = report(&task, TaskState::Failed, swarm.now).unwrap();
        swarm.commit(&[write]);
        failing += swarm.settle().1;
    }
    say("step: a service of one task is created", rounds, creating, "");
    say("step: a task failed", rounds, failing, "");
    let nodes: Vec<_> = swarm.store.nodes().take(50).cloned().collect();
    let (mut written, mut took) = (0, Duration::ZERO);
    for node in nodes {
        let mut node = Node::clone(&node);
        node.status.state = NodeState::Down;
        swarm.commit(&[Write::update(node)]);
        let (count, span) = swarm.settle();
        written += count;
        took += span;
    }
    say("step: a node of 30 tasks is lost, writes", written, took, "");
}

/// What a manager does before it can decide anything: part of the gap after a leader is lost.
fn bench_leader() {
    let mut swarm = large();
    let rounds = 10;
    let (_, took) = timed(|| {
        for _ in 0..rounds {
            let mut fresh = Dirty::everything();
            let decision = control::step(&swarm.store, &mut fresh, swarm.now, &mut swarm.ids);
            assert_eq!(decision.writes, []);
        }
    });
    say("leader: its first step", rounds, took, "");
}

fn bench_store() {
    let swarm = large();
    let tasks: Vec<_> = swarm.store.tasks().cloned().collect();
    let mut store = swarm.store.clone();
    let (_, took) = timed(|| std::hint::black_box(swarm.store.clone()));
    say("store: a copy for a snapshot", 1, took, "blocks writes");
    let (_, took) = timed(|| {
        for task in tasks.iter().take(20_000) {
            let index = store.applied() + 1;
            store.apply(index, NOW, &[Write::update(task.clone())]).unwrap();
        }
    });
    say("store: an update per entry", 20_000, took, "");
    let (image, took) = timed(|| serde_json::to_vec(&swarm.store).unwrap());
    say("store: a snapshot is written, bytes", image.len(), took, "");
    let (read, took) = timed(|| serde_json::from_slice::<Store>(&image).unwrap());
    say("store: a snapshot is read, tasks", read.task_count(), took, "");
    drop(read);
    let resident = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = resident.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    println!("store: {line} (store, two copies of its maps, one snapshot)");
    let (found, took) = timed(|| {
        let services = swarm.store.services().take(1500);
        services.map(|service| swarm.store.tasks_of_service(&service.id).count()).sum::<usize>()
    });
    say("store: tasks found by service", found, took, "");
}

fn bench_dispatch() {
    let mut swarm = large();
    let nodes: Vec<_> = swarm.store.nodes().map(|node| node.id.clone()).collect();
    let (mut told, took) =
        timed(|| nodes.iter().map(|node| Told::everything(&swarm.store, node).0).collect::<Vec<_>>());
    say("dispatch: everything, per node of 30 tasks", nodes.len(), took, "");
    let (_, took) =
        timed(|| told.iter_mut().filter_map(|told| told.news(&swarm.store, &Marks::default())).count());
    say("dispatch: no news, per node of 30 tasks", nodes.len(), took, "");
    let service = swarm.service(1000, |_| {});
    swarm.commit(&[Write::Create(service.into())]);
    swarm.settle();
    let (count, took) =
        timed(|| told.iter_mut().filter_map(|told| told.news(&swarm.store, &Marks::default())).count());
    say(&format!("dispatch: news for {count} of the nodes"), nodes.len(), took, "");
}

fn bench_leases() {
    let swarm = Swarm::new(5000);
    let mut leases = Leases::new(LeaseTimes::default());
    leases.lead(&swarm.store, Moment(0));
    let nodes: Vec<_> = swarm.store.nodes().map(|node| node.id.clone()).collect();
    nodes.iter().for_each(|node| leases.opened(node, "s", Moment(0)));
    let (mut hearing, mut judging, mut judgements) = (Duration::ZERO, Duration::ZERO, 0);
    let mut now = Moment(0);
    for _ in 0..100 {
        now = now + Nanos::from_millis(500);
        hearing += timed(|| nodes.iter().for_each(|node| leases.proof(node, now))).1;
        let (found, took) = timed(|| leases.judge(&swarm.store, now, NOW));
        judging += took;
        judgements += found.len();
    }
    assert_eq!(judgements, 0);
    say("leases: a proof of life of one of 5,000 nodes", 100 * nodes.len(), hearing, "10,000/s arrive");
    say("leases: a judgement of 5,000 nodes", 100, judging, "twice a second");
}

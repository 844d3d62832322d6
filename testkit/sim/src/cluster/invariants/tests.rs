//! Each invariant sees the fault that it is about.

use std::collections::BTreeMap;

use objects::{NodeId, Service, ServiceId, ServiceMode, ServiceSpec, Task, TaskId, TaskState, Timestamp};
use store::{Change, Kind, Store, Write};

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn apply(store: &mut Store, write: Write) -> Vec<Change> {
    let index = store.applied() + 1;
    store.apply(index, NOW, &[write]).expect("it is allowed")
}

/// A store with a service of one task.
fn swarm() -> Store {
    let mut store = Store::new();
    let spec = ServiceSpec { name: "web".into(), mode: ServiceMode::replicas(1), ..ServiceSpec::default() };
    apply(&mut store, Write::Create(Service::new(ServiceId::from("web"), spec).into()));
    apply(&mut store, Write::Create(task("t1", 1).into()));
    store
}

fn task(id: &str, slot: u64) -> Task {
    let mut task = Task { id: TaskId::from(id), slot, node_id: NodeId::from("n1"), ..Task::default() };
    task.service_id = ServiceId::from("web");
    task.desired_state = TaskState::Running;
    task.status.state = TaskState::Running;
    task
}

fn nothing_happened(id: &str) -> Change {
    Change { kind: Kind::Service, id: id.to_owned(), before: None, after: None }
}

#[test]
fn a_promise_that_was_broken_is_seen() {
    let commits = BTreeMap::from([(3, Vec::new()), (5, Vec::new())]);
    assert!(acknowledged_is_kept::check([3, 5].iter(), &commits).is_ok());
    assert!(acknowledged_is_kept::check([3, 4].iter(), &commits).is_err());
}

#[test]
fn an_old_read_is_seen() {
    assert!(reads_are_fresh::check(None, 0).is_ok());
    assert!(reads_are_fresh::check(Some(3), 3).is_ok() && reads_are_fresh::check(Some(3), 4).is_ok());
    assert!(reads_are_fresh::check(Some(3), 2).is_err());
}

#[test]
fn a_container_that_stops_although_it_is_wanted_is_seen() {
    let mut store = swarm();
    let (node, task) = (NodeId::from("n1"), TaskId::from("t1"));
    assert!(containers_run_on::check(&store, &node, &task).is_err());
    assert!(containers_run_on::check(&store, &NodeId::from("n2"), &task).is_ok(), "it is wanted elsewhere");
    let known = store.task(&task).expect("it was made");
    let shut = known.desired(TaskState::Shutdown).expect("it runs");
    apply(&mut store, Write::update(shut));
    assert!(containers_run_on::check(&store, &node, &task).is_ok());
}

#[test]
fn histories_that_differ_are_seen() {
    let commits = BTreeMap::from([(3, vec![nothing_happened("a")]), (5, Vec::new())]);
    assert!(history_is_one::check(&commits, 3, &[nothing_happened("a")]).is_ok());
    assert!(history_is_one::check(&commits, 3, &[nothing_happened("b")]).is_err());
    assert!(history_is_one::check(&commits, 4, &[]).is_err(), "others have no entry there");
    assert!(history_is_one::check(&commits, 6, &[]).is_ok(), "the first to apply it");
}

#[test]
fn an_index_that_goes_back_or_is_not_the_stores_is_seen() {
    let store = swarm();
    assert!(index_grows::check(Some(1), 2, &store).is_ok());
    assert!(index_grows::check(Some(2), 2, &store).is_err());
    assert!(index_grows::check(Some(2), 1, &store).is_err());
    assert!(index_grows::check(Some(2), 3, &store).is_err(), "the store has two entries");
}

#[test]
fn a_task_too_many_is_seen() {
    let before = swarm();
    let mut after = before.clone();
    let changes = apply(&mut after, Write::Create(task("t2", 1).into()));
    assert!(no_more_than_wanted::check(&before, &after, &changes).is_ok(), "a successor of its slot");
    let mut third = after.clone();
    let changes = apply(&mut third, Write::Create(task("t3", 1).into()));
    assert!(no_more_than_wanted::check(&after, &third, &changes).is_err());
    let mut more = before.clone();
    let changes = apply(&mut more, Write::Create(task("t4", 2).into()));
    assert!(no_more_than_wanted::check(&before, &more, &changes).is_err(), "a slot too many");
}

#[test]
fn two_leaders_of_a_term_are_seen() {
    let mut leaders = BTreeMap::new();
    for (machine, epoch, term) in [(0, 1, 1), (1, 1, 2), (0, 2, 2), (1, 1, 2)] {
        assert!(term_has_one_leader::check(&mut leaders, machine, epoch, term).is_ok());
    }
    assert!(term_has_one_leader::check(&mut leaders, 2, 1, 2).is_err());
}

//! A decision that is split: slots stay whole, each entry brings its checks, and what frees room comes first.

use control::Parts;
use objects::{Node, Service, ServiceSpec, Task, TaskState, Timestamp, Version};
use proptest::prelude::*;
use store::{Kind, Store, Write};

const NOW: Timestamp = Timestamp::from_secs(100);

fn task(id: &str, slot: u64, node: &str, state: TaskState) -> Task {
    let mut task =
        Task { id: id.into(), service_id: "s".into(), slot, node_id: node.into(), ..Task::default() };
    task.status.state = state;
    task
}

/// Service `s` and nodes `a`, `b`, with these tasks.
fn store(tasks: Vec<Task>) -> Store {
    let spec = ServiceSpec { name: "web".to_owned(), ..ServiceSpec::default() };
    let mut writes = vec![Write::Create(Service::new("s".into(), spec).into())];
    writes.extend(["a", "b"].map(|id| Write::Create(Node { id: id.into(), ..Node::default() }.into())));
    writes.extend(tasks.into_iter().map(|task| Write::Create(task.into())));
    let mut store = Store::new();
    store.apply(1, NOW, &writes).expect("an empty store takes them");
    store
}

fn check(kind: Kind, id: &str) -> Write {
    Write::Check { kind, id: id.to_owned(), read_version: Version { index: 1 } }
}

fn short(write: &Write) -> String {
    let verb = match write {
        Write::Create(_) => "create",
        Write::Update { .. } => "update",
        Write::Remove { .. } => "remove",
        Write::Check { read_version, .. } => {
            return format!("check {}@{}", write.target().1, read_version.index);
        }
    };
    format!("{verb} {}", write.target().1)
}

/// The entries of a decision, committed from index 10 on.
fn entries(store: &Store, writes: Vec<Write>, limit: usize) -> Vec<String> {
    let mut parts = Parts::with_limit(store, writes, limit);
    let mut entries = Vec::new();
    while let Some(entry) = parts.next() {
        parts.committed(10 + entries.len() as u64);
        entries.push(entry.iter().map(short).collect::<Vec<_>>().join(", "));
    }
    entries
}

fn with_state(store: &Store, id: &str, state: TaskState) -> Write {
    let mut task = Task::clone(store.task(&id.into()).expect("the task is known"));
    task.status.state = state;
    Write::update(task)
}

#[test]
fn every_entry_carries_the_checks_of_its_own_writes() {
    let store = store(Vec::new());
    let writes = vec![
        check(Kind::Node, "a"),
        check(Kind::Node, "b"),
        check(Kind::Service, "s"),
        Write::Create(task("t1", 1, "a", TaskState::Assigned).into()),
        Write::Create(task("t2", 2, "b", TaskState::Assigned).into()),
        Write::Create(task("t3", 3, "", TaskState::Pending).into()),
    ];
    let expect =
        ["check a@1, check s@1, create t1", "check b@1, check s@1, create t2", "check s@1, create t3"];
    assert_eq!(entries(&store, writes.clone(), 1), expect);
    let whole = ["check a@1, check b@1, check s@1, create t1, create t2, create t3"];
    assert_eq!(entries(&store, writes, 200), whole);
}

#[test]
fn a_service_that_the_decision_writes_is_checked_at_its_new_version() {
    let store = store(Vec::new());
    let writes = vec![
        Write::Create(task("t1", 1, "a", TaskState::Assigned).into()),
        Write::update(store.service(&"s".into()).unwrap().clone()),
        Write::Create(task("t2", 2, "a", TaskState::Assigned).into()),
    ];
    let expect = ["update s", "check s@10, create t1", "check s@10, create t2"];
    assert_eq!(entries(&store, writes.clone(), 1), expect);
    assert_eq!(entries(&store, writes, 2), ["update s, create t1", "check s@10, create t2"]);
}

#[test]
fn the_writes_of_a_slot_stay_together() {
    let old = |id, slot| task(id, slot, "a", TaskState::Failed);
    let store = store(vec![old("o1", 1), old("o2", 2)]);
    let writes = vec![
        with_state(&store, "o1", TaskState::Orphaned),
        with_state(&store, "o2", TaskState::Orphaned),
        Write::Create(task("n1", 1, "", TaskState::Pending).into()),
        Write::Create(task("n2", 2, "", TaskState::Pending).into()),
    ];
    assert_eq!(entries(&store, writes.clone(), 1), ["update o1, create n1", "update o2, create n2"]);
    assert_eq!(entries(&store, writes, 3), ["update o1, create n1", "update o2, create n2"]);
}

#[test]
fn room_is_freed_before_it_is_used() {
    let store =
        store(vec![task("old", 7, "a", TaskState::Running), task("other", 8, "b", TaskState::Running)]);
    let writes = vec![
        Write::Create(task("new", 1, "a", TaskState::Assigned).into()),
        with_state(&store, "other", TaskState::Rejected),
        with_state(&store, "old", TaskState::Rejected),
    ];
    assert_eq!(entries(&store, writes, 1), ["update old", "create new", "update other"]);
}

#[test]
fn an_entry_that_is_too_large_is_halved_down_to_one_slot() {
    let store = store(Vec::new());
    let writes: Vec<_> = (1..=5)
        .map(|slot| Write::Create(task(&format!("t{slot}"), slot, "", TaskState::Pending).into()))
        .collect();
    let mut parts = Parts::new(&store, writes);
    let mut sizes = Vec::new();
    loop {
        sizes.push(parts.next().unwrap().len());
        if !parts.halve() {
            break;
        }
    }
    assert_eq!(sizes, [5, 2, 1]);
    parts.committed(10);
    assert_eq!(parts.next().unwrap().len(), 1);
}

#[test]
fn nothing_to_write_is_no_entry() {
    let store = store(Vec::new());
    assert_eq!(entries(&store, Vec::new(), 5), [""; 0]);
    assert_eq!(entries(&store, vec![check(Kind::Service, "s")], 5), [""; 0]);
}

proptest! {
    /// However it is split: every write is in one entry, no slot is in two, and the store takes them one after another.
    #[test]
    fn a_split_decision_is_the_whole_decision(
        tasks in prop::collection::vec((1..6_u64, any::<bool>()), 0..20), limit in 1..8_usize, writes_service: bool
    ) {
        let known = tasks.iter().enumerate().filter(|(_, (_, is_known))| *is_known);
        let mut store = store(
            known.map(|(number, (slot, _))| task(&format!("t{number}"), *slot, "a", TaskState::Running)).collect(),
        );
        let mut writes = vec![check(Kind::Node, "a")];
        if writes_service {
            writes.push(Write::update(store.service(&"s".into()).unwrap().clone()));
        } else {
            writes.push(check(Kind::Service, "s"));
        }
        writes.extend(tasks.iter().enumerate().map(|(number, (slot, is_known))| {
            let id = format!("t{number}");
            if *is_known {
                with_state(&store, &id, TaskState::Failed)
            } else {
                Write::Create(task(&id, *slot, "a", TaskState::Assigned).into())
            }
        }));
        let mut whole = store.clone();
        whole.apply(2, NOW, &writes).unwrap();
        let mut parts = Parts::with_limit(&store, writes, limit);
        let mut slots = std::collections::BTreeSet::new();
        while let Some(entry) = parts.next() {
            let index = store.applied() + 1;
            let changes = store.apply(index, NOW, &entry);
            prop_assert!(changes.is_ok(), "{:?}", changes);
            parts.committed(index);
            let freed: std::collections::BTreeSet<_> = changes
                .unwrap()
                .iter()
                .filter_map(|change| change.after.as_ref()?.as_task().cloned())
                .map(|task| task.slot)
                .collect();
            prop_assert!(slots.is_disjoint(&freed), "slot in two entries: {:?}", freed);
            slots.extend(freed);
        }
        let states = |store: &Store| {
            store.tasks().map(|task| (task.id.clone(), task.status.state)).collect::<Vec<_>>()
        };
        prop_assert_eq!(states(&store), states(&whole));
    }
}

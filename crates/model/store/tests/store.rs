//! Transactions, indexes, lookups and snapshots of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use objects::{
    Config, ContainerSpec, NetworkAttachment, NetworkId, Node, NodeId, Secret, Service, ServiceSpec, SlotKey,
    Task, TaskSpec, TaskState, Timestamp, Version,
};
use proptest::prelude::*;
use store::{ApplyError, Kind, Store, Write};

const NOW: Timestamp = Timestamp::from_secs(100);

fn service(id: &str, name: &str) -> Service {
    Service::new(id.into(), ServiceSpec { name: name.to_owned(), ..Default::default() })
}

fn task(id: &str, slot: u64, node: &str) -> Task {
    Task { id: id.into(), service_id: "s".into(), slot, node_id: node.into(), ..Default::default() }
}

fn store_of(writes: Vec<Write>) -> Store {
    let mut store = Store::new();
    store.apply(1, NOW, &writes).expect("an empty store takes them");
    store
}

#[test]
fn a_write_gets_the_index_of_its_entry_as_version_and_its_time() {
    let mut store = store_of(vec![Write::Create(service("s", "web").into())]);
    let first = store.service(&"s".into()).unwrap().clone();
    assert_eq!((first.meta.version.index, first.meta.created_at), (1, NOW));
    let later = Timestamp::from_secs(200);
    let changes = store.apply(7, later, &[Write::update(first.clone())]).unwrap();
    let second = store.service(&"s".into()).unwrap();
    assert_eq!(second.meta.version.index, 7);
    assert_eq!((second.meta.created_at, second.meta.updated_at), (NOW, later));
    assert_eq!(changes[0].before.as_ref().unwrap().as_service(), Some(&first));
    assert_eq!(store.applied(), 7);
}

#[test]
fn a_refused_transaction_leaves_nothing_behind() {
    let mut store = store_of(vec![Write::Create(service("s", "web").into())]);
    let before = store.clone();
    let stale = Write::Update { object: service("s", "web").into(), read_version: Version { index: 99 } };
    let check = |store: &mut Store, last: Write, expect: &str| {
        let index = store.applied() + 1;
        let create = Write::Create(task("t", 1, "n").into());
        let error = store.apply(index, NOW, &[create, last]).unwrap_err();
        assert_eq!(error.to_string(), expect);
        assert!(store.task(&"t".into()).is_none());
        assert_eq!(store.tasks_on_node(&"n".into()).count(), 0);
    };
    check(&mut store, stale, "update out of sequence");
    check(&mut store, Write::update(service("x", "new")), "service x not found");
    check(&mut store, Write::Create(service("s", "new").into()), "service s already exists");
    check(
        &mut store,
        Write::Create(service("x", "WEB").into()),
        "name conflicts with an existing object: service WEB already exists",
    );
    let guard = Write::Check { kind: Kind::Service, id: "s".to_owned(), read_version: Version { index: 5 } };
    check(&mut store, guard, "update out of sequence");
    assert!(before.services().eq(store.services()));
}

#[test]
fn a_removed_name_is_free_again() {
    let mut store = store_of(vec![Write::Create(service("s", "web").into())]);
    let old = store.service(&"s".into()).unwrap().clone();
    store.apply(2, NOW, &[Write::remove(old), Write::Create(service("x", "web").into())]).unwrap();
    assert_eq!(store.find_service("web").unwrap().id.as_str(), "x");
}

#[test]
fn objects_are_found_by_id_then_name_then_start_of_the_id() {
    let store = store_of(vec![
        Write::Create(service("abc1", "x").into()),
        Write::Create(service("abc2", "abc1").into()),
        Write::Create(service("abd", "y").into()),
    ]);
    let check = |text: &str, expect: &str| {
        let found = store.find_service(text).map(|service| service.id.to_string());
        assert_eq!(found.unwrap_or_else(|error| error.to_string()), expect, "{text}");
    };
    check("abc1", "abc1");
    check("x", "abc1");
    check("abd", "abd");
    check("abc", "service abc is ambiguous (2 matches found)");
    check("z", "service z not found");
    check("", "service  not found");
}

#[test]
fn a_draft_shows_what_it_will_write() {
    let store =
        store_of(vec![Write::Create(task("a", 1, "n").into()), Write::Create(task("b", 1, "n").into())]);
    let mut draft = store.draft();
    draft.put_task(task("c", 1, ""));
    draft.remove_task(&"a".into());
    let mut changed = (**store.task(&"b".into()).unwrap()).clone();
    changed.desired_state = TaskState::Shutdown;
    draft.put_task(changed);
    let ids: Vec<_> =
        draft.tasks_in_slot(&"s".into(), &SlotKey::Slot(1)).iter().map(|task| task.id.to_string()).collect();
    assert_eq!(ids, ["b", "c"]);
    assert_eq!(draft.tasks_of_service(&"s".into()).len(), 2);
    let kinds: Vec<_> = draft
        .into_writes()
        .iter()
        .map(|write| match write {
            Write::Create(_) => "create",
            Write::Update { .. } => "update",
            Write::Remove { .. } => "remove",
            Write::Check { .. } => "check",
        })
        .collect();
    assert_eq!(kinds, ["create", "remove", "update"]);
}

#[test]
fn a_draft_that_ends_where_it_began_writes_nothing() {
    let store = store_of(vec![Write::Create(task("a", 1, "n").into())]);
    let mut draft = store.draft();
    draft.put_task((**store.task(&"a".into()).unwrap()).clone());
    draft.put_task(task("b", 1, ""));
    draft.remove_task(&"b".into());
    assert_eq!(draft.into_writes(), []);
}

#[test]
fn tasks_of_one_spec_share_it_after_a_round_trip() {
    let store =
        store_of(vec![Write::Create(task("a", 1, "n").into()), Write::Create(task("b", 2, "n").into())]);
    let text = serde_json::to_string(&store).unwrap();
    let read: Store = serde_json::from_str(&text).unwrap();
    assert_eq!(read, store);
    let (a, b) = (read.task(&"a".into()).unwrap(), read.task(&"b".into()).unwrap());
    assert!(Arc::ptr_eq(&a.spec, &b.spec));
}

#[test]
fn a_task_shares_its_spec_however_it_comes() {
    let spec = |image: &str| {
        let container = ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() };
        Arc::new(TaskSpec { container_spec: Some(container), ..TaskSpec::default() })
    };
    let mut store = store_of(vec![Write::Create(Task { spec: spec("web"), ..task("a", 1, "n") }.into())]);
    let shared = Arc::clone(&store.task(&"a".into()).unwrap().spec);
    // As decoded from the log: equal, but a copy of its own.
    let mut reported = Task { spec: spec("web"), ..task("a", 1, "n") };
    reported.status.state = TaskState::Running;
    let update = Write::Update { object: reported.into(), read_version: Version { index: 1 } };
    let sibling = Write::Create(Task { spec: spec("web"), ..task("b", 2, "n") }.into());
    store.apply(2, NOW, &[update, sibling]).unwrap();
    for id in ["a", "b"] {
        assert!(Arc::ptr_eq(&store.task(&id.into()).unwrap().spec, &shared), "{id}");
    }
    let other = Write::Create(Task { spec: spec("other"), ..task("c", 3, "n") }.into());
    store.apply(3, NOW, &[other]).unwrap();
    assert!(!Arc::ptr_eq(&store.task(&"c".into()).unwrap().spec, &shared));
}

#[test]
fn secrets_and_configs_have_unique_names_and_are_kept_in_snapshots() {
    let mut secret = Secret { id: "s1".into(), ..Secret::default() };
    secret.spec.name = "key".to_owned();
    let mut config = Config { id: "c1".into(), ..Config::default() };
    config.spec.name = "key".to_owned();
    let mut store =
        store_of(vec![Write::Create(secret.clone().into()), Write::Create(config.clone().into())]);
    let again = Write::Create(Secret { id: "s2".into(), ..secret }.into());
    let error = store.apply(2, NOW, &[again]).unwrap_err();
    assert_eq!(error.to_string(), "name conflicts with an existing object: secret key already exists");
    let read: Store = serde_json::from_str(&serde_json::to_string(&store).unwrap()).unwrap();
    assert_eq!(read, store);
    assert!(read.secret(&"s1".into()).is_some() && read.config(&"c1".into()).is_some());
    let gone = store.config(&"c1".into()).unwrap().clone();
    store.apply(3, NOW, &[Write::remove(gone)]).unwrap();
    assert_eq!(store.configs().count(), 0);
}

#[test]
fn a_copy_does_not_change_with_the_original() {
    let mut store =
        store_of((0..9).map(|id| Write::Create(task(&format!("t{id}"), 1, "n").into())).collect());
    let copy = store.clone();
    let gone = store.task(&"t3".into()).unwrap().clone();
    let moved = Task { node_id: "m".into(), ..(**store.task(&"t4".into()).unwrap()).clone() };
    store.apply(2, NOW, &[Write::remove(gone), Write::update(moved)]).unwrap();
    assert_eq!((store.task_count(), copy.task_count()), (8, 9));
    assert_eq!((store.tasks_on_node(&"n".into()).count(), copy.tasks_on_node(&"n".into()).count()), (7, 9));
    assert_eq!(
        (store.tasks_of_service(&"s".into()).count(), copy.tasks_of_service(&"s".into()).count()),
        (8, 9)
    );
}

/// One random step: what to do, to which of few tasks, in which slot, on which node.
type Step = (u8, u8, u64, u8);

fn writes_of(store: &Store, steps: &[Step]) -> Vec<Write> {
    steps
        .iter()
        .map(|(action, id, slot, node)| {
            let mut wanted = task(&format!("t{id}"), *slot, &format!("n{node}"));
            let attach = |network: &str| NetworkAttachment { network: network.into(), ..Default::default() };
            wanted.networks_attachments =
                ["a", "b"][..usize::from(action % 4).min(2)].iter().map(|it| attach(it)).collect();
            wanted.status.state = if action % 5 == 0 { TaskState::Failed } else { TaskState::Running };
            match (store.task(&wanted.id), action % 3) {
                (Some(known), 0) => Write::remove(known.clone()),
                (Some(known), 1) => Write::Update { read_version: known.meta.version, object: wanted.into() },
                (_, 2) => {
                    Write::Create(Node { id: format!("n{node}").as_str().into(), ..Node::default() }.into())
                }
                _ => Write::Create(wanted.into()),
            }
        })
        .collect()
}

proptest! {
    #[test]
    fn indexes_are_what_a_scan_would_find(entries in prop::collection::vec(prop::collection::vec((any::<u8>(), 0u8..5, 0u64..3, 0u8..3), 1..4), 1..20)) {
        let mut store = Store::new();
        for (index, steps) in entries.iter().enumerate() {
            let before = store.clone();
            let writes = writes_of(&store, steps);
            let text = serde_json::to_string(&writes).unwrap();
            let writes: Vec<Write> = serde_json::from_str(&text).unwrap();
            match store.apply(index as u64 + 1, NOW, &writes) {
                Ok(changes) => prop_assert_eq!(changes.len(), writes.len()),
                Err(ApplyError::OutOfSequence { .. } | ApplyError::Exists { .. } | ApplyError::NotFound { .. }) => {
                    prop_assert!(before.tasks().eq(store.tasks()) && before.nodes().eq(store.nodes()));
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
            let mut by_node: BTreeMap<NodeId, usize> = BTreeMap::new();
            for task in store.tasks() {
                *by_node.entry(task.node_id.clone()).or_default() += 1;
                let slot = store.tasks_in_slot(&task.service_id, &task.slot_key());
                prop_assert!(slot.filter(|other| other.id == task.id).count() == 1);
            }
            for (node, count) in by_node {
                prop_assert_eq!(store.tasks_on_node(&node).count(), count);
            }
            prop_assert_eq!(store.tasks_of_service(&"s".into()).count(), store.task_count());
            for network in ["a", "b"].map(NetworkId::from) {
                let is_on = |task: &&Arc<Task>| {
                    task.holds_addresses() && task.networks_attachments.iter().any(|it| it.network == network)
                };
                let on: Vec<_> = store.tasks().filter(is_on).collect();
                prop_assert_eq!(store.tasks_on_network(&network).count(), on.len());
                let nodes: BTreeSet<_> = on.iter().map(|task| &task.node_id).collect();
                prop_assert!(store.nodes_on_network(&network).eq(nodes.iter().copied()));
                for node in nodes {
                    let there = on.iter().filter(|task| task.node_id == *node).count();
                    prop_assert_eq!(store.tasks_of_node_on_network(&network, node).count(), there);
                }
            }
            let read: Store = serde_json::from_str(&serde_json::to_string(&store).unwrap()).unwrap();
            prop_assert_eq!(&read, &store);
        }
    }
}

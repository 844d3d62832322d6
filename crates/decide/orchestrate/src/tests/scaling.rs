//! Which slots and nodes have a task.

use std::sync::Arc;

use objects::{Availability, Nanos, NodeState, ServiceMode, TaskState, UpdateConfig, UpdateOrder};
use proptest::prelude::*;
use store::Write;

use super::{Bench, spec};

#[test]
fn a_new_service_fills_slots_from_one() {
    let mut bench = Bench::new(&["a"]);
    bench.ask(spec(ServiceMode::replicas(3)));
    assert_eq!(bench.slots(), [1, 2, 3]);
    let task = &bench.tasks()[0];
    assert_eq!(
        (task.status.state, task.status.message.as_str()),
        (TaskState::Pending, "pending task scheduling")
    );
    assert_eq!(task.name(), format!("web.1.{}", task.id));
}

#[test]
fn crowded_nodes_lose_first_then_high_slots() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.ask(spec(ServiceMode::replicas(4)));
    // Slots 1 and 3 are on `a`, 2 and 4 on `b`.
    bench.obey();
    bench.ask(spec(ServiceMode::replicas(3)));
    assert_eq!(bench.slots(), [1, 2, 3]);
    bench.ask(spec(ServiceMode::replicas(2)));
    assert_eq!(bench.slots(), [1, 2]);
    assert!(bench.tasks().iter().any(|task| task.desired_state == TaskState::Remove));
    bench.obey();
    assert_eq!(bench.tasks().len(), 2, "removed tasks are no history");
    bench.ask(spec(ServiceMode::replicas(0)));
    bench.obey();
    assert!(bench.tasks().is_empty());
}

#[test]
fn running_slots_are_kept_over_others_and_gaps_are_filled_lowest_first() {
    let mut bench = Bench::new(&["a"]);
    bench.ask(spec(ServiceMode::replicas(3)));
    let third = bench.tasks()[2].clone();
    let mut placed = (*third).clone();
    placed.node_id = "a".into();
    bench.write(vec![Write::update(placed)]);
    bench.report(&third, TaskState::Running);
    bench.ask(spec(ServiceMode::replicas(1)));
    assert_eq!(bench.slots(), [3]);
    bench.ask(spec(ServiceMode::replicas(3)));
    assert_eq!(bench.slots(), [1, 2, 3]);
}

#[test]
fn a_removed_service_leaves_nothing() {
    let mut bench = Bench::new(&["a"]);
    bench.ask(spec(ServiceMode::replicas(2)));
    bench.obey();
    bench.write(vec![Write::remove(bench.service())]);
    bench.decide();
    assert!(bench.tasks().iter().all(|task| task.desired_state == TaskState::Remove));
    bench.obey();
    assert!(bench.tasks().is_empty());
}

#[test]
fn a_global_service_follows_its_nodes() {
    let mut bench = Bench::new(&["a", "b", "c"]);
    bench.ask(spec(ServiceMode::global()));
    bench.obey();
    assert_eq!(bench.wanted().len(), 3);
    bench.change_node("a", |node| node.spec.availability = Availability::Pause);
    assert_eq!(bench.wanted().len(), 3, "a paused node keeps its task");
    bench.change_node("a", |node| node.spec.availability = Availability::Drain);
    bench.change_node("b", |node| node.status.state = NodeState::Down);
    let nodes: Vec<_> = bench.wanted().iter().map(|task| task.node_id.to_string()).collect();
    assert_eq!(nodes, ["c"]);
    bench.obey();
    bench.change_node("a", |node| node.spec.availability = Availability::Active);
    bench.change_node("b", |node| node.status.state = NodeState::Ready);
    assert_eq!(bench.wanted().len(), 3);
    let gone = bench.store.node(&"c".into()).unwrap().clone();
    bench.write(vec![Write::remove(gone)]);
    bench.decide();
    assert!(bench.tasks().iter().all(|task| task.node_id.as_str() != "c"));
}

#[test]
fn tasks_of_a_drained_or_lost_node_are_replaced_at_once_and_an_unknown_one_keeps_them() {
    let mut bench = Bench::new(&["a"]);
    bench.ask(spec(ServiceMode::replicas(1)));
    bench.obey();
    let old = bench.tasks()[0].clone();
    bench.change_node("a", |node| node.status.state = NodeState::Unknown);
    assert_eq!(bench.tasks().len(), 1);
    bench.change_node("a", |node| node.status.state = NodeState::Down);
    let new = bench.wanted();
    assert_eq!(bench.store.task(&old.id).unwrap().desired_state, TaskState::Shutdown);
    assert_eq!((new.len(), new[0].desired_state), (1, TaskState::Running), "no delay for a lost node");
    assert_eq!(new[0].internal.restarts.attempts, 0, "a lost node is no failure");
}

#[test]
fn a_node_that_is_down_keeps_its_tasks_until_they_may_move() {
    let mut bench = Bench::new(&["a"]);
    bench.ask(spec(ServiceMode::replicas(1)));
    bench.obey();
    let moves_at = bench.now + Nanos::from_millis(400);
    bench.change_node("a", |node| {
        node.status.state = NodeState::Down;
        node.internal.status_since = moves_at - Nanos::from_millis(400);
        node.internal.tasks_move_at = moves_at;
    });
    assert_eq!((bench.tasks().len(), bench.judged_again_at), (1, Some(moves_at)));
    bench.pass(Nanos::from_millis(399));
    assert_eq!(bench.tasks().len(), 1);
    bench.pass(Nanos::from_millis(1));
    assert_eq!((bench.tasks().len(), bench.wanted().len()), (2, 1));
    assert_eq!(bench.wanted()[0].desired_state, TaskState::Running, "nobody waits for a node that is lost");
}

#[test]
fn tasks_of_a_removed_or_long_lost_node_are_orphaned() {
    let orphaned = |bench: &Bench| {
        let found = bench.tasks().into_iter().find(|task| task.status.state == TaskState::Orphaned);
        found.map(|task| task.status.message.clone())
    };
    let mut bench = Bench::new(&["a"]);
    bench.ask(spec(ServiceMode::replicas(1)));
    bench.obey();
    let since = bench.now;
    bench.change_node("a", |node| {
        node.status.state = NodeState::Down;
        node.internal.status_since = since;
    });
    bench.pass(Nanos::from_secs(24 * 3600 - 1));
    assert_eq!(orphaned(&bench), None);
    bench.pass(Nanos::from_secs(1));
    assert_eq!(orphaned(&bench).as_deref(), Some(""));
    let mut bench = Bench::new(&["a"]);
    bench.ask(spec(ServiceMode::replicas(1)));
    bench.obey();
    let gone = bench.store.node(&"a".into()).unwrap().clone();
    bench.write(vec![Write::remove(gone)]);
    bench.decide();
    assert_eq!(orphaned(&bench).as_deref(), Some("Task belonged to a node that has been deleted"));
    assert_eq!(bench.wanted().len(), 1);
}

/// A service of one task on node `a`, which is then drained; gives the bench and the old task.
fn drained(order: UpdateOrder) -> (Bench, Arc<objects::Task>) {
    let mut bench = Bench::new(&["a", "b"]);
    let update_config = Some(UpdateConfig { order, parallelism: 1, ..UpdateConfig::default() });
    bench.ask(objects::ServiceSpec { update_config, ..spec(ServiceMode::replicas(1)) });
    bench.obey();
    let old = bench.tasks()[0].clone();
    assert_eq!(old.node_id.as_str(), "a");
    bench.change_node("a", |node| node.spec.availability = Availability::Drain);
    (bench, old)
}

#[test]
fn a_drained_node_is_left_in_the_update_order_of_the_service() {
    let desired = |bench: &Bench, task: &objects::Task| bench.store.task(&task.id).unwrap().desired_state;
    let (mut bench, old) = drained(UpdateOrder::StopFirst);
    assert_eq!(desired(&bench, &old), TaskState::Shutdown);
    assert_eq!(bench.wanted()[0].desired_state, TaskState::Ready, "it waits for the old one to stop");
    bench.report(&old, TaskState::Shutdown);
    assert_eq!(bench.wanted()[0].desired_state, TaskState::Running);

    let (mut bench, old) = drained(UpdateOrder::StartFirst);
    assert_eq!(desired(&bench, &old), TaskState::Running);
    let new = bench.wanted().into_iter().find(|task| task.id != old.id).unwrap();
    assert_eq!(new.desired_state, TaskState::Running);
    bench.report(&new, TaskState::Starting);
    assert_eq!(desired(&bench, &old), TaskState::Running);
    bench.report(&new, TaskState::Running);
    assert_eq!((desired(&bench, &old), desired(&bench, &new)), (TaskState::Shutdown, TaskState::Running));
    assert_eq!(bench.status(), None, "a drain is no update");
}

#[test]
fn a_drain_that_is_taken_back_keeps_the_task_that_runs() {
    let (mut bench, old) = drained(UpdateOrder::StartFirst);
    bench.change_node("a", |node| node.spec.availability = Availability::Active);
    let wanted: Vec<_> = bench.wanted().iter().map(|task| task.id.clone()).collect();
    assert_eq!(wanted, std::slice::from_ref(&old.id));
}

#[test]
fn a_drained_node_that_is_lost_is_not_waited_for() {
    let (mut bench, old) = drained(UpdateOrder::StartFirst);
    bench.change_node("a", |node| node.status.state = NodeState::Down);
    assert_eq!(bench.store.task(&old.id).unwrap().desired_state, TaskState::Shutdown);
    assert_eq!(bench.wanted().len(), 1);
}

#[test]
fn a_node_that_no_longer_matches_loses_its_tasks() {
    let mut bench = Bench::new(&["a"]);
    bench.change_node("a", |node| drop(node.spec.labels.insert("ssd".to_owned(), "yes".to_owned())));
    let mut wish = spec(ServiceMode::replicas(1));
    let constraints = vec!["node.labels.ssd==yes".to_owned()];
    wish.task_template.placement = Some(objects::Placement { constraints, ..Default::default() });
    bench.ask(wish);
    bench.obey();
    let task = bench.tasks()[0].clone();
    bench.change_node("a", |node| node.spec.labels.clear());
    let rejected = bench.store.task(&task.id).unwrap();
    assert_eq!(rejected.status.state, TaskState::Rejected);
    assert_eq!(rejected.status.message, "task rejected by constraint enforcer");
    assert_eq!(rejected.status.err, "assigned node no longer meets constraints");
    assert_eq!(bench.wanted().len(), 1);
}

proptest! {
    #[test]
    fn any_row_of_scales_ends_with_the_wanted_number_of_slots(scales in prop::collection::vec(0u64..9, 1..8), obey in prop::collection::vec(any::<bool>(), 8)) {
        let mut bench = Bench::new(&["a", "b", "c"]);
        for (scale, obey) in scales.iter().zip(obey) {
            bench.ask(spec(ServiceMode::replicas(*scale)));
            prop_assert_eq!(bench.wanted().len() as u64, *scale);
            let mut slots = bench.slots();
            slots.dedup();
            prop_assert_eq!(slots.len() as u64, *scale, "slots are unique");
            if obey {
                bench.obey();
            }
        }
        prop_assert_eq!(bench.status(), None, "a scale is no update");
    }
}

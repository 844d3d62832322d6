//! What happens when tasks end.

use objects::{Nanos, RestartCondition, RestartPolicy, ServiceMode, ServiceSpec, TaskState};

use super::{Bench, spec};
use crate::Reason;

fn with_policy(policy: RestartPolicy) -> ServiceSpec {
    let mut spec = spec(ServiceMode::replicas(1));
    spec.task_template.restart_policy = Some(policy);
    spec
}

fn running(policy: RestartPolicy) -> Bench {
    let mut bench = Bench::new(&["a"]);
    bench.ask(with_policy(policy));
    bench.obey();
    bench
}

/// Lets the task of the one slot end; returns whether it was replaced.
fn end(bench: &mut Bench, state: TaskState) -> bool {
    let task = bench.wanted()[0].clone();
    bench.report(&task, state);
    !bench.wanted().is_empty()
}

#[test]
fn the_condition_decides_which_ends_are_followed_by_a_restart() {
    let check = |condition, state, expect| {
        let mut bench = running(RestartPolicy { condition, ..Default::default() });
        assert_eq!(end(&mut bench, state), expect, "{condition} after {state}");
        assert!(!bench.tasks()[0].is_wanted());
    };
    check(RestartCondition::Any, TaskState::Complete, true);
    check(RestartCondition::Any, TaskState::Failed, true);
    check(RestartCondition::OnFailure, TaskState::Complete, false);
    check(RestartCondition::OnFailure, TaskState::Failed, true);
    check(RestartCondition::OnFailure, TaskState::Rejected, true);
    check(RestartCondition::None, TaskState::Failed, false);
}

#[test]
fn a_replacement_waits_at_ready_for_its_delay() {
    let mut bench = running(RestartPolicy::default());
    let old = bench.tasks()[0].clone();
    end(&mut bench, TaskState::Failed);
    let new = bench.wanted()[0].clone();
    assert_eq!((new.slot, new.desired_state), (old.slot, TaskState::Ready));
    assert_eq!(bench.wake_at, Some(bench.now + Nanos::from_secs(5)));
    bench.obey();
    assert_eq!(bench.wanted()[0].status.state, TaskState::Ready);
    bench.pass(Nanos::from_millis(4999));
    assert_eq!(bench.wanted()[0].desired_state, TaskState::Ready);
    bench.pass(Nanos::from_millis(1));
    assert_eq!(bench.wanted()[0].desired_state, TaskState::Running);
    let service = bench.id();
    assert_eq!(bench.reasons, [Reason::Restarted { service, old: old.id.clone(), new: new.id.clone() }]);
}

#[test]
fn a_task_that_went_down_with_its_node_is_replaced_at_once_and_counts_as_no_attempt() {
    let mut bench = running(RestartPolicy { max_attempts: Some(1), ..Default::default() });
    for _ in 0..3 {
        assert!(end(&mut bench, TaskState::Orphaned));
        bench.obey();
        let new = &bench.wanted()[0];
        assert_eq!((new.status.state, new.internal.restarts.attempts), (TaskState::Running, 0));
    }
    let mut bench = running(RestartPolicy { condition: RestartCondition::None, ..Default::default() });
    assert!(!end(&mut bench, TaskState::Orphaned), "who wants no restart gets none");
}

#[test]
fn a_delay_that_began_in_the_future_is_over() {
    let mut bench = running(RestartPolicy::default());
    end(&mut bench, TaskState::Failed);
    bench.obey();
    // The next leader's clock is right.
    bench.now = bench.now - Nanos::from_secs(3600);
    bench.decide();
    assert_eq!(bench.wanted()[0].desired_state, TaskState::Running);
}

#[test]
fn a_task_that_cannot_be_prepared_is_tried_once_per_delay() {
    let mut bench = running(RestartPolicy::default());
    end(&mut bench, TaskState::Failed);
    for _ in 0..3 {
        let waiting = bench.wanted()[0].clone();
        bench.report(&waiting, TaskState::Rejected);
        assert_eq!(bench.wanted()[0].id, waiting.id, "the next one is made when this one would have started");
        bench.pass(Nanos::from_millis(4999));
        assert_eq!(bench.wanted()[0].id, waiting.id);
        bench.pass(Nanos::from_millis(1));
        let next = bench.wanted()[0].clone();
        assert_ne!(next.id, waiting.id);
        assert_eq!(next.desired_state, TaskState::Ready);
    }
}

#[test]
fn attempts_are_counted_until_the_spec_changes() {
    let policy = RestartPolicy { delay: Some(Nanos::ZERO), max_attempts: Some(2), ..Default::default() };
    let mut bench = running(policy.clone());
    for expect in [true, true, false] {
        assert_eq!(end(&mut bench, TaskState::Failed), expect);
        bench.obey();
    }
    assert_eq!(bench.tasks().len(), 3, "MaxAttempts + 1 tasks are kept");
    bench.pass(Nanos::from_secs(3600));
    assert!(bench.wanted().is_empty(), "a spent slot stays empty");
    bench.ask(super::with_image(&with_policy(policy), "web:2"));
    bench.obey();
    assert_eq!(bench.wanted().len(), 1, "an update gives the slot a new task");
    assert!(end(&mut bench, TaskState::Failed));
}

#[test]
fn only_attempts_within_the_window_count() {
    let mut bench = running(RestartPolicy {
        delay: Some(Nanos::ZERO),
        max_attempts: Some(1),
        window: Some(Nanos::from_secs(10)),
        condition: RestartCondition::Any,
    });
    for _ in 0..5 {
        assert!(end(&mut bench, TaskState::Failed));
        bench.pass(Nanos::from_secs(11));
        bench.obey();
    }
    assert!(end(&mut bench, TaskState::Failed));
    bench.obey();
    assert!(!end(&mut bench, TaskState::Failed), "two ends within ten seconds");
}

#[test]
fn history_keeps_five_tasks_per_slot_counting_the_live_one() {
    let mut bench = running(RestartPolicy { delay: Some(Nanos::ZERO), ..Default::default() });
    let first = bench.tasks()[0].id.clone();
    for _ in 0..9 {
        bench.now = bench.now + Nanos::from_secs(1);
        assert!(end(&mut bench, TaskState::Failed));
        bench.obey();
    }
    assert_eq!(bench.tasks().len(), 5);
    assert!(bench.store.task(&first).is_none(), "the oldest goes first");
}

#[test]
fn a_replacement_waits_for_the_old_task_to_stop_but_not_longer_than_a_minute() {
    let mut bench = Bench::new(&["a"]);
    bench.ask(spec(ServiceMode::replicas(1)));
    bench.obey();
    bench.change_node("a", |node| node.spec.availability = objects::Availability::Drain);
    assert_eq!(bench.wanted()[0].desired_state, TaskState::Ready, "the old task still runs");
    assert_eq!(bench.wake_at, Some(bench.now + Nanos::from_secs(60)));
    bench.pass(Nanos::from_secs(60));
    assert_eq!(bench.wanted()[0].desired_state, TaskState::Running);
}

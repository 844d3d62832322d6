//! How updates replace tasks.

use objects::{
    FailureAction, Nanos, ServiceMode, ServiceSpec, TaskState, UpdateConfig, UpdateOrder, UpdateState,
};
use proptest::prelude::*;
use store::Write;

use super::{Bench, spec, with_image};

fn started(replicas: u64, config: UpdateConfig) -> (Bench, ServiceSpec) {
    let mut bench = Bench::new(&["a", "b"]);
    let spec = ServiceSpec { update_config: Some(config), ..spec(ServiceMode::replicas(replicas)) };
    bench.ask(spec.clone());
    bench.obey();
    (bench, spec)
}

fn config() -> UpdateConfig {
    UpdateConfig { parallelism: 1, ..UpdateConfig::default() }
}

/// Slots whose wanted task has the image of the update.
fn updated(bench: &Bench) -> Vec<u64> {
    let is_new = |image: &str| image == "web:2";
    let tasks = bench.wanted().into_iter();
    tasks
        .filter(|task| is_new(&task.spec.container_spec.as_ref().unwrap().image))
        .map(|task| task.slot)
        .collect()
}

fn check_status(bench: &Bench, state: UpdateState, message: &str) {
    let status = bench.status().expect("there is an update");
    assert_eq!((status.state, status.message.as_str()), (state, message));
    let is_complete = matches!(state, UpdateState::Completed | UpdateState::RollbackCompleted);
    assert_eq!(status.completed_at.is_some(), is_complete);
}

#[test]
fn slots_are_replaced_one_after_the_other_with_a_delay_and_watched_in_the_end() {
    let delay = Nanos::from_secs(2);
    let (mut bench, spec) = started(3, UpdateConfig { delay, ..config() });
    bench.ask(with_image(&spec, "web:2"));
    check_status(&bench, UpdateState::Updating, "update in progress");
    assert_eq!(updated(&bench), [1]);
    let new = bench.wanted()[0].clone();
    assert_eq!(new.desired_state, TaskState::Ready, "it waits for the old one to stop");
    bench.obey();
    assert_eq!(updated(&bench), [1], "the delay holds the next slot back");
    assert_eq!(bench.wake_at, Some(bench.now + delay));
    for expect in [vec![1, 2], vec![1, 2, 3]] {
        bench.pass(delay);
        bench.obey();
        assert_eq!(updated(&bench), expect);
    }
    bench.pass(delay + Nanos::from_millis(4999));
    check_status(&bench, UpdateState::Updating, "update in progress");
    bench.pass(Nanos::from_millis(1));
    check_status(&bench, UpdateState::Completed, "update completed");
    assert_eq!(bench.wake_at, None);
}

#[test]
fn an_update_whose_tasks_ran_in_the_future_goes_on_and_completes() {
    let (mut bench, spec) = started(3, UpdateConfig { delay: Nanos::from_secs(2), ..config() });
    bench.ask(with_image(&spec, "web:2"));
    for expect in [vec![1], vec![1, 2], vec![1, 2, 3]] {
        bench.obey();
        assert_eq!(updated(&bench), expect);
        // The next leader's clock is right, or righter.
        bench.pass(Nanos::from_secs(-3600));
    }
    check_status(&bench, UpdateState::Completed, "update completed");
}

#[test]
fn nobody_waits_for_the_end_of_a_task_that_was_never_assigned() {
    let mut bench = Bench::new(&["a"]);
    let spec = ServiceSpec { update_config: Some(config()), ..spec(ServiceMode::global()) };
    bench.ask(spec.clone());
    assert_eq!(bench.wanted()[0].status.state, TaskState::Pending, "it has its node, but no room there");
    bench.ask(with_image(&spec, "web:2"));
    let states: Vec<_> = bench.wanted().iter().map(|task| task.desired_state).collect();
    assert_eq!(states, [TaskState::Running]);
}

#[test]
fn parallelism_limits_how_many_slots_are_under_way_and_zero_is_all() {
    for (parallelism, expect) in [(2, vec![1, 2]), (0, vec![1, 2, 3, 4])] {
        let (mut bench, spec) = started(4, UpdateConfig { parallelism, ..config() });
        bench.ask(with_image(&spec, "web:2"));
        assert_eq!(updated(&bench), expect);
    }
}

#[test]
fn start_first_keeps_the_old_task_until_the_new_one_runs() {
    let (mut bench, spec) = started(1, UpdateConfig { order: UpdateOrder::StartFirst, ..config() });
    bench.ask(with_image(&spec, "web:2"));
    assert_eq!(bench.wanted().len(), 2);
    assert!(bench.wanted().iter().all(|task| task.desired_state == TaskState::Running));
    bench.obey();
    assert_eq!((bench.wanted().len(), updated(&bench)), (1, vec![1]));
}

#[test]
fn a_scale_or_a_label_is_no_update_and_clears_the_status_of_the_last() {
    let (mut bench, spec) = started(1, config());
    bench.ask(with_image(&spec, "web:2"));
    assert!(bench.status().is_some());
    bench.obey();
    let mut scaled = with_image(&spec, "web:2");
    scaled.mode = ServiceMode::replicas(2);
    bench.ask(scaled);
    assert_eq!(bench.status(), None);
}

fn fail_first(bench: &mut Bench) -> String {
    let new = bench.wanted().into_iter().find(|task| task.internal.rollout > 0).unwrap();
    let old = bench.tasks().into_iter().find(|task| task.slot == new.slot && !task.is_wanted()).unwrap();
    bench.report(&old, TaskState::Shutdown);
    bench.report(&new, TaskState::Rejected);
    new.id.to_string()
}

#[test]
fn the_same_update_again_joins_the_one_under_way() {
    let (mut bench, spec) = started(3, config());
    bench.ask(with_image(&spec, "web:2"));
    let before = bench.service();
    bench.ask(with_image(&spec, "web:2"));
    let after = bench.service();
    assert!(after.meta.version > before.meta.version, "it was written all the same");
    assert_eq!((&after.previous_spec, &after.update_status), (&Some(spec), &before.update_status));
    assert_eq!(after.internal, before.internal);
    assert_eq!(updated(&bench), [1], "the first slot is still being replaced");
}

#[test]
fn a_failure_pauses_the_update_until_the_next_one() {
    let (mut bench, spec) = started(3, config());
    bench.ask(with_image(&spec, "web:2"));
    let failed = fail_first(&mut bench);
    let message = format!("update paused due to failure or early termination of task {failed}");
    check_status(&bench, UpdateState::Paused, &message);
    bench.pass(Nanos::from_secs(100));
    bench.obey();
    check_status(&bench, UpdateState::Paused, &message);
    bench.ask(with_image(&spec, "web:2"));
    check_status(&bench, UpdateState::Updating, "update in progress");
}

#[test]
fn failures_up_to_the_ratio_and_after_the_monitor_time_are_tolerated() {
    let (mut bench, spec) = started(4, UpdateConfig { max_failure_ratio: 0.25, ..config() });
    bench.ask(with_image(&spec, "web:2"));
    fail_first(&mut bench);
    check_status(&bench, UpdateState::Updating, "update in progress");
    let (mut bench, spec) = started(2, config());
    bench.ask(with_image(&spec, "web:2"));
    let new = bench.wanted()[0].clone();
    bench.report(&new, TaskState::Running);
    bench.now = bench.now + Nanos::from_secs(6);
    bench.report(&new, TaskState::Failed);
    check_status(&bench, UpdateState::Updating, "update in progress");
}

#[test]
fn a_failure_rolls_back_to_the_previous_spec_which_is_then_gone() {
    let (mut bench, spec) = started(3, UpdateConfig { failure_action: FailureAction::Rollback, ..config() });
    let mut update = bench.service().updated(with_image(&spec, "web:2"));
    update.internal.registry_auth = "new".to_owned();
    update.internal.previous_registry_auth = "old".to_owned();
    bench.write(vec![Write::update(update)]);
    bench.decide();
    let failed = fail_first(&mut bench);
    let status = bench.status().unwrap();
    assert_eq!(status.state, UpdateState::RollbackStarted);
    let auth = &bench.service().internal;
    assert_eq!((auth.registry_auth.as_str(), auth.previous_registry_auth.as_str()), ("old", ""));
    assert_eq!(
        status.message,
        format!("update rolled back due to failure or early termination of task {failed}")
    );
    assert_eq!((&bench.service().spec, &bench.service().previous_spec), (&spec, &None));
    for _ in 0..10 {
        bench.obey();
        bench.pass(Nanos::from_secs(6));
    }
    check_status(&bench, UpdateState::RollbackCompleted, "rollback completed");
    assert!(updated(&bench).is_empty());
    assert_eq!(bench.slots(), [1, 2, 3]);
}

#[test]
fn a_rollback_never_rolls_back() {
    let (mut bench, mut spec) = started(2, config());
    spec.rollback_config = Some(UpdateConfig { failure_action: FailureAction::Rollback, ..config() });
    bench.ask(spec.clone());
    bench.ask(with_image(&spec, "web:2"));
    for _ in 0..5 {
        bench.obey();
        bench.pass(Nanos::from_secs(6));
    }
    let back = bench.service().rolled_back(bench.now).unwrap();
    bench.write(vec![Write::update(back)]);
    bench.decide();
    check_status(&bench, UpdateState::RollbackStarted, "manually requested rollback");
    let new = bench.wanted().into_iter().find(|task| task.desired_state == TaskState::Ready).unwrap();
    bench.obey();
    bench.report(&new, TaskState::Failed);
    let message = format!("rollback paused due to failure or early termination of task {}", new.id);
    check_status(&bench, UpdateState::RollbackPaused, &message);
}

#[test]
fn a_new_update_takes_over_from_one_under_way() {
    let (mut bench, spec) = started(3, UpdateConfig { order: UpdateOrder::StartFirst, ..config() });
    bench.ask(with_image(&spec, "web:bad"));
    bench.ask(with_image(&spec, "web:2"));
    for _ in 0..6 {
        bench.obey();
        bench.pass(Nanos::from_secs(6));
    }
    assert_eq!(updated(&bench), [1, 2, 3]);
    check_status(&bench, UpdateState::Completed, "update completed");
}

proptest! {
    #[test]
    fn no_more_slots_than_allowed_are_down_during_an_update(replicas in 1u64..7, parallelism in 1u64..4, start_first in any::<bool>()) {
        let order = if start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst };
        let (mut bench, spec) = started(replicas, UpdateConfig { parallelism, order, ..config() });
        bench.ask(with_image(&spec, "web:2"));
        for _ in 0..20 {
            let serving = bench.wanted().iter().filter(|task| task.status.state == TaskState::Running).count() as u64;
            let allowed = if start_first { 0 } else { parallelism };
            prop_assert!(serving + allowed >= replicas, "{} of {} serve", serving, replicas);
            bench.obey();
            bench.pass(Nanos::from_secs(1));
        }
        prop_assert_eq!(updated(&bench).len() as u64, replicas);
        prop_assert_eq!(bench.status().unwrap().state, UpdateState::Completed);
    }
}

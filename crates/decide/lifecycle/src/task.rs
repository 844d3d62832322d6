//! Decides the next step of one task on its node: what to do with its container, and what to report.
//!
//! ```text
//!  ASSIGNED ► ACCEPTED ► PREPARING ─prepare─► READY ─(wanted to run)─► STARTING ─start, healthy─► RUNNING
//!                            │                                            │                          │
//!                            └► REJECTED                                  └► FAILED ◄─ exit ≠ 0 ─────┤
//!                  wanted to stop: stop ► SHUTDOWN                                    exit 0 ► COMPLETE
//!                                                                       the machine went down ► ORPHANED
//! ```
//!
//! In: what is wanted, what was observed, what the container does, what is under way. Out: the new state with its
//! message, and one operation. The caller asks again until neither comes out. It never waits, and keeps nothing: after
//! a restart of the agent the same answers follow from the containers that are found.

use objects::{Nanos, TaskState};

use crate::health;

/// Wait before an operation that failed for a passing reason is tried again.
/// Source: reference 1.2 (swarmkit, `agent/task.go`: 1 s).
pub const RETRY_AFTER: Nanos = Nanos::from_secs(1);

/// What the container of a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container<'a> {
    /// There is none.
    Absent,
    /// It was never started.
    Created,
    /// It runs, with its health if it has a check.
    Running {
        /// `None` without a check.
        health: Option<health::Status>,
    },
    /// It ran, and ended.
    Ended {
        /// 0 to 255.
        exit_code: i64,
        /// Why the end is unusual; usually empty.
        cause: &'a str,
    },
    /// It ran when its machine went down.
    Lost,
}

/// What is being done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Pull the image and make the container.
    Prepare,
    /// Start it.
    Start,
    /// Take it out of the load balancing and stop it, with its grace period.
    Stop,
}

/// How an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure<'a> {
    /// Docker's text.
    pub text: &'a str,
    /// Whether it may work a second later.
    pub is_passing: bool,
}

/// Everything a step depends on.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What the managers want.
    pub desired: TaskState,
    /// What was reported last.
    pub observed: TaskState,
    /// What the container does.
    pub container: Container<'a>,
    /// What is under way; nothing else is begun before it ended.
    pub operation: Option<Operation>,
    /// How the last operation failed; `None` when it did not, or was not followed by a step yet.
    pub failure: Option<Failure<'a>>,
    /// Whether the container was unhealthy when it was asked to stop.
    pub was_unhealthy: bool,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something changes.
    Wait,
    /// Try again after [`RETRY_AFTER`].
    Retry,
    /// The task is in a new state; ask again.
    Become {
        /// Later than the observed one.
        state: TaskState,
        /// The state in words; `None` keeps the words of the last state.
        message: Option<&'static str>,
        /// Why it failed; empty when it did not.
        error: String,
    },
    /// Begin an operation.
    Begin(Operation),
    /// Give up the operation that is under way: what it is for is not wanted any more.
    Cancel,
}

/// The next step of a task.
pub fn next(view: &View<'_>) -> Step {
    if view.observed.is_terminal() {
        return leftover(view);
    }
    if view.desired >= TaskState::Shutdown {
        return shut_down(view);
    }
    if view.operation.is_some() {
        return Step::Wait;
    }
    if let Some(failure) = view.failure {
        return failed(view, failure);
    }
    match view.observed {
        TaskState::New | TaskState::Pending | TaskState::Assigned => become_(TaskState::Accepted, "accepted"),
        TaskState::Accepted => become_(TaskState::Preparing, "preparing"),
        TaskState::Preparing => match view.container {
            Container::Absent => Step::Begin(Operation::Prepare),
            _ => become_(TaskState::Ready, "prepared"),
        },
        TaskState::Ready if view.desired > TaskState::Ready => become_(TaskState::Starting, "starting"),
        TaskState::Ready => ready(view),
        TaskState::Starting => starting(view),
        _ => running(view),
    }
}

/// A task that ended has nothing left to do but to stop a container that should not run any more.
fn leftover(view: &View<'_>) -> Step {
    match (view.operation, view.container) {
        (None, Container::Running { .. }) if view.failure.is_some() => Step::Retry,
        (None, Container::Running { .. }) => Step::Begin(Operation::Stop),
        _ => Step::Wait,
    }
}

fn shut_down(view: &View<'_>) -> Step {
    match (view.operation, view.container) {
        (Some(Operation::Prepare), _) => Step::Cancel,
        (Some(Operation::Start | Operation::Stop), _) => Step::Wait,
        (None, Container::Running { .. }) if view.failure.is_some() => Step::Retry,
        (None, Container::Running { .. }) => Step::Begin(Operation::Stop),
        (None, _) => become_(TaskState::Shutdown, "shutdown"),
    }
}

/// A container that waits for its turn may vanish or be started by somebody else.
fn ready(view: &View<'_>) -> Step {
    match view.container {
        Container::Absent => lost(view),
        _ => Step::Wait,
    }
}

fn starting(view: &View<'_>) -> Step {
    match view.container {
        Container::Absent => lost(view),
        Container::Created => Step::Begin(Operation::Start),
        Container::Running { health: None | Some(health::Status::Healthy) } => {
            become_(TaskState::Running, "started")
        }
        Container::Running { health: Some(health::Status::Starting) } => Step::Wait,
        Container::Running { health: Some(health::Status::Unhealthy) } => Step::Begin(Operation::Stop),
        Container::Ended { exit_code, cause } => ended(view, exit_code, cause),
        Container::Lost => orphaned(),
    }
}

fn running(view: &View<'_>) -> Step {
    match view.container {
        Container::Absent | Container::Created => lost(view),
        Container::Running { health: Some(health::Status::Unhealthy) } => Step::Begin(Operation::Stop),
        Container::Running { .. } => Step::Wait,
        Container::Ended { exit_code, cause } => ended(view, exit_code, cause),
        Container::Lost => orphaned(),
    }
}

/// It did nothing wrong: like a task whose node does not come back, it is replaced without a delay and counts as no attempt.
fn orphaned() -> Step {
    let error = "the node went down while the task ran".to_owned();
    Step::Become { state: TaskState::Orphaned, message: None, error }
}

fn ended(view: &View<'_>, exit_code: i64, cause: &str) -> Step {
    // An unhealthy task failed whatever its exit code: it was stopped because it did not work.
    if exit_code == 0 && !view.was_unhealthy {
        return become_(TaskState::Complete, "finished");
    }
    // Source of the texts: moby, `daemon/cluster/executor/container/errors.go` and `controller.go`.
    let cause = if view.was_unhealthy { "dockerexec: unhealthy container" } else { cause };
    let error = match cause {
        "" => format!("task: non-zero exit ({exit_code})"),
        cause => format!("task: non-zero exit ({exit_code}): {cause}"),
    };
    fail(view, error)
}

fn lost(view: &View<'_>) -> Step {
    fail(view, "the task's container is gone".to_owned())
}

fn failed(view: &View<'_>, failure: Failure<'_>) -> Step {
    if failure.is_passing { Step::Retry } else { fail(view, failure.text.to_owned()) }
}

/// Before STARTING a task is rejected, from then on it failed. Source: swarmkit, `agent/exec/controller.go`.
fn fail(view: &View<'_>, error: String) -> Step {
    let state = if view.observed < TaskState::Starting { TaskState::Rejected } else { TaskState::Failed };
    Step::Become { state, message: None, error }
}

fn become_(state: TaskState, message: &'static str) -> Step {
    Step::Become { state, message: Some(message), error: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TaskState::{
        Accepted, Assigned, Complete, Failed, Preparing, Ready, Rejected, Running, Shutdown, Starting,
    };
    use proptest::prelude::*;

    const RUNS: Container<'static> = Container::Running { health: None };

    fn view(desired: TaskState, observed: TaskState, container: Container<'static>) -> View<'static> {
        View { desired, observed, container, operation: None, failure: None, was_unhealthy: false }
    }

    fn check(desired: TaskState, observed: TaskState, container: Container<'static>, expect: Step) {
        assert_eq!(
            next(&view(desired, observed, container)),
            expect,
            "{observed:?} of {desired:?}, {container:?}"
        );
    }

    fn with_health(status: health::Status) -> Container<'static> {
        Container::Running { health: Some(status) }
    }

    fn failing(state: TaskState, error: &str) -> Step {
        Step::Become { state, message: None, error: error.to_owned() }
    }

    #[test]
    fn a_task_goes_from_assigned_to_running() {
        check(Running, Assigned, Container::Absent, become_(Accepted, "accepted"));
        check(Running, Accepted, Container::Absent, become_(Preparing, "preparing"));
        check(Running, Preparing, Container::Absent, Step::Begin(Operation::Prepare));
        check(Running, Preparing, Container::Created, become_(Ready, "prepared"));
        check(Running, Ready, Container::Created, become_(Starting, "starting"));
        check(Running, Starting, Container::Created, Step::Begin(Operation::Start));
        check(Running, Starting, RUNS, become_(Running, "started"));
        check(Running, Running, RUNS, Step::Wait);
    }

    #[test]
    fn a_task_whose_machine_went_down_did_not_fail() {
        for observed in [Starting, Running] {
            check(Running, observed, Container::Lost, orphaned());
        }
        check(Shutdown, Running, Container::Lost, become_(Shutdown, "shutdown"));
        check(Running, TaskState::Orphaned, Container::Lost, Step::Wait);
    }

    #[test]
    fn a_replacement_waits_ready_until_it_is_wanted_to_run() {
        check(Ready, Ready, Container::Created, Step::Wait);
        check(Ready, Preparing, Container::Absent, Step::Begin(Operation::Prepare));
    }

    #[test]
    fn a_task_with_a_health_check_runs_only_when_healthy() {
        check(Running, Starting, with_health(health::Status::Starting), Step::Wait);
        check(Running, Starting, with_health(health::Status::Healthy), become_(Running, "started"));
        check(Running, Starting, with_health(health::Status::Unhealthy), Step::Begin(Operation::Stop));
        check(Running, Running, with_health(health::Status::Unhealthy), Step::Begin(Operation::Stop));
    }

    #[test]
    fn exit_codes_decide_between_complete_and_failed() {
        let ended = |exit_code, cause| Container::Ended { exit_code, cause };
        check(Running, Running, ended(0, ""), become_(Complete, "finished"));
        check(Running, Running, ended(3, ""), failing(Failed, "task: non-zero exit (3)"));
        check(
            Running,
            Starting,
            ended(137, "shim died"),
            failing(Failed, "task: non-zero exit (137): shim died"),
        );
        for exit_code in [0, 137, 143] {
            let unhealthy = View { was_unhealthy: true, ..view(Running, Running, ended(exit_code, "")) };
            let text = format!("task: non-zero exit ({exit_code}): dockerexec: unhealthy container");
            assert_eq!(next(&unhealthy), failing(Failed, &text));
        }
    }

    #[test]
    fn errors_before_starting_reject_and_later_ones_fail() {
        let failure = Some(Failure { text: "No such image: x", is_passing: false });
        for (observed, expect) in [(Preparing, Rejected), (Starting, Failed)] {
            let view = View { failure, ..view(Running, observed, Container::Absent) };
            assert_eq!(next(&view), failing(expect, "No such image: x"));
        }
        let passing = Some(Failure { text: "busy", is_passing: true });
        assert_eq!(
            next(&View { failure: passing, ..view(Running, Preparing, Container::Absent) }),
            Step::Retry
        );
    }

    #[test]
    fn a_task_that_is_not_wanted_is_stopped_before_it_is_shut_down() {
        check(Shutdown, Running, RUNS, Step::Begin(Operation::Stop));
        check(TaskState::Remove, Running, RUNS, Step::Begin(Operation::Stop));
        let ended = Container::Ended { exit_code: 143, cause: "" };
        check(Shutdown, Running, ended, become_(Shutdown, "shutdown"));
        check(Shutdown, Assigned, Container::Absent, become_(Shutdown, "shutdown"));
        let preparing =
            View { operation: Some(Operation::Prepare), ..view(Shutdown, Preparing, Container::Absent) };
        assert_eq!(next(&preparing), Step::Cancel);
        check(Shutdown, Failed, ended, Step::Wait);
    }

    #[test]
    fn a_stop_that_failed_is_tried_again_later() {
        let failure = Some(Failure { text: "no answer of the shim", is_passing: false });
        for (desired, observed) in [(Shutdown, Running), (Shutdown, Failed), (Running, Failed)] {
            assert_eq!(next(&View { failure, ..view(desired, observed, RUNS) }), Step::Retry);
        }
    }

    #[test]
    fn a_container_that_vanished_fails_its_task() {
        check(Running, Running, Container::Absent, failing(Failed, "the task's container is gone"));
        check(Ready, Ready, Container::Absent, failing(Rejected, "the task's container is gone"));
    }

    const STATES: [TaskState; 12] = [
        TaskState::New,
        TaskState::Pending,
        Assigned,
        Accepted,
        Preparing,
        Ready,
        Starting,
        Running,
        Complete,
        Shutdown,
        Failed,
        Rejected,
    ];

    fn containers() -> impl Strategy<Value = Container<'static>> {
        prop_oneof![
            Just(Container::Absent),
            Just(Container::Created),
            Just(RUNS),
            Just(with_health(health::Status::Starting)),
            Just(with_health(health::Status::Healthy)),
            Just(with_health(health::Status::Unhealthy)),
            (0..256_i64).prop_map(|exit_code| Container::Ended { exit_code, cause: "" }),
        ]
    }

    fn views() -> impl Strategy<Value = View<'static>> {
        let desired = prop::sample::select(vec![Ready, Running, Shutdown, TaskState::Remove]);
        let operation = prop::option::of(prop::sample::select(vec![
            Operation::Prepare,
            Operation::Start,
            Operation::Stop,
        ]));
        let failure =
            prop::option::of(any::<bool>().prop_map(|is_passing| Failure { text: "x", is_passing }));
        let parts =
            (desired, prop::sample::select(STATES.to_vec()), containers(), operation, failure, any::<bool>());
        parts.prop_map(|(desired, observed, container, operation, failure, was_unhealthy)| View {
            desired,
            observed,
            container,
            operation,
            failure,
            was_unhealthy,
        })
    }

    proptest! {
        #[test]
        fn states_only_grow_and_nothing_begins_beside_an_operation(view in views()) {
            match next(&view) {
                Step::Become { state, .. } => prop_assert!(state > view.observed),
                Step::Begin(Operation::Stop) => {
                    prop_assert!(view.operation.is_none());
                    prop_assert!(matches!(view.container, Container::Running { .. }), "only what runs is stopped");
                }
                Step::Begin(_) => {
                    prop_assert!(view.operation.is_none());
                    prop_assert!(view.desired < Shutdown, "nothing is started that is not wanted");
                }
                Step::Cancel => prop_assert_eq!(view.operation, Some(Operation::Prepare)),
                Step::Retry => prop_assert!(view.failure.is_some()),
                Step::Wait => {}
            }
        }

        /// Operations lead every task to an end of its own or to what is wanted, in few steps, when they work in the end;
        /// one that failed is not begun again before a wait or a new state.
        #[test]
        fn every_task_settles(start in views(), failures in prop::collection::vec(prop::option::of(any::<bool>()), 0..6)) {
            let mut view = View { operation: None, failure: None, ..start };
            let mut failures = failures.into_iter();
            for _ in 0..40 {
                match next(&view) {
                    Step::Become { state, .. } => {
                        view.observed = state;
                        view.failure = None;
                    }
                    Step::Begin(operation) => {
                        prop_assert_eq!(view.failure, None, "begun again at once: {:?}", operation);
                        view.was_unhealthy |= operation == Operation::Stop
                            && view.container == with_health(health::Status::Unhealthy);
                        let is_passing = failures.next().flatten();
                        view.failure = is_passing.map(|is_passing| Failure { text: "x", is_passing });
                        match operation {
                            _ if view.failure.is_some() => {}
                            Operation::Prepare => view.container = Container::Created,
                            Operation::Start => view.container = with_health(health::Status::Healthy),
                            Operation::Stop => view.container = Container::Ended { exit_code: 0, cause: "" },
                        }
                    }
                    Step::Retry => view.failure = None,
                    Step::Wait | Step::Cancel => break,
                }
            }
            prop_assert_eq!(next(&view), Step::Wait);
            let is_waiting_for_health = view.container == with_health(health::Status::Starting);
            prop_assert!(
                view.observed.is_terminal() || view.observed == view.desired || is_waiting_for_health
                    || view.observed > view.desired,
                "stuck: {view:?}"
            );
        }
    }
}

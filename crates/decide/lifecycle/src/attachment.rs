//! Decides the next step of a task that stands for a plain container on a network of the swarm.
//!
//! ```text
//!  ASSIGNED ─► RUNNING, while the container runs or is being started ─► COMPLETE
//!                                                  not wanted any more ─► SHUTDOWN
//! ```
//!
//! In: what is wanted, what was observed, what the container does. Out: the new state. The container is its user's: nothing
//! is ever done to it.

use objects::TaskState;

use crate::task::Step;

/// The next step; `is_held` while somebody starts the container.
pub fn next(desired: TaskState, observed: TaskState, is_up: bool, is_held: bool) -> Step {
    let become_ = |state, message| Step::Become { state, message: Some(message), error: String::new() };
    if observed.is_terminal() {
        return Step::Wait;
    }
    if desired >= TaskState::Shutdown {
        return become_(TaskState::Shutdown, "shutdown");
    }
    match is_up || is_held {
        false => become_(TaskState::Complete, "finished"),
        true if observed < TaskState::Running => become_(TaskState::Running, "started"),
        true => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_as_long_as_its_container_runs_or_is_being_started() {
        use TaskState::*;
        let state = |desired, observed, is_up, is_held| match next(desired, observed, is_up, is_held) {
            Step::Become { state, .. } => Some(state),
            Step::Wait => None,
            other => panic!("{other:?}"),
        };
        for (desired, observed, is_up, is_held, expect) in [
            (Running, Assigned, false, true, Some(Running)),
            (Running, Assigned, true, false, Some(Running)),
            (Running, Assigned, false, false, Some(Complete)),
            (Running, Running, true, false, None),
            (Running, Running, false, true, None),
            (Running, Running, false, false, Some(Complete)),
            (Shutdown, Running, true, false, Some(Shutdown)),
            (Remove, Assigned, true, true, Some(Shutdown)),
            (Running, Complete, true, false, None),
        ] {
            assert_eq!(state(desired, observed, is_up, is_held), expect, "{desired:?} {observed:?}");
        }
    }
}

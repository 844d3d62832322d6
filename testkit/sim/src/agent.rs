//! What the agents of the world do with a task: one step of its life at a time.
//!
//! In: a task, whether its node is up, and chance. Out: the next status to report. Follows the reference, 1.2.

use objects::{ContainerStatus, Task, TaskState, TaskStatus, Timestamp};

use crate::chance::Chance;

/// Image whose tasks end while they start.
pub const BAD_IMAGE: &str = "bad:1";
/// Image whose tasks end with code zero soon after they ran.
pub const ONCE_IMAGE: &str = "once:1";

/// The next status of a task, if it has one. With `faults`, tasks also end for no reason.
pub fn next_status(task: &Task, now: Timestamp, faults: bool, chance: &mut Chance) -> Option<TaskStatus> {
    let state = task.status.state;
    if state < TaskState::Assigned || task.is_terminal() {
        return None;
    }
    let report = |state, message: &str, err: &str| {
        let container = (state >= TaskState::Ready).then(|| ContainerStatus {
            container_id: task.id.to_string(),
            pid: 1,
            exit_code: 0,
        });
        Some(TaskStatus {
            timestamp: now,
            state,
            message: message.to_owned(),
            err: err.to_owned(),
            container_status: container,
            ..TaskStatus::default()
        })
    };
    if task.desired_state >= TaskState::Shutdown {
        return report(TaskState::Shutdown, "shutdown", "");
    }
    let image = task.spec.container_spec.as_ref().map_or("", |container| container.image.as_str());
    match state {
        TaskState::Assigned => report(TaskState::Accepted, "accepted", ""),
        TaskState::Accepted => report(TaskState::Preparing, "preparing", ""),
        TaskState::Preparing if faults && chance.percent(3) => {
            report(TaskState::Rejected, "preparing", "no such image")
        }
        TaskState::Preparing => report(TaskState::Ready, "prepared", ""),
        TaskState::Ready if task.desired_state > TaskState::Ready => {
            report(TaskState::Starting, "starting", "")
        }
        TaskState::Ready => None,
        TaskState::Starting if image == BAD_IMAGE => {
            report(TaskState::Failed, "starting", "task: non-zero exit (1)")
        }
        TaskState::Starting => report(TaskState::Running, "started", ""),
        TaskState::Running if image == ONCE_IMAGE => report(TaskState::Complete, "finished", ""),
        TaskState::Running if faults && chance.percent(4) => {
            report(TaskState::Failed, "started", "task: non-zero exit (137)")
        }
        _ => None,
    }
}

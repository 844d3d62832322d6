//! Removes tasks that nobody wants: of deleted services, scaled-down slots, and nodes that are gone.
//!
//! In: a slot. Out: tasks raised to REMOVE, and removed once their container is gone for sure.

use objects::{ServiceId, SlotKey, Task, TaskState};
use store::Draft;

use crate::Turn;

/// Message of a task whose node was removed. Source: moby/swarmkit, `manager/controlapi/node.go` (`orphanNodeTasks`).
const NODE_DELETED_MESSAGE: &str = "Task belonged to a node that has been deleted";

/// Asks for the removal of every task of the slot.
pub(crate) fn remove_slot(draft: &mut Draft<'_>, service: &ServiceId, slot: &SlotKey, turn: &Turn<'_>) {
    for task in draft.tasks_in_slot(service, slot) {
        if let Some(unwanted) = task.desired(TaskState::Remove) {
            draft.put_task(unwanted);
        }
    }
    forget(draft, service, slot, turn);
}

/// Removes the objects of tasks that were to be removed and have ended; tells tasks of vanished nodes that they are lost.
pub(crate) fn forget(draft: &mut Draft<'_>, service: &ServiceId, slot: &SlotKey, turn: &Turn<'_>) {
    for task in draft.tasks_in_slot(service, slot) {
        let node_is_gone = !task.node_id.is_empty() && draft.node(&task.node_id).is_none();
        let is_over = task.is_terminal() || task.status.state < TaskState::Assigned || node_is_gone;
        if task.desired_state == TaskState::Remove && is_over {
            draft.remove_task(&task.id);
        } else if node_is_gone && !task.is_terminal() {
            let mut lost = orphan(&task, turn);
            lost.status.message = NODE_DELETED_MESSAGE.to_owned();
            draft.put_task(lost);
        }
    }
}

/// The task of a node that does not come back.
pub(crate) fn orphan(task: &Task, turn: &Turn<'_>) -> Task {
    let mut lost = task.clone();
    lost.status.state = TaskState::Orphaned;
    lost.status.timestamp = turn.now;
    lost.internal.applied_at = turn.now;
    lost
}

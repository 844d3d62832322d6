//! Looks after the tasks that stand for plain containers on networks of the swarm.
//!
//! In: a node. Out: those of them removed that ended, or whose node is gone: nobody replaces or remembers them. What runs is
//! the node's affair: it says when its container has gone.

use objects::{ServiceId, SlotKey};
use store::Draft;

/// Whether the tasks of this service belong to none: they are attachments.
pub(crate) fn is_none(service: &ServiceId) -> bool {
    service.is_empty()
}

/// Looks after the attachments of one node.
pub(crate) fn tend(draft: &mut Draft<'_>, slot: &SlotKey) {
    for task in draft.tasks_in_slot(&ServiceId::default(), slot) {
        if task.is_terminal() || draft.node(&task.node_id).is_none() {
            draft.remove_task(&task.id);
        }
    }
}

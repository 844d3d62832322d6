//! Decides on which nodes a global service has a task (reference, 2.1).
//!
//! In: the nodes. Out: one task per suitable node, none elsewhere.

use std::sync::Arc;

use objects::{Availability, NodeId, NodeState, Service, SlotKey, TaskState, Timestamp};
use store::Draft;

use crate::Turn;
use crate::outdated::satisfies;
use crate::replicated::is_spent;
use crate::spawn::spawn;

/// Gives every suitable node its task.
pub(crate) fn fill(draft: &mut Draft<'_>, service: &Service, turn: &mut Turn<'_>) {
    let nodes: Vec<NodeId> = draft.store().nodes().map(|node| node.id.clone()).collect();
    for node in nodes {
        fill_node(draft, service, &node, turn);
    }
}

/// Gives one node its task, if it is suitable and has none.
pub(crate) fn fill_node(draft: &mut Draft<'_>, service: &Service, node: &NodeId, turn: &mut Turn<'_>) {
    let slot = SlotKey::Node(node.clone());
    let mut tasks = draft.tasks_in_slot(&service.id, &slot);
    tasks.retain(|task| task.desired_state != TaskState::Remove);
    let has_task = tasks.iter().any(|task| task.is_wanted()) || is_spent(service, &tasks);
    if has_task || !may_get_task(draft, service, node) {
        return;
    }
    if turn.budget == 0 {
        turn.unfinished.push(service.id.clone());
        return;
    }
    spawn(draft, service, &slot, turn, |_| {});
}

/// Whether a new or updated task may go to `node`: it is active, not down, and matches. A paused node keeps what it has.
pub(crate) fn may_get_task(draft: &Draft<'_>, service: &Service, node: &NodeId) -> bool {
    let node = draft.node(node);
    node.is_some_and(|node| {
        node.spec.availability == Availability::Active && node.status.state != NodeState::Down
    }) && satisfies(node.map(Arc::as_ref), &service.spec.task_template)
}

/// Stops the service's task on a node that it should not be on; forgets it when the node is gone.
pub(crate) fn leave_wrong_node(draft: &mut Draft<'_>, service: &Service, node: &NodeId, now: Timestamp) {
    let slot = SlotKey::Node(node.clone());
    let Some(found) = draft.node(node).cloned() else {
        for task in draft.tasks_in_slot(&service.id, &slot) {
            draft.remove_task(&task.id);
        }
        return;
    };
    if !found.must_be_left(now) && satisfies(Some(&found), &service.spec.task_template) {
        return;
    }
    for task in draft.tasks_in_slot(&service.id, &slot) {
        if let Some(stopped) = task.desired(TaskState::Shutdown) {
            draft.put_task(stopped);
        }
    }
}

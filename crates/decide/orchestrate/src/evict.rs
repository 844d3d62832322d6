//! Decides which tasks a node that changed may not keep (reference, 2.2): the constraint enforcer.
//!
//! In: a node. Out: tasks that no longer match or fit are REJECTED; tasks of a node that is long gone are ORPHANED. Their
//! slots replace them.

use std::sync::Arc;

use objects::{Nanos, Node, NodeId, NodeState, Resources, Task, TaskState};
use store::Draft;

use crate::outdated::satisfies;
use crate::{Turn, removal};

/// Message of a task that may not stay. Source: moby/swarmkit, `orchestrator/constraintenforcer`.
const REJECTED_MESSAGE: &str = "task rejected by constraint enforcer";
/// Error of a task that may not stay. Source: moby/swarmkit, `orchestrator/constraintenforcer`.
const REJECTED_ERROR: &str = "assigned node no longer meets constraints";
/// After this time the tasks of a node that is down are given up.
///
/// Source: moby/swarmkit, `manager/dispatcher/dispatcher.go` (`defaultNodeDownPeriod`).
const ORPHAN_AFTER: Nanos = Nanos::from_secs(24 * 3600);

/// Judges the tasks of a node that changed. Returns when to judge again.
pub fn node(draft: &mut Draft<'_>, id: &NodeId, turn: &mut Turn<'_>) -> Option<objects::Timestamp> {
    let node = Arc::clone(draft.node(id)?);
    if node.status.state == NodeState::Down {
        let since = if node.internal.status_since.is_zero() {
            node.meta.updated_at
        } else {
            node.internal.status_since
        };
        let gives_up_at = since + ORPHAN_AFTER;
        if gives_up_at > turn.now {
            let moves_at = node.internal.tasks_move_at;
            return Some(if moves_at > turn.now { moves_at.min(gives_up_at) } else { gives_up_at });
        }
        for task in draft.store().tasks_on_node(id).filter(|task| !task.is_terminal()) {
            let lost = removal::orphan(task, turn);
            draft.put_task(lost);
        }
        return None;
    }
    if node.spec.availability == objects::Availability::Active {
        reject_unfitting(draft, &node, turn);
    }
    None
}

fn reject_unfitting(draft: &mut Draft<'_>, node: &Node, turn: &Turn<'_>) {
    let mut free = node.description.resources.clone();
    let tasks: Vec<Arc<Task>> = draft
        .store()
        .tasks_on_node(&node.id)
        .filter(|task| task.is_wanted() && task.is_active())
        .cloned()
        .collect();
    for task in tasks {
        let Some(service) = draft.service(&task.service_id) else { continue };
        // A global service leaves a node that does not match by itself. A task of an old spec may be kept by either set
        // of constraints: replacing it for the new ones is the business of the rollout.
        let matches = service.spec.is_global()
            || satisfies(Some(node), &service.spec.task_template)
            || (task.internal.spec_version != service.internal.spec_version
                && satisfies(Some(node), &task.spec));
        if matches && take(&mut free, task.spec.reservations()) {
            continue;
        }
        let mut rejected = (*task).clone();
        rejected.status.state = TaskState::Rejected;
        rejected.status.timestamp = turn.now;
        rejected.status.message = REJECTED_MESSAGE.to_owned();
        rejected.status.err = REJECTED_ERROR.to_owned();
        rejected.internal.applied_at = turn.now;
        draft.put_task(rejected);
    }
}

/// Takes a reservation out of what is free, if it fits.
fn take(free: &mut Resources, reserved: Option<&Resources>) -> bool {
    let Some(reserved) = reserved else { return true };
    if reserved.nano_cpus > free.nano_cpus || reserved.memory_bytes > free.memory_bytes {
        return false;
    }
    free.nano_cpus -= reserved.nano_cpus;
    free.memory_bytes -= reserved.memory_bytes;
    true
}

//! Decides which ended tasks are kept to be looked at (reference, 1.4).
//!
//! In: the tasks of a slot. Out: the oldest ended ones removed. Never removes the last trace of a slot, nor a task that a
//! rollout still counts.

use objects::{Service, SlotKey, Task, TaskState, UpdateState};
use store::Draft;

use crate::slot::by_age;

/// Removes what is beyond the history limit of the slot.
pub(crate) fn trim(draft: &mut Draft<'_>, service: &Service, slot: &SlotKey) {
    let Some(limit) = limit(draft, service) else { return };
    let mut tasks = by_age(draft, service, slot);
    // Without a wanted task, the newest one tells that the slot is taken and why.
    let has_wanted = tasks.iter().any(|task| task.is_wanted());
    let excess = tasks.len().saturating_sub(limit.max(usize::from(!has_wanted)));
    if excess == 0 {
        return;
    }
    if !has_wanted {
        tasks.pop();
    }
    tasks.retain(|task| is_over(task) && !is_counted(service, task));
    tasks.sort_by_key(|task| {
        if task.internal.applied_at.is_zero() { task.status.timestamp } else { task.internal.applied_at }
    });
    for task in tasks.iter().take(excess) {
        draft.remove_task(&task.id);
    }
}

/// Tasks kept in a slot, counting wanted ones; `None` keeps all.
fn limit(draft: &Draft<'_>, service: &Service) -> Option<usize> {
    let attempts = service.spec.task_template.restart().max_attempts();
    if attempts > 0 {
        return usize::try_from(attempts).ok()?.checked_add(1);
    }
    match draft.cluster() {
        Some(cluster) => cluster.spec.task_history(),
        None => usize::try_from(objects::DEFAULT_TASK_HISTORY).ok(),
    }
}

fn is_over(task: &Task) -> bool {
    !task.is_wanted() && (task.is_terminal() || task.status.state < TaskState::Assigned)
}

/// Whether a running rollout still counts the task.
fn is_counted(service: &Service, task: &Task) -> bool {
    let is_rolling = service
        .update_status
        .as_ref()
        .is_some_and(|status| matches!(status.state, UpdateState::Updating | UpdateState::RollbackStarted));
    is_rolling && task.internal.rollout == service.internal.rollout
}

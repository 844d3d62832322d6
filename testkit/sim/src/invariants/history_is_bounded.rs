//! A slot keeps no more ended tasks than the history limit says, unless a rollout still counts them; restarts stay within
//! their limit.

use std::collections::BTreeMap;

use objects::{Nanos, Task, TaskState, UpdateState};
use store::Store;

pub(super) fn check(store: &Store) -> Result<(), String> {
    let default = store.cluster().and_then(|cluster| cluster.spec.task_history()).unwrap_or(usize::MAX);
    for service in store.services() {
        let policy = service.spec.task_template.restart();
        let limit = if policy.max_attempts() > 0 { policy.max_attempts() as usize + 1 } else { default };
        let is_rolling = service.update_status.as_ref().is_some_and(|status| {
            matches!(status.state, UpdateState::Updating | UpdateState::RollbackStarted)
        });
        let mut over: BTreeMap<_, usize> = BTreeMap::new();
        for task in store.tasks_of_service(&service.id) {
            check_attempts(task)?;
            if task.is_terminal() && task.desired_state != TaskState::Remove {
                *over.entry(task.slot_key()).or_default() += 1;
            }
        }
        let allowed = limit.max(1) + usize::from(is_rolling);
        if let Some((slot, count)) = over.into_iter().find(|(_, count)| *count > allowed) {
            return Err(format!(
                "slot {slot:?} of {} keeps {count} of {limit} ended tasks",
                service.spec.name
            ));
        }
    }
    Ok(())
}

fn check_attempts(task: &Task) -> Result<(), String> {
    let policy = task.spec.restart();
    let is_limited = policy.max_attempts() > 0 && policy.window() == Nanos::ZERO;
    if is_limited && task.internal.restarts.attempts > policy.max_attempts() {
        return Err(format!("task {} was restarted {} times", task.id, task.internal.restarts.attempts));
    }
    Ok(())
}

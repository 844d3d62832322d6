//! A running task is only asked to stop for a reason: its service is gone, smaller or newer, its node must be left, or
//! another task of its slot runs in its place.

use objects::{Constraint, Service, SlotKey, Task, TaskState, Timestamp};
use store::{Change, Store};

use crate::world::task_changes;

pub(super) fn check(before: &Store, after: &Store, changes: &[Change], now: Timestamp) -> Result<(), String> {
    for (old, new) in task_changes(changes) {
        let Some(old) = old.filter(|old| old.is_wanted() && old.status.state == TaskState::Running) else {
            continue;
        };
        let is_stopped = new.is_none_or(|new| !new.is_wanted() && new.status.state == TaskState::Running);
        if is_stopped && !has_reason(before, after, old, now) {
            return Err(format!("running task {} was stopped for no reason: {new:?}", old.id));
        }
    }
    Ok(())
}

fn has_reason(before: &Store, after: &Store, task: &Task, now: Timestamp) -> bool {
    let Some(service) = before.service(&task.service_id) else { return true };
    let Some(node) = before.node(&task.node_id) else { return true };
    let is_outdated = orchestrate::is_outdated(service, task, Some(node));
    let matches = Constraint::parse_all(service.spec.task_template.constraints())
        .is_ok_and(|constraints| constraints.iter().all(|constraint| constraint.is_satisfied_by(node)));
    let has_successor = after
        .tasks_in_slot(&service.id, &task.slot_key())
        .any(|other| other.id != task.id && other.is_wanted() && other.status.state == TaskState::Running);
    is_outdated || !matches || node.must_be_left(now) || has_successor || is_too_many(before, service)
}

/// Whether the service has more slots than it wants.
fn is_too_many(store: &Store, service: &Service) -> bool {
    let Some(replicas) = service.spec.replicas() else { return false };
    let slots: std::collections::BTreeSet<SlotKey> = store
        .tasks_of_service(&service.id)
        .filter(|task| task.desired_state != TaskState::Remove)
        .map(|task| task.slot_key())
        .collect();
    slots.len() as u64 > replicas
}

//! At rest, every service has what was asked for, as far as its nodes, restart policy and update settings allow.

use std::collections::{BTreeMap, BTreeSet};

use objects::{Constraint, Service, Task, TaskState, UpdateState};
use store::Store;

pub(super) fn check(store: &Store) -> Result<(), String> {
    for task in store.tasks() {
        let is_settled = match task.status.state {
            TaskState::Pending => !task.status.err.is_empty(),
            TaskState::Running => true,
            state => state.is_terminal(),
        };
        if !is_settled {
            return Err(format!("task {} came to rest half way: {task:?}", task.id));
        }
        if store.service(&task.service_id).is_none() {
            return Err(format!("task {} outlived its service", task.id));
        }
    }
    store.services().try_for_each(|service| check_service(store, service))
}

fn check_service(store: &Store, service: &Service) -> Result<(), String> {
    let state = service.update_status.as_ref().map(|status| status.state);
    if matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted))
        && !has_unplaced(store, service)
    {
        return Err(format!("service {} came to rest in the middle of an update", service.spec.name));
    }
    let serving = store.tasks_of_service(&service.id).filter(|task| is_serving(task));
    // A new task may wait for room beside the old one of its slot, that still serves.
    let serving = serving.map(|task| task.slot_key()).collect::<BTreeSet<_>>().len() as u64;
    let spent = spent_slots(store, service);
    let wanted = service.spec.replicas().unwrap_or_else(|| matching_nodes(store, service));
    if serving + spent != wanted {
        return Err(format!(
            "service {} has {serving} serving slots and {spent} spent slots of {wanted}",
            service.spec.name
        ));
    }
    Ok(())
}

/// Running, or waiting for a node that does not exist, with an explanation.
fn is_serving(task: &Task) -> bool {
    task.is_wanted() && matches!(task.status.state, TaskState::Running | TaskState::Pending)
}

fn has_unplaced(store: &Store, service: &Service) -> bool {
    store
        .tasks_of_service(&service.id)
        .any(|task| task.is_wanted() && task.status.state == TaskState::Pending)
}

/// Slots without a wanted task.
fn spent_slots(store: &Store, service: &Service) -> u64 {
    let mut slots: BTreeMap<_, bool> = BTreeMap::new();
    for task in store.tasks_of_service(&service.id).filter(|task| task.desired_state != TaskState::Remove) {
        *slots.entry(task.slot_key()).or_default() |= task.is_wanted();
    }
    let exists = |slot: &objects::SlotKey| match slot {
        objects::SlotKey::Slot(_) => true,
        objects::SlotKey::Node(id) => store.node(id).is_some_and(|node| matches(service, node)),
    };
    slots.into_iter().filter(|(slot, is_wanted)| !is_wanted && exists(slot)).count() as u64
}

fn matching_nodes(store: &Store, service: &Service) -> u64 {
    store.nodes().filter(|node| matches(service, node)).count() as u64
}

fn matches(service: &Service, node: &objects::Node) -> bool {
    Constraint::parse_all(service.spec.task_template.constraints())
        .is_ok_and(|constraints| constraints.iter().all(|constraint| constraint.is_satisfied_by(node)))
}

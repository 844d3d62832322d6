//! A slot has at most one wanted task of the current spec that may stay where it is, and at most one other beside it; a
//! service has no more slots than it wants, and a global service one per node.

use std::collections::BTreeMap;

use objects::{SlotKey, Task, TaskState, Timestamp};
use store::Store;

pub(super) fn check(store: &Store, now: Timestamp) -> Result<(), String> {
    for service in store.services() {
        let mut slots: BTreeMap<SlotKey, Vec<&Task>> = BTreeMap::new();
        for task in store.tasks_of_service(&service.id) {
            if task.desired_state != TaskState::Remove {
                slots.entry(task.slot_key()).or_default().push(task);
            }
        }
        if let Some(replicas) = service.spec.replicas()
            && slots.len() as u64 > replicas
        {
            return Err(format!("service {} has {} slots of {replicas}", service.spec.name, slots.len()));
        }
        for (slot, tasks) in slots {
            let wanted: Vec<_> = tasks.iter().filter(|task| task.is_wanted()).collect();
            let is_current = |task: &Task| {
                let node = store.node(&task.node_id).map(AsRef::as_ref);
                let must_leave = node.is_some_and(|node| node.must_be_left(now));
                !must_leave && !orchestrate::is_outdated(service, task, node)
            };
            let current = wanted.iter().filter(|task| is_current(task)).count();
            if current > 1 || wanted.len() > 2 {
                return Err(format!("slot {slot:?} of {} has {wanted:?}", service.spec.name));
            }
        }
    }
    Ok(())
}

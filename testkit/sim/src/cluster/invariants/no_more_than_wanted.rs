//! No commit makes a service want more tasks than it was asked for: slots only become more up to the replicas, a global
//! service has one per node, and a slot never has more than two wanted tasks (an old one that leaves and its successor).

use std::collections::{BTreeMap, BTreeSet};

use objects::{ServiceId, SlotKey};
use store::{Change, Store};

use crate::world::task_changes;

pub(crate) fn check(before: &Store, after: &Store, changes: &[Change]) -> Result<(), String> {
    let touched: BTreeSet<&ServiceId> =
        task_changes(changes).filter_map(|(old, new)| new.or(old)).map(|task| &task.service_id).collect();
    for service in touched.into_iter().filter_map(|id| after.service(id)) {
        let (old, new) = (wanted(before, &service.id), wanted(after, &service.id));
        if let Some((slot, count)) = new.iter().find(|(_, count)| **count > 2) {
            let tasks: Vec<_> = after
                .tasks_in_slot(&service.id, slot)
                .filter(|task| task.is_wanted())
                .map(|task| {
                    (
                        &task.id,
                        task.desired_state,
                        task.status.state,
                        task.internal.spec_version,
                        &task.node_id,
                    )
                })
                .collect();
            return Err(format!(
                "slot {slot:?} of {} has {count} wanted tasks: {tasks:?}",
                service.spec.name
            ));
        }
        let limit = service.spec.replicas().map_or(after.nodes().count(), |replicas| replicas as usize);
        if new.len() > limit && new.len() > old.len() {
            return Err(format!("{} has {} wanted slots of {limit}", service.spec.name, new.len()));
        }
    }
    Ok(())
}

/// How many wanted tasks each slot has that has any.
fn wanted(store: &Store, service: &ServiceId) -> BTreeMap<SlotKey, usize> {
    let mut slots = BTreeMap::new();
    for task in store.tasks_of_service(service).filter(|task| task.is_wanted()) {
        *slots.entry(task.slot_key()).or_default() += 1;
    }
    slots
}

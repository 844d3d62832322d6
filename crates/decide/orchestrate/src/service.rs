//! Looks after a whole service, or one slot of it.
//!
//! In: which service or slot changed. Out: its tasks as they should be, in the draft.

use std::collections::BTreeMap;
use std::sync::Arc;

use objects::{ServiceId, SlotKey, Task};
use store::Draft;

use crate::slot::{is_fine, tend};
use crate::{Turn, attachment, global, removal, replicated, rollout};

/// Looks after all slots of a service: cost follows the number of its tasks.
pub fn service(draft: &mut Draft<'_>, id: &ServiceId, turn: &mut Turn<'_>) {
    let tasks = draft.tasks_of_service(id);
    let mut slots: BTreeMap<SlotKey, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in &tasks {
        slots.entry(task.slot_key()).or_default().push(task);
    }
    if attachment::is_none(id) {
        slots.keys().for_each(|slot| attachment::tend(draft, slot));
        return;
    }
    let Some(service) = draft.service(id).cloned() else {
        for slot in slots.keys() {
            removal::remove_slot(draft, id, slot, turn);
        }
        return;
    };
    let taken = slots.len() as u64;
    let is_fine = |tasks: &[&Arc<Task>]| matches!(tasks, [task] if is_fine(draft, task, turn.now));
    slots.retain(|_, tasks| !is_fine(tasks));
    for slot in slots.keys() {
        tend(draft, &service, slot, turn);
    }
    if service.spec.is_global() {
        global::fill(draft, &service, turn);
    } else if !slots.is_empty() || service.spec.replicas() != Some(taken) {
        replicated::scale(draft, &service, turn);
    }
    rollout::advance(draft, &service, turn);
}

/// Looks after one slot: cost follows the number of its tasks.
pub fn slot(draft: &mut Draft<'_>, id: &ServiceId, slot: &SlotKey, turn: &mut Turn<'_>) {
    if attachment::is_none(id) {
        return attachment::tend(draft, slot);
    }
    let Some(service) = draft.service(id).cloned() else {
        return removal::remove_slot(draft, id, slot, turn);
    };
    tend(draft, &service, slot, turn);
    if let (SlotKey::Node(node), true) = (slot, service.spec.is_global()) {
        global::fill_node(draft, &service, node, turn);
    }
    // A slot that lost its last wanted task although it may have one: the whole service is looked after, and fills it.
    let mut tasks = draft.tasks_in_slot(id, slot);
    tasks.retain(|task| task.desired_state != objects::TaskState::Remove);
    let is_vacant = !tasks.is_empty() && !tasks.iter().any(|task| task.is_wanted());
    if is_vacant && !service.spec.is_global() && !replicated::is_spent(&service, &tasks) {
        turn.unfinished.push(id.clone());
    }
    // A node that may be updated again: the rollout that left it out goes on.
    if rollout::is_due(draft, &service, slot) {
        turn.unfinished.push(id.clone());
    }
}

//! Looks after a whole service, or one slot of it.
//!
//! In: which service or slot changed. Out: its tasks as they should be, in the draft.

use std::collections::BTreeSet;

use objects::{ServiceId, SlotKey};
use store::Draft;

use crate::slot::tend;
use crate::{Turn, global, removal, replicated, rollout};

/// Looks after all slots of a service: cost follows the number of its tasks.
pub fn service(draft: &mut Draft<'_>, id: &ServiceId, turn: &mut Turn<'_>) {
    let slots: BTreeSet<SlotKey> = draft.tasks_of_service(id).iter().map(|task| task.slot_key()).collect();
    let Some(service) = draft.service(id).cloned() else {
        for slot in &slots {
            removal::remove_slot(draft, id, slot, turn);
        }
        return;
    };
    for slot in &slots {
        tend(draft, &service, slot, turn);
    }
    if service.spec.is_global() {
        global::fill(draft, &service, turn);
    } else {
        replicated::scale(draft, &service, turn);
    }
    rollout::advance(draft, &service, turn);
}

/// Looks after one slot: cost follows the number of its tasks.
pub fn slot(draft: &mut Draft<'_>, id: &ServiceId, slot: &SlotKey, turn: &mut Turn<'_>) {
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

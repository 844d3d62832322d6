//! Decides which slots a replicated service has (reference, 2.1).
//!
//! In: the slots with their tasks. Out: tasks in the lowest free slots, or victims. Never touches the slots that stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use objects::{NodeId, Service, SlotKey, Task, TaskState, UpdateState};
use store::Draft;

use crate::slot::age_key;
use crate::spawn::spawn;
use crate::{Turn, removal, restart};

/// Makes as many slots as the service wants.
pub(crate) fn scale(draft: &mut Draft<'_>, service: &Service, turn: &mut Turn<'_>) {
    let Some(replicas) = service.spec.replicas() else { return };
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    let (taken, dead) = sort_slots(draft, service);
    let filled =
        if taken.len() < wanted { fill(draft, service, &taken, wanted, turn) } else { BTreeSet::new() };
    for number in dead.into_iter().filter(|number| !filled.contains(number)) {
        removal::remove_slot(draft, &service.id, &SlotKey::Slot(number), turn);
    }
    for number in victims(&taken, wanted) {
        removal::remove_slot(draft, &service.id, &SlotKey::Slot(number), turn);
    }
}

type Slots = BTreeMap<u64, Vec<Arc<Task>>>;

/// Slots that are taken, with their wanted tasks, and slots that only have tasks that ended.
fn sort_slots(draft: &Draft<'_>, service: &Service) -> (Slots, Vec<u64>) {
    let mut all: BTreeMap<u64, Vec<Arc<Task>>> = BTreeMap::new();
    for task in draft.tasks_of_service(&service.id) {
        if task.desired_state != TaskState::Remove && task.slot > 0 {
            all.entry(task.slot).or_default().push(task);
        }
    }
    let (mut taken, mut dead) = (BTreeMap::new(), Vec::new());
    for (number, tasks) in all {
        let wanted: Vec<_> = tasks.iter().filter(|task| task.is_wanted()).cloned().collect();
        if !wanted.is_empty() || is_spent(service, &tasks) {
            taken.insert(number, wanted);
        } else {
            dead.push(number);
        }
    }
    (taken, dead)
}

/// Whether the newest of the ended tasks may not be restarted: the slot stays taken until the service changes.
///
/// During a rollback such slots are made anew instead.
pub(crate) fn is_spent(service: &Service, ended: &[Arc<Task>]) -> bool {
    let is_rollback =
        service.update_status.as_ref().is_some_and(|status| status.state == UpdateState::RollbackStarted);
    let newest = ended.iter().max_by_key(|task| age_key(task));
    !is_rollback && newest.is_some_and(|task| !restart::may_restart(task, false))
}

/// Fills the lowest free slots.
fn fill(
    draft: &mut Draft<'_>,
    service: &Service,
    taken: &Slots,
    wanted: usize,
    turn: &mut Turn<'_>,
) -> BTreeSet<u64> {
    let mut filled = BTreeSet::new();
    for number in (1..).filter(|number| !taken.contains_key(number)).take(wanted - taken.len()) {
        if turn.budget == 0 {
            turn.unfinished.push(service.id.clone());
            break;
        }
        spawn(draft, service, &SlotKey::Slot(number), turn, |_| {});
        filled.insert(number);
    }
    filled
}

/// The slots to give up: crowded nodes lose first, then slots that do not run, then high numbers.
///
/// Source: moby/swarmkit, `manager/orchestrator/replicated/services.go` and `slot.go`.
fn victims(taken: &Slots, wanted: usize) -> Vec<u64> {
    let excess = taken.len().saturating_sub(wanted);
    if excess == 0 {
        return Vec::new();
    }
    let is_running = |tasks: &[Arc<Task>]| tasks.iter().any(|task| task.status.state == TaskState::Running);
    let mut ranked: Vec<_> =
        taken.iter().map(|(number, tasks)| (!is_running(tasks), *number, tasks)).collect();
    ranked.sort_by_key(|(is_idle, number, _)| (*is_idle, *number));
    let mut copies: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut by_copy: Vec<(usize, u64)> = ranked
        .into_iter()
        .map(|(_, number, tasks)| match tasks.as_slice() {
            [task] if !task.node_id.is_empty() => {
                let copy = copies.entry(task.node_id.clone()).or_default();
                *copy += 1;
                (*copy, number)
            }
            _ => (usize::MAX, number),
        })
        .collect();
    // A stable sort: among equal copies the order by state and number stays.
    by_copy.sort_by_key(|(copy, _)| *copy);
    by_copy.split_off(by_copy.len() - excess).into_iter().map(|(_, number)| number).collect()
}

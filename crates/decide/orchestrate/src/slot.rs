//! Looks after one slot: restarts what ended, starts what waits, retires what was replaced, forgets what is old.
//!
//! In: the tasks of the slot. Out: changed tasks in the draft, and when to look again. Cost follows the tasks of the slot.

use std::sync::Arc;

use objects::{Nanos, Service, SlotKey, Task, TaskId, TaskState, Timestamp};
use store::Draft;

use crate::outdated::is_outdated;
use crate::{Turn, global, history, removal, restart};

/// A replacement waits this long at most for the old task to stop, counted from when it was made.
///
/// Source: moby/swarmkit, `manager/orchestrator/restart/restart.go` (`defaultOldTaskTimeout`).
pub(crate) const OLD_TASK_LIMIT: Nanos = Nanos::from_secs(60);

/// Looks after one slot of a service that exists.
pub(crate) fn tend(draft: &mut Draft<'_>, service: &Service, slot: &SlotKey, turn: &mut Turn<'_>) {
    let mut tasks = draft.slot(&service.id, slot);
    if let (Some(task), None) = (tasks.next(), tasks.next())
        && is_fine(draft, task, turn.now)
    {
        return;
    }
    drop(tasks);
    removal::forget(draft, &service.id, slot, turn);
    if let SlotKey::Node(node) = slot {
        global::leave_wrong_node(draft, service, node, turn.now);
    }
    restart::restart_ended(draft, service, slot, turn);
    retire_replaced(draft, service, slot, turn.now);
    start_waiting(draft, service, slot, turn);
    history::trim(draft, service, slot);
}

/// Whether there is nothing to do about a slot that has this task alone: it goes on where it is. Most slots are so, most
/// of the time.
pub(crate) fn is_fine(draft: &Draft<'_>, task: &Task, now: Timestamp) -> bool {
    let has_place = || match draft.node(&task.node_id) {
        Some(node) => !node.must_be_left(now),
        None => task.node_id.is_empty(),
    };
    task.desired_state == TaskState::Running && !task.is_terminal() && task.slot > 0 && has_place()
}

/// The tasks of a slot from the oldest to the newest, without those that are to be removed.
pub(crate) fn by_age(draft: &Draft<'_>, service: &Service, slot: &SlotKey) -> Vec<Arc<Task>> {
    let mut tasks = draft.tasks_in_slot(&service.id, slot);
    tasks.retain(|task| task.desired_state != TaskState::Remove);
    tasks.sort_by_key(|task| age_key(task));
    tasks
}

/// Sorts older tasks before newer ones of the same slot.
pub(crate) fn age_key(task: &Task) -> (u64, TaskId) {
    (task.internal.generation, task.id.clone())
}

/// Leaves one wanted task: the newest current one once it runs. Until then one stays beside it that is of an old spec, or
/// on a node that is to be left.
fn retire_replaced(draft: &mut Draft<'_>, service: &Service, slot: &SlotKey, now: Timestamp) {
    let mut wanted = by_age(draft, service, slot);
    wanted.retain(|task| task.is_wanted());
    if wanted.len() < 2 {
        return;
    }
    let is_old = |task: &Task| {
        let node = draft.node(&task.node_id).map(Arc::as_ref);
        is_outdated(service, task, node) || node.is_some_and(|node| node.must_be_left(now))
    };
    let (old, current): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|task| is_old(task));
    let kept = best(&current);
    let is_replaced = kept.is_some_and(is_running);
    let kept_old = best(&old).filter(|_| !is_replaced);
    let is_kept = |task: &Task| [kept, kept_old].iter().flatten().any(|kept| kept.id == task.id);
    let retired: Vec<_> = old
        .iter()
        .chain(&current)
        .filter(|task| !is_kept(task))
        .filter_map(|task| task.desired(TaskState::Shutdown))
        .collect();
    for task in retired {
        draft.put_task(task);
    }
}

/// Of tasks sorted by age, the first that runs, else the newest.
fn best(tasks: &[Arc<Task>]) -> Option<&Task> {
    tasks.iter().find(|task| is_running(task)).or(tasks.last()).map(Arc::as_ref)
}

fn is_running(task: &Task) -> bool {
    task.status.state == TaskState::Running
}

/// Lets tasks that wait at READY run when their delay is over and the older tasks of the slot have stopped.
fn start_waiting(draft: &mut Draft<'_>, service: &Service, slot: &SlotKey, turn: &mut Turn<'_>) {
    let tasks = by_age(draft, service, slot);
    for (position, task) in tasks.iter().enumerate() {
        let Some(start) = task.internal.start.as_ref().filter(|_| task.desired_state == TaskState::Ready)
        else {
            continue;
        };
        let must_wait = tasks[..position].iter().any(|older| is_stopping(draft, older, turn.now));
        let delay = if must_wait { start.delay.max(OLD_TASK_LIMIT) } else { start.delay };
        if let Some(at) = turn.ends(start.since, delay) {
            turn.wake((service.id.clone(), Some(slot.clone())), at);
            continue;
        }
        if let Some(mut started) = task.desired(TaskState::Running) {
            started.internal.start = None;
            draft.put_task(started);
        }
    }
}

/// Whether a task was asked to stop and has not yet; nobody waits for a task of a node that is lost or gone.
///
/// A node learns only of tasks that were assigned to it: one that was not, as a global task without room, never says
/// that it has stopped.
fn is_stopping(draft: &Draft<'_>, task: &Task, now: Timestamp) -> bool {
    let node_is_up = draft.node(&task.node_id).is_some_and(|node| !node.is_lost(now));
    let is_known = task.status.state >= TaskState::Assigned;
    !task.is_wanted() && !task.is_terminal() && is_known && node_is_up
}

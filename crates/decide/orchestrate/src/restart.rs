//! Decides what happens when a task ends, or loses its node (reference, 1.5).
//!
//! In: the tasks of a slot. Out: ended tasks are no longer wanted, and those that their restart policy allows have a
//! replacement that waits for its delay and for the old task to stop. A node that is drained is left in the update order
//! of the service. Never starts a waiting replacement: `slot` does.

use std::sync::Arc;

use objects::{
    DelayedStart, Nanos, Restart, RestartCondition, RestartHistory, Service, SlotKey, Task, TaskState,
    Timestamp, UpdateOrder,
};
use store::Draft;

use crate::outdated::is_outdated;
use crate::spawn::spawn;
use crate::{Reason, Turn, global};

/// Restarts remembered by time at least. chosen: three times the failures that make the scheduler avoid a node.
const MIN_REMEMBERED: u64 = 16;
/// Restarts remembered by time at most. chosen: 64 KiB per task in the worst case; more attempts than this with a window
/// count as unlimited.
const MAX_REMEMBERED: u64 = 1000;

/// Why a wanted task cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It ended by itself.
    Ended,
    /// Its node is lost or gone.
    LostNode,
    /// Its node is up, and is to be left.
    Drained,
}

/// Retires every wanted task of the slot that cannot go on, and makes the replacements.
pub(crate) fn restart_ended(draft: &mut Draft<'_>, service: &Service, slot: &SlotKey, turn: &mut Turn<'_>) {
    for task in draft.tasks_in_slot(&service.id, slot) {
        if !task.is_wanted() {
            continue;
        }
        let Some(cause) = cause(draft, &task, turn.now) else { continue };
        if cause == Cause::Ended && waits_to_start(&task) {
            continue;
        }
        let has_place = match slot {
            SlotKey::Slot(_) => true,
            SlotKey::Node(node) => global::may_get_task(draft, service, node),
        };
        let is_replaced = has_place && may_restart(&task, cause != Cause::Ended);
        let order = order(service, &task, cause);
        // With start-first it serves on until the new one runs: `slot` retires it then.
        if order == UpdateOrder::StopFirst || !is_replaced {
            draft.put_task(task.desired(TaskState::Shutdown).expect("a wanted task is below SHUTDOWN"));
        }
        if is_replaced && !has_other(draft, service, slot, &task, turn.now) {
            replace(draft, service, slot, &task, cause, order, turn);
        }
    }
}

/// Whether the task that serves on a node that is to be left stops before its replacement runs, or after.
fn order(service: &Service, task: &Task, cause: Cause) -> UpdateOrder {
    let is_serving = cause == Cause::Drained && task.status.state == TaskState::Running && task.slot > 0;
    if is_serving { service.spec.update().order } else { UpdateOrder::StopFirst }
}

fn cause(draft: &Draft<'_>, task: &Task, now: Timestamp) -> Option<Cause> {
    if task.is_terminal() {
        return Some(if task.status.state == TaskState::Orphaned { Cause::LostNode } else { Cause::Ended });
    }
    if task.node_id.is_empty() {
        return None;
    }
    match draft.node(&task.node_id) {
        Some(node) if node.is_lost(now) => Some(Cause::LostNode),
        Some(node) if node.must_be_left(now) => Some(Cause::Drained),
        Some(_) => None,
        None => Some(Cause::LostNode),
    }
}

/// Whether a task has ended before it was its turn to start. Its replacement waits for that turn: a task that cannot even be
/// prepared is not tried more often than one that ends soon after it ran.
fn waits_to_start(task: &Task) -> bool {
    task.desired_state == TaskState::Ready && task.internal.start.is_some()
}

/// Whether the slot has another task that can serve in place of `ended`: one that is not of an old spec.
fn has_other(draft: &Draft<'_>, service: &Service, slot: &SlotKey, ended: &Task, now: Timestamp) -> bool {
    draft.tasks_in_slot(&service.id, slot).iter().any(|other| {
        let node = draft.node(&other.node_id).map(Arc::as_ref);
        other.id != ended.id
            && other.is_wanted()
            && cause(draft, other, now).is_none()
            && !is_outdated(service, other, node)
    })
}

/// Whether the restart policy of `task` lets it be replaced.
///
/// A task that lost its node is not counted as an attempt: it did nothing wrong.
pub(crate) fn may_restart(task: &Task, is_lost: bool) -> bool {
    let policy = task.spec.restart();
    let is_wanted_again = match policy.condition {
        RestartCondition::Any => true,
        RestartCondition::OnFailure => task.status.state != TaskState::Complete,
        RestartCondition::None => false,
    };
    let ended_by_itself =
        matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected);
    let is_counted = !is_lost && ended_by_itself && policy.max_attempts() > 0;
    is_wanted_again && (!is_counted || attempts(task, policy.window()) < policy.max_attempts())
}

/// Restarts before the end of `task` that count.
fn attempts(task: &Task, window: Nanos) -> u64 {
    let history = &task.internal.restarts;
    if window.0 <= 0 {
        return history.attempts;
    }
    let since = task.internal.applied_at - window;
    history
        .recent
        .iter()
        .filter(|restart| restart.at >= since && restart.at <= task.internal.applied_at)
        .count() as u64
}

fn replace(
    draft: &mut Draft<'_>,
    service: &Service,
    slot: &SlotKey,
    old: &Task,
    cause: Cause,
    order: UpdateOrder,
    turn: &mut Turn<'_>,
) {
    let delay = if cause == Cause::Ended { old.spec.restart().delay() } else { Nanos::ZERO };
    let restarts = history(service, old, cause, turn);
    let since = turn.now;
    let new = spawn(draft, service, slot, turn, |task| {
        task.internal.restarts = restarts;
        if order == UpdateOrder::StopFirst {
            task.desired_state = TaskState::Ready;
            task.internal.start = Some(DelayedStart { since, delay });
        }
    });
    turn.reasons.push(Reason::Restarted { service: service.id.clone(), old: old.id.clone(), new: new.id });
}

/// The history that the replacement of `old` inherits; it starts anew with every spec version.
fn history(service: &Service, old: &Task, cause: Cause, turn: &Turn<'_>) -> RestartHistory {
    let is_same_spec = old.internal.spec_version == service.internal.spec_version;
    let mut history = if is_same_spec { old.internal.restarts.clone() } else { RestartHistory::default() };
    if cause != Cause::Ended {
        return history;
    }
    history.attempts += 1;
    history.recent.push(Restart {
        at: turn.now,
        node: old.node_id.clone(),
        failed: matches!(old.status.state, TaskState::Failed | TaskState::Rejected),
    });
    let kept = old.spec.restart().max_attempts().clamp(MIN_REMEMBERED, MAX_REMEMBERED) as usize;
    let excess = history.recent.len().saturating_sub(kept);
    history.recent.drain(..excess);
    history
}

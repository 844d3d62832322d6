//! Decides which slots are replaced now, and when an update is over (reference, 2.4 and 2.5).
//!
//! In: the service and its tasks. Out: replaced slots, and the service's update status. Nothing else is remembered: tasks
//! carry the number of the rollout that made them, so that a new leader sees what the old one had done.

use std::collections::BTreeMap;
use std::sync::Arc;

use objects::{
    DelayedStart, FailureAction, Nanos, Service, SlotKey, Task, TaskState, Timestamp, UpdateConfig,
    UpdateOrder, UpdateState, UpdateStatus,
};
use store::Draft;

use crate::outdated::is_outdated;
use crate::slot::age_key;
use crate::spawn::spawn;
use crate::{Reason, Turn, global};

/// What a rollout found.
struct Progress {
    /// The tasks it made, newest per slot.
    made: Vec<Arc<Task>>,
    /// Slots that it has yet to replace, in order.
    waiting: Vec<(SlotKey, Vec<Arc<Task>>)>,
}

/// Goes on with the rollout of a service, if it has one.
pub(crate) fn advance(draft: &mut Draft<'_>, service: &Service, turn: &mut Turn<'_>) {
    let state = service.update_status.as_ref().map(|status| status.state);
    let is_paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    if service.internal.rollout == 0 || is_paused {
        return;
    }
    let mut progress = look(draft, service);
    let Some(service) = begin(draft, service, &progress, turn) else { return };
    let is_rollback = state == Some(UpdateState::RollbackStarted);
    let config = if is_rollback { service.spec.rollback() } else { service.spec.update() };
    let is_rolling = matches!(
        service.update_status.as_ref().map(|status| status.state),
        Some(UpdateState::Updating | UpdateState::RollbackStarted)
    );
    if is_rolling && fail(draft, &service, &config, &progress.made, turn) {
        return;
    }
    let (busy, free_at) = busy(&progress.made, config.delay, turn);
    let room = match config.parallelism {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(busy),
    };
    let allowed = room.min(progress.waiting.len());
    let replaced = allowed.min(turn.budget);
    if replaced < allowed {
        turn.unfinished.push(service.id.clone());
    }
    for (slot, tasks) in progress.waiting.drain(..replaced) {
        replace(draft, &service, &slot, &tasks, config.order, turn);
    }
    if is_rolling && busy == 0 && replaced == 0 && progress.waiting.is_empty() {
        finish(draft, &service, &config, &progress.made, turn);
    } else if let Some(at) = free_at {
        turn.wake((service.id.clone(), None), at);
    }
}

/// Whether a rollout that is not under way has left the slot with an old task that may be replaced now.
pub(crate) fn is_due(draft: &Draft<'_>, service: &Service, slot: &SlotKey) -> bool {
    let state = service.update_status.as_ref().map(|status| status.state);
    let is_over = matches!(state, None | Some(UpdateState::Completed | UpdateState::RollbackCompleted));
    if service.internal.rollout == 0 || !is_over {
        return false;
    }
    let mut tasks = draft.tasks_in_slot(&service.id, slot);
    tasks.retain(|task| task.desired_state != TaskState::Remove);
    let is_made = tasks.iter().any(|task| task.internal.rollout == service.internal.rollout);
    !is_made && is_dirty(draft, service, slot, &tasks)
}

/// Sorts the slots into those that the rollout has replaced and those that it has yet to.
fn look(draft: &Draft<'_>, service: &Service) -> Progress {
    let mut slots: BTreeMap<SlotKey, Vec<Arc<Task>>> = BTreeMap::new();
    for task in draft.tasks_of_service(&service.id) {
        if task.desired_state != TaskState::Remove {
            slots.entry(task.slot_key()).or_default().push(task);
        }
    }
    let mut progress = Progress { made: Vec::new(), waiting: Vec::new() };
    for (slot, tasks) in slots {
        let of_rollout = tasks.iter().filter(|task| task.internal.rollout == service.internal.rollout);
        if let Some(task) = of_rollout.max_by_key(|task| age_key(task)) {
            progress.made.push(Arc::clone(task));
        } else if is_dirty(draft, service, &slot, &tasks) {
            progress.waiting.push((slot, tasks));
        }
    }
    progress
}

/// Whether a slot has a wanted task of an old spec, or ended with one.
fn is_dirty(draft: &Draft<'_>, service: &Service, slot: &SlotKey, tasks: &[Arc<Task>]) -> bool {
    if let SlotKey::Node(node) = slot
        && !global::may_get_task(draft, service, node)
    {
        return false;
    }
    let is_old = |task: &Task| is_outdated(service, task, draft.node(&task.node_id).map(Arc::as_ref));
    let mut wanted = tasks.iter().filter(|task| task.is_wanted()).peekable();
    if wanted.peek().is_some() {
        return wanted.any(|task| is_old(task));
    }
    tasks.iter().max_by_key(|task| age_key(task)).is_some_and(|task| is_old(task))
}

/// Writes down that the rollout has begun, and with how many slots. `None` when there is nothing to do.
fn begin(
    draft: &mut Draft<'_>,
    service: &Service,
    progress: &Progress,
    turn: &mut Turn<'_>,
) -> Option<Service> {
    let has_begun = service.update_status.is_some();
    let waiting = progress.waiting.len() as u64;
    if !has_begun && waiting == 0 {
        return None;
    }
    let mut service = service.clone();
    if !has_begun {
        service.update_status = Some(UpdateStatus {
            state: UpdateState::Updating,
            started_at: Some(turn.now),
            completed_at: None,
            message: "update in progress".to_owned(),
        });
    }
    if !has_begun || (service.internal.rollout_slots == 0 && waiting > 0) {
        service.internal.rollout_slots = waiting + progress.made.len() as u64;
        draft.put_service(service.clone());
    }
    Some(service)
}

/// How many slots are being replaced, and when the first of those that only wait out their delay is free.
fn busy(made: &[Arc<Task>], delay: Nanos, turn: &Turn<'_>) -> (usize, Option<Timestamp>) {
    let mut busy = 0;
    let mut first: Option<Timestamp> = None;
    for task in made {
        let Some(reached_at) = reached_at(task) else {
            busy += 1;
            continue;
        };
        if let Some(free_at) = turn.ends(reached_at, delay) {
            busy += 1;
            first = Some(first.map_or(free_at, |known| known.min(free_at)));
        }
    }
    (busy, first)
}

/// When a new task ran or ended; `None` while it is on its way.
///
/// One that was retired on its way, by a scale-down or because its node was lost, does not hold the rollout up.
fn reached_at(task: &Task) -> Option<Timestamp> {
    if !task.internal.running_at.is_zero() {
        Some(task.internal.running_at)
    } else if task.is_terminal() || !task.is_wanted() {
        Some(task.internal.applied_at)
    } else {
        None
    }
}

/// Whether a new task ended before it ran, or while it was watched. One that was asked to stop did not fail.
fn has_failed(task: &Task, monitor: Nanos) -> bool {
    let ended = matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected);
    let ran_at = task.internal.running_at;
    ended && (ran_at.is_zero() || task.internal.applied_at.since(ran_at) <= monitor)
}

/// Acts on failures, when there are too many; returns whether the rollout stopped.
fn fail(
    draft: &mut Draft<'_>,
    service: &Service,
    config: &UpdateConfig,
    made: &[Arc<Task>],
    turn: &mut Turn<'_>,
) -> bool {
    let failed: Vec<_> = made.iter().filter(|task| has_failed(task, config.monitor())).collect();
    let newest = failed.iter().max_by_key(|task| (task.internal.applied_at, &task.id));
    let Some(newest) = newest.filter(|_| config.failure_action != FailureAction::Continue) else {
        return false;
    };
    let ratio = failed.len() as f32 / service.internal.rollout_slots.max(1) as f32;
    if ratio <= config.max_failure_ratio {
        return false;
    }
    let is_rollback =
        service.update_status.as_ref().is_some_and(|status| status.state == UpdateState::RollbackStarted);
    let because = format!("due to failure or early termination of task {}", newest.id);
    let wants_rollback = config.failure_action == FailureAction::Rollback;
    if wants_rollback && !is_rollback {
        let message = format!("update rolled back {because}");
        if let Some(returned) = service.returned(turn.now, &message) {
            turn.reasons.push(Reason::Rollout { service: service.id.clone(), message });
            draft.put_service(returned);
            return true;
        }
    }
    // A rollback never rolls back, and without a previous spec there is nothing to return to.
    let verb = if is_rollback && wants_rollback { "rollback" } else { "update" };
    let state = if is_rollback { UpdateState::RollbackPaused } else { UpdateState::Paused };
    set_state(draft, service, state, format!("{verb} paused {because}"), turn);
    true
}

/// Completes the rollout when its last tasks were watched for long enough.
fn finish(
    draft: &mut Draft<'_>,
    service: &Service,
    config: &UpdateConfig,
    made: &[Arc<Task>],
    turn: &mut Turn<'_>,
) {
    let monitor = config.monitor();
    let watch = if config.delay >= monitor { config.delay + Nanos::from_secs(1) } else { monitor };
    let watched = made.iter().filter_map(|task| turn.ends(reached_at(task)?, config.delay + watch));
    if let Some(at) = watched.max() {
        return turn.wake((service.id.clone(), None), at);
    }
    let is_rollback =
        service.update_status.as_ref().is_some_and(|status| status.state == UpdateState::RollbackStarted);
    let (state, message) = match is_rollback {
        true => (UpdateState::RollbackCompleted, "rollback completed"),
        false => (UpdateState::Completed, "update completed"),
    };
    set_state(draft, service, state, message.to_owned(), turn);
}

fn set_state(
    draft: &mut Draft<'_>,
    service: &Service,
    state: UpdateState,
    message: String,
    turn: &mut Turn<'_>,
) {
    let mut next = service.clone();
    let is_complete = matches!(state, UpdateState::Completed | UpdateState::RollbackCompleted);
    let status = next.update_status.get_or_insert_default();
    status.state = state;
    status.message.clone_from(&message);
    status.completed_at = is_complete.then_some(turn.now);
    draft.put_service(next);
    turn.reasons.push(Reason::Rollout { service: service.id.clone(), message });
}

/// Replaces the tasks of one slot, or takes over a current one that is there already.
fn replace(
    draft: &mut Draft<'_>,
    service: &Service,
    slot: &SlotKey,
    tasks: &[Arc<Task>],
    order: UpdateOrder,
    turn: &mut Turn<'_>,
) {
    let rollout = service.internal.rollout;
    let is_old = |task: &Task| is_outdated(service, task, draft.node(&task.node_id).map(Arc::as_ref));
    let (old, current): (Vec<_>, Vec<_>) =
        tasks.iter().filter(|task| task.is_wanted()).partition(|task| is_old(task));
    if let Some(current) = current.last() {
        let mut adopted = Task::clone(current);
        adopted.internal.rollout = rollout;
        return draft.put_task(adopted);
    }
    let since = turn.now;
    spawn(draft, service, slot, turn, |task| {
        task.internal.rollout = rollout;
        if order == UpdateOrder::StopFirst {
            task.desired_state = TaskState::Ready;
            task.internal.start = Some(DelayedStart { since, delay: Nanos::ZERO });
        }
    });
    if order == UpdateOrder::StopFirst {
        for task in old {
            draft.put_task(task.desired(TaskState::Shutdown).expect("a wanted task is below SHUTDOWN"));
        }
    }
}

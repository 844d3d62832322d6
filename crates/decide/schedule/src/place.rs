//! Places waiting tasks, group by group.
//!
//! In: ids of tasks that wait for a node. Out: tasks ASSIGNED in the draft; the others keep an explanation in their
//! status and are returned, so that the caller asks again when something changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use objects::{Nanos, NodeId, ServiceId, Task, TaskId, TaskState, TaskStatus, Timestamp};
use store::Draft;

use crate::Loads;
use crate::demand::Demand;
use crate::explain::Refusals;
use crate::filter::refuse;
use crate::pick::Pick;
use crate::spread::{Branch, Failures, MANY_FAILURES};

/// Message of a placed task. Source: moby/swarmkit, `manager/scheduler/scheduler.go`.
const ASSIGNED_MESSAGE: &str = "scheduler assigned task to node";
/// Message of a task that was made for its node. Source: moby/swarmkit, `manager/scheduler/scheduler.go`.
const CONFIRMED_MESSAGE: &str = "scheduler confirmed task can run on preassigned node";
/// Failures older than this are forgotten. Source: moby/swarmkit, `manager/scheduler/nodeinfo.go`.
const FAILURE_MEMORY: Nanos = Nanos::from_secs(5 * 60);
/// What may be placed together: tasks of one service and spec version.
type Group = (ServiceId, u64);

/// What became of the waiting tasks.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Tasks that were given a node.
    pub placed: usize,
    /// Tasks that no node takes.
    pub unplaced: Vec<Unplaced>,
}

/// A task that no node takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// Its service.
    pub service: ServiceId,
    /// The task.
    pub task: TaskId,
    /// Why, as in its status.
    pub because: String,
    /// Whether the end of another task may help; otherwise only a change of a node does.
    pub needs_room: bool,
}

/// Places `waiting` as far as the nodes allow. What it assumes in `loads` is the caller's to take back.
pub fn place(
    draft: &mut Draft<'_>,
    loads: &mut Loads,
    waiting: impl IntoIterator<Item = TaskId>,
    now: Timestamp,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut groups: BTreeMap<Group, Vec<(u64, TaskId)>> = BTreeMap::new();
    for id in waiting {
        let Some(task) = draft.task(&id).filter(|task| is_waiting(task)) else { continue };
        if task.node_id.is_empty() {
            let group = (task.service_id.clone(), task.internal.spec_version);
            groups.entry(group).or_default().push((task.slot, id));
        } else {
            // Tasks that can only go to one node come first.
            let task = Arc::clone(task);
            confirm(draft, loads, &task, now, &mut outcome);
        }
    }
    for tasks in groups.values_mut() {
        tasks.sort_unstable();
        place_group(draft, loads, tasks, now, &mut outcome);
    }
    outcome
}

/// Whether a task waits for the scheduler.
fn is_waiting(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.is_wanted()
}

fn confirm(draft: &mut Draft<'_>, loads: &mut Loads, task: &Task, now: Timestamp, outcome: &mut Outcome) {
    let demand = Demand::of(task, draft.store());
    let refusal = match loads.get(&task.node_id) {
        // Its container is there whatever the node is for.
        Some(_) if task.is_attachment() => None,
        Some(load) => refuse(&demand, load),
        // The orchestrator removes the task of a node that is gone.
        None => return,
    };
    let Some(filter) = refusal else {
        loads.assume(&task.node_id, &demand.weight);
        assign(draft, &task.id, task.node_id.clone(), CONFIRMED_MESSAGE, now);
        outcome.placed += 1;
        return;
    };
    let mut refusals = Refusals::default();
    refusals.count(filter);
    leave(draft, task, refusals.reasons(), refusals.is_about_capacity(), now, outcome);
}

fn place_group(
    draft: &mut Draft<'_>,
    loads: &mut Loads,
    tasks: &[(u64, TaskId)],
    now: Timestamp,
    outcome: &mut Outcome,
) {
    let Some(task) = tasks.first().and_then(|(_, id)| draft.task(id)) else { return };
    let demand = Demand::of(task, draft.store());
    let failures = failures(draft, tasks, now);
    let mut pick = Pick::default();
    let mut tree = (!demand.spread.is_empty()).then(|| {
        let fitting = loads.by_tasks().filter(|(_, load)| refuse(&demand, load).is_none()).collect();
        Branch::grow(&demand, &failures, 0, fitting)
    });
    let mut rest = tasks.iter();
    for (_, id) in rest.by_ref() {
        let node = match &mut tree {
            Some(tree) => tree.take(&demand, &failures, loads),
            None => pick.take(&demand, &failures, loads),
        };
        let Some(node) = node else {
            // The others of the group ask for the same: none of them finds a node either.
            let refusals = explain(&demand, loads);
            for id in std::iter::once(id).chain(rest.map(|(_, id)| id)) {
                let Some(task) = draft.task(id).cloned() else { continue };
                let because = refusals.no_suitable_node();
                leave(draft, &task, because, refusals.is_about_capacity(), now, outcome);
            }
            return;
        };
        assign(draft, id, node, ASSIGNED_MESSAGE, now);
        outcome.placed += 1;
    }
}

fn explain(demand: &Demand, loads: &Loads) -> Refusals {
    let mut refusals = Refusals::default();
    for (_, load) in loads.by_tasks() {
        if let Some(filter) = refuse(demand, load) {
            refusals.count(filter);
        }
    }
    refusals
}

/// Recent failures of the group's earlier tasks per node; only nodes with many are told apart.
fn failures(draft: &Draft<'_>, tasks: &[(u64, TaskId)], now: Timestamp) -> Failures {
    let mut failures = Failures::new();
    let tasks = tasks.iter().filter_map(|(_, id)| draft.task(id));
    for restart in tasks.flat_map(|task| &task.internal.restarts.recent) {
        // One of the future is of a clock that was wrong.
        if restart.failed && restart.at <= now && restart.at + FAILURE_MEMORY >= now {
            *failures.entry(restart.node.clone()).or_default() += 1;
        }
    }
    failures.retain(|_, count| *count >= MANY_FAILURES);
    failures
}

fn assign(draft: &mut Draft<'_>, task: &TaskId, node: NodeId, message: &str, now: Timestamp) {
    draft.change_task(task, |task| {
        task.node_id = node;
        task.internal.applied_at = now;
        task.status = TaskStatus {
            timestamp: now,
            state: TaskState::Assigned,
            message: message.to_owned(),
            ..TaskStatus::default()
        };
    });
}

/// Leaves a task where it is, with an explanation; one that has it already is not written again.
fn leave(
    draft: &mut Draft<'_>,
    task: &Task,
    because: String,
    needs_room: bool,
    now: Timestamp,
    outcome: &mut Outcome,
) {
    if task.status.err != because {
        let mut explained = task.clone();
        explained.status.err.clone_from(&because);
        explained.status.timestamp = now;
        draft.put_task(explained);
    }
    let (service, task) = (task.service_id.clone(), task.id.clone());
    outcome.unplaced.push(Unplaced { service, task, because, needs_room });
}

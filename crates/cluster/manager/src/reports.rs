//! Gathers what nodes report of their tasks, so that many reports share a commit, and a follower's a call.
//!
//! In: reports of sessions. Out: one operation for all that wait. While one is under way the next gathers: there is no
//! timer.

use std::collections::BTreeMap;

use objects::{NodeId, Task, TaskId, TaskStatus};
use store::{Store, Write};
use tokio::sync::{mpsc, oneshot};
use wire::forward::{NodeReports, Operation, Outcome};

use crate::clock;
use crate::error::ManagerError;
use crate::manager::Manager;
use crate::propose::{Beside, Decided};

/// Reports that may wait. chosen: one call of each of many nodes; whoever comes later waits to be let in.
const QUEUE: usize = 256;

/// Statuses per operation. chosen: what a call between managers carries easily.
const STATUSES: usize = 1024;

/// Statuses per log entry. Source: swarmkit, `manager/state/store/memory.go` (`MaxChangesPerTransaction` 200).
const PER_ENTRY: usize = 200;

/// Reports and who waits for them.
pub(crate) struct Reported {
    reports: NodeReports,
    done: oneshot::Sender<Result<(), ManagerError>>,
}

/// Where reports are handed in.
pub(crate) struct Reports {
    queue: mpsc::Sender<Reported>,
}

impl Reports {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Reported>) {
        let (queue, incoming) = mpsc::channel(QUEUE);
        (Self { queue }, incoming)
    }

    /// Hands reports in and waits until they are committed.
    pub(crate) async fn take(
        &self,
        node: &NodeId,
        statuses: Vec<(TaskId, TaskStatus)>,
    ) -> Result<(), ManagerError> {
        let (done, is_done) = oneshot::channel();
        let reports = NodeReports { node: node.clone(), statuses };
        self.queue.send(Reported { reports, done }).await.map_err(|_| ManagerError::Stopping)?;
        is_done.await.map_err(|_| ManagerError::Stopping)?
    }
}

/// Until the manager stops.
pub(crate) async fn run(manager: Manager, mut incoming: mpsc::Receiver<Reported>) {
    let stopping = manager.inner.stopping.clone();
    while let Some(Some(first)) = stopping.run_until_cancelled(incoming.recv()).await {
        let mut count = first.reports.statuses.len();
        let (mut reports, mut waiting) = (vec![first.reports], vec![first.done]);
        while count < STATUSES
            && let Ok(next) = incoming.try_recv()
        {
            count += next.reports.statuses.len();
            reports.push(next.reports);
            waiting.push(next.done);
        }
        let result = manager.perform(Operation::Observe { reports }).await.map(drop);
        for done in waiting {
            let copy = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(error.for_manager().into()),
            };
            // A session that has ended needs no answer.
            drop(done.send(copy));
        }
    }
}

impl Manager {
    /// At the leader: writes what is news in reports, in as many entries of the log as it needs.
    pub(crate) async fn do_observe(&self, reports: &[NodeReports]) -> Result<Decided<Outcome>, ManagerError> {
        let all: Vec<(&NodeId, &(TaskId, TaskStatus))> = reports
            .iter()
            .flat_map(|reports| reports.statuses.iter().map(|status| (&reports.node, status)))
            .collect();
        let (mut from, mut size, mut applied) = (0, PER_ENTRY, 0);
        while from < all.len() {
            let to = all.len().min(from + size);
            match self.change(Beside::Others, |store, _| Ok(((), observed(store, &all[from..to])))).await {
                Ok(decided) => (from, applied) = (to, decided.applied),
                Err(ManagerError::TooLarge) if size > 1 => size /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(Decided { value: Outcome::Done, applied })
    }
}

/// One write for each task of which something new is reported. A task that was deleted in the meantime, or given to
/// another node, is no mistake of the node's.
fn observed(store: &Store, reports: &[(&NodeId, &(TaskId, TaskStatus))]) -> Vec<Write> {
    let now = clock::now();
    let mut changed: BTreeMap<&TaskId, Task> = BTreeMap::new();
    for (node, (id, status)) in reports {
        let known = changed.get(id).or_else(|| store.task(id).map(AsRef::as_ref));
        let own = known.filter(|task| task.node_id == **node);
        if let Some(next) = own.and_then(|task| task.observed(status.clone(), now)) {
            changed.insert(id, next);
        }
    }
    changed.into_values().map(Write::update).collect()
}

//! Places of plain containers on networks of the swarm.
//!
//! In: requests of nodes. Out: the addresses that the control loop gave, or why it gave none. What ends a place is the
//! node's report that its container has gone.

use std::time::Duration;

use control::attach::{self, Guest};
use objects::{NodeId, Task, TaskId, TaskState, TaskStatus};
use wire::attach::{AttachRequest, Attached};
use wire::forward::{NodeReports, Operation, Outcome};

use crate::clock;
use crate::error::ManagerError;
use crate::manager::Manager;
use crate::perform::unexpected;
use crate::propose::{Beside, Decided};

/// How long a node waits for addresses. chosen: a step takes milliseconds; after this, something is wrong.
const WITHIN: Duration = Duration::from_secs(10);

impl Manager {
    /// Gives a container of `node` a place on a network; returns when it has addresses there.
    pub async fn attach_container(
        &self,
        node: &NodeId,
        request: AttachRequest,
    ) -> Result<Attached, ManagerError> {
        let operation = Operation::Attach { id: self.new_id(), node: node.clone(), request };
        let ((), mut feed) = self.inner.consensus.follow(|_| ());
        let task = match self.perform(operation).await? {
            Outcome::Attached { task } => task,
            other => return Err(unexpected(&other)),
        };
        let placed = async {
            loop {
                let known = self.inner.consensus.read().task(&task).cloned();
                let Some(known) = known else { return Err(gone(&task)) };
                if known.status.state >= TaskState::Assigned {
                    return Ok(attached(&known));
                }
                if !known.status.err.is_empty() {
                    return Err(ManagerError::NoPlace { reason: known.status.err.clone() });
                }
                feed.next().await.ok_or(ManagerError::Stopping)?;
            }
        };
        let placed = tokio::time::timeout(WITHIN, placed).await.unwrap_or(Err(ManagerError::TooSlow));
        if placed.is_err() {
            self.give_up(node, task).await;
        }
        placed
    }

    /// Takes back a place that nobody got.
    async fn give_up(&self, node: &NodeId, task: TaskId) {
        let status =
            TaskStatus { state: TaskState::Rejected, timestamp: clock::now(), ..TaskStatus::default() };
        let reports = vec![NodeReports { node: node.clone(), statuses: vec![(task, status)] }];
        if let Err(error) = self.perform(Operation::Observe { reports }).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a place on a network that nobody got stays until its node is gone"
            );
        }
    }

    /// At the leader: makes the task that stands for a container.
    pub(crate) async fn do_attach(
        &self,
        id: &TaskId,
        node: &NodeId,
        request: &AttachRequest,
    ) -> Result<Decided<Outcome>, ManagerError> {
        self.change(Beside::Nobody, |store, _| {
            if store.node(node).is_none() {
                return Err(ManagerError::UnknownNode { node: node.clone() });
            }
            let guest = Guest {
                node,
                container: &request.container,
                names: &request.names,
                addresses: &request.addresses,
            };
            let (task, writes) = attach::attach(store, id, &request.network, guest, clock::now())?;
            Ok((Outcome::Attached { task }, writes))
        })
        .await
    }
}

fn attached(task: &Task) -> Attached {
    let place = task.networks_attachments.first().cloned().unwrap_or_default();
    Attached { task: task.id.clone(), network: place.network.to_string(), addresses: place.addresses }
}

fn gone(task: &TaskId) -> ManagerError {
    ManagerError::NoPlace { reason: format!("task {task} was removed meanwhile") }
}

//! A node's session: what it should run goes out, what it runs comes in.
//!
//! In: the node's description, its reports. Out: assignments, complete first, then what changed. It is in-process now; a
//! transport to other machines serves the same calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use objects::{Node, NodeDescription, NodeId, NodeState, NodeStatus, Task, TaskId, TaskState, TaskStatus};
use raft::{ChangeFeed, Commit, FeedItem};
use store::{Change, Kind, Object, Store, Write};

use crate::clock;
use crate::error::ManagerError;
use crate::manager::Manager;

/// Statuses that one call may carry. Source: swarmkit, `agent/agent.go` (1024 per call).
const REPORTS_PER_CALL: usize = 1024;

/// A task with what only the node that runs it may know.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The task.
    pub task: Arc<Task>,
    /// The registry's credentials as the API's header has them; empty for none. Kept in memory only.
    pub registry_auth: String,
}

/// What a node should run.
#[derive(Clone, Debug)]
pub enum Assignments {
    /// Exactly these tasks, and no other.
    Complete(Vec<Assignment>),
    /// These are new or changed, those are gone.
    Incremental {
        /// New or changed.
        update: Vec<Assignment>,
        /// No longer assigned: their containers go.
        remove: Vec<TaskId>,
    },
}

/// A node's session with this manager.
pub struct Session {
    manager: Manager,
    node: NodeId,
    feed: ChangeFeed,
    /// The first message, until it was taken.
    complete: Option<Vec<Assignment>>,
}

impl Manager {
    /// Opens a session: the node is ready from now on, with this description and address.
    pub async fn open_session(
        &self,
        node: &NodeId,
        description: NodeDescription,
        address: &str,
    ) -> Result<Session, ManagerError> {
        self.change(|store, _| {
            let known = store.node(node).ok_or_else(|| ManagerError::UnknownNode { node: node.clone() })?;
            let status =
                NodeStatus { state: NodeState::Ready, addr: address.to_owned(), message: String::new() };
            let tls_info = known.description.tls_info.clone();
            let description = NodeDescription { tls_info, ..description.clone() };
            if known.status == status && known.description == description {
                return Ok(((), Vec::new()));
            }
            let mut next = Node { status, description, ..(**known).clone() };
            if known.status.state != NodeState::Ready {
                next.internal.status_since = clock::now();
            }
            Ok(((), vec![Write::update(next)]))
        })
        .await?;
        let (complete, feed) = self.inner.consensus.follow(|store| assigned(store, node));
        Ok(Session { manager: self.clone(), node: node.clone(), feed, complete: Some(complete) })
    }

    /// Takes reports of a node's tasks. Only news is written: a state that is not later than the known one is not.
    pub async fn report(
        &self,
        node: &NodeId,
        reports: Vec<(TaskId, TaskStatus)>,
    ) -> Result<(), ManagerError> {
        let mut reports = reports;
        while !reports.is_empty() {
            let rest = reports.split_off(reports.len().min(REPORTS_PER_CALL));
            self.change(|store, _| Ok(((), observed(store, node, &reports)?))).await?;
            reports = rest;
        }
        Ok(())
    }
}

impl Session {
    /// The manager this session is with.
    #[must_use]
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Waits for what the node should run: everything at first, then what changed. `None` when the manager stops.
    pub async fn next(&mut self) -> Option<Assignments> {
        if let Some(complete) = self.complete.take() {
            return Some(Assignments::Complete(complete));
        }
        loop {
            let mut changed = BTreeMap::new();
            let mut is_behind = self.take(&mut changed, None).await?;
            while let Some(item) = self.feed.try_next() {
                is_behind |= self.take(&mut changed, Some(item)).await?;
            }
            if is_behind {
                let (complete, feed) =
                    self.manager.inner.consensus.follow(|store| assigned(store, &self.node));
                self.feed = feed;
                return Some(Assignments::Complete(complete));
            }
            if !changed.is_empty() {
                return Some(self.incremental(changed));
            }
        }
    }

    /// Notes one item of the feed (the next one, if it is not given); whether the session has fallen behind.
    async fn take(
        &mut self,
        changed: &mut BTreeMap<TaskId, Option<Arc<Task>>>,
        item: Option<FeedItem>,
    ) -> Option<bool> {
        let item = match item {
            Some(item) => item,
            None => self.feed.next().await?,
        };
        Some(match item {
            FeedItem::Resync => true,
            FeedItem::Commit(commit) => {
                self.note(&commit, changed);
                false
            }
        })
    }

    fn note(&self, commit: &Commit, changed: &mut BTreeMap<TaskId, Option<Arc<Task>>>) {
        for change in commit.changes.iter().filter(|change| change.kind == Kind::Task) {
            let (before, after) =
                (self.mine(change, |change| &change.before), self.mine(change, |change| &change.after));
            match (before, after) {
                (_, Some(after)) if before.is_none_or(|before| is_news(before, after)) => {
                    changed.insert(after.id.clone(), Some(Arc::clone(after)));
                }
                (Some(before), None) => {
                    changed.insert(before.id.clone(), None);
                }
                _ => {}
            }
        }
    }

    fn mine<'a>(
        &self,
        change: &'a Change,
        side: impl Fn(&'a Change) -> &'a Option<Object>,
    ) -> Option<&'a Arc<Task>> {
        side(change).as_ref()?.as_task().filter(|task| is_assigned(task, &self.node))
    }

    fn incremental(&self, changed: BTreeMap<TaskId, Option<Arc<Task>>>) -> Assignments {
        let store = self.manager.inner.consensus.read();
        let mut update = Vec::new();
        let mut remove = Vec::new();
        for (id, task) in changed {
            match task {
                Some(task) => update.push(assignment(&store, task)),
                None => remove.push(id),
            }
        }
        Assignments::Incremental { update, remove }
    }
}

/// Whether a node learns about a task: only once it was given to it.
fn is_assigned(task: &Task, node: &NodeId) -> bool {
    task.node_id == *node && task.status.state >= TaskState::Assigned
}

/// Whether the node has anything to do about a change; its own report is none.
fn is_news(before: &Task, after: &Task) -> bool {
    before.desired_state != after.desired_state
        || before.spec != after.spec
        || before.internal.ports != after.internal.ports
}

fn assigned(store: &Store, node: &NodeId) -> Vec<Assignment> {
    let tasks = store.tasks_on_node(node).filter(|task| is_assigned(task, node));
    tasks.map(|task| assignment(store, Arc::clone(task))).collect()
}

fn assignment(store: &Store, task: Arc<Task>) -> Assignment {
    let service = store.service(&task.service_id);
    let registry_auth = service.map(|service| service.internal.registry_auth.clone()).unwrap_or_default();
    Assignment { task, registry_auth }
}

fn observed(
    store: &Store,
    node: &NodeId,
    reports: &[(TaskId, TaskStatus)],
) -> Result<Vec<Write>, ManagerError> {
    let now = clock::now();
    let mut writes = Vec::new();
    for (id, status) in reports {
        // A task that was deleted in the meantime is no mistake of the node's.
        let Some(task) = store.task(id) else { continue };
        if task.node_id != *node {
            return Err(ManagerError::NotYourTask { task: id.clone() });
        }
        writes.extend(task.observed(status.clone(), now).map(Write::update));
    }
    Ok(writes)
}

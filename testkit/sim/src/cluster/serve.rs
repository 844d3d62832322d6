//! What a manager of the world does for others: sessions and reports of agents, certificates, and wishes of users.
//!
//! In: calls. Out: answers; what has to be decided is decided at the leader.

use std::sync::Arc;
use std::time::Duration;

use control::request;
use dispatch::{Marks, Told};
use futures_util::FutureExt as _;
use membership::roles;
use objects::{Availability, Node, NodeId, NodeRole, NodeState, TaskId, TaskStatus};
use store::{Store, Write};
use wire::session::Assignments;

use crate::chance::{Chance, ids};
use crate::cluster::manager::{Manager, lock};
use crate::user;

/// How long a question for news stays open.
const LONG_POLL: Duration = Duration::from_secs(1);

/// A manager that has not heard from the leader for so long sends its agents away. Source: the manager's.
const CUT_OFF: Duration = Duration::from_secs(1);

/// Managers per world at most. chosen: more make no new situations.
const MAX_MANAGERS: usize = 5;

/// What an agent hears of its manager.
pub(crate) struct News {
    pub(crate) assignments: Option<Assignments>,
    /// The role that the node's certificate should have, as far as this manager knows.
    pub(crate) role: NodeRole,
    /// Of the swarm's log.
    pub(crate) epoch: u64,
}

/// What a certificate says, and what a new manager has to know.
pub(crate) struct Certified {
    pub(crate) role: NodeRole,
    /// Of the swarm's log.
    pub(crate) epoch: u64,
}

impl Manager {
    /// Opens a session of a node: it is ready from now on. Gives the session's number and everything to run.
    pub(crate) async fn open(self: &Arc<Self>, node: NodeId) -> Option<(u64, Assignments)> {
        let session = {
            let mut next = lock(&self.next_session);
            *next += 1;
            *next
        };
        let (name, asked) = (self.session_name(session), node.clone());
        let index = self.at_leader(move |leader| leader.ready(asked.clone(), name.clone()).boxed()).await?;
        // A replica that is behind would not list tasks that run.
        self.log.wait_applied(index).await.ok()?;
        let (told, all) = Told::everything(&self.log.read(), &node);
        lock(&self.sessions).insert(node, (session, told));
        Some((session, all))
    }

    /// At the leader: a node opened a session with some manager.
    async fn ready(self: Arc<Self>, node: NodeId, session: String) -> Option<u64> {
        self.log.read_barrier().await.ok()?;
        lock(&self.leases).opened(&node, &session, self.shared.moment());
        let now = self.shared.wall(self.machine);
        let known = self.log.read().node(&node).cloned()?;
        if known.status.state != NodeState::Ready {
            let mut next = Node::clone(&known);
            next.status.state = NodeState::Ready;
            next.status.message.clear();
            next.internal.status_since = now;
            return self.commit(|_| vec![Write::update(next)]).await;
        }
        Some(self.log.applied_index())
    }

    /// News of a session, or that there are none for a while; `None` when the session is not known.
    pub(crate) async fn news(self: Arc<Self>, node: NodeId, session: u64) -> Option<News> {
        let ((), mut feed) = self.log.follow(|_| ());
        let deadline = self.shared.time.sleep(LONG_POLL);
        futures_util::pin_mut!(deadline);
        loop {
            // A node that was judged to be gone has to come back to the leader of now.
            let is_given_up =
                |node: &Arc<Node>| matches!(node.status.state, NodeState::Down | NodeState::Disconnected);
            let is_gone = self.log.read().node(&node).is_none_or(is_given_up);
            if is_gone || self.log.last_contact_with_leader().is_none_or(|ago| ago > CUT_OFF) {
                lock(&self.sessions).remove(&node);
                return None;
            }
            {
                let mut sessions = lock(&self.sessions);
                let (current, told) = sessions.get_mut(&node)?;
                if *current != session {
                    return None;
                }
                // Agents of this world have no networks: what changes about those is no news to them.
                if let Some(news) = told.news(&self.log.read(), &Marks::default()) {
                    return Some(self.news_of(&node, Some(news)));
                }
            }
            tokio::select! {
                biased;
                item = feed.next() => drop(item?),
                () = &mut deadline => return Some(self.news_of(&node, None)),
            }
        }
    }

    /// Takes reports of a node; whether they are committed.
    pub(crate) async fn report(self: Arc<Self>, node: NodeId, statuses: Vec<(TaskId, TaskStatus)>) -> bool {
        let taken = move |leader: Arc<Manager>| {
            let (node, statuses) = (node.clone(), statuses.clone());
            async move {
                let now = leader.shared.wall(leader.machine);
                let observed = |store: &Store| {
                    let tasks = statuses.iter().filter_map(|(id, status)| {
                        let task = store.task(id).filter(|task| task.node_id == node)?;
                        task.observed(status.clone(), now).map(Write::update)
                    });
                    tasks.collect::<Vec<_>>()
                };
                let is_known = observed(&leader.log.read()).is_empty();
                // Known already, as far as this leader can tell: it must still be the leader to say so.
                if is_known {
                    return leader.log.read_barrier().await.ok();
                }
                leader.commit(observed).await.map(drop)
            }
            .boxed()
        };
        self.at_leader(taken).await.is_some()
    }

    fn session_name(&self, session: u64) -> String {
        format!("{}-{session}", self.machine)
    }

    /// The name of the session that a node has here.
    pub(crate) fn session_of(&self, node: &NodeId) -> Option<String> {
        lock(&self.sessions).get(node).map(|(session, _)| self.session_name(*session))
    }

    fn news_of(&self, node: &NodeId, assignments: Option<Assignments>) -> News {
        let role = self.log.read().node(node).map_or(NodeRole::Worker, |node| node.internal.certified_role);
        News { assignments, role, epoch: self.log.epoch() }
    }

    /// The certificate of a node, from the leader.
    pub(crate) async fn certificate(self: Arc<Self>, node: NodeId) -> Option<Certified> {
        let issued = move |leader: Arc<Manager>| {
            let node = node.clone();
            async move {
                leader.log.read_barrier().await.ok()?;
                let role = leader.log.read().node(&node)?.internal.certified_role;
                Some(Certified { role, epoch: leader.log.epoch() })
            }
            .boxed()
        };
        self.at_leader(issued).await
    }

    /// A user asks for something that chance decides; the epoch and the index that were acknowledged.
    pub(crate) async fn serve_user(self: Arc<Self>, wish: u64) -> Option<(u64, u64)> {
        let served = move |leader: Arc<Manager>| {
            async move {
                let now = leader.shared.wall(leader.machine);
                let (mut chance, mut source) = (Chance::new(wish, 30), ids(wish, 31));
                let index = if chance.percent(8) {
                    leader.commit(|store| leader.change_role(store, &mut chance)).await
                } else {
                    leader.commit(|store| user::request(store, now, &mut source, &mut chance)).await
                };
                index.map(|index| (leader.log.epoch(), index))
            }
            .boxed()
        };
        self.at_leader(served).await
    }

    /// A user reads; the epoch and the index of what it saw.
    pub(crate) async fn serve_reader(self: Arc<Self>) -> Option<(u64, u64)> {
        let served = |leader: Arc<Manager>| {
            async move {
                leader.log.read_barrier().await.ok()?;
                Some((leader.log.epoch(), leader.log.applied_index()))
            }
            .boxed()
        };
        self.at_leader(served).await
    }

    /// Promotes or demotes a node, if that may be.
    fn change_role(&self, store: &Store, chance: &mut Chance) -> Vec<Write> {
        let nodes: Vec<_> = store.nodes().cloned().collect();
        let managers = nodes.iter().filter(|node| node.spec.role == NodeRole::Manager).count();
        let Some(node) = chance.pick(&nodes) else { return Vec::new() };
        let mut spec = node.spec.clone();
        spec.role = match spec.role {
            NodeRole::Manager => NodeRole::Worker,
            NodeRole::Worker if managers < MAX_MANAGERS => NodeRole::Manager,
            NodeRole::Worker => return Vec::new(),
        };
        if roles::may_change(store, &self.view(), node, &spec).is_err() {
            return Vec::new();
        }
        request::update_node(store, &node.id, node.meta.version, spec).unwrap_or_default()
    }

    /// A user makes everything work: nodes take tasks, images are good. `None` until all of it is committed.
    pub(crate) async fn heal(self: Arc<Self>) -> Option<()> {
        let healed = |leader: Arc<Manager>| {
            async move {
                leader.log.read_barrier().await.ok()?;
                let (services, nodes): (Vec<_>, Vec<_>) = {
                    let store = leader.log.read();
                    let ill = store.services().filter(|service| !user::is_healed(service)).cloned();
                    let idle =
                        store.nodes().filter(|node| node.spec.availability != Availability::Active).cloned();
                    (ill.collect(), idle.collect())
                };
                let mut lost_races = 0;
                for service in services {
                    let write = leader.commit(|store| user::heal(store, &service)).await;
                    lost_races += usize::from(write.is_none());
                }
                for node in nodes {
                    let mut next = Node::clone(&node);
                    next.spec.availability = Availability::Active;
                    let write = leader.commit(|_| vec![Write::update(next)]).await;
                    lost_races += usize::from(write.is_none());
                }
                (lost_races == 0).then_some(())
            }
            .boxed()
        };
        self.at_leader(healed).await
    }
}

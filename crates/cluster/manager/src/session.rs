//! A node's session: what it should know and run goes out, what it runs comes in.
//!
//! In: the node's description, its reports. Out: who it is and whom to turn to, then assignments, complete first, then
//! what changed: all from this manager's replica. The same for a node over the network and for this process's own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dispatch::Told;
use objects::{
    Node, NodeDescription, NodeId, NodeInternal, NodeState, NodeStatus, TaskId, TaskStatus, Timestamp,
};
use store::{Store, Write};
use wire::forward::{NodeOpens, Operation, Outcome};
use wire::session::{
    Bye, Changed, Farewell, GoodbyeRequest, Heartbeat, Hello, OpenRequest, REPORTS_PER_CALL, SessionId,
    SessionMessage,
};

use crate::clock;
use crate::error::{ClockOff, ManagerError};
use crate::manager::Manager;
use crate::propose::{Beside, Decided};
use crate::sessions::{self, Common, Place};

/// A node whose clock is off by this is told so in its status. chosen: certificates are valid from an hour ago.
pub(crate) const CLOCK_MAY_BE_OFF_MS: i64 = 30 * 60 * 1000;

/// Where a session's node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On another machine, or in another process.
    Network,
    /// In this process: it is alive as long as this manager is.
    Here,
}

/// A node's session with this manager. Dropped without a goodbye, its node is missing.
pub struct Session {
    manager: Manager,
    node: NodeId,
    place: Place,
    /// What the node knows of itself and of the swarm.
    known: Node,
    common: Arc<Common>,
    told: Told,
    ready: VecDeque<SessionMessage>,
    is_over: bool,
}

impl Manager {
    /// Opens a session: the node is ready from now on, with this description and address (without a port).
    ///
    /// `request.now` is compared with this manager's clock. The first messages are its greeting and everything it should
    /// run.
    pub async fn open_session(
        &self,
        node: &NodeId,
        request: OpenRequest,
        origin: Origin,
    ) -> Result<Session, ManagerError> {
        self.inner.sessions.admit(node, request.resumes.is_some())?;
        let session = SessionId(self.new_id());
        let offset_ms = request.now.since(clock::now()).0 / 1_000_000;
        let opens = NodeOpens {
            node: node.clone(),
            description: request.description,
            address: request.address,
            data_path_address: request.data_path_address,
            own_networks: request.own_networks,
            encryption_generation: request.encryption_generation,
            session: session.clone(),
            clock_offset_ms: if request.now.is_zero() { 0 } else { offset_ms },
        };
        let opened = self.performed(Operation::OpenSession(Box::new(opens))).await?;
        if self.inner.consensus.applied_index() < opened.applied {
            // What this replica would list is old: the node would remove what it does not find there.
            return Err(ManagerError::Stopping);
        }
        // It is rung from here on, so that nothing is missed between this and the first look at the store.
        let place = self.inner.sessions.enter(node, session, origin == Origin::Here)?;
        self.inner.vitals.opened(node, &place.session);
        Session::start(self.clone(), node, place)
    }

    /// Takes a node's goodbye: it leaves, or will be back.
    pub fn goodbye(&self, node: &NodeId, goodbye: &GoodbyeRequest) -> Result<(), ManagerError> {
        if !self.inner.sessions.is_open(node, &goodbye.session) {
            return Err(ManagerError::UnknownSession);
        }
        match goodbye.farewell {
            Farewell::Leaving => self.inner.vitals.left(node, &goodbye.session),
            Farewell::Hold { ms } => {
                self.inner.vitals.hold(node, &goodbye.session, Duration::from_millis(ms));
            }
            // Of a later version: the end of its session will tell.
            Farewell::Unknown => {}
        }
        Ok(())
    }

    /// Takes reports of a node's tasks, at most [`REPORTS_PER_CALL`] at a time; it is a sign of life as well. Returns when
    /// they are committed. Only news is written: a state that is not later than the known one is not.
    pub async fn report(
        &self,
        node: &NodeId,
        statuses: Vec<(TaskId, TaskStatus)>,
    ) -> Result<(), ManagerError> {
        if let Some(session) = self.inner.sessions.of_node(node) {
            self.inner.vitals.proof(node, &session);
        }
        {
            let store = self.inner.consensus.read();
            let is_foreign = |id: &TaskId| store.task(id).is_some_and(|task| task.node_id != *node);
            if let Some((task, _)) = statuses.iter().find(|(task, _)| is_foreign(task)) {
                return Err(ManagerError::NotYourTask { task: task.clone() });
            }
        }
        let mut statuses = statuses;
        while !statuses.is_empty() {
            let rest = statuses.split_off(statuses.len().min(REPORTS_PER_CALL));
            self.inner.reports.take(node, statuses).await?;
            statuses = rest;
        }
        Ok(())
    }

    /// At the leader: the node is there.
    pub(crate) async fn do_open_session(&self, opens: &NodeOpens) -> Result<Decided<Outcome>, ManagerError> {
        // Even when nothing is to be written, the answer's index stands for everything that was acknowledged.
        self.inner.consensus.read_barrier().await?;
        known(&self.inner.consensus.read(), &opens.node).map_err(removed)?;
        // Before the write: nobody must judge by what was before.
        self.inner.vitals.opens(&opens.node, &opens.session);
        self.change(Beside::Others, |store, _| {
            let known = known(store, &opens.node)?;
            let status = NodeStatus {
                state: NodeState::Ready,
                addr: opens.address.clone(),
                message: clock_message(opens),
            };
            let description = described(known, &opens.description);
            let data_path = opens.data_path_address.as_deref().unwrap_or_default();
            let is_known = known.status == status
                && known.description == description
                && known.internal.own_networks == opens.own_networks
                && known.internal.encryption_generation == opens.encryption_generation
                && known.internal.data_path_addr == data_path;
            if is_known {
                return Ok((Outcome::Done, Vec::new()));
            }
            let mut next = Node { status, description, ..known.clone() };
            data_path.clone_into(&mut next.internal.data_path_addr);
            next.internal.own_networks.clone_from(&opens.own_networks);
            next.internal.encryption_generation = opens.encryption_generation;
            next.internal.tasks_move_at = Timestamp::default();
            if known.status.state != NodeState::Ready {
                next.internal.status_since = clock::now();
            }
            Ok((Outcome::Done, vec![Write::update(next)]))
        })
        .await
    }
}

/// A node of the swarm, or why it is none.
pub(crate) fn known<'a>(store: &'a Store, node: &NodeId) -> Result<&'a Node, ManagerError> {
    match store.node(node) {
        Some(known) => Ok(known),
        None if store.cluster().is_some_and(|cluster| membership::trust::is_removed(cluster, node)) => {
            Err(ManagerError::RemovedNode)
        }
        None => Err(ManagerError::UnknownNode { node: node.clone() }),
    }
}

/// At the leader, which knows every node: one that the swarm does not have was removed, if longer ago than is remembered.
pub(crate) fn removed(error: ManagerError) -> ManagerError {
    match error {
        ManagerError::UnknownNode { .. } => ManagerError::RemovedNode,
        error => error,
    }
}

/// A node that does not say what it trusts keeps what it said before.
fn described(known: &Node, description: &NodeDescription) -> NodeDescription {
    let mut description = description.clone();
    if description.tls_info.trust_root.is_empty() {
        description.tls_info = known.description.tls_info.clone();
    }
    description
}

/// What a node's status says of its clock.
fn clock_message(opens: &NodeOpens) -> String {
    if opens.clock_offset_ms.abs() < CLOCK_MAY_BE_OFF_MS {
        return String::new();
    }
    let machine = format!("{} ({})", opens.description.hostname, opens.address);
    let off = ClockOff { machine, offset_ms: opens.clock_offset_ms };
    tracing::warn!(node.id = %opens.node, "{off}");
    off.to_string()
}

impl Session {
    fn start(manager: Manager, node: &NodeId, place: Place) -> Result<Self, ManagerError> {
        let common = manager.inner.sessions.common();
        let found = {
            let store = manager.inner.consensus.read();
            known(&store, node).map(|known| {
                let (told, all) = Told::everything(&store, node);
                manager.inner.sessions.tells(node, &place, told.networks());
                (shown(known), (told, all))
            })
        };
        let (known, (told, assignments)) = match found {
            Ok(found) => found,
            Err(error) => {
                manager.inner.sessions.leave(node, &place.session);
                return Err(error);
            }
        };
        if is_given_up(&known) {
            place.bye.send_replace(Some(sessions::given_up()));
        }
        let hello = Hello {
            session: place.session.clone(),
            node: known.clone(),
            managers: common.managers.clone(),
            root: common.root.clone(),
            heartbeat: heartbeat(&manager, node, &common),
            network_keys: common.network_keys.clone(),
        };
        let ready = VecDeque::from([
            SessionMessage::Hello(Box::new(hello)),
            SessionMessage::Assignments(assignments),
        ]);
        Ok(Self { manager, node: node.clone(), place, known, common, told, ready, is_over: false })
    }

    /// The manager this session is with.
    #[must_use]
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// The session's name: reports and the goodbye carry it.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.place.session
    }

    /// Waits for the next message. The last one is a goodbye; `None` after that. Cancel safe.
    pub async fn next(&mut self) -> Option<SessionMessage> {
        let mut bye = self.place.bye.subscribe();
        loop {
            if let Some(bye) = self.bye(&bye.borrow_and_update().clone()) {
                return bye;
            }
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            tokio::select! {
                // This session holds the sender itself.
                _ = bye.changed() => {}
                () = self.place.ring.notified() => self.look(),
            }
        }
    }

    /// The end, when it has come: once as a message, then as nothing.
    fn bye(&mut self, bye: &Option<Bye>) -> Option<Option<SessionMessage>> {
        let bye = bye.as_ref()?;
        let was_over = std::mem::replace(&mut self.is_over, true);
        Some((!was_over).then(|| SessionMessage::Bye(bye.clone())))
    }

    /// Compares what the node was told with the replica.
    fn look(&mut self) {
        let common = self.manager.inner.sessions.common();
        let marks = self.place.take_marks();
        let (now, news) = {
            let store = self.manager.inner.consensus.read();
            let news = self.told.news(&store, &marks);
            self.manager.inner.sessions.tells(&self.node, &self.place, self.told.networks());
            (store.node(&self.node).map(|node| shown(node)), news)
        };
        if now.as_ref().is_some_and(is_given_up) {
            self.place.bye.send_replace(Some(sessions::given_up()));
            return;
        }
        let mut changed = Changed::default();
        if let Some(now) = now.filter(|now| *now != self.known) {
            changed.renew =
                now.internal.must_renew || now.internal.certified_role != self.known.internal.certified_role;
            self.known = now.clone();
            changed.node = Some(now);
        }
        if !Arc::ptr_eq(&common, &self.common) {
            let before = std::mem::replace(&mut self.common, Arc::clone(&common));
            changed.managers = (before.managers != common.managers).then(|| common.managers.clone());
            changed.root = (before.root != common.root).then(|| common.root.clone());
            changed.heartbeat =
                (before.period_ms != common.period_ms).then(|| heartbeat(&self.manager, &self.node, &common));
            changed.network_keys =
                (before.network_keys != common.network_keys).then(|| common.network_keys.clone());
        }
        if changed != Changed::default() {
            self.ready.push_back(SessionMessage::Changed(Box::new(changed)));
        }
        self.ready.extend(news.map(SessionMessage::Assignments));
        let wishes = std::iter::from_fn(|| self.place.next_wish());
        self.ready.extend(wishes.map(|wish| SessionMessage::Logs(Box::new(wish))));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.manager.inner.sessions.leave(&self.node, &self.place.session) {
            self.manager.inner.vitals.closed(&self.node, &self.place.session);
        }
    }
}

/// Whether the leader holds a node for gone. One that has a session had it judged READY by opening it: whoever judged it
/// since does not know the session, and would never judge it READY again.
fn is_given_up(node: &Node) -> bool {
    matches!(node.status.state, NodeState::Down | NodeState::Disconnected)
}

/// The node as it may see itself: of what only managers know, just what tells it to ask for another certificate. Its
/// version is left out: it changes with every write.
fn shown(node: &Node) -> Node {
    let internal = NodeInternal {
        certified_role: node.internal.certified_role,
        must_renew: node.internal.must_renew,
        ..NodeInternal::default()
    };
    Node {
        internal,
        meta: objects::Meta { created_at: node.meta.created_at, ..Default::default() },
        ..node.clone()
    }
}

fn heartbeat(manager: &Manager, node: &NodeId, common: &Common) -> Heartbeat {
    let key = manager.pulse_key(node).map(|key| key.to_hidden()).unwrap_or_default();
    Heartbeat { period_ms: common.period_ms, key, now: clock::now() }
}

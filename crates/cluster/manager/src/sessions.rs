//! The sessions that this manager serves: which there are, and who of them has news.
//!
//! In: the changes of every commit. Out: rings for the sessions they concern. One reader of the log's feed serves all
//! sessions, so that a commit costs what it changes, however many nodes there are. Never looks at an assignment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dispatch::Marks;
use objects::{Cluster, Nanos, NetworkId, Node, NodeId};
use raft::FeedItem;
use rpc::Visitors;
use store::{Change, Kind, Object, Store};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use wire::logs::LogWish;
use wire::network::NetworkKey;
use wire::session::{Bye, ManagerPeer, SessionId};

use crate::error::ManagerError;
use crate::manager::Manager;
use crate::vitals::Vitals;

/// Sessions that a node may open within [`PER`]. Source: reference 5 (3 attempts per 8 s).
const OPENED: usize = 3;
/// See [`OPENED`].
const PER: Duration = Duration::from_secs(8);

/// Wishes for logs that wait for one node. chosen: a node that does not even read them will not tell much.
const WISHES: usize = 64;

/// What every node is told alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Common {
    pub(crate) managers: Vec<ManagerPeer>,
    /// PEM.
    pub(crate) root: String,
    /// Between two proofs of life, in milliseconds.
    pub(crate) period_ms: u64,
    /// Keys of encrypted networks.
    pub(crate) network_keys: Vec<NetworkKey>,
}

/// A session's place here.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) session: SessionId,
    /// Rung when there may be news.
    pub(crate) ring: Arc<Notify>,
    /// Set when the session ends from this side.
    pub(crate) bye: Arc<watch::Sender<Option<Bye>>>,
    /// Whose logs the node is to tell, not passed on yet.
    wishes: Arc<Mutex<VecDeque<LogWish>>>,
    /// What may be different on the networks of the swarm since the session looked last.
    marks: Arc<Mutex<Marks>>,
    /// The networks that its node was told of.
    networks: Arc<Mutex<BTreeSet<NetworkId>>>,
    /// Whether the node is this process's own: then its life is this process's.
    is_own: bool,
}

/// All sessions of this manager.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    common: watch::Sender<Arc<Common>>,
}

#[derive(Default)]
struct Table {
    is_closed: Option<Bye>,
    places: BTreeMap<NodeId, Place>,
    opened: BTreeMap<NodeId, VecDeque<Instant>>,
    /// The nodes that were told of a network.
    on_network: BTreeSet<(NetworkId, NodeId)>,
}

impl Table {
    /// Whatever a session told of networks is over.
    fn forget_networks(&mut self, node: &NodeId, place: &Place) {
        for network in std::mem::take(&mut *place.networks()) {
            self.on_network.remove(&(network, node.clone()));
        }
    }
}

/// Who else has to look at a change.
#[derive(Clone, Copy, Debug, Default)]
struct Concerns {
    /// Every session.
    all: bool,
    /// Whoever brings roles to what was asked for.
    roles: bool,
    /// Whoever looks after certificates.
    trust: bool,
    /// Whoever looks after connections.
    removals: bool,
}

impl Concerns {
    /// Everybody.
    const ALL: Self = Self { all: true, roles: true, trust: true, removals: true };
}

/// Why all sessions end: the manager stops.
pub(crate) fn stopping() -> Bye {
    Bye { reason: "the manager stops".to_owned(), is_removed: false }
}

/// Why all sessions end: the manager is of no use.
pub(crate) fn cut_off() -> Bye {
    Bye { reason: "the manager has lost contact to the swarm".to_owned(), is_removed: false }
}

/// Why a session ends: the leader holds the node for gone. It comes back to the leader of now, who knows its session then.
pub(crate) fn given_up() -> Bye {
    Bye { reason: "the swarm held the node for gone".to_owned(), is_removed: false }
}

impl Place {
    /// Takes what was marked. What it says is in the store already.
    pub(crate) fn take_marks(&self) -> Marks {
        std::mem::take(&mut *self.marks.lock().expect("nothing panics while holding it"))
    }

    fn networks(&self) -> MutexGuard<'_, BTreeSet<NetworkId>> {
        self.networks.lock().expect("nothing panics while holding it")
    }

    fn mark(&self, mark: impl FnOnce(&mut Marks)) {
        mark(&mut self.marks.lock().expect("nothing panics while holding it"));
        self.ring.notify_one();
    }

    /// Takes the next wish for logs.
    pub(crate) fn next_wish(&self) -> Option<LogWish> {
        self.wishes.lock().expect("nothing panics while holding it").pop_front()
    }
}

impl Sessions {
    pub(crate) fn new() -> Self {
        // Until the cluster is known.
        let period_ms = period_ms(Nanos::ZERO);
        let common = Common { period_ms, ..Common::default() };
        Self { table: Mutex::default(), common: watch::Sender::new(Arc::new(common)) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics while holding it")
    }

    /// What every node is told alike, as it is now.
    pub(crate) fn common(&self) -> Arc<Common> {
        Arc::clone(&self.common.borrow())
    }

    /// Refuses a node that may not open a session now. A node that goes on with one after its connection was lost is not
    /// counted: it waits between attempts by itself.
    pub(crate) fn admit(&self, node: &NodeId, resumes: bool) -> Result<(), ManagerError> {
        let now = Instant::now();
        let mut table = self.table();
        if table.is_closed.is_some() {
            return Err(ManagerError::Stopping);
        }
        if resumes {
            return Ok(());
        }
        let opened = table.opened.entry(node.clone()).or_default();
        while opened.front().is_some_and(|first| now.duration_since(*first) >= PER) {
            opened.pop_front();
        }
        if opened.len() >= OPENED {
            return Err(ManagerError::TooManySessions { node: node.clone() });
        }
        opened.push_back(now);
        Ok(())
    }

    /// Takes a session in; one that the node had before ends.
    pub(crate) fn enter(
        &self,
        node: &NodeId,
        session: SessionId,
        is_own: bool,
    ) -> Result<Place, ManagerError> {
        let place = Place {
            session,
            ring: Arc::default(),
            bye: Arc::default(),
            wishes: Arc::default(),
            marks: Arc::default(),
            networks: Arc::default(),
            is_own,
        };
        let mut table = self.table();
        if table.is_closed.is_some() {
            return Err(ManagerError::Stopping);
        }
        if let Some(before) = table.places.insert(node.clone(), place.clone()) {
            table.forget_networks(node, &before);
            let reason = "the node has opened another session".to_owned();
            before.bye.send_replace(Some(Bye { reason, is_removed: false }));
        }
        Ok(place)
    }

    /// Lets go of a session; whether it was the node's newest one here.
    pub(crate) fn leave(&self, node: &NodeId, session: &SessionId) -> bool {
        let mut table = self.table();
        let is_newest = table.places.get(node).is_some_and(|place| place.session == *session);
        if is_newest && let Some(place) = table.places.remove(node) {
            table.forget_networks(node, &place);
        }
        is_newest
    }

    /// The session that a node has here.
    pub(crate) fn of_node(&self, node: &NodeId) -> Option<SessionId> {
        self.table().places.get(node).map(|place| place.session.clone())
    }

    /// Whether this is the session of the node here.
    pub(crate) fn is_open(&self, node: &NodeId, session: &SessionId) -> bool {
        self.table().places.get(node).is_some_and(|place| place.session == *session)
    }

    /// Passes a wish for logs on to a node; whether it has a session here that takes it.
    pub(crate) fn wish(&self, node: &NodeId, wish: &LogWish) -> bool {
        let table = self.table();
        let Some(place) = table.places.get(node) else { return false };
        let mut wishes = place.wishes.lock().expect("nothing panics while holding it");
        let has_room = wishes.len() < WISHES;
        if has_room {
            wishes.push_back(wish.clone());
            place.ring.notify_one();
        }
        has_room
    }

    /// Ends all sessions and takes no more; `false` when that was so already.
    pub(crate) fn close(&self, bye: &Bye) -> bool {
        let mut table = self.table();
        let was_closed = table.is_closed.is_some();
        if was_closed && *bye != stopping() {
            return false;
        }
        table.is_closed = Some(bye.clone());
        for place in table.places.values() {
            place.bye.send_replace(Some(bye.clone()));
        }
        !was_closed
    }

    /// Takes sessions again; `false` when it did all the time, or never will because the manager stops.
    pub(crate) fn open(&self) -> bool {
        let mut table = self.table();
        let may_open = table.is_closed.as_ref().is_some_and(|bye| *bye != stopping());
        if may_open {
            table.is_closed = None;
        }
        may_open
    }

    /// Proves that the nodes are alive that are this process's own, or were heard on their connections since this was asked
    /// last: networks may let no datagrams through.
    pub(crate) fn prove(&self, vitals: &Vitals, visitors: Option<&Visitors>) {
        let alive: Vec<(NodeId, SessionId, Instant)> = {
            let now = Instant::now();
            let table = self.table();
            let heard = |node: &NodeId, place: &Place| match place.is_own {
                true => Some(now),
                false => visitors?.heard(node),
            };
            let places = table.places.iter();
            places
                .filter_map(|(node, place)| Some((node.clone(), place.session.clone(), heard(node, place)?)))
                .collect()
        };
        alive.iter().for_each(|(node, session, at)| vitals.proof_of(node, session, *at));
    }

    fn ring(&self, node: &NodeId) {
        if let Some(place) = self.table().places.get(node) {
            place.ring.notify_one();
        }
    }

    /// A node was told of these networks. Called before the store that it was told on changes: every later change of them is
    /// marked for its session.
    pub(crate) fn tells(&self, node: &NodeId, place: &Place, networks: &BTreeSet<NetworkId>) {
        let mut table = self.table();
        let mut known = place.networks();
        let is_newest = table.places.get(node).is_some_and(|newest| newest.session == place.session);
        if *known == *networks || !is_newest {
            return;
        }
        for network in known.difference(networks) {
            table.on_network.remove(&(network.clone(), node.clone()));
        }
        table.on_network.extend(networks.difference(&known).map(|network| (network.clone(), node.clone())));
        known.clone_from(networks);
    }

    /// Marks for each node that was told of a network what may be different there.
    fn mark(&self, marks: &Marks) {
        let table = self.table();
        for (network, touched) in &marks.networks {
            let from = table.on_network.range((network.clone(), NodeId::default())..);
            let nodes = from.take_while(|(of, _)| of == network).map(|(_, node)| node);
            for place in nodes.filter_map(|node| table.places.get(node)) {
                place.mark(|marks| marks.merge(network, touched));
            }
        }
    }

    /// Marks everything: what happened is not known.
    fn mark_all(&self) {
        self.table().places.values().for_each(|place| place.mark(|marks| marks.all = true));
    }

    fn ring_all(&self) {
        self.table().places.values().for_each(|place| place.ring.notify_one());
    }

    /// Ends the session of a node that was removed, and forgets it.
    fn remove(&self, node: &NodeId) {
        let mut table = self.table();
        table.opened.remove(node);
        if let Some(place) = table.places.get(node) {
            let reason = rpc::ServerOptions::REMOVED.to_owned();
            place.bye.send_replace(Some(Bye { reason, is_removed: true }));
        }
    }

    fn refresh(&self, store: &Store) {
        let common = Arc::new(common(store));
        let is_news = self.common.send_if_modified(|before| {
            let is_news = **before != *common;
            if is_news {
                *before = Arc::clone(&common);
            }
            is_news
        });
        if is_news {
            self.ring_all();
        }
    }

    /// Rings the sessions that a change concerns.
    fn note(&self, change: &Change) -> Concerns {
        dispatch::concerned(change).for_each(|node| self.ring(node));
        match change.kind {
            Kind::Cluster => Concerns { removals: false, ..Concerns::ALL },
            Kind::Node => self.note_node(change),
            Kind::Network => {
                // It may be gone, so that nobody can tell any more who used it.
                self.ring_all();
                Concerns::default()
            }
            _ => Concerns::default(),
        }
    }

    fn note_node(&self, change: &Change) -> Concerns {
        let id = NodeId::from(change.id.as_str());
        let before = change.before.as_ref().and_then(Object::as_node);
        let after = change.after.as_ref().and_then(Object::as_node);
        if after.is_none() {
            self.remove(&id);
        }
        self.ring(&id);
        let (Some(before), Some(after)) = (before, after) else {
            return Concerns { removals: after.is_none(), ..Concerns::ALL };
        };
        let role = |node: &Node| (node.spec.role, node.internal.certified_role, node.internal.raft_id);
        Concerns {
            all: before.manager_status != after.manager_status,
            roles: role(before) != role(after),
            trust: before.description.tls_info != after.description.tls_info,
            removals: false,
        }
    }
}

fn common(store: &Store) -> Common {
    let cluster = store.cluster();
    let period = cluster.map(|cluster| cluster.spec.dispatcher.heartbeat_period).unwrap_or_default();
    Common {
        managers: dispatch::managers(store),
        root: cluster.map(|cluster| crate::certify::trusted_roots(cluster)).unwrap_or_default(),
        period_ms: period_ms(period),
        network_keys: cluster.map(|cluster| network_keys(cluster)).unwrap_or_default(),
    }
}

fn network_keys(cluster: &Cluster) -> Vec<NetworkKey> {
    let told = |key: &objects::NetworkKey| NetworkKey { number: key.number, key: key.key.as_str().into() };
    cluster.internal.network_keys.iter().map(told).collect()
}

/// Between two proofs of life, for a heartbeat period of the cluster's spec.
fn period_ms(heartbeat: Nanos) -> u64 {
    let pulse = membership::LeaseTimes::of(heartbeat).pulse.to_std();
    u64::try_from(pulse.as_millis()).unwrap_or(u64::MAX)
}

/// Rings the sessions until the manager stops.
pub(crate) async fn run(manager: Manager) {
    let sessions = &manager.inner.sessions;
    let ((), mut feed) = manager.inner.consensus.follow(|store| sessions.refresh(store));
    let stopping = manager.inner.stopping.clone();
    while let Some(Some(item)) = stopping.run_until_cancelled(feed.next()).await {
        let mut concerned = Concerns::default();
        let mut marks = Marks::default();
        let mut next = Some(item);
        while let Some(item) = next {
            match item {
                FeedItem::Commit(commit) => {
                    let store = manager.inner.consensus.read();
                    commit.changes.iter().for_each(|change| marks.note(&store, change));
                    drop(store);
                    for change in &commit.changes {
                        let more = sessions.note(change);
                        concerned.all |= more.all;
                        concerned.roles |= more.roles;
                        concerned.trust |= more.trust;
                        concerned.removals |= more.removals;
                    }
                }
                FeedItem::Resync => {
                    concerned = Concerns::ALL;
                    sessions.mark_all();
                }
            }
            next = feed.try_next();
        }
        if !marks.is_empty() {
            sessions.mark(&marks);
        }
        if concerned.all {
            sessions.refresh(&manager.inner.consensus.read());
        }
        if concerned.roles {
            manager.inner.roles_ring.notify_one();
        }
        if concerned.trust {
            manager.inner.trust_ring.notify_one();
        }
        if concerned.removals {
            manager.inner.removals_ring.notify_one();
        }
    }
}

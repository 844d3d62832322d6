//! Accepts connections, finds out who is there, and hands calls to the router.
//!
//! In: an address, an identity, methods. Out: answers. A connection is known by its certificate before its first request
//! is read; whether the caller may call is checked per request.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use objects::NodeId;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::Callers;

use crate::datagram::{LineKey, OpenLine};
use crate::limits::{Allowance, Strangers};
use crate::peer::Peer;
use crate::router::Router;
use crate::tls::Tls;
use crate::watched::Ear;
use crate::{accept, datagram, listener};

/// Departures that are kept for a reader that is slow. Chosen: every node of a large swarm, a few times.
const DEPARTURES: usize = 4096;

/// Whom to turn away; see [`ServerOptions::refuse`].
pub type Doorkeeper = dyn Fn(&Peer, Callers) -> Option<Unwelcome> + Send + Sync;

/// How a server behaves.
#[derive(Clone)]
pub struct ServerOptions {
    /// Whether a node is turned away though its certificate is good for a method of these callers. Called for each
    /// request, so it must be quick.
    pub refuse: Arc<Doorkeeper>,
    /// Connections at a time.
    pub connections: usize,
}

/// Why a node is turned away though its certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwelcome {
    /// It was removed from the swarm: it gets `PermissionDenied` with [`ServerOptions::REMOVED`].
    Removed,
    /// It manages no more: it gets what a worker gets that asks for what managers may.
    NoManager,
}

impl ServerOptions {
    /// What a removed node is told.
    pub const REMOVED: &'static str = "node has been removed from the swarm";
}

impl Default for ServerOptions {
    fn default() -> Self {
        // Chosen: 5,000 nodes at one manager, three connections each.
        Self { refuse: Arc::new(|_, _| None), connections: 16_384 }
    }
}

/// Why a server does not listen.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// A listening server; dropped, it stops at once.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// What the connections of a server have in common.
pub(crate) struct Shared {
    pub(crate) tls: Tls,
    pub(crate) router: Router,
    pub(crate) options: ServerOptions,
    pub(crate) tasks: TaskTracker,
    /// No more connections and requests.
    pub(crate) draining: CancellationToken,
    /// Everything ends now.
    pub(crate) stopped: CancellationToken,
    strangers: Mutex<Strangers>,
    allowance: Mutex<Allowance>,
    connections: Mutex<Connections>,
    /// Of the connections of nodes.
    lines: Mutex<BTreeMap<u64, Arc<OpenLine>>>,
    departures: broadcast::Sender<NodeId>,
}

#[derive(Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, Known>,
    /// How many each node has.
    nodes: BTreeMap<NodeId, usize>,
}

struct Known {
    peer: Peer,
    closed: CancellationToken,
    heard: Arc<Ear>,
}

/// The connections of a server, for whoever looks after them. Does not keep the server alive.
#[derive(Clone)]
pub struct Visitors {
    shared: Weak<Shared>,
}

/// A connection's entry in the list; dropped, the node may have departed.
pub(crate) struct Registered {
    shared: Arc<Shared>,
    number: u64,
}

/// A connection's line for small calls; ends when it is dropped.
pub(crate) struct Listed {
    shared: Arc<Shared>,
    line: u64,
}

/// The place of a connection that has not shown a certificate.
pub(crate) struct Stranger {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Server {
    /// Listens. Port 0 takes a free one. Must be called within a tokio runtime.
    pub fn bind(
        address: SocketAddr,
        tls: Tls,
        router: Router,
        options: ServerOptions,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let bound: TcpListener = listener::listen(address).map_err(failed)?;
        let address = bound.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            tls,
            router,
            options,
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            stopped: CancellationToken::new(),
            strangers: Mutex::default(),
            allowance: Mutex::default(),
            connections: Mutex::default(),
            lines: Mutex::default(),
            departures: broadcast::Sender::new(DEPARTURES),
        });
        let accepting = accept::run(Arc::clone(&shared), bound);
        let draining = shared.draining.clone();
        shared.tasks.spawn(async move { draining.run_until_cancelled(accepting).await });
        Ok(Self { shared, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Who is connected.
    #[must_use]
    pub fn visitors(&self) -> Visitors {
        Visitors { shared: Arc::downgrade(&self.shared) }
    }

    /// Takes no more connections and requests, lets running ones end for at most `grace`, and closes all.
    pub async fn shutdown(self, grace: Duration) {
        self.shared.draining.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(grace, self.shared.tasks.wait()).await.is_err() {
            self.shared.stopped.cancel();
            self.shared.tasks.wait().await;
        }
    }
}

impl Visitors {
    /// Closes the connections of the peers for which `is_meant` says so; their streams end, too.
    pub fn disconnect(&self, is_meant: impl Fn(&Peer) -> bool) {
        let Some(shared) = self.shared.upgrade() else { return };
        for known in shared.connections().open.values() {
            if is_meant(&known.peer) {
                known.closed.cancel();
            }
        }
    }

    /// When something last came from a node on one of its connections; `None` when it has none.
    #[must_use]
    pub fn heard(&self, node: &NodeId) -> Option<tokio::time::Instant> {
        let shared = self.shared.upgrade()?;
        let connections = shared.connections();
        let own = connections.open.values().filter(|known| known.peer.node == *node);
        own.map(|known| known.heard.heard()).max()
    }

    /// The answer to a call that came as a datagram; `None` when it is none that a connected node has made.
    pub(crate) fn answer(
        &self,
        datagram: &[u8],
        remote: SocketAddr,
    ) -> Option<BoxFuture<'static, Option<Vec<u8>>>> {
        let shared = self.shared.upgrade()?;
        let line = shared.lines().get(&datagram::line(datagram)?).cloned()?;
        let call = line.take(datagram)?;
        Some(Box::pin(async move {
            let answer = accept::answer_small(&shared, &line.peer, &call, remote).await;
            line.answer(&call, answer)
        }))
    }

    /// Nodes whose last connection to the server was closed or broke, from now on. A slow reader misses some
    /// (`Lagged`): it is a hint to look at once, not a record.
    #[must_use]
    pub fn departures(&self) -> broadcast::Receiver<NodeId> {
        let shared = self.shared.upgrade();
        // Nobody departs from a server that is gone.
        shared.map_or_else(|| broadcast::channel(1).1, |shared| shared.departures.subscribe())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.draining.cancel();
        self.shared.stopped.cancel();
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more connection is too many.
    pub(crate) fn is_full(&self) -> bool {
        self.connections().open.len() >= self.options.connections
    }

    /// Whether a stranger may ask once more.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner).take(address, Instant::now())
    }

    /// Lets a connection in that has not shown a certificate, while there is room.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Stranger> {
        let has_room = self.strangers().enter(address);
        has_room.then(|| Stranger { shared: Arc::clone(self), address })
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<OpenLine>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes small calls of a connection's peer.
    pub(crate) fn list(self: &Arc<Self>, key: LineKey, peer: &Peer) -> Listed {
        let line = key.line;
        self.lines().insert(line, Arc::new(OpenLine::new(key, peer.clone())));
        Listed { shared: Arc::clone(self), line }
    }

    /// Notes a node's connection, which `closed` ends.
    pub(crate) fn register(
        self: &Arc<Self>,
        peer: &Peer,
        closed: &CancellationToken,
        heard: &Arc<Ear>,
    ) -> Registered {
        let mut connections = self.connections();
        let number = connections.next;
        connections.next += 1;
        *connections.nodes.entry(peer.node.clone()).or_default() += 1;
        let known = Known { peer: peer.clone(), closed: closed.clone(), heard: Arc::clone(heard) };
        connections.open.insert(number, known);
        Registered { shared: Arc::clone(self), number }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut connections = self.shared.connections();
        let Some(known) = connections.open.remove(&self.number) else { return };
        let node = known.peer.node;
        let left = connections.nodes.get_mut(&node).map(|count| {
            *count -= 1;
            *count
        });
        if left == Some(0) {
            connections.nodes.remove(&node);
            // Nobody may be listening.
            let _ = self.shared.departures.send(node);
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.lines().remove(&self.line);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.shared.strangers().leave(self.address);
    }
}

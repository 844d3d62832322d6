//! A manager's life: opening its log, joining the others, running its loops, stopping.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, RwLockReadGuard};
use std::time::Duration;

use membership::LeaseTimes;
use objects::{ClusterId, IdSource, NodeId};
use raft::{Consensus, DataKey, DataKeys, Directory, RaftConfig, Start, Transport};
use rpc::Visitors;
use rpc::pulse::PulseServer;
use store::Store;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::certify::Credentials;
use crate::contact::{self, Contact};
use crate::error::{ManagerError, ManagerFailed};
use crate::found::{self, Founding};
use crate::logs::Readers;
use crate::propose::Turns;
use crate::reports::{self, Reports};
use crate::sessions::{self, Sessions};
use crate::shown::Texts;
use crate::transport::{Refuser, RpcTransport};
use crate::unlock::Unlock;
use crate::vitals::Vitals;
use crate::{attend, join, leading, unlock};

/// How long a manager that stops waits for another one to take its lead. chosen: an election takes longer; a stop must
/// not hang.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(1);

/// How long a manager that stops tries to tell the leader what it heard. chosen: an election, if there has to be one; a
/// stop must not hang.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// What a manager is opened with.
#[derive(Clone)]
pub struct ManagerConfig {
    /// Holds the log: `<swarm directory>/raft`.
    pub directory: PathBuf,
    /// The node it runs on.
    pub node: NodeId,
    /// The swarm.
    pub cluster: ClusterId,
    /// This manager's number in the log: drawn at random by its node for each new log, never zero.
    pub raft_id: u64,
    /// Where other managers reach it, `host:port`.
    pub address: String,
    /// What its files are sealed by.
    pub keys: DataKeys,
    /// Calls other managers as this node.
    pub client: rpc::Client,
    /// The node's certificate and key, as they are at any time.
    pub credentials: watch::Receiver<Credentials>,
}

/// A manager of a swarm. Cheap to clone; all clones are the same manager.
///
/// Reads are answered from this manager's own replica, at once and without waiting; [`Manager::barrier`] before them
/// makes them see everything that was acknowledged anywhere. Writes run at the leader, wherever they are asked for, and
/// return when they are committed and this replica has them. Texts of errors are Docker's. The operations are in the
/// module of their noun.
#[derive(Clone)]
pub struct Manager {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) consensus: Consensus,
    pub(crate) node: NodeId,
    pub(crate) raft_id: u64,
    pub(crate) address: String,
    pub(crate) client: rpc::Client,
    pub(crate) credentials: watch::Receiver<Credentials>,
    pub(crate) ids: Mutex<IdSource>,
    pub(crate) turns: Turns,
    pub(crate) vitals: Vitals,
    pub(crate) sessions: Sessions,
    pub(crate) readers: Readers,
    pub(crate) reports: Reports,
    pub(crate) contact: Contact,
    pub(crate) texts: Texts,
    /// Who is connected, once this manager is served.
    pub(crate) visitors: OnceLock<Visitors>,
    pub(crate) refuser: Refuser,
    /// Held by whoever changes the members of raft: one change at a time.
    pub(crate) raft_turn: Semaphore,
    /// Held while the members of raft and what the store says of them must agree.
    pub(crate) members_turn: Semaphore,
    /// Rung when roles should be looked at now.
    pub(crate) roles_ring: Notify,
    /// Rung when a node was removed.
    pub(crate) removals_ring: Notify,
    /// Rung when certificates, or the root, should be looked at now.
    pub(crate) trust_ring: Notify,
    pub(crate) unlock: watch::Sender<Unlock>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Manager {
    /// Opens the manager of an existing swarm. Returns at once, with the replica as it is on disk: whether there is a
    /// leader shows later ([`Manager::ready`]). A manager that is its swarm's only one leads when this returns.
    pub async fn open(config: ManagerConfig) -> Result<Self, ManagerError> {
        let manager = Self::open_log(config, Start::Existing).await?;
        // One of several may have nothing yet; one that leads has everything.
        if manager.is_leader() && manager.inner.consensus.read().cluster().is_none() {
            manager.stop().await;
            return Err(ManagerError::NoCluster);
        }
        manager.run(Vec::new());
        Ok(manager)
    }

    /// Opens the manager of an existing swarm as its only one: what the others have that this one does not is lost, and
    /// they are refused from then on.
    pub async fn force_new_cluster(config: ManagerConfig) -> Result<Self, ManagerError> {
        let manager = Self::open_log(config, Start::ForceNewCluster).await?;
        if let Err(error) = found::complete(&manager, true).await {
            manager.stop().await;
            return Err(error);
        }
        manager.run(Vec::new());
        Ok(manager)
    }

    /// Founds a swarm with this as its only manager.
    pub async fn found(config: ManagerConfig, founding: Founding) -> Result<Self, ManagerError> {
        let (node, raft_id, address) = (config.node.clone(), config.raft_id, config.address.clone());
        let manager = Self::open_log(config, Start::Found).await?;
        let epoch = manager.inner.consensus.epoch();
        let founded = match found::writes(founding, &node, raft_id, &address, epoch, crate::clock::now()) {
            Ok(writes) => manager.propose(writes).await.map(drop),
            Err(error) => Err(error),
        };
        let founded = match founded {
            Ok(()) => found::complete(&manager, false).await,
            Err(error) => Err(error),
        };
        if let Err(error) = founded {
            manager.stop().await;
            return Err(error);
        }
        manager.run(Vec::new());
        Ok(manager)
    }

    /// Becomes a manager of a swarm that has some: asks any of `managers` (`host:port`) which log to copy, and returns.
    ///
    /// It is taken in in the background, and keeps asking until it is: [`Manager::ready`] waits for that. The leader
    /// calls back at `config.address` before it takes a manager in, so its methods have to be served by then. After a
    /// crash in between it is called again with the same `raft_id`.
    pub async fn join(config: ManagerConfig, managers: Vec<String>) -> Result<Self, ManagerError> {
        let epoch = join::epoch(&config.client, &managers).await?;
        let manager = Self::open_log(config, Start::Join { epoch }).await?;
        manager.run(managers);
        Ok(manager)
    }

    async fn open_log(config: ManagerConfig, start: Start) -> Result<Self, ManagerError> {
        let refuser = Refuser::default();
        let transport = Arc::new(RpcTransport::new(config.client.clone(), refuser.clone()));
        Self::open_log_over(transport, refuser, config, start).await
    }

    pub(crate) async fn open_log_over(
        transport: Arc<dyn Transport>,
        refuser: Refuser,
        config: ManagerConfig,
        start: Start,
    ) -> Result<Self, ManagerError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(pki::PkiError::Random)?;
        let disk = Directory::new(&config.directory)
            .map_err(|source| raft::OpenError::Directory { path: config.directory.clone(), source })?;
        let consensus = Consensus::open(RaftConfig {
            disk: Arc::new(disk),
            node: config.raft_id,
            address: config.address.clone(),
            start,
            keys: config.keys,
            transport,
        })
        .await?;
        let found = consensus.read().cluster().map(|cluster| cluster.id.clone());
        if let Some(found) = found.filter(|found| *found != config.cluster) {
            consensus.stop().await;
            return Err(ManagerError::ForeignLog { found, expected: config.cluster });
        }
        let (reports, incoming) = Reports::new();
        let manager = Self {
            inner: Arc::new(Inner {
                consensus,
                node: config.node,
                raft_id: config.raft_id,
                address: config.address,
                client: config.client,
                credentials: config.credentials,
                ids: Mutex::new(IdSource::from_seed(seed)),
                turns: Turns::new(),
                vitals: Vitals::new(LeaseTimes::of(objects::Nanos::ZERO)),
                sessions: Sessions::new(),
                readers: Readers::default(),
                reports,
                contact: Contact::new(),
                texts: Texts::default(),
                visitors: OnceLock::new(),
                refuser,
                raft_turn: Semaphore::new(1),
                members_turn: Semaphore::new(1),
                roles_ring: Notify::new(),
                removals_ring: Notify::new(),
                trust_ring: Notify::new(),
                unlock: watch::Sender::new(Unlock::default()),
                stopping: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        };
        manager.start_reports(incoming);
        Ok(manager)
    }

    fn start_reports(&self, incoming: mpsc::Receiver<reports::Reported>) {
        self.inner.tasks.spawn(reports::run(self.clone(), incoming));
    }

    /// `managers` are those that are known besides the members of its log.
    pub(crate) fn run(&self, managers: Vec<String>) {
        let tasks = &self.inner.tasks;
        tasks.spawn(join::keep_seat(self.clone(), managers));
        tasks.spawn(leading::run(self.clone()));
        tasks.spawn(sessions::run(self.clone()));
        tasks.spawn(contact::run(self.clone()));
        tasks.spawn(attend::tell_leader(self.clone()));
        tasks.spawn(unlock::run(self.clone()));
    }

    /// Hears pulses, learns from `visitors` who is heard on its connection and when another manager's connections break (its process has most likely died),
    /// and closes those of removed nodes. Both belong to the server that serves this manager's methods.
    pub fn attend(&self, pulses: PulseServer, visitors: Visitors) {
        self.inner.tasks.spawn(attend::hear(self.clone(), pulses));
        self.inner.tasks.spawn(attend::departures(self.clone(), visitors.departures()));
        self.inner.tasks.spawn(attend::send_away(self.clone(), visitors.clone()));
        // A manager is served once.
        self.inner.visitors.get_or_init(|| visitors);
    }

    /// Waits until this manager is a member with a vote, and its replica has everything that was acknowledged when that
    /// was seen. Fails only when the manager stops.
    pub async fn ready(&self) -> Result<(), ManagerError> {
        let mut members = self.inner.consensus.members();
        loop {
            let is_voter = members
                .borrow_and_update()
                .members
                .get(&self.inner.raft_id)
                .is_some_and(|member| member.is_voter);
            if is_voter && self.barrier().await.is_ok() && self.inner.consensus.read().cluster().is_some() {
                return Ok(());
            }
            tokio::select! {
                () = self.inner.stopping.cancelled() => return Err(ManagerError::Stopping),
                changed = members.changed() => changed.map_err(|_| ManagerError::Stopping)?,
                // The barrier may pass with no member changing.
                () = tokio::time::sleep(contact::LOOK_EVERY) => {}
            }
        }
    }

    /// Waits until this manager can do nothing more: its disk failed, unless it was stopped.
    ///
    /// Every write is refused then, and after a moment every read. It has to be stopped and opened again.
    pub async fn failed(&self) -> ManagerFailed {
        ManagerFailed(self.inner.consensus.stopped().await)
    }

    /// Waits until this manager was a member and is none any more, as it heard from the log or from most of the others: it
    /// was demoted, or removed. Never returns on one that stops.
    pub async fn removed(&self) {
        let mut removed = self.inner.contact.removed.subscribe();
        if removed.wait_for(|removed| *removed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Seals everything on disk by `key`; when this returns, the former keys can be forgotten.
    pub async fn rekey(&self, key: DataKey) -> Result<(), raft::RekeyError> {
        self.inner.consensus.rekey(key).await
    }

    /// Tells all sessions to go elsewhere, hands leadership over, stops deciding and closes the log; everything
    /// acknowledged is on disk.
    pub async fn stop(&self) {
        self.inner.sessions.close(&sessions::stopping());
        if self.is_leader() {
            let handed = self.inner.consensus.transfer(None);
            // Alone there is nobody to take it; otherwise an election finds somebody.
            if let Ok(Err(error)) = tokio::time::timeout(HAND_OVER_WITHIN, handed).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "leadership was not handed over");
            }
        }
        // Nodes that announced a pause must not be missed by a leader that did not hear them.
        if tokio::time::timeout(HEARD_WITHIN, attend::tell_next(self)).await.is_err() {
            tracing::info!("no leader was told who comes back");
        }
        self.inner.stopping.cancel();
        self.inner.turns.close();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.consensus.stop().await;
    }

    /// The node this manager runs on.
    #[must_use]
    pub fn node_id(&self) -> &NodeId {
        &self.inner.node
    }

    /// Whether this manager leads the swarm.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.inner.consensus.leadership().is_leader()
    }

    /// The replica, for an answer to somebody. Refused while this manager has no contact to the swarm: what it knows may
    /// be old.
    pub(crate) fn view(&self) -> Result<RwLockReadGuard<'_, Store>, ManagerError> {
        if !self.inner.contact.is_fresh(&self.inner.consensus) {
            return Err(ManagerError::NoLeader);
        }
        Ok(self.inner.consensus.read())
    }

    /// A new id.
    pub(crate) fn new_id<Id: From<String>>(&self) -> Id {
        self.inner.ids.lock().expect("drawing ids does not panic").next()
    }
}

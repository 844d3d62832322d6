//! A manager's life: opening its log, running its control loop, stopping.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use objects::{IdSource, NodeId};
use raft::{Consensus, RaftConfig};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control_loop;
use crate::error::{ManagerError, ManagerFailed};
use crate::found::{self, Founding};

/// What a manager is opened with.
#[derive(Clone, Debug)]
pub struct ManagerConfig {
    /// Holds the log: `<swarm directory>/raft`.
    pub directory: PathBuf,
    /// The node it runs on.
    pub node: NodeId,
    /// This manager's number in the log; never zero.
    pub raft_id: u64,
    /// Where other managers reach it, `host:port`.
    pub address: String,
}

/// A manager of a swarm. Cheap to clone; all clones are the same manager.
///
/// Reads are answered from this manager's own replica, at once and without waiting. Writes return when they are
/// committed and applied. Texts of errors are Docker's. The operations are in the module of their noun.
#[derive(Clone)]
pub struct Manager {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) consensus: Consensus,
    pub(crate) node: NodeId,
    pub(crate) ids: Mutex<IdSource>,
    /// Held from reading the store to the commit of what was decided on it. One at a time decides better than two of
    /// which one has to start again.
    pub(crate) turn: Semaphore,
    pub(crate) stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Manager {
    /// Opens the manager of an existing swarm.
    pub async fn open(config: ManagerConfig) -> Result<Self, ManagerError> {
        let manager = Self::open_log(config, false).await?;
        if manager.inner.consensus.read().cluster().is_none() {
            manager.stop().await;
            return Err(ManagerError::NoCluster);
        }
        manager.run();
        Ok(manager)
    }

    /// Founds a swarm with this as its only manager.
    pub async fn found(config: ManagerConfig, founding: Founding) -> Result<Self, ManagerError> {
        let (node, raft_id, address) = (config.node.clone(), config.raft_id, config.address.clone());
        let manager = Self::open_log(config, true).await?;
        let writes = found::writes(founding, &node, raft_id, &address, crate::clock::now())?;
        if let Err(error) = manager.propose(writes).await {
            manager.stop().await;
            return Err(error);
        }
        manager.run();
        Ok(manager)
    }

    async fn open_log(config: ManagerConfig, found: bool) -> Result<Self, ManagerError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(pki::PkiError::Random)?;
        let raft =
            RaftConfig { directory: config.directory, node: config.raft_id, address: config.address, found };
        let consensus = Consensus::open(raft).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                consensus,
                node: config.node,
                ids: Mutex::new(IdSource::from_seed(seed)),
                turn: Semaphore::new(1),
                stopping: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        })
    }

    fn run(&self) {
        self.inner.tasks.spawn(control_loop::run(self.clone()));
    }

    /// Waits until this manager can do nothing more: its disk failed, unless it was stopped.
    ///
    /// Reads are still answered then, every write is refused. It has to be stopped and opened again.
    pub async fn failed(&self) -> ManagerFailed {
        ManagerFailed(self.inner.consensus.stopped().await)
    }

    /// Stops deciding and closes the log; everything acknowledged is on disk.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.turn.close();
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
}

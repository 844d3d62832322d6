//! The handle to the replicated log: propose, read, follow, lead, stop.
//!
//! In: writes that name the versions they were decided on. Out: what they changed, or that the store refused them.
//! Never decides anything, and never retries: whoever proposed looks at the new state first.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use objects::Timestamp;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::type_config::alias::WatchReceiverOf;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{BasicNode, Config, Raft, ServerState, SnapshotPolicy};
use store::{Change, Store, Write};
use tokio::sync::Semaphore;

use crate::command::{Command, MAX_PROPOSAL_BYTES, TypeConfig};
use crate::error::{OpenError, ProposeError};
use crate::feed::ChangeFeed;
use crate::log::Log;
use crate::machine::{Machine, Replica};
use crate::peers::NoPeers;
use crate::snapshot::SnapshotFile;
use crate::writer::{Operation, Writer};

/// Entries between two snapshots. Source: swarmkit, `api/defaults` (`SnapshotInterval` 10000).
const SNAPSHOT_EVERY: u64 = 10_000;

/// Entries kept behind a snapshot. Source: swarmkit, `api/defaults` (`LogEntriesForSlowFollowers` 500).
const KEEP_BEHIND_SNAPSHOT: u64 = 500;

/// Proposals that may be under way. chosen: more than one fsync can take together, and a bound on memory.
const IN_FLIGHT: usize = 1024;

/// How long a lone manager may take to lead itself. chosen: it needs two fsyncs; a disk that is slower than this is
/// worth an error.
const LEAD_WITHIN: Duration = Duration::from_secs(30);

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// Holds the log and its snapshots; made with mode 0700 when missing.
    pub directory: PathBuf,
    /// This manager's number in the log; never changes for a directory.
    pub node: u64,
    /// Where other managers reach this one, `host:port`.
    pub address: String,
    /// Found a new log when there is none; otherwise its absence is an error.
    pub found: bool,
}

/// What a proposal changed.
#[derive(Debug)]
pub struct Applied {
    /// The log index, which is the version of every object it wrote.
    pub index: u64,
    /// The changes, in order.
    pub changes: Vec<Change>,
}

/// The replicated log and the store under it. Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub struct Consensus {
    raft: Raft<TypeConfig, Machine>,
    replica: Arc<Replica>,
    in_flight: Arc<Semaphore>,
    writer: Writer,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Tells whether this manager leads, now and whenever that changes.
#[derive(Clone)]
pub struct LeadershipWatch {
    metrics: WatchReceiverOf<TypeConfig, openraft::metrics::RaftServerMetrics<TypeConfig>>,
}

impl LeadershipWatch {
    /// Whether this manager leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.metrics.borrow_watched().state == ServerState::Leader
    }

    /// Waits until something about leadership changed; `false` when the log has stopped.
    pub async fn changed(&mut self) -> bool {
        self.metrics.changed().await.is_ok()
    }
}

impl Consensus {
    /// Opens the log, leads it if this is its only manager, and applies everything that was committed.
    pub async fn open(config: RaftConfig) -> Result<Self, OpenError> {
        make_directory(&config.directory)?;
        let path = config.directory.join("log.redb");
        if !config.found && !path.exists() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound).into();
            return Err(OpenError::Log { path, source });
        }
        let (log, thread) = Log::open(&path, config.node)?;
        let (machine, replica) = Machine::open(SnapshotFile::new(config.directory.join("snapshot")))?;
        let (writer, is_new) = (log.writer(), log.is_new());
        if is_new && !config.found {
            return Err(OpenError::Log { path, source: "it is empty".into() });
        }
        let settings = Arc::new(settings().validate().map_err(|error| OpenError::Start(error.into()))?);
        let raft = Raft::new(config.node, settings, NoPeers, log, machine)
            .await
            .map_err(|error| OpenError::Start(error.into()))?;
        let consensus = Self {
            raft,
            replica,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            writer,
            thread: Arc::new(Mutex::new(Some(thread))),
        };
        if let Err(error) = consensus.lead(config, is_new).await {
            consensus.stop().await;
            return Err(error);
        }
        Ok(consensus)
    }

    /// Leads the log if this is its only manager.
    async fn lead(&self, config: RaftConfig, is_new: bool) -> Result<(), OpenError> {
        if is_new {
            let members = BTreeMap::from([(config.node, BasicNode::new(config.address))]);
            self.raft.initialize(members).await.map_err(|error| OpenError::Start(error.into()))?;
        } else if self.raft.voter_ids().eq([config.node]) {
            // Nobody else could be leading: waiting for an election timeout would be for nothing.
            self.raft.trigger().elect(false).await.map_err(|error| OpenError::Start(error.into()))?;
        }
        self.wait_ready().await
    }

    /// Waits until this manager leads and its store has everything that was ever acknowledged.
    async fn wait_ready(&self) -> Result<(), OpenError> {
        let mut leadership = self.leadership();
        let ready = async {
            while !leadership.is_leader() {
                if !leadership.changed().await {
                    return Err(OpenError::Start("the log stopped".into()));
                }
            }
            self.read_barrier().await.map_err(|error| OpenError::Start(error.into()))
        };
        match tokio::time::timeout(LEAD_WITHIN, ready).await {
            Ok(result) => result,
            Err(_) => {
                let waited_ms = u64::try_from(LEAD_WITHIN.as_millis()).unwrap_or(u64::MAX);
                Err(OpenError::NoLeader { waited_ms })
            }
        }
    }

    /// Commits `writes` together or not at all. `now` is stamped on what they change.
    ///
    /// Waits while too many proposals are under way. When this returns `Ok`, the change is on disk and in the store.
    pub async fn propose(&self, now: Timestamp, writes: Vec<Write>) -> Result<Applied, ProposeError> {
        let command = Command::new(now, writes).map_err(ProposeError::Encode)?;
        if command.encoded.len() > MAX_PROPOSAL_BYTES {
            return Err(ProposeError::TooLarge { bytes: command.encoded.len() });
        }
        let _place = self.in_flight.acquire().await.map_err(|closed| ProposeError::Stopped(closed.into()))?;
        let written = self.raft.client_write(command).await.map_err(into_propose_error)?;
        let index = written.log_id.index;
        match written.data.applied {
            Some(Ok(changes)) => Ok(Applied { index, changes }),
            Some(Err(refused)) => Err(ProposeError::Refused(refused)),
            None => Err(ProposeError::Unknown),
        }
    }

    /// The store as this manager has it now. Never hold it across an await: applying waits for it.
    pub fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.replica.read()
    }

    /// Reads the store and follows it from exactly there: nothing is missed, nothing comes twice.
    pub fn follow<T>(&self, read: impl FnOnce(&Store) -> T) -> (T, ChangeFeed) {
        self.replica.follow(read)
    }

    /// Waits until the store has everything that was acknowledged before this call, by any manager.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        let read = self.raft.ensure_linearizable(openraft::raft::ReadPolicy::ReadIndex).await;
        read.map(drop).map_err(|error| match error {
            RaftError::APIError(_) => ProposeError::NotLeader,
            RaftError::Fatal(fatal) => ProposeError::Stopped(fatal.into()),
        })
    }

    /// Whether this manager leads, as something to wait on.
    #[must_use]
    pub fn leadership(&self) -> LeadershipWatch {
        LeadershipWatch { metrics: self.raft.server_metrics() }
    }

    /// Makes a snapshot now instead of after the next 10,000 entries; returns when it was asked for.
    pub async fn snapshot(&self) -> Result<(), ProposeError> {
        self.raft.trigger().snapshot().await.map_err(|fatal| ProposeError::Stopped(fatal.into()))
    }

    /// Waits until the log has stopped and says why: its disk failed, unless [`Self::stop`] was called.
    ///
    /// One whose disk failed takes nothing any more: it has to be stopped and opened again.
    pub async fn stopped(&self) -> ProposeError {
        let mut metrics = self.raft.metrics();
        loop {
            let state = metrics.borrow_watched().running_state.clone();
            if let Err(fatal) = state {
                return ProposeError::Stopped(fatal.into());
            }
            if metrics.changed().await.is_err() {
                return ProposeError::Stopped("its task ended".into());
            }
        }
    }

    /// Stops and ends all feeds; whatever was acknowledged is on disk. Proposals under way may or may not be applied.
    pub async fn stop(&self) {
        self.in_flight.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(error = %error, "the replicated log did not stop cleanly");
        }
        // A writer that has gone already needs no stop.
        drop(self.writer.send(Operation::Stop).await);
        let thread = self.thread.lock().expect("nothing panics while holding it").take();
        if let Some(thread) = thread {
            // Its end is what counts; a panic in it was answered to whoever waited.
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
        self.replica.close();
    }
}

/// Election times are those of swarmkit (1 s ticks, election after 10), which only matter with several managers.
fn settings() -> Config {
    Config {
        cluster_name: "swarm".into(),
        heartbeat_interval: 1_000,
        election_timeout_min: 10_000,
        election_timeout_max: 20_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEEP_BEHIND_SNAPSHOT,
        ..Config::default()
    }
}

fn make_directory(path: &std::path::Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Directory { path: path.into(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)
}

fn into_propose_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::Unknown,
        RaftError::APIError(_) => ProposeError::NotLeader,
        RaftError::Fatal(fatal) => ProposeError::Stopped(fatal.into()),
    }
}

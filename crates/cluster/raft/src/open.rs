//! Opens the log: founds it, joins it, goes on, or takes over alone.
//!
//! In: a disk, keys, a transport, and who this manager is. Out: a running [`Consensus`], or why the files cannot be used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use tokio::sync::{Semaphore, watch};

use crate::consensus::{Background, Consensus};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::keeper::{DiskWatch, Keeper, Standing, View};
use crate::link::Link;
use crate::log::{Log, Opening};
use crate::machine::Machine;
use crate::members::Members;
use crate::pacemaker::Pacemaker;
use crate::peers::Peers;
use crate::runtime;
use crate::sealing::{DataKeys, Sealer};
use crate::snapshot::SnapshotFile;
use crate::timing::{self, millis};
use crate::transport::Transport;
use crate::vigil::Vigil;

/// Entries between two snapshots. Source: swarmkit, `api/defaults` (`SnapshotInterval` 10000).
const SNAPSHOT_EVERY: u64 = 10_000;

/// Entries kept behind a snapshot. Source: swarmkit, `api/defaults` (`LogEntriesForSlowFollowers` 500).
const KEEP_BEHIND_SNAPSHOT: u64 = 500;

/// Proposals that may be under way. chosen: more than one fsync can take together, and a bound on memory.
const IN_FLIGHT: usize = 1024;

/// How long a lone manager may take to lead itself. chosen: it needs two fsyncs; a disk that is slower than this is
/// worth an error.
const LEAD_WITHIN: Duration = Duration::from_secs(30);

/// Entries per message to another manager. chosen: bytes limit it before, for all but the smallest entries.
const SEND_ENTRIES: u64 = 512;

/// How a log is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is founded if there is none, with this manager as its only member; this manager leads when `open` returns.
    Found,
    /// It was never opened as a member yet: it waits until the leader of the swarm adds it. The epoch is what
    /// [`Consensus::epoch`] says on any of its members. A log that exists already is opened as [`Self::Existing`] if it
    /// has that epoch.
    Join {
        /// Of the log to join.
        epoch: u64,
    },
    /// It has to exist. A manager that is its only voter leads when `open` returns; others find their leader later.
    Existing,
    /// It has to exist. This manager becomes its only member, under a new epoch: managers of before are refused from now
    /// on, in both directions. It leads when `open` returns, with everything that it had.
    ForceNewCluster,
}

/// What a log is opened with.
pub struct RaftConfig {
    /// Holds the log and its snapshots.
    pub disk: Arc<dyn Disk>,
    /// This manager's number in the log; never changes for a directory, never zero.
    pub node: u64,
    /// Where other managers reach this one, `host:port`.
    pub address: String,
    /// Found, join, go on, or take over alone.
    pub start: Start,
    /// What the files are sealed by.
    pub keys: DataKeys,
    /// The way to other managers.
    pub transport: Arc<dyn Transport>,
}

impl Consensus {
    /// Opens the log as `config.start` says, and applies everything that is known to be committed.
    ///
    /// Calls of other managers have to reach [`Self::answer`] from when this returns.
    pub async fn open(config: RaftConfig) -> Result<Self, OpenError> {
        let (consensus, is_new) = Self::start(&config).await?;
        let voters = consensus
            .raft
            .with_raft_state(|state| state.membership_state.effective().voter_ids().collect::<Vec<u64>>());
        let voters = voters.await.map_err(|fatal| OpenError::Start(fatal.into()))?;
        let leads = match config.start {
            Start::Found if is_new => {
                let members = BTreeMap::from([(config.node, BasicNode::new(config.address))]);
                let founded = consensus.raft.initialize(members).await;
                founded.map_err(|error| OpenError::Start(error.into())).map(|()| true)
            }
            // Nobody else could be leading: waiting for an election timeout would be for nothing.
            _ if voters == [config.node] => {
                let elected = consensus.raft.trigger().elect(false).await;
                elected.map_err(|error| OpenError::Start(error.into())).map(|()| true)
            }
            _ => Ok(false),
        };
        let ready = match leads {
            Ok(true) => consensus.wait_ready().await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        match ready {
            Ok(()) => Ok(consensus),
            Err(error) => {
                consensus.stop().await;
                Err(error)
            }
        }
    }

    /// The running log, and whether it is a new one.
    async fn start(config: &RaftConfig) -> Result<(Self, bool), OpenError> {
        let sealer = Arc::new(Sealer::new(&config.keys));
        let snapshots = SnapshotFile::new(Arc::clone(&config.disk), Arc::clone(&sealer));
        let (machine, replica) = Machine::open(snapshots.clone(), &*config.disk)?;
        let (log, running) = Log::open(Opening {
            disk: Arc::clone(&config.disk),
            sealer: Arc::clone(&sealer),
            node: config.node,
            address: &config.address,
            start: config.start,
            snapshot: machine.applied(),
        })?;
        let (writer, is_new, closed) = (log.writer(), log.is_new(), log.closed());
        let link = Arc::new(Link::new(config.node, log.epoch(), Arc::clone(&config.transport)));
        let settings = Arc::new(settings().validate().map_err(|error| OpenError::Start(error.into()))?);
        let raft = Raft::new(config.node, settings, Peers(Arc::clone(&link)), log, machine)
            .await
            .map_err(|error| OpenError::Start(error.into()))?;
        let view = View {
            all: raft.metrics(),
            server: raft.server_metrics(),
            data: raft.data_metrics(),
            applied: replica.applied(),
            link: Arc::clone(&link),
        };
        let standing = watch::Sender::new(Standing::default());
        let members = watch::Sender::new(Members::default());
        let stop = watch::Sender::new(false);
        let (standing_watch, members_watch) = (standing.subscribe(), members.subscribe());
        let keeper = Keeper {
            raft: raft.clone(),
            view: view.clone(),
            pace: Arc::clone(&writer.pace),
            standing,
            members,
            disk: DiskWatch::default(),
            measured: None,
            halfway: None,
        };
        let vigil = Vigil { raft: raft.clone(), view: view.clone(), link: Arc::clone(&link) };
        let pacemaker = Pacemaker { raft: raft.clone(), view: view.clone(), link: Arc::clone(&link) };
        let tasks = vec![
            runtime::spawn(keeper.run(stop.subscribe())),
            runtime::spawn(vigil.run(stop.subscribe())),
            runtime::spawn(pacemaker.run(stop.subscribe())),
        ];
        let background =
            Background { stop, tasks: Mutex::new(tasks), writer: Mutex::new(Some(running)), closed };
        let consensus = Self {
            raft,
            replica,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            writer,
            sealer,
            snapshots,
            incoming: Arc::default(),
            link,
            view,
            standing: standing_watch,
            members: members_watch,
            background: Arc::new(background),
        };
        Ok((consensus, is_new))
    }

    /// Waits until this manager leads and its store has everything that was ever acknowledged.
    async fn wait_ready(&self) -> Result<(), OpenError> {
        let ready = async {
            let mut metrics = self.raft.metrics();
            let mut standing = self.standing.clone();
            loop {
                if self.view.standing().leads() {
                    break;
                }
                if let Err(fatal) = metrics.borrow_watched().running_state.clone() {
                    return Err(OpenError::Start(fatal.into()));
                }
                tokio::select! {
                    biased;
                    changed = standing.changed() => {
                        changed.map_err(|closed| OpenError::Start(closed.into()))?;
                    }
                    changed = metrics.changed() => {
                        changed.map_err(|closed| OpenError::Start(closed.into()))?;
                    }
                }
            }
            self.read_barrier().await.map_err(|error| OpenError::Start(error.into()))
        };
        match runtime::timeout(LEAD_WITHIN, ready).await {
            Ok(result) => result,
            Err(_) => Err(OpenError::NoLeader { waited_ms: millis(LEAD_WITHIN) }),
        }
    }
}

fn settings() -> Config {
    Config {
        cluster_name: "swarm".into(),
        heartbeat_interval: millis(timing::HEARTBEAT),
        election_timeout_min: millis(timing::ELECTION_MIN),
        election_timeout_max: millis(timing::ELECTION_MAX),
        enable_pre_vote: Some(true),
        // A restarted leader asks the others again: they may have elected another meanwhile.
        enable_leader_restore: Some(false),
        // A leader that hears from no quorum falls silent, so that those who only hear it elect another.
        quorum_loss_probe_interval: Some(millis(timing::ELECTION_MAX * 2)),
        // The alternative is a panic of the leader when a follower comes back with less than it had.
        allow_log_reversion: Some(true),
        max_payload_entries: SEND_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEEP_BEHIND_SNAPSHOT,
        replication_lag_threshold: SNAPSHOT_EVERY + KEEP_BEHIND_SNAPSHOT,
        install_snapshot_timeout: millis(timing::SNAPSHOT),
        backoff: "50ms 100ms 200ms ..200ms".into(),
        ..Config::default()
    }
}

//! The handle to the replicated log: propose, read, follow, lead, stop.
//!
//! In: writes that name the versions they were decided on. Out: what they changed, or that the store refused them.
//! Never decides anything, and never retries: whoever proposed looks at the new state first.

use std::sync::{Arc, Mutex, RwLockReadGuard};
use std::time::Duration;

use objects::Timestamp;
use openraft::Raft;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use store::{Change, Store, Write};
use tokio::sync::{Semaphore, watch};

use crate::command::{Command, MAX_PROPOSAL_BYTES, TypeConfig};
use crate::error::{ProposeError, RekeyError};
use crate::feed::ChangeFeed;
use crate::keeper::{Standing, View};
use crate::link::Link;
use crate::machine::{Machine, Replica};
use crate::members::{Members, TransferError};
use crate::runtime::{self, Task};
use crate::sealing::{DataKey, Sealer};
use crate::snapshot::SnapshotFile;
use crate::tempo;
use crate::timing;
use crate::writer::{Operation, Running, Writer};

/// How long the log's file may stay open after everything was told to end. chosen: one slow read.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

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
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) writer: Writer,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) snapshots: SnapshotFile,
    /// Held while a snapshot comes in.
    pub(crate) incoming: Arc<tokio::sync::Mutex<()>>,
    pub(crate) link: Arc<Link>,
    pub(crate) view: View,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) members: watch::Receiver<Members>,
    pub(crate) background: Arc<Background>,
}

/// What runs beside the log; told to end when the last handle is dropped.
pub(crate) struct Background {
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) tasks: Mutex<Vec<Task<()>>>,
    pub(crate) writer: Mutex<Option<Running>>,
    /// Ends when the log's file is closed.
    pub(crate) closed: watch::Receiver<()>,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Tells whether this manager leads, now and whenever that changes.
///
/// It leads when it was elected, a quorum has answered it within the last half second, and its store has everything that
/// was acknowledged by any leader before it.
#[derive(Clone)]
pub struct LeadershipWatch {
    view: View,
    standing: watch::Receiver<Standing>,
}

impl LeadershipWatch {
    /// Whether this manager leads at this moment.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.view.standing().leads()
    }

    /// Counts elections: two leaderships never have the same term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.view.standing().term
    }

    /// Waits until something about leadership changed; `false` when the log has stopped.
    pub async fn changed(&mut self) -> bool {
        self.standing.changed().await.is_ok()
    }
}

impl Consensus {
    /// Commits `writes` together or not at all. `now` is stamped on what they change.
    ///
    /// Waits while too many proposals are under way. When this returns `Ok`, the change is on the disks of a quorum and in
    /// this manager's store. A leader that loses its quorum answers within an election timeout, by
    /// [`ProposeError::Unknown`] for what was under way and [`ProposeError::NotLeader`] from then on.
    pub async fn propose(&self, now: Timestamp, writes: Vec<Write>) -> Result<Applied, ProposeError> {
        let command = Command::new(now, writes).map_err(ProposeError::Encode)?;
        if command.encoded.len() > MAX_PROPOSAL_BYTES {
            return Err(ProposeError::TooLarge { bytes: command.encoded.len() });
        }
        let _place = self.in_flight.acquire().await.map_err(|closed| ProposeError::Stopped(closed.into()))?;
        let written = tokio::select! {
            biased;
            written = self.raft.client_write(command) => written.map_err(into_propose_error)?,
            () = self.leadership_is_lost() => return Err(ProposeError::Unknown),
        };
        let index = written.log_id.index;
        match written.data.applied {
            Some(Ok(changes)) => Ok(Applied { index, changes }),
            Some(Err(refused)) => Err(ProposeError::Refused(refused)),
            None => Err(ProposeError::Unknown),
        }
    }

    /// Ends when this manager led with a quorum and does no more.
    async fn leadership_is_lost(&self) {
        let mut standing = self.standing.clone();
        let holds = |standing: &Standing| standing.is_leader && standing.has_quorum;
        let held = async {
            let term = standing.wait_for(holds).await?.term;
            standing.wait_for(|standing| !holds(standing) || standing.term != term).await.map(drop)
        };
        // An error is the end of the log, which the proposal itself is told of.
        if held.await.is_err() {
            std::future::pending::<()>().await;
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

    /// Waits until the store has everything that was acknowledged before this call, by any manager. Leader only: a leader
    /// with a lease knows that at once, another one asks a quorum whether it still is, and answers
    /// [`ProposeError::NotLeader`] when it finds none within a second.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        if self.may_read() {
            return Ok(());
        }
        let read = self.raft.ensure_linearizable(openraft::raft::ReadPolicy::ReadIndex);
        let read = runtime::timeout(tempo::stretched(timing::ELECTION_MAX * 2), read).await;
        match read.map_err(|_| ProposeError::NotLeader)? {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(_)) => Err(ProposeError::NotLeader),
            Err(RaftError::Fatal(fatal)) => Err(ProposeError::Stopped(fatal.into())),
        }
    }

    /// Whether the store has everything that was acknowledged before this call, by any manager: this one leads, and a
    /// quorum has promised that nobody else does.
    ///
    /// A process that is stopped between this and its look at the store reads what was true in between, which is what a
    /// read may give.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.view.may_read()
    }

    /// Whether this manager leads, as something to wait on.
    #[must_use]
    pub fn leadership(&self) -> LeadershipWatch {
        LeadershipWatch { view: self.view.clone(), standing: self.standing.clone() }
    }

    /// Makes a snapshot now instead of after the next 10,000 entries; returns when it was asked for.
    pub async fn snapshot(&self) -> Result<(), ProposeError> {
        self.raft.trigger().snapshot().await.map_err(|fatal| ProposeError::Stopped(fatal.into()))
    }

    /// Waits until the log has stopped and says why: its disk failed, unless [`Self::stop`] was called.
    ///
    /// One whose disk failed takes nothing any more: it has to be stopped and opened again.
    pub async fn stopped(&self) -> ProposeError {
        let metrics = self.raft.metrics();
        // Changes seldom, and ends with openraft's task; the other one changes with every message.
        let mut server = self.raft.server_metrics();
        let mut has_ended = false;
        loop {
            let state = metrics.borrow_watched().running_state.clone();
            if let Err(fatal) = state {
                return ProposeError::Stopped(fatal.into());
            }
            if has_ended {
                return ProposeError::Stopped("its task ended".into());
            }
            has_ended = server.changed().await.is_err();
        }
    }

    /// The epoch of this log: a random number that its founding and each forced new cluster draw anew. Calls between logs of
    /// different epochs are refused.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.link.epoch
    }

    /// The last entry that this manager's store has.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.view.applied.borrow().map_or(0, |at| at.index)
    }

    /// Waits until this manager's store has the entry `index`. Has no time limit: a manager that is cut off waits on.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ProposeError> {
        let mut applied = self.view.applied.clone();
        let has_it = applied.wait_for(|at| at.is_some_and(|at| at.index >= index)).await.map(drop);
        has_it.map_err(|closed| ProposeError::Stopped(closed.into()))
    }

    /// Seals everything on disk by `key`. When this returns `Ok`, former keys open nothing any more and can be forgotten;
    /// until then both have to be kept, because after a crash either may be needed.
    pub async fn rekey(&self, key: DataKey) -> Result<(), RekeyError> {
        self.sealer.replace(&key);
        self.writer.write(|done| Operation::Reseal { done }).await.map_err(RekeyError::Write)?;
        let snapshots = self.snapshots.clone();
        let resealed = runtime::blocking(move || snapshots.reseal().map_err(std::io::Error::other)).await;
        resealed.flatten().map_err(RekeyError::Write)?;
        self.sealer.forget_former();
        Ok(())
    }

    /// Stops and ends all feeds; whatever was acknowledged is on disk. Proposals under way may or may not be applied.
    ///
    /// A leader hands over first, if there is another manager that can take over.
    pub async fn stop(&self) {
        match self.transfer(None).await {
            Ok(()) | Err(TransferError::NotLeader | TransferError::NoTarget) => {}
            Err(error) => tracing::warn!(%error, "leadership was not handed over"),
        }
        self.in_flight.close();
        self.background.stop.send_replace(true);
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the replicated log did not stop cleanly");
        }
        let tasks =
            std::mem::take(&mut *self.background.tasks.lock().expect("nothing panics while holding it"));
        for task in tasks {
            // Its end is what counts.
            drop(task.await);
        }
        // A writer that has gone already needs no stop.
        drop(self.writer.send(Operation::Stop).await);
        let writer = self.background.writer.lock().expect("nothing panics while holding it").take();
        if let Some(writer) = writer {
            writer.ended().await;
        }
        let mut closed = self.background.closed.clone();
        // Tasks of openraft that read the log end a moment after it. Nobody can open the file before.
        let waited = runtime::timeout(CLOSE_WITHIN, async move { while closed.changed().await.is_ok() {} });
        if waited.await.is_err() {
            tracing::warn!("the swarm's log is still open");
        }
        self.replica.close();
    }
}

fn into_propose_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::Unknown,
        RaftError::APIError(_) => ProposeError::NotLeader,
        RaftError::Fatal(fatal) => ProposeError::Stopped(fatal.into()),
    }
}

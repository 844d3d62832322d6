//! The one place that writes the log's file: it takes everything that is queued, commits it together, and only then tells
//! everybody. So many proposals share one fsync, and the order of writes is the order of requests.
//!
//! It is a thread of its own, or a task in a simulated world. A failed write is final: the file may be behind what was
//! promised, so everything after it fails too.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::storage::IOFlushed;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::command::{Entry, TypeConfig};
use crate::disk::Disk;
use crate::encoding::{self, Position, StoredVote};
use crate::log::OpenDatabase;
use crate::runtime::{self, Instant, Task};
use crate::sealing::Sealer;

/// Index of the entry → its sealed record.
pub(crate) const ENTRIES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("entries");
/// Name → sealed record: the [`VOTE`], the [`PURGED`] and [`COMMITTED`] positions, the [`NODE`] the log belongs to and
/// its [`EPOCH`].
pub(crate) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const VOTE: &str = "vote";
pub(crate) const PURGED: &str = "purged";
pub(crate) const COMMITTED: &str = "committed";
pub(crate) const NODE: &str = "node";
pub(crate) const EPOCH: &str = "epoch";

/// Requests that may wait. chosen: more than openraft hands over at a time, so that it seldom waits here.
const QUEUE: usize = 256;

/// Requests per commit. chosen: bounds the memory of one transaction, far above what shares an fsync in practice.
const BATCH: usize = 512;

/// Entries that are sealed again in one commit. chosen: what waits behind it waits some tens of milliseconds.
const RESEAL_BATCH: usize = 1000;

/// Tells the requester that its write is on disk.
type Done = oneshot::Sender<io::Result<()>>;

/// One request.
pub(crate) enum Operation {
    Append {
        entries: Vec<Entry>,
        flushed: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: StoredVote,
        done: Done,
    },
    /// Removes everything after this index (everything, if `None`).
    Truncate {
        after: Option<u64>,
        done: Done,
    },
    /// Removes everything up to and with this position.
    Purge {
        upto: Position,
        done: Done,
    },
    /// Goes to disk with the next commit; losing it costs nothing.
    Committed {
        position: Position,
    },
    /// Seals every record by the current key that another one has sealed.
    Reseal {
        done: Done,
    },
    Stop,
}

/// Who waits for a commit.
enum Waiter {
    Raft(IOFlushed<TypeConfig>),
    Caller(Done),
}

/// How long the disk takes, for whoever decides whether it is fit to lead with.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<PaceState>);

#[derive(Debug, Default)]
struct PaceState {
    /// When the commit that runs now began.
    since: Option<Instant>,
    last: Duration,
    /// Commits in a row that took as long as `slow` asks for are counted by whoever asks.
    commits: u64,
}

impl Pace {
    /// How long the last commit took, or the one that runs has taken if that is longer; and how many there were.
    pub(crate) fn commit_time(&self) -> (Duration, u64) {
        let state = self.lock();
        (state.last.max(state.since.map_or(Duration::ZERO, Instant::elapsed)), state.commits)
    }

    /// Whether a commit runs.
    pub(crate) fn is_busy(&self) -> bool {
        self.lock().since.is_some()
    }

    fn begin(&self) {
        self.lock().since = Some(Instant::now());
    }

    fn end(&self) {
        let mut state = self.lock();
        if let Some(since) = state.since.take() {
            state.last = since.elapsed();
            state.commits += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, PaceState> {
        self.0.lock().expect("nothing panics while holding it")
    }
}

/// The handle that requests go through.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Operation>,
    pub(crate) pace: Arc<Pace>,
}

/// What the writer runs as.
pub(crate) enum Running {
    Thread(JoinHandle<()>),
    Task(Task<()>),
}

impl Running {
    /// Waits for its end. It ends on [`Operation::Stop`], or when the last handle is gone.
    pub(crate) async fn ended(self) {
        // Its end is what counts; a panic in it was answered to whoever waited.
        match self {
            Self::Thread(thread) => drop(runtime::blocking(move || thread.join()).await),
            Self::Task(task) => drop(task.await),
        }
    }
}

/// What a writer works with.
pub(crate) struct Parts {
    pub(crate) database: Arc<OpenDatabase>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) disk: Arc<dyn Disk>,
    /// Told of the last appended index after each commit.
    pub(crate) flushed: Box<dyn FnMut(u64) + Send>,
}

impl Writer {
    pub(crate) fn start(parts: Parts) -> io::Result<(Self, Running)> {
        let (queue, requests) = mpsc::channel(QUEUE);
        let pace = Arc::new(Pace::default());
        let disk = Arc::clone(&parts.disk);
        let core = Core { parts, pace: Arc::clone(&pace), committed: None, failed: None };
        let running = if runtime::is_simulated() {
            Running::Task(runtime::spawn(run_simulated(core, requests, disk)))
        } else {
            let thread = std::thread::Builder::new().name("raft-log".into());
            Running::Thread(thread.spawn(move || run(core, requests))?)
        };
        Ok((Self { queue, pace }, running))
    }

    /// Queues a request; waits when the disk is behind.
    pub(crate) async fn send(&self, operation: Operation) -> io::Result<()> {
        self.queue.send(operation).await.map_err(|_| stopped())
    }

    /// Queues a request and waits until it is on disk.
    pub(crate) async fn write(&self, make: impl FnOnce(Done) -> Operation) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.send(make(done)).await?;
        written.await.map_err(|_| stopped())?
    }
}

fn stopped() -> io::Error {
    io::Error::other("the log's writer has stopped")
}

fn run(mut core: Core, mut requests: mpsc::Receiver<Operation>) {
    while let Some(first) = requests.blocking_recv() {
        if core.write(drain(first, &mut requests)) {
            break;
        }
    }
}

async fn run_simulated(mut core: Core, mut requests: mpsc::Receiver<Operation>, disk: Arc<dyn Disk>) {
    while let Some(first) = requests.recv().await {
        let batch = drain(first, &mut requests);
        let delay = disk.delay();
        if !delay.is_zero() {
            core.pace.begin();
            runtime::sleep(delay).await;
        }
        if core.write(batch) {
            break;
        }
    }
}

fn drain(first: Operation, requests: &mut mpsc::Receiver<Operation>) -> Vec<Operation> {
    let mut batch = vec![first];
    while batch.len() < BATCH
        && let Ok(next) = requests.try_recv()
    {
        batch.push(next);
    }
    batch
}

impl Waiter {
    fn tell(self, result: &io::Result<()>) {
        let copy = match result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        match self {
            Self::Raft(flushed) => flushed.io_completed(copy),
            // A requester that stopped waiting needs no answer.
            Self::Caller(done) => drop(done.send(copy)),
        }
    }
}

fn into_waiters(batch: Vec<Operation>) -> Vec<Waiter> {
    batch
        .into_iter()
        .filter_map(|operation| match operation {
            Operation::Append { flushed, .. } => Some(Waiter::Raft(flushed)),
            Operation::Vote { done, .. }
            | Operation::Truncate { done, .. }
            | Operation::Purge { done, .. }
            | Operation::Reseal { done } => Some(Waiter::Caller(done)),
            Operation::Committed { .. } | Operation::Stop => None,
        })
        .collect()
}

struct Core {
    parts: Parts,
    pace: Arc<Pace>,
    /// Not on disk yet.
    committed: Option<Position>,
    /// Why nothing is written any more.
    failed: Option<String>,
}

impl Core {
    /// Writes a batch in one transaction and tells everybody; whether it was the last one.
    fn write(&mut self, batch: Vec<Operation>) -> bool {
        let stopping = batch.iter().any(|operation| matches!(operation, Operation::Stop));
        if !self.pace_has_begun() {
            self.pace.begin();
        }
        let result = match &self.failed {
            Some(reason) => Err(io::Error::other(reason.clone())),
            None => self.commit(&batch, stopping).map_err(into_io),
        };
        self.pace.end();
        match &result {
            Ok(Some(last)) => (self.parts.flushed)(*last),
            Ok(None) => {}
            Err(error) => {
                if self.failed.is_none() {
                    tracing::error!(%error, "the swarm's log cannot be written");
                    self.failed = Some(error.to_string());
                }
            }
        }
        let result = result.map(drop);
        for waiter in into_waiters(batch) {
            waiter.tell(&result);
        }
        stopping
    }

    fn pace_has_begun(&self) -> bool {
        self.pace.lock().since.is_some()
    }

    /// Gives the last index that was appended.
    fn commit(&mut self, batch: &[Operation], stopping: bool) -> Result<Option<u64>, redb::Error> {
        for operation in batch {
            if let Operation::Committed { position } = operation {
                self.committed = Some(*position);
            }
        }
        let needs_commit = |operation: &Operation| {
            !matches!(operation, Operation::Committed { .. } | Operation::Stop | Operation::Reseal { .. })
        };
        let mut last = None;
        if batch.iter().any(needs_commit) || (stopping && self.committed.is_some()) {
            let transaction = self.parts.database.begin_write()?;
            for operation in batch {
                last = self.apply(&transaction, operation)?.or(last);
            }
            if let Some(position) = &self.committed {
                self.put(&transaction, COMMITTED, position)?;
            }
            transaction.commit()?;
            self.committed = None;
        }
        if batch.iter().any(|operation| matches!(operation, Operation::Reseal { .. })) {
            self.reseal()?;
        }
        Ok(last)
    }

    fn apply(
        &self,
        transaction: &WriteTransaction,
        operation: &Operation,
    ) -> Result<Option<u64>, redb::Error> {
        match operation {
            Operation::Append { entries, .. } => {
                let mut table = transaction.open_table(ENTRIES)?;
                for entry in entries {
                    let index = entry.log_id.index;
                    let content = encoding::encode_entry(entry).map_err(other)?;
                    table
                        .insert(index, self.parts.sealer.seal(&place_of_entry(index), &content).as_slice())?;
                }
                return Ok(entries.last().map(|entry| entry.log_id.index));
            }
            Operation::Vote { vote, .. } => self.put(transaction, VOTE, vote)?,
            Operation::Truncate { after, .. } => {
                let first = after.map_or(0, |index| index + 1);
                transaction.open_table(ENTRIES)?.retain_in(first.., |_, _| false)?;
            }
            Operation::Purge { upto, .. } => {
                transaction.open_table(ENTRIES)?.retain_in(..=upto.index, |_, _| false)?;
                self.put(transaction, PURGED, upto)?;
            }
            Operation::Committed { .. } | Operation::Reseal { .. } | Operation::Stop => {}
        }
        Ok(None)
    }

    fn put<T: Serialize>(
        &self,
        transaction: &WriteTransaction,
        name: &'static str,
        value: &T,
    ) -> Result<(), redb::Error> {
        put(transaction, &self.parts.sealer, name, value)
    }

    fn reseal(&self) -> Result<(), redb::Error> {
        let transaction = self.parts.database.begin_write()?;
        {
            let mut table = transaction.open_table(META)?;
            for name in [VOTE, PURGED, COMMITTED, NODE, EPOCH] {
                let record = table.get(name)?.map(|record| record.value().to_vec());
                if let Some(record) = record.filter(|record| !self.parts.sealer.is_current(record)) {
                    let record = self.seal_again(name.as_bytes(), &record)?;
                    table.insert(name, record.as_slice())?;
                }
            }
        }
        transaction.commit()?;
        let mut from = 0;
        while let Some(next) = self.reseal_entries(from)? {
            from = next;
        }
        Ok(())
    }

    /// Seals a part of the entries again; gives where to go on.
    fn reseal_entries(&self, from: u64) -> Result<Option<u64>, redb::Error> {
        let transaction = self.parts.database.begin_write()?;
        let mut next = None;
        {
            let mut table = transaction.open_table(ENTRIES)?;
            let mut resealed = Vec::new();
            for row in table.range(from..)?.take(RESEAL_BATCH) {
                let (index, record) = row?;
                let index = index.value();
                next = Some(index + 1);
                if !self.parts.sealer.is_current(record.value()) {
                    resealed.push((index, self.seal_again(&place_of_entry(index), record.value())?));
                }
            }
            for (index, record) in resealed {
                table.insert(index, record.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(next)
    }

    fn seal_again(&self, place: &[u8], record: &[u8]) -> Result<Vec<u8>, redb::Error> {
        let content = self.parts.sealer.open(place, record).map_err(other)?;
        Ok(self.parts.sealer.seal(place, &content))
    }
}

/// Seals and stores a record with a name.
pub(crate) fn put<T: Serialize>(
    transaction: &WriteTransaction,
    sealer: &Sealer,
    name: &'static str,
    value: &T,
) -> Result<(), redb::Error> {
    let content = serde_json::to_vec(value).map_err(other)?;
    transaction.open_table(META)?.insert(name, sealer.seal(name.as_bytes(), &content).as_slice())?;
    Ok(())
}

/// What an entry is sealed for.
pub(crate) fn place_of_entry(index: u64) -> [u8; 13] {
    let mut place = *b"entry\0\0\0\0\0\0\0\0";
    place[5..].copy_from_slice(&index.to_be_bytes());
    place
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> redb::Error {
    redb::Error::Io(io::Error::other(error))
}

fn into_io(error: redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

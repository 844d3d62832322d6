//! The one thread that writes the log's file: it takes everything that is queued, commits it together, and only then
//! tells everybody. So many proposals share one fsync, and the order of writes is the order of requests.
//!
//! A failed write is final: the file may be behind what was promised, so everything after it fails too.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use openraft::storage::IOFlushed;
use redb::{Database, TableDefinition, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use crate::command::TypeConfig;
use crate::encoding::{self, Position};

/// Index of the entry → its record.
pub(crate) const ENTRIES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("entries");
/// Name → record: the [`VOTE`], [`PURGED`] and [`COMMITTED`] positions, and the [`NODE`] the log belongs to.
pub(crate) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const VOTE: &str = "vote";
pub(crate) const PURGED: &str = "purged";
pub(crate) const COMMITTED: &str = "committed";
pub(crate) const NODE: &str = "node";

/// Requests that may wait. chosen: more than openraft hands over at a time, so that it seldom waits here.
const QUEUE: usize = 256;

/// Requests per commit. chosen: bounds the memory of one transaction, far above what shares an fsync in practice.
const BATCH: usize = 512;

/// Tells the requester that its write is on disk.
type Done = oneshot::Sender<io::Result<()>>;

/// One request.
pub(crate) enum Operation {
    Append {
        records: Vec<(u64, Vec<u8>)>,
        flushed: IOFlushed<TypeConfig>,
    },
    Vote {
        record: Vec<u8>,
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
        record: Vec<u8>,
    },
    Stop,
}

/// Who waits for a commit.
enum Waiter {
    Raft(IOFlushed<TypeConfig>),
    Caller(Done),
}

/// The handle that requests go through.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Operation>,
}

impl Writer {
    /// Starts the thread. It ends on [`Operation::Stop`], or when the last handle is gone.
    pub(crate) fn start(
        database: Arc<Database>,
        flushed: impl FnMut(u64) + Send + 'static,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, requests) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("raft-log".into())
            .spawn(move || run(&database, requests, flushed))?;
        Ok((Self { queue }, thread))
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

fn run(database: &Database, mut requests: mpsc::Receiver<Operation>, mut flushed: impl FnMut(u64)) {
    let mut committed = None;
    let mut failed: Option<String> = None;
    let mut stopping = false;
    while !stopping {
        let Some(first) = requests.blocking_recv() else { break };
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = requests.try_recv()
        {
            batch.push(next);
        }
        stopping = batch.iter().any(|operation| matches!(operation, Operation::Stop));
        let (waiters, last, result) = match &failed {
            Some(reason) => (into_waiters(batch), None, Err(io::Error::other(reason.clone()))),
            None => write_batch(database, batch, &mut committed, stopping),
        };
        if let Err(error) = &result {
            failed.get_or_insert_with(|| error.to_string());
        } else if let Some(last) = last {
            flushed(last);
        }
        for waiter in waiters {
            waiter.tell(&result);
        }
    }
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
            | Operation::Purge { done, .. } => Some(Waiter::Caller(done)),
            Operation::Committed { .. } | Operation::Stop => None,
        })
        .collect()
}

/// Writes a batch in one transaction; gives who waits for it, the last appended index, and how it went.
fn write_batch(
    database: &Database,
    batch: Vec<Operation>,
    committed: &mut Option<Vec<u8>>,
    stopping: bool,
) -> (Vec<Waiter>, Option<u64>, io::Result<()>) {
    let needs_commit = |operation: &Operation| !matches!(operation, Operation::Committed { .. });
    for operation in &batch {
        if let Operation::Committed { record } = operation {
            *committed = Some(record.clone());
        }
    }
    if !batch.iter().any(needs_commit) || (stopping && committed.is_none() && batch.len() == 1) {
        return (into_waiters(batch), None, Ok(()));
    }
    let written = commit(database, &batch, committed.as_deref()).map_err(io::Error::other);
    if written.is_ok() {
        *committed = None;
    }
    let (last, result) = match written {
        Ok(last) => (last, Ok(())),
        Err(error) => (None, Err(error)),
    };
    (into_waiters(batch), last, result)
}

fn commit(
    database: &Database,
    batch: &[Operation],
    committed: Option<&[u8]>,
) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut last = None;
    for operation in batch {
        last = apply(&transaction, operation)?.or(last);
    }
    if let Some(record) = committed {
        transaction.open_table(META)?.insert(COMMITTED, record)?;
    }
    transaction.commit()?;
    Ok(last)
}

fn apply(transaction: &WriteTransaction, operation: &Operation) -> Result<Option<u64>, redb::Error> {
    match operation {
        Operation::Append { records, .. } => {
            let mut entries = transaction.open_table(ENTRIES)?;
            for (index, record) in records {
                entries.insert(index, record.as_slice())?;
            }
            return Ok(records.last().map(|(index, _)| *index));
        }
        Operation::Vote { record, .. } => {
            transaction.open_table(META)?.insert(VOTE, record.as_slice())?;
        }
        Operation::Truncate { after, .. } => {
            let first = after.map_or(0, |index| index + 1);
            transaction.open_table(ENTRIES)?.retain_in(first.., |_, _| false)?;
        }
        Operation::Purge { upto, .. } => {
            transaction.open_table(ENTRIES)?.retain_in(..=upto.index, |_, _| false)?;
            let record = encoding::encode(upto).map_err(|error| redb::Error::Io(io::Error::other(error)))?;
            transaction.open_table(META)?.insert(PURGED, record.as_slice())?;
        }
        Operation::Committed { .. } | Operation::Stop => {}
    }
    Ok(None)
}

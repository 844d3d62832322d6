//! The log as openraft sees it: entries, vote and positions, in one redb file.
//!
//! Writes go through the [`Writer`]; the newest entries are also kept in memory, because they are applied right after
//! they were appended. On open every position is read once, and what does not decode is refused.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable};

use crate::command::{Entry, LogId, TypeConfig, Vote};
use crate::encoding::{self, Position};
use crate::error::OpenError;
use crate::writer::{COMMITTED, ENTRIES, META, NODE, Operation, PURGED, VOTE, Writer};

/// redb's page cache. chosen: the log is read at start-up only; the default of 1 GiB is for databases.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Entries kept in memory after they are on disk. chosen: appending and applying are rarely further apart.
const RECENT: usize = 32;

/// The log's file, its writer, and what is known without reading it. Clones are the same log.
#[derive(Clone)]
pub(crate) struct Log {
    database: Arc<Database>,
    writer: Writer,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    last: Option<LogId>,
    /// The newest entries, the ones not on disk yet among them.
    recent: BTreeMap<u64, Entry>,
    /// The last index on disk.
    flushed: u64,
}

impl State {
    fn forget_old(&mut self) {
        while self.recent.len() > RECENT
            && let Some(oldest) = self.recent.first_entry()
            && *oldest.key() <= self.flushed
        {
            oldest.remove();
        }
    }
}

impl Log {
    /// Opens the file, or makes a new one for `node`.
    pub(crate) fn open(path: &Path, node: u64) -> Result<(Self, JoinHandle<()>), OpenError> {
        let unusable =
            |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Log { path: path.into(), source };
        let database = match Database::builder().set_cache_size(CACHE_BYTES).create(path) {
            Ok(database) => Arc::new(database),
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(OpenError::InUse { path: path.into() }),
            Err(error) => return Err(unusable(error.into())),
        };
        prepare(&database, node).map_err(unusable)?;
        let state = Arc::new(Mutex::new(read_state(&database).map_err(unusable)?));
        let shared = Arc::clone(&state);
        let flushed = move |index| {
            let mut state = lock(&shared);
            state.flushed = state.flushed.max(index);
            state.forget_old();
        };
        let (writer, thread) =
            Writer::start(Arc::clone(&database), flushed).map_err(|error| unusable(error.into()))?;
        Ok((Self { database, writer, state }, thread))
    }

    pub(crate) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Whether anything was ever written to it.
    pub(crate) fn is_new(&self) -> bool {
        let state = self.state();
        state.vote.is_none() && state.last.is_none()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn read(&self, first: Bound<u64>, last: Bound<u64>) -> Result<Vec<Entry>, ReadError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(ENTRIES).map_err(redb::Error::from)?;
        let mut entries = Vec::new();
        for row in table.range((first, last)).map_err(redb::Error::from)? {
            let (index, record) = row.map_err(redb::Error::from)?;
            let index = index.value();
            entries.push(
                encoding::decode_entry(record.value())
                    .map_err(|source| ReadError::Record { index, source })?,
            );
        }
        Ok(entries)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no holder of the lock panics: each only moves values")
}

/// Why the file's content cannot be used.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    File(#[from] redb::Error),
    #[error("entry {index}")]
    Record { index: u64, source: encoding::DecodeError },
    #[error("record `{name}`")]
    Meta { name: &'static str, source: encoding::DecodeError },
    #[error("entry {index} is missing")]
    Hole { index: u64 },
    #[error("it belongs to the manager {found:x}, this is {expected:x}")]
    OtherNode { found: u64, expected: u64 },
}

fn prepare(database: &Database, node: u64) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let has_tables = database.begin_read()?.list_tables()?.count() > 0;
    if !has_tables {
        let transaction = database.begin_write()?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(META)?.insert(NODE, encoding::encode(&node)?.as_slice())?;
        transaction.commit()?;
    }
    let found: Option<u64> = meta(database, NODE, encoding::decode)?;
    match found {
        Some(found) if found != node => Err(ReadError::OtherNode { found, expected: node }.into()),
        _ => Ok(()),
    }
}

fn meta<T>(
    database: &Database,
    name: &'static str,
    decode: impl FnOnce(&[u8]) -> Result<T, encoding::DecodeError>,
) -> Result<Option<T>, ReadError> {
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let table = transaction.open_table(META).map_err(redb::Error::from)?;
    let Some(record) = table.get(name).map_err(redb::Error::from)? else { return Ok(None) };
    decode(record.value()).map(Some).map_err(|source| ReadError::Meta { name, source })
}

fn read_state(database: &Database) -> Result<State, Box<dyn std::error::Error + Send + Sync>> {
    let position = |name| meta(database, name, encoding::decode::<Position>);
    let purged = position(PURGED)?.map(Position::into_log_id);
    let committed = position(COMMITTED)?.map(Position::into_log_id);
    let vote = meta(database, VOTE, encoding::decode_vote)?;
    let transaction = database.begin_read()?;
    let entries = transaction.open_table(ENTRIES)?;
    let mut last = purged;
    let mut expected = None;
    // All of them are decoded: a damaged entry has to be found now, not when the swarm already runs on half its state.
    for row in entries.iter()? {
        let (index, record) = row?;
        let index = index.value();
        let wanted = expected.unwrap_or_else(|| purged.map_or(index, |position| position.index + 1));
        if index != wanted {
            return Err(ReadError::Hole { index: wanted }.into());
        }
        let at =
            encoding::check_entry(record.value()).map_err(|source| ReadError::Record { index, source })?;
        last = Some(at.into_log_id());
        expected = Some(index + 1);
    }
    let flushed = last.map_or(0, |last| last.index);
    Ok(State { vote, purged, committed, last, recent: BTreeMap::new(), flushed })
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let first = range.start_bound().cloned();
        let last = range.end_bound().cloned();
        let (recent, oldest) = {
            let state = self.state();
            let recent: Vec<Entry> =
                state.recent.range((first, last)).map(|(_, entry)| entry.clone()).collect();
            (recent, state.recent.first_key_value().map(|(index, _)| *index))
        };
        let is_whole = match (first, oldest) {
            (Bound::Included(first), Some(oldest)) => first >= oldest,
            _ => false,
        };
        if is_whole {
            return Ok(recent);
        }
        let end = match recent.first() {
            Some(entry) => Bound::Excluded(entry.log_id.index),
            None => last,
        };
        let mut entries = self.read(first, end).map_err(io::Error::other)?;
        entries.extend(recent);
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.state().vote)
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.state();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let record = encoding::encode_vote(vote)?;
        self.writer.write(|done| Operation::Vote { record, done }).await?;
        self.state().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let record = encoding::encode(&Position::of(committed))?;
        self.writer.send(Operation::Committed { record }).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.state().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        let mut kept = Vec::new();
        for entry in entries {
            records.push((entry.log_id.index, encoding::encode_entry(&entry)?));
            kept.push(entry);
        }
        {
            let mut state = self.state();
            for entry in kept {
                state.last = Some(entry.log_id);
                state.recent.insert(entry.log_id.index, entry);
            }
        }
        self.writer.send(Operation::Append { records, flushed }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let after = last.map(|last| last.index);
        {
            let mut state = self.state();
            let first = after.map_or(0, |index| index + 1);
            state.recent.split_off(&first);
            state.flushed = state.flushed.min(first.saturating_sub(1));
            state.last = last;
        }
        self.writer.write(|done| Operation::Truncate { after, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut state = self.state();
            state.recent = state.recent.split_off(&(upto.index + 1));
            state.purged = Some(upto);
            state.last = state.last.max(Some(upto));
        }
        self.writer.write(|done| Operation::Purge { upto: Position::of(upto), done }).await
    }
}

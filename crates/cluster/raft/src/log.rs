//! The log as openraft sees it: entries, vote and positions, in one redb file.
//!
//! Writes go through the [`Writer`]; the newest entries are also kept in memory, because they are copied to others and
//! applied right after they were appended. On open every position is read once, and what does not open or decode is
//! refused.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Deref, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use redb::{Database, ReadableDatabase, ReadableTable};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::command::{Entry, LogId, TypeConfig, Vote};
use crate::disk::{Backend, Disk, Open};
use crate::encoding::{self, DecodeError, Position, StoredVote};
use crate::error::OpenError;
use crate::open::Start;
use crate::runtime;
use crate::sealing::{Sealer, UnsealError};
use crate::writer::{self, COMMITTED, ENTRIES, EPOCH, META, NODE, Operation, PURGED, VOTE, Writer};

/// The log's file.
pub(crate) const FILE: &str = "log.redb";

/// redb's page cache. chosen: the log is read at start-up, and for a member that is far behind; the default of 1 GiB is
/// for databases.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Entries kept in memory after they are on disk. chosen: members that answer are rarely further behind than that.
const RECENT: usize = 256;

/// Bytes of commands kept in memory after they are on disk. chosen: idle managers should be small.
const RECENT_BYTES: usize = 1024 * 1024;

/// Bytes of commands that are sent to another manager at once, if it is more than one. chosen: far below the limit of a
/// message, well above what one round trip carries.
const SEND_BYTES: usize = 1024 * 1024;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The log's file, its writer, and what is known without reading it. Clones are the same log.
#[derive(Clone)]
pub(crate) struct Log {
    database: Arc<OpenDatabase>,
    sealer: Arc<Sealer>,
    writer: Writer,
    state: Arc<Mutex<State>>,
    epoch: u64,
}

/// The open file, and who waits for its end.
pub(crate) struct OpenDatabase {
    database: Database,
    /// Dropped after the database, so that its receivers see the file closed.
    closed: watch::Sender<()>,
}

impl Deref for OpenDatabase {
    type Target = Database;
    fn deref(&self) -> &Database {
        &self.database
    }
}

/// Whose log is opened, and how.
pub(crate) struct Opening<'a> {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) node: u64,
    pub(crate) address: &'a str,
    pub(crate) start: Start,
    /// The last entry that the snapshot has.
    pub(crate) snapshot: Option<LogId>,
}

#[derive(Default)]
struct State {
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    last: Option<LogId>,
    /// The newest entries, the ones not on disk yet among them.
    recent: BTreeMap<u64, Entry>,
    /// Of the commands in `recent`.
    recent_bytes: usize,
    /// The last index on disk.
    flushed: u64,
}

fn size(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(command) => command.encoded.len(),
        _ => 0,
    }
}

impl State {
    fn remember(&mut self, entry: Entry) {
        self.recent_bytes += size(&entry);
        if let Some(before) = self.recent.insert(entry.log_id.index, entry) {
            self.recent_bytes -= size(&before);
        }
    }

    fn forget_old(&mut self) {
        while (self.recent.len() > RECENT || self.recent_bytes > RECENT_BYTES)
            && let Some(oldest) = self.recent.first_entry()
            && *oldest.key() <= self.flushed
        {
            self.recent_bytes -= size(&oldest.remove());
        }
    }

    fn keep(&mut self, kept: BTreeMap<u64, Entry>) {
        self.recent_bytes = kept.values().map(size).sum();
        self.recent = kept;
    }
}

impl Log {
    /// Opens the file, or makes a new one, as `opening.start` says.
    pub(crate) fn open(opening: Opening<'_>) -> Result<(Self, writer::Running), OpenError> {
        let path = opening.disk.path(FILE);
        let unusable = |source: AnyError| match source.downcast_ref::<ReadError>() {
            Some(error) if error.is_unknown_key() => OpenError::WrongKey { path: path.clone() },
            _ => OpenError::Log { path: path.clone(), source },
        };
        let must_exist = matches!(opening.start, Start::Existing | Start::ForceNewCluster);
        let how = match opening.disk.exists(FILE) {
            Ok(false) if must_exist => Err(io::ErrorKind::NotFound.into()),
            Ok(_) => Ok(Open::Locked),
            Err(error) => Err(error),
        };
        let file = match how.and_then(|how| opening.disk.open(FILE, how)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(OpenError::InUse { path }),
            Err(error) => return Err(unusable(error.into())),
        };
        let is_empty = file.is_empty().map_err(|error| unusable(error.into()))?;
        if must_exist && is_empty {
            return Err(unusable(ReadError::Empty.into()));
        }
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(Backend(file))
            .map_err(|error| unusable(error.into()))?;
        let database = Arc::new(OpenDatabase { database, closed: watch::Sender::new(()) });
        let sealed = Sealed { database: &database, sealer: &opening.sealer };
        let epoch = sealed.prepare(&opening).map_err(unusable)?;
        let state = Arc::new(Mutex::new(sealed.read_state(opening.snapshot).map_err(unusable)?));
        let shared = Arc::clone(&state);
        let flushed = move |index| {
            let mut state = lock(&shared);
            state.flushed = state.flushed.max(index);
            state.forget_old();
        };
        let (writer, running) = Writer::start(writer::Parts {
            database: Arc::clone(&database),
            sealer: Arc::clone(&opening.sealer),
            disk: opening.disk,
            flushed: Box::new(flushed),
        })
        .map_err(|error| unusable(error.into()))?;
        Ok((Self { database, sealer: opening.sealer, writer, state, epoch }, running))
    }

    pub(crate) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Ends, by an error, when the file is closed: others may open it then.
    pub(crate) fn closed(&self) -> watch::Receiver<()> {
        self.database.closed.subscribe()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether it never took part in anything.
    pub(crate) fn is_new(&self) -> bool {
        let state = self.state();
        state.vote.is_none() && state.last.is_none()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn read(&self, first: Bound<u64>, last: Bound<u64>, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(ENTRIES).map_err(redb::Error::from)?;
        let mut entries = Vec::new();
        let mut left = bytes;
        for row in table.range((first, last)).map_err(redb::Error::from)? {
            let (index, record) = row.map_err(redb::Error::from)?;
            let sealed = Sealed { database: &self.database, sealer: &self.sealer };
            let entry = sealed.entry(index.value(), record.value())?;
            let size = size(&entry);
            if size > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Entries of a range, from its beginning until `bytes` are exceeded; at least one if there is one.
    fn entries(&self, first: Bound<u64>, last: Bound<u64>, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let (recent, oldest) = {
            let state = self.state();
            let mut left = bytes;
            let recent: Vec<Entry> = state
                .recent
                .range((first, last))
                .enumerate()
                .take_while(|(number, (_, entry))| {
                    let fits = *number == 0 || size(entry) <= left;
                    left = left.saturating_sub(size(entry));
                    fits
                })
                .map(|(_, (_, entry))| entry.clone())
                .collect();
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
        let mut entries = self.read(first, end, bytes)?;
        let reached = entries.last().map(|entry| entry.log_id.index + 1);
        // What is limited may end before the part that is in memory.
        if bytes == usize::MAX || reached == recent.first().map(|entry| entry.log_id.index) {
            let left = bytes.saturating_sub(entries.iter().map(size).sum());
            entries.extend(fitting(recent, left));
        }
        Ok(entries)
    }
}

fn fitting(entries: Vec<Entry>, mut left: usize) -> impl Iterator<Item = Entry> {
    entries.into_iter().take_while(move |entry| {
        let fits = size(entry) <= left;
        left = left.saturating_sub(size(entry));
        fits
    })
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no holder of the lock panics: each only moves values")
}

/// Why the file's content cannot be used.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    File(#[from] redb::Error),
    #[error("entry {index} cannot be opened")]
    Sealed { index: u64, source: UnsealError },
    #[error("entry {index} cannot be read")]
    Record { index: u64, source: DecodeError },
    #[error("record `{name}` cannot be opened")]
    SealedMeta { name: &'static str, source: UnsealError },
    #[error("record `{name}` cannot be read")]
    Meta { name: &'static str, source: DecodeError },
    #[error("entry {index} is missing")]
    Hole { index: u64 },
    #[error("record `{name}` is missing")]
    NoRecord { name: &'static str },
    #[error("it is empty")]
    Empty,
    #[error("it belongs to the manager {found:x}, this is {expected:x}")]
    OtherNode { found: u64, expected: u64 },
    #[error("it belongs to another swarm, or to this one before it was made anew")]
    OtherEpoch,
}

impl ReadError {
    fn is_unknown_key(&self) -> bool {
        match self {
            Self::Sealed { source, .. } | Self::SealedMeta { source, .. } => {
                matches!(source, UnsealError::UnknownKey)
            }
            _ => false,
        }
    }
}

/// The file and what opens its records.
struct Sealed<'a> {
    database: &'a Database,
    sealer: &'a Sealer,
}

impl Sealed<'_> {
    /// Makes the tables of a new log, checks whose an old one is, takes it over if that is asked for; gives its epoch.
    fn prepare(&self, opening: &Opening<'_>) -> Result<u64, AnyError> {
        let has_tables = self.database.begin_read()?.list_tables()?.count() > 0;
        if !has_tables {
            let epoch = match opening.start {
                Start::Join { epoch } => epoch,
                Start::Found => runtime::random(),
                Start::Existing | Start::ForceNewCluster => return Err(ReadError::Empty.into()),
            };
            let transaction = self.database.begin_write()?;
            transaction.open_table(ENTRIES)?;
            writer::put(&transaction, self.sealer, NODE, &opening.node)?;
            writer::put(&transaction, self.sealer, EPOCH, &epoch)?;
            transaction.commit()?;
        }
        let found: u64 = self.meta(NODE)?.ok_or(ReadError::NoRecord { name: NODE })?;
        if found != opening.node {
            return Err(ReadError::OtherNode { found, expected: opening.node }.into());
        }
        let epoch: u64 = self.meta(EPOCH)?.ok_or(ReadError::NoRecord { name: EPOCH })?;
        match opening.start {
            Start::Join { epoch: wanted } if wanted != epoch => Err(ReadError::OtherEpoch.into()),
            Start::ForceNewCluster => self.take_over(opening),
            _ => Ok(epoch),
        }
    }

    /// Ends the log by an entry that makes this manager its only member, as if it had led a term of its own.
    fn take_over(&self, opening: &Opening<'_>) -> Result<u64, AnyError> {
        let state = self.read_state(opening.snapshot)?;
        let last = state.last.max(opening.snapshot);
        let last_term = last.map_or(0, |last| last.leader_id.term);
        let term = state.vote.map_or(0, |vote| vote.leader_id.term).max(last_term) + 1;
        let at = Position { term, node: opening.node, index: last.map_or(0, |last| last.index + 1) };
        let entry = encoding::lone_membership(at, opening.node, opening.address.to_owned());
        let epoch = runtime::random();
        let transaction = self.database.begin_write()?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            if opening.snapshot > state.last {
                // It was installed, and what it replaced had not been removed yet.
                entries.retain(|_, _| false)?;
            }
            let content = encoding::encode_entry(&entry)?;
            let record = self.sealer.seal(&writer::place_of_entry(at.index), &content);
            entries.insert(at.index, record.as_slice())?;
        }
        if let Some(snapshot) = opening.snapshot.filter(|snapshot| Some(*snapshot) > state.last) {
            writer::put(&transaction, self.sealer, PURGED, &Position::of(snapshot))?;
        }
        let vote = StoredVote { term, node: opening.node, committed: true };
        writer::put(&transaction, self.sealer, VOTE, &vote)?;
        writer::put(&transaction, self.sealer, EPOCH, &epoch)?;
        transaction.commit()?;
        Ok(epoch)
    }

    fn meta<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, ReadError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(META).map_err(redb::Error::from)?;
        let Some(record) = table.get(name).map_err(redb::Error::from)? else { return Ok(None) };
        let content = self
            .sealer
            .open(name.as_bytes(), record.value())
            .map_err(|source| ReadError::SealedMeta { name, source })?;
        let value = serde_json::from_slice(&content);
        value.map(Some).map_err(|error| ReadError::Meta { name, source: error.into() })
    }

    fn open_entry(&self, index: u64, record: &[u8]) -> Result<Vec<u8>, ReadError> {
        let place = writer::place_of_entry(index);
        self.sealer.open(&place, record).map_err(|source| ReadError::Sealed { index, source })
    }

    fn entry(&self, index: u64, record: &[u8]) -> Result<Entry, ReadError> {
        let content = self.open_entry(index, record)?;
        encoding::decode_entry(&content).map_err(|source| ReadError::Record { index, source })
    }

    fn read_state(&self, snapshot: Option<LogId>) -> Result<State, AnyError> {
        let purged = self.meta::<Position>(PURGED)?.map(Position::into_log_id);
        let committed = self.meta::<Position>(COMMITTED)?.map(Position::into_log_id);
        let vote = self.meta::<StoredVote>(VOTE)?.map(StoredVote::into_vote);
        let transaction = self.database.begin_read()?;
        let entries = transaction.open_table(ENTRIES)?;
        let mut last = purged;
        let mut expected = None;
        // All of them are opened: a damaged entry has to be found now, not when the swarm already runs on half its state.
        for row in entries.iter()? {
            let (index, record) = row?;
            let index = index.value();
            let wanted = expected.unwrap_or_else(|| purged.map_or(index, |position| position.index + 1));
            if index != wanted {
                return Err(ReadError::Hole { index: wanted }.into());
            }
            let content = self.open_entry(index, record.value())?;
            let at = encoding::position_of_entry(&content)
                .map_err(|source| ReadError::Record { index, source })?;
            last = Some(at.into_log_id());
            expected = Some(index + 1);
        }
        // Entries that a lost snapshot had are lost with it: openraft would take their absence for an empty log.
        if purged > snapshot {
            return Err(ReadError::Hole { index: snapshot.map_or(0, |at| at.index + 1) }.into());
        }
        let flushed = last.map_or(0, |last| last.index);
        let recent = BTreeMap::new();
        Ok(State { vote, purged, committed, last, recent, recent_bytes: 0, flushed })
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (first, last) = (range.start_bound().cloned(), range.end_bound().cloned());
        self.entries(first, last, usize::MAX).map_err(io::Error::other)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.entries(Bound::Included(start), Bound::Excluded(end), SEND_BYTES).map_err(io::Error::other)
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
        let record = StoredVote::of(vote);
        self.writer.write(|done| Operation::Vote { vote: record, done }).await?;
        self.state().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.writer.send(Operation::Committed { position: Position::of(committed) }).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.state().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut state = self.state();
            for entry in &entries {
                state.last = Some(entry.log_id);
                state.remember(entry.clone());
            }
        }
        self.writer.send(Operation::Append { entries, flushed }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let after = last.map(|last| last.index);
        {
            let mut state = self.state();
            let first = after.map_or(0, |index| index + 1);
            let mut kept = std::mem::take(&mut state.recent);
            kept.split_off(&first);
            state.keep(kept);
            state.flushed = state.flushed.min(first.saturating_sub(1));
            state.last = last;
        }
        self.writer.write(|done| Operation::Truncate { after, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut state = self.state();
            let kept = state.recent.split_off(&(upto.index + 1));
            state.keep(kept);
            state.purged = Some(upto);
            state.last = state.last.max(Some(upto));
        }
        self.writer.write(|done| Operation::Purge { upto: Position::of(upto), done }).await
    }
}

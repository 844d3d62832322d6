//! Keeps the engine's records on disk: one table per noun in `engine.redb`, JSON values with a format number.
//!
//! In: puts and removals. Out: an acknowledgement once they are durable. One thread owns the writing; changes that
//! arrive while it commits go together into the next transaction. After an error the database is opened anew: it refuses
//! all writing once one has failed. Never interprets a record.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::error::StateError;

/// Chosen: the whole database of a thousand containers fits, and an idle daemon stays small.
const CACHE_BYTES: usize = 4 << 20;
/// Chosen: enough for every container of a large machine to change at once; more wait their turn.
const QUEUE: usize = 1024;
/// Chosen: bounds the memory and the latency of one transaction.
const LARGEST_BATCH: usize = 256;

/// A kind of record with a table of its own.
pub(crate) trait Noun: Serialize + DeserializeOwned {
    /// The table's name, also used in error texts.
    const TABLE: &'static str;
    /// Grows with each incompatible change of the shape.
    const FORMAT: u32;
}

#[derive(Serialize)]
struct Wrapped<'a, T> {
    format: u32,
    record: &'a T,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

#[derive(Deserialize)]
struct Unwrapped<T> {
    record: T,
}

/// One change of the database.
pub(crate) enum Change {
    /// Writes a whole record.
    Put { table: &'static str, key: String, value: Vec<u8> },
    /// Removes a record; none there is fine.
    Remove { table: &'static str, key: String },
}

impl Change {
    /// Writes `record` under `key`.
    pub(crate) fn put<T: Noun>(key: &str, record: &T) -> Change {
        let wrapped = Wrapped { format: T::FORMAT, record };
        let value = serde_json::to_vec(&wrapped).expect("records have string keys and serialise always");
        Change::Put { table: T::TABLE, key: key.to_owned(), value }
    }

    /// Removes what is under `key`.
    pub(crate) fn remove<T: Noun>(key: &str) -> Change {
        Change::Remove { table: T::TABLE, key: key.to_owned() }
    }
}

type Written = Result<(), Arc<redb::Error>>;

struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<Written>,
}

/// A place in the queue of changes.
pub(crate) struct Slot {
    place: mpsc::OwnedPermit<Job>,
}

impl Slot {
    /// Queues changes behind those that were sent before. Never waits.
    pub(crate) fn send(self, changes: Vec<Change>) -> Queued {
        let (done, answer) = oneshot::channel();
        self.place.send(Job { changes, done });
        Queued { answer }
    }
}

/// Changes on their way to the disk; they arrive there even if this is dropped.
pub(crate) struct Queued {
    answer: oneshot::Receiver<Written>,
}

impl Queued {
    /// Returns once they are durable, all or none.
    pub(crate) async fn done(self) -> Result<(), StateError> {
        self.answer.await.map_err(|_| StateError::Closed)?.map_err(StateError::Commit)
    }
}

/// Opens the database, the first time and after errors.
type Opener = Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send>;

/// The database, when it is open.
struct Disk {
    open: Opener,
    database: Option<Database>,
}

impl Disk {
    fn write(&mut self, batch: &[Job]) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.open)()?,
        };
        write_batch(&database, batch)?;
        self.database = Some(database);
        Ok(())
    }
}

/// The open database.
pub(crate) struct State {
    disk: Arc<Mutex<Disk>>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().expect("nothing panics while it holds this lock")
}

impl State {
    /// Opens or creates the database. Another daemon that holds it makes this fail.
    pub(crate) fn open(path: &Path) -> Result<State, StateError> {
        let file = path.to_owned();
        let open = move || Database::builder().set_cache_size(CACHE_BYTES).create(&file);
        State::open_by(path, Box::new(open))
    }

    fn open_by(path: &Path, open: Opener) -> Result<State, StateError> {
        let database = open()
            .map_err(|source| StateError::Open { path: PathBuf::from(path), source: Box::new(source) })?;
        let disk = Arc::new(Mutex::new(Disk { open, database: Some(database) }));
        let (sender, receiver) = mpsc::channel(QUEUE);
        let owned = Arc::clone(&disk);
        let writer = std::thread::Builder::new()
            .name("engine-state".into())
            .spawn(move || write_until_closed(&owned, receiver))
            .map_err(|source| StateError::Commit(Arc::new(redb::Error::Io(source))))?;
        Ok(State { disk, jobs: Mutex::new(Some(sender)), writer: Mutex::new(Some(writer)) })
    }

    /// Every record of one noun with its key, in the order of keys. Waits for a commit that is under way.
    pub(crate) fn load<T: Noun>(&self) -> Result<Vec<(String, T)>, StateError> {
        let disk = lock(&self.disk);
        let database = disk.database.as_ref().ok_or(StateError::Closed)?;
        let raw = read_table(database, T::TABLE).map_err(|e| StateError::Commit(Arc::new(e)))?;
        raw.into_iter()
            .map(|(key, value)| {
                let record = decode::<T>(&key, &value)?;
                Ok((key, record))
            })
            .collect()
    }

    /// Makes the changes durable, all or none. Returns once they are on disk.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<(), StateError> {
        self.reserve().await?.send(changes).done().await
    }

    /// Waits for room, so that sending doesn't have to.
    pub(crate) async fn reserve(&self) -> Result<Slot, StateError> {
        let sender = self.jobs.lock().expect("nothing panics while it holds this lock").clone();
        let sender = sender.ok_or(StateError::Closed)?;
        let place = sender.reserve_owned().await.map_err(|_| StateError::Closed)?;
        Ok(Slot { place })
    }

    /// Writes what is queued and ends the thread. Blocks for the length of a commit.
    pub(crate) fn close(&self) {
        drop(self.jobs.lock().expect("nothing panics while it holds this lock").take());
        let writer = self.writer.lock().expect("nothing panics while it holds this lock").take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes engine state panicked");
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.close();
    }
}

fn decode<T: Noun>(key: &str, value: &[u8]) -> Result<T, StateError> {
    let damaged = |source| StateError::Damaged { noun: T::TABLE, key: key.to_owned(), source };
    let found = serde_json::from_slice::<FormatOnly>(value).map_err(damaged)?.format;
    if found > T::FORMAT {
        return Err(StateError::TooNew { noun: T::TABLE, key: key.to_owned(), found, known: T::FORMAT });
    }
    Ok(serde_json::from_slice::<Unwrapped<T>>(value).map_err(damaged)?.record)
}

fn read_table(database: &Database, table: &str) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
    let definition: TableDefinition<&str, &[u8]> = TableDefinition::new(table);
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(definition) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut rows = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        rows.push((key.value().to_owned(), value.value().to_vec()));
    }
    Ok(rows)
}

fn write_until_closed(disk: &Mutex<Disk>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < LARGEST_BATCH
            && let Ok(next) = jobs.try_recv()
        {
            batch.push(next);
        }
        let outcome = lock(disk).write(&batch).map_err(Arc::new);
        if let Err(error) = &outcome {
            tracing::error!(%error, "engine state was not written");
        }
        for job in batch {
            // Whoever asked may have gone away; the change is made all the same.
            let _ = job.done.send(outcome.clone());
        }
    }
}

fn write_batch(database: &Database, batch: &[Job]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for change in batch.iter().flat_map(|job| &job.changes) {
        match change {
            Change::Put { table, key, value } => {
                let definition: TableDefinition<&str, &[u8]> = TableDefinition::new(table);
                transaction.open_table(definition)?.insert(key.as_str(), value.as_slice())?;
            }
            Change::Remove { table, key } => {
                let definition: TableDefinition<&str, &[u8]> = TableDefinition::new(table);
                transaction.open_table(definition)?.remove(key.as_str())?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Pet {
        legs: u32,
    }

    impl Noun for Pet {
        const TABLE: &'static str = "pets";
        const FORMAT: u32 = 2;
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_opening_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("engine.redb");
        {
            let state = State::open(&path).unwrap();
            let put = |key: &str, legs| Change::put(key, &Pet { legs });
            state.commit(vec![put("cat", 4), put("bird", 2)]).await.unwrap();
            state.commit(vec![Change::remove::<Pet>("cat"), put("ant", 6)]).await.unwrap();
        }
        let state = State::open(&path).unwrap();
        let pets = state.load::<Pet>().unwrap();
        assert_eq!(pets, [("ant".to_owned(), Pet { legs: 6 }), ("bird".to_owned(), Pet { legs: 2 })]);
    }

    #[tokio::test]
    async fn many_commits_at_once_are_all_acknowledged() {
        let root = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(&root.path().join("engine.redb")).unwrap());
        let mut set = tokio::task::JoinSet::new();
        for n in 0..500 {
            let state = Arc::clone(&state);
            set.spawn(async move {
                let change = Change::put(&format!("{n}"), &Pet { legs: n });
                state.commit(vec![change]).await.unwrap();
            });
        }
        while let Some(done) = set.join_next().await {
            done.unwrap();
        }
        assert_eq!(state.load::<Pet>().unwrap().len(), 500);
    }

    #[tokio::test]
    async fn a_record_of_a_newer_version_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(&root.path().join("engine.redb")).unwrap();
        let value = br#"{"format":3,"record":{"wings":1}}"#.to_vec();
        state.commit(vec![Change::Put { table: "pets", key: "x".into(), value }]).await.unwrap();
        let error = state.load::<Pet>().unwrap_err();
        assert!(matches!(error, StateError::TooNew { found: 3, known: 2, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_closed_state_refuses_commits() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(&root.path().join("engine.redb")).unwrap();
        state.close();
        assert!(matches!(state.commit(Vec::new()).await, Err(StateError::Closed)));
    }

    /// A file system of 16 MiB that is mounted nowhere and goes with its descriptor; `None`, loudly, without the right.
    fn small_disk() -> Option<std::os::fd::OwnedFd> {
        use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
        let make = || {
            let tmpfs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_set_string(&tmpfs, "size", "16m")?;
            rustix::mount::fsconfig_create(&tmpfs)?;
            rustix::mount::fsmount(&tmpfs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        };
        make().inspect_err(|error| eprintln!("!!! NOT RUN: a small file system needs root: {error}")).ok()
    }

    #[tokio::test]
    async fn after_an_error_writing_goes_on_once_it_can() {
        use std::os::fd::AsRawFd;
        let Some(disk) = small_disk() else { return };
        let dir = PathBuf::from(format!("/proc/self/fd/{}", disk.as_raw_fd()));
        let state = State::open(&dir.join("engine.redb")).unwrap();
        let put = |key: &str, bytes: usize| Change::Put {
            table: "things",
            key: key.to_owned(),
            value: vec![7; bytes],
        };
        state.commit(vec![put("before", 1)]).await.unwrap();
        let filler = dir.join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        let mut refused = false;
        for turn in 0..1000 {
            refused = state.commit(vec![put(&turn.to_string(), 100_000)]).await.is_err();
            if refused {
                break;
            }
        }
        assert!(refused);
        std::fs::remove_file(filler).unwrap();
        drop(file);
        state.commit(vec![put("after", 1)]).await.unwrap();
        let disk = lock(&state.disk);
        let rows = read_table(disk.database.as_ref().unwrap(), "things").unwrap();
        let keys: Vec<&str> = rows.iter().map(|(key, _)| key.as_str()).collect();
        assert!(keys.contains(&"before") && keys.contains(&"after"), "{keys:?}");
    }
}

//! Keeps the engine's records on disk: one table per noun in `engine.redb`, JSON values with a format number.
//!
//! In: puts and removals. Out: an acknowledgement once they are durable. One thread owns the writing; changes that
//! arrive while it commits go together into the next transaction. Never interprets a record.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
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

struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), Arc<redb::Error>>>,
}

/// The open database.
pub(crate) struct State {
    database: Arc<Database>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl State {
    /// Opens or creates the database. Another daemon that holds it makes this fail.
    pub(crate) fn open(path: &Path) -> Result<State, StateError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|source| StateError::Open { path: PathBuf::from(path), source: Box::new(source) })?;
        let database = Arc::new(database);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let owned = Arc::clone(&database);
        let writer = std::thread::Builder::new()
            .name("engine-state".into())
            .spawn(move || write_until_closed(&owned, receiver))
            .map_err(|source| StateError::Commit(Arc::new(redb::Error::Io(source))))?;
        Ok(State { database, jobs: Mutex::new(Some(sender)), writer: Mutex::new(Some(writer)) })
    }

    /// Every record of one noun with its key, in the order of keys.
    pub(crate) fn load<T: Noun>(&self) -> Result<Vec<(String, T)>, StateError> {
        let raw = read_table(&self.database, T::TABLE).map_err(|e| StateError::Commit(Arc::new(e)))?;
        raw.into_iter()
            .map(|(key, value)| {
                let record = decode::<T>(&key, &value)?;
                Ok((key, record))
            })
            .collect()
    }

    /// Makes the changes durable, all or none. Returns once they are on disk.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<(), StateError> {
        let sender = self.jobs.lock().expect("nothing panics while it holds this lock").clone();
        let sender = sender.ok_or(StateError::Closed)?;
        let (done, answer) = oneshot::channel();
        sender.send(Job { changes, done }).await.map_err(|_| StateError::Closed)?;
        drop(sender);
        answer.await.map_err(|_| StateError::Closed)?.map_err(StateError::Commit)
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

fn write_until_closed(database: &Database, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < LARGEST_BATCH
            && let Ok(next) = jobs.try_recv()
        {
            batch.push(next);
        }
        let outcome = write_batch(database, &batch).map_err(Arc::new);
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
}

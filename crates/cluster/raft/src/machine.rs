//! Applies committed entries to the store, in order, and makes snapshots of it.
//!
//! In: entries. Out: the store, the changes for the feed, the answer for whoever proposed. A change the store refuses is
//! an answer, not a failure: it is refused on every manager alike.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, SnapshotMeta};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, OptionalSend};
use store::Store;
use tokio::sync::{broadcast, watch};

use crate::command::{Command, LogId, Response, StoredMembership, TypeConfig};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::feed::{CAPACITY, ChangeFeed, Commit, FeedItem};
use crate::runtime;
use crate::sealing::UnsealError;
use crate::snapshot::{self, ReadSnapshotError, SnapshotBody, SnapshotFile};

type Snapshot = SnapshotOf<TypeConfig, SnapshotBody>;

/// The store and who follows it.
pub(crate) struct Replica {
    store: RwLock<Store>,
    /// `None` once the log has stopped: whoever follows learns that no more will come.
    feed: Mutex<Option<broadcast::Sender<FeedItem>>>,
    /// The last entry that was applied, of every kind.
    applied: watch::Sender<Option<LogId>>,
}

impl Replica {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().expect("applying a change does not panic: it checks first")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().expect("applying a change does not panic: it checks first")
    }

    /// Reads the store and follows it from exactly there: nothing is missed, nothing comes twice.
    pub(crate) fn follow<T>(&self, read: impl FnOnce(&Store) -> T) -> (T, ChangeFeed) {
        let store = self.read();
        let receiver = self.feed().as_ref().map(broadcast::Sender::subscribe);
        (read(&store), ChangeFeed::new(receiver.unwrap_or_else(|| broadcast::channel(1).1)))
    }

    /// Ends all feeds, after what is in them.
    pub(crate) fn close(&self) {
        *self.feed() = None;
    }

    /// The last entry that was applied, now and whenever that changes.
    pub(crate) fn applied(&self) -> watch::Receiver<Option<LogId>> {
        self.applied.subscribe()
    }

    fn feed(&self) -> MutexGuard<'_, Option<broadcast::Sender<FeedItem>>> {
        self.feed.lock().expect("nothing panics while holding it")
    }

    fn tell(&self, item: FeedItem) {
        if let Some(feed) = &*self.feed() {
            // Nobody following is no failure.
            drop(feed.send(item));
        }
    }

    fn apply(&self, index: u64, command: &Command) -> Response {
        let proposal = &command.proposal;
        let mut store = self.write();
        let applied = store.apply(index, proposal.now, &proposal.writes);
        if let Ok(changes) = &applied {
            let commit = Commit { index, now: proposal.now, changes: changes.clone() };
            // Under the lock, so that `follow` cuts between two commits.
            self.tell(FeedItem::Commit(Arc::new(commit)));
        }
        Response { applied: Some(applied) }
    }

    fn replace(&self, with: Store) {
        let mut store = self.write();
        *store = with;
        self.tell(FeedItem::Resync);
    }
}

/// The state machine as openraft drives it.
pub(crate) struct Machine {
    replica: Arc<Replica>,
    applied: Option<LogId>,
    members: StoredMembership,
    file: SnapshotFile,
}

impl Machine {
    /// Starts from the snapshot, or from nothing.
    pub(crate) fn open(file: SnapshotFile, disk: &dyn Disk) -> Result<(Self, Arc<Replica>), OpenError> {
        let unusable = |error: ReadSnapshotError| {
            let path = disk.path(snapshot::FILE);
            match error {
                ReadSnapshotError::Piece { source: UnsealError::UnknownKey, .. } => {
                    OpenError::WrongKey { path }
                }
                error => OpenError::Snapshot { path, source: error.into() },
            }
        };
        file.clean().map_err(|error| unusable(error.into()))?;
        let (store, applied, members) = match file.open().map_err(unusable)? {
            None => (Store::default(), None, StoredMembership::default()),
            Some(found) => {
                let body = found.body.read().map_err(unusable)?;
                let store = decode(&body).map_err(|error| OpenError::Snapshot {
                    path: disk.path(snapshot::FILE),
                    source: error.into(),
                })?;
                (store, found.at, found.members)
            }
        };
        let (feed, _) = broadcast::channel(CAPACITY);
        let replica = Arc::new(Replica {
            store: RwLock::new(store),
            feed: Mutex::new(Some(feed)),
            applied: watch::Sender::new(applied),
        });
        Ok((Self { replica: Arc::clone(&replica), applied, members, file }, replica))
    }

    /// The last entry that the store has.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.applied
    }
}

fn decode(body: &[u8]) -> Result<Store, serde_json::Error> {
    serde_json::from_slice(body)
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotBody;
    type SnapshotBuilder = SnapshotWriter;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            self.applied = Some(entry.log_id);
            let response = match entry.payload {
                EntryPayload::Blank => Response::default(),
                EntryPayload::Normal(command) => self.replica.apply(entry.log_id.index, &command),
                EntryPayload::Membership(members) => {
                    self.members = StoredMembership::new(Some(entry.log_id), members);
                    Response::default()
                }
            };
            // Before the answer: whoever reads it may ask for the index at once.
            self.replica.applied.send_replace(self.applied);
            if let Some(responder) = responder {
                responder.send(response);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotWriter {
        SnapshotWriter {
            store: self.replica.read().clone(),
            at: self.applied,
            members: self.members.clone(),
            file: self.file.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        body: SnapshotBody,
    ) -> io::Result<()> {
        let file = self.file.clone();
        let store = runtime::blocking(move || {
            let store = decode(&body.read().map_err(io::Error::other)?)?;
            file.install(&body)?;
            Ok::<_, io::Error>(store)
        })
        .await??;
        self.applied = meta.last_log_id;
        self.members = meta.last_membership.clone();
        self.replica.replace(store);
        self.replica.applied.send_replace(self.applied);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(found) = self.file.open().map_err(io::Error::other)? else { return Ok(None) };
        let meta = SnapshotMeta { last_log_id: found.at, last_membership: found.members };
        Ok(Some(Snapshot { meta, snapshot: found.body }))
    }
}

/// A store as it was at one entry, to be written while newer entries are applied.
pub(crate) struct SnapshotWriter {
    store: Store,
    at: Option<LogId>,
    members: StoredMembership,
    file: SnapshotFile,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotWriter {
    type SnapshotData = SnapshotBody;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (store, at, members, file) =
            (self.store.clone(), self.at, self.members.clone(), self.file.clone());
        let write = move || file.write(at, &members, |draft| Ok(serde_json::to_writer(draft, &store)?));
        let snapshot = runtime::blocking(write).await??;
        let meta = SnapshotMeta { last_log_id: self.at, last_membership: self.members.clone() };
        Ok(Snapshot { meta, snapshot })
    }
}

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
use tokio::sync::broadcast;

use crate::command::{Command, LogId, Response, StoredMembership, TypeConfig};
use crate::error::OpenError;
use crate::feed::{CAPACITY, ChangeFeed, Commit, FeedItem};
use crate::snapshot::SnapshotFile;

/// The store's encoding, as snapshots carry it.
pub(crate) type SnapshotBytes = Arc<[u8]>;

type Snapshot = SnapshotOf<TypeConfig, SnapshotBytes>;

/// The store and who follows it.
pub(crate) struct Replica {
    store: RwLock<Store>,
    /// `None` once the log has stopped: whoever follows learns that no more will come.
    feed: Mutex<Option<broadcast::Sender<FeedItem>>>,
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
    pub(crate) fn open(file: SnapshotFile) -> Result<(Self, Arc<Replica>), OpenError> {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Snapshot {
            path: file.path().into(),
            source,
        };
        let (store, applied, members) = match file.read().map_err(|error| unusable(error.into()))? {
            None => (Store::default(), None, StoredMembership::default()),
            Some(found) => {
                let store = decode(&found.body).map_err(|error| unusable(error.into()))?;
                (store, found.at, found.members)
            }
        };
        let (feed, _) = broadcast::channel(CAPACITY);
        let replica = Arc::new(Replica { store: RwLock::new(store), feed: Mutex::new(Some(feed)) });
        Ok((Self { replica: Arc::clone(&replica), applied, members, file }, replica))
    }
}

fn decode(body: &[u8]) -> Result<Store, serde_json::Error> {
    serde_json::from_slice(body)
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotBytes;
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
        body: SnapshotBytes,
    ) -> io::Result<()> {
        let store = decode(&body)?;
        let (file, at, members) = (self.file.clone(), meta.last_log_id, meta.last_membership.clone());
        self.applied = at;
        self.members = members.clone();
        tokio::task::spawn_blocking(move || file.write(at, &members, &body)).await??;
        self.replica.replace(store);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(found) = self.file.read().map_err(io::Error::other)? else { return Ok(None) };
        let meta = SnapshotMeta { last_log_id: found.at, last_membership: found.members };
        Ok(Some(Snapshot { meta, snapshot: found.body.into() }))
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
    type SnapshotData = SnapshotBytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (store, at, members, file) =
            (self.store.clone(), self.at, self.members.clone(), self.file.clone());
        let write = move || -> io::Result<SnapshotBytes> {
            let body = serde_json::to_vec(&store)?;
            file.write(at, &members, &body)?;
            Ok(body.into())
        };
        let snapshot = tokio::task::spawn_blocking(write).await??;
        let meta = SnapshotMeta { last_log_id: self.at, last_membership: self.members.clone() };
        Ok(Snapshot { meta, snapshot })
    }
}

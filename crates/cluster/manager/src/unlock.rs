//! Tells this node when the key that unlocks managers has changed: it seals its own key file anew.
//!
//! In: the cluster object. Out: key and version, now and whenever they change. Never touches a file.

use std::fmt;

use raft::FeedItem;
use store::{Kind, Store};
use tokio::sync::watch;

use crate::manager::Manager;

/// The key that unlocks this swarm's managers.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Unlock {
    /// `SWMKEY-1-…`; empty when managers don't lock.
    pub key: String,
    /// Grows with every change of the key.
    pub version: u64,
}

impl fmt::Debug for Unlock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Unlock {{ version: {}, locks: {} }}", self.version, !self.key.is_empty())
    }
}

impl Manager {
    /// The key that unlocks managers, now and whenever it changes. Version zero is: not known yet, or never locked.
    #[must_use]
    pub fn unlock_watch(&self) -> watch::Receiver<Unlock> {
        self.inner.unlock.subscribe()
    }
}

fn read(store: &Store) -> Option<Unlock> {
    let internal = &store.cluster()?.internal;
    Some(Unlock { key: internal.unlock_key.clone(), version: internal.unlock_key_version })
}

/// Until the manager stops.
pub(crate) async fn run(manager: Manager) {
    let tell = |found: Option<Unlock>| {
        let Some(found) = found else { return };
        manager.inner.unlock.send_if_modified(|known| {
            let is_news = *known != found;
            if is_news {
                *known = found;
            }
            is_news
        });
    };
    let (first, mut feed) = manager.inner.consensus.follow(read);
    tell(first);
    let stopping = manager.inner.stopping.clone();
    while let Some(Some(item)) = stopping.run_until_cancelled(feed.next()).await {
        let is_about_cluster = match item {
            FeedItem::Resync => true,
            FeedItem::Commit(commit) => commit.changes.iter().any(|change| change.kind == Kind::Cluster),
        };
        if is_about_cluster {
            tell(read(&manager.inner.consensus.read()));
        }
    }
}

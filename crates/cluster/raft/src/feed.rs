//! The applied changes, in order, for whoever follows the store.
//!
//! A reader that falls behind by more than [`CAPACITY`] commits is told to look at the whole store again.

use std::sync::Arc;

use objects::Timestamp;
use store::Change;
use tokio::sync::broadcast;

/// Commits kept for a slow reader. chosen: a few seconds of a busy swarm, some MiB at the very most.
pub(crate) const CAPACITY: usize = 1024;

/// One applied proposal.
#[derive(Debug)]
pub struct Commit {
    /// The log index, which is the version of every object it wrote.
    pub index: u64,
    /// When it was decided.
    pub now: Timestamp,
    /// What it changed, in order.
    pub changes: Vec<Change>,
}

/// What a [`ChangeFeed`] gives.
#[derive(Clone, Debug)]
pub enum FeedItem {
    /// The next commit.
    Commit(Arc<Commit>),
    /// Commits were missed, or the store was replaced by a snapshot: read the store again.
    Resync,
}

/// Follows the store from the moment it was made.
#[derive(Debug)]
pub struct ChangeFeed {
    receiver: broadcast::Receiver<FeedItem>,
}

impl ChangeFeed {
    pub(crate) fn new(receiver: broadcast::Receiver<FeedItem>) -> Self {
        Self { receiver }
    }

    /// Waits for the next item; `None` when the log has stopped.
    pub async fn next(&mut self) -> Option<FeedItem> {
        match self.receiver.recv().await {
            Ok(item) => Some(item),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(FeedItem::Resync),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// What is there already, without waiting.
    pub fn try_next(&mut self) -> Option<FeedItem> {
        match self.receiver.try_recv() {
            Ok(item) => Some(item),
            Err(broadcast::error::TryRecvError::Lagged(_)) => Some(FeedItem::Resync),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => None,
        }
    }
}

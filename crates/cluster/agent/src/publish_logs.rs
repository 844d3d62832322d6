//! Tells managers the logs of this node's tasks, while somebody reads them there.
//!
//! In: wishes that came through the session. Out: pieces of logs, to the manager that asked. What is read and how it is
//! written is the source's; a manager that says that nobody reads any more is told nothing more.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use rpc::CallError;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::logs::{Heard, LogPart, LogWish, LogsOf, PieceHead, TELL_LOGS, piece};

use crate::ties::Ties;

/// Readers that one node tells at a time. chosen: far more than people read, too few to harm the node.
const READERS: usize = 256;

/// Wishes that wait until they are looked at.
pub(crate) const BACKLOG: usize = 16;

/// A reader hears at least this often, so that this node learns when nobody reads any more.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// How long a manager may take for a piece: it holds it for 2 s while the reader is slow.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// Times that a piece is sent again because the manager was not reached, and the wait between them. chosen: a manager
/// waits for about ten seconds for a node that tells nothing.
const TRIES: usize = 3;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Entries as their reader wants them, in pieces of whole entries.
pub type Entries = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// Reads logs of this node's tasks.
pub trait LogSource: Send + Sync + 'static {
    /// Begins to read; ends when there is nothing more to come.
    fn read(&self, of: &LogsOf, part: &LogPart) -> Entries;
}

/// Serves wishes until `stopping`.
pub(crate) async fn run(
    ties: Ties,
    source: Arc<dyn LogSource>,
    mut wishes: mpsc::Receiver<LogWish>,
    stopping: CancellationToken,
) {
    let mut publishers = JoinSet::new();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            // The sender lives in `ties`.
            Some(wish) = wishes.recv() => {
                if publishers.len() < READERS {
                    let entries = source.read(&wish.of, &wish.part);
                    publishers.spawn(publish(ties.clone(), wish, entries));
                } else {
                    tracing::warn!(wish = wish.id, "too many read logs of this node");
                }
            }
            Some(_) = publishers.join_next() => {}
        }
    }
}

async fn publish(ties: Ties, wish: LogWish, mut entries: Entries) {
    let mut head = PieceHead { id: wish.id.clone(), ..PieceHead::default() };
    loop {
        let next = match tokio::time::timeout(TELL_EVERY, entries.next()).await {
            Ok(Some(entries)) => entries,
            Ok(None) => {
                head.is_last = true;
                Bytes::new()
            }
            Err(_) => Bytes::new(),
        };
        head.number += 1;
        let goes_on = deliver(&ties, &wish, &head, next).await;
        if !goes_on || head.is_last {
            return;
        }
    }
}

/// Tells one piece until it is taken; whether the reader wants more.
async fn deliver(ties: &Ties, wish: &LogWish, head: &PieceHead, entries: Bytes) -> bool {
    let mut failed = 0;
    loop {
        match tell(ties, wish, head, &entries).await {
            Ok(Heard { goes_on: false, .. }) => return false,
            Ok(Heard { is_taken: true, .. }) => return true,
            Ok(_) => {}
            Err(error) => {
                failed += 1;
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    manager = wish.address,
                    "a piece of a log was not told"
                );
                if failed > TRIES {
                    return false;
                }
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }
}

async fn tell(ties: &Ties, wish: &LogWish, head: &PieceHead, entries: &Bytes) -> Result<Heard, CallError> {
    if wish.manager == ties.node {
        // No network between them: the address that others are told may not even lead back here.
        let own = ties.own.borrow().clone();
        return Ok(match own {
            Some(manager) => manager.hear_logs(ties.node.clone(), head.clone(), entries.clone()).await,
            None => Heard::default(),
        });
    }
    let body = piece(head, entries).into();
    let answer = ties.client.raw(&wish.address, TELL_LOGS, body, TELL_WITHIN).await?;
    // An answer that says nothing this version knows: the reader is given up.
    Ok(serde_json::from_slice(&answer).unwrap_or_default())
}

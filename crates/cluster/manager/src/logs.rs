//! Logs of tasks, wherever they run: asks their nodes and merges what they tell.
//!
//! In: whose logs a client of this manager wants. Out: bytes, as the nodes wrote them, and at the end whom nothing was heard
//! of. Nodes are asked through their sessions, whichever manager these are with; they tell this manager directly. Never
//! looks into an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use objects::{Nanos, NodeId};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use wire::logs::{AskLogs, AskLogsRequest, Heard, LogPart, LogWish, LogsOf, PieceHead};

use crate::clock;
use crate::manager::Manager;

/// Pieces that wait for a reader. chosen: a few, of up to 64 KiB each.
const BACKLOG: usize = 8;
/// How long a piece waits for a slow reader before its node is told to send it again. chosen: below what a node waits for
/// an answer.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);
/// How long another manager may take to pass a wish on.
const ASKED_WITHIN: Duration = Duration::from_secs(2);
/// A node that tells sends a piece every two seconds, if an empty one; after this it is not expected to go on.
const SILENT_AFTER_S: i64 = 10;
/// Between two looks for nodes that have such tasks only now.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A piece of a node.
struct Piece {
    node: NodeId,
    head: PieceHead,
    entries: Bytes,
}

/// Who reads logs here at the moment, by the name of the wish.
#[derive(Default)]
pub(crate) struct Readers {
    table: Mutex<BTreeMap<String, mpsc::Sender<Piece>>>,
}

impl Readers {
    fn enter(&self, id: &str, sender: mpsc::Sender<Piece>) {
        self.table.lock().expect("nothing panics while holding it").insert(id.to_owned(), sender);
    }

    fn leave(&self, id: &str) {
        self.table.lock().expect("nothing panics while holding it").remove(id);
    }

    fn get(&self, id: &str) -> Option<mpsc::Sender<Piece>> {
        self.table.lock().expect("nothing panics while holding it").get(id).cloned()
    }
}

/// The logs a client reads. Dropped, the nodes stop telling.
pub struct LogReader {
    manager: Manager,
    wish: LogWish,
    pieces: mpsc::Receiver<Piece>,
    nodes: BTreeMap<NodeId, Teller>,
    /// Asked in vain.
    missing: BTreeSet<NodeId>,
    look: Interval,
    is_begun: bool,
}

/// A node that was asked.
struct Teller {
    heard: Instant,
    number: u64,
    is_done: bool,
}

/// The nodes whose part of the logs is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "warning: incomplete log stream. some logs could not be retrieved for the following reasons: {}",
    .nodes.iter().map(|node| format!("node {node} is not available")).collect::<Vec<_>>().join(", ")
)]
pub struct IncompleteLogs {
    /// Their ids.
    pub nodes: Vec<NodeId>,
}

impl Manager {
    /// Begins to read logs of tasks on any node.
    #[must_use]
    pub fn read_logs(&self, of: LogsOf, part: LogPart) -> LogReader {
        let (sender, pieces) = mpsc::channel(BACKLOG);
        let id: objects::TaskId = self.new_id();
        let wish = LogWish {
            id: id.to_string(),
            manager: self.inner.node.clone(),
            address: self.inner.address.clone(),
            of,
            part,
        };
        self.inner.readers.enter(&wish.id, sender);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        LogReader {
            manager: self.clone(),
            wish,
            pieces,
            nodes: BTreeMap::new(),
            missing: BTreeSet::new(),
            look,
            is_begun: false,
        }
    }

    /// Takes a piece of a node for whoever reads it here.
    pub async fn hear_logs(&self, node: NodeId, head: PieceHead, entries: Bytes) -> Heard {
        let Some(reader) = self.inner.readers.get(&head.id) else { return Heard::default() };
        match reader.send_timeout(Piece { node, head, entries }, TAKEN_WITHIN).await {
            Ok(()) => Heard { goes_on: true, is_taken: true },
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Heard { goes_on: true, is_taken: false },
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Heard::default(),
        }
    }

    /// Passes a wish on to those of the nodes that have a session here.
    pub(crate) fn ask_for_logs(&self, request: &AskLogsRequest) -> Vec<NodeId> {
        let is_told = |node: &&NodeId| self.inner.sessions.wish(node, &request.wish);
        request.nodes.iter().filter(is_told).cloned().collect()
    }

    /// Nodes that have, or had, such tasks.
    fn nodes_with(&self, of: &LogsOf) -> BTreeSet<NodeId> {
        let store = self.inner.consensus.read();
        let nodes: BTreeSet<NodeId> = match of {
            LogsOf::Service { id } => store.tasks_of_service(id).map(|task| task.node_id.clone()).collect(),
            LogsOf::Task { id } => store.task(id).map(|task| task.node_id.clone()).into_iter().collect(),
            LogsOf::Unknown => BTreeSet::new(),
        };
        nodes.into_iter().filter(|node| store.node(node).is_some()).collect()
    }
}

impl LogReader {
    /// The next entries of any node; an error is the last item.
    pub async fn next(&mut self) -> Option<Result<Bytes, IncompleteLogs>> {
        loop {
            if self.is_over() {
                let nodes: Vec<NodeId> = std::mem::take(&mut self.missing).into_iter().collect();
                return (!nodes.is_empty()).then_some(Err(IncompleteLogs { nodes }));
            }
            tokio::select! {
                Some(piece) = self.pieces.recv() => {
                    if let Some(entries) = self.take(piece) {
                        return Some(Ok(entries));
                    }
                }
                _ = self.look.tick() => {
                    self.give_up_the_silent();
                    if !self.is_begun || self.wish.part.follow {
                        self.ask().await;
                        self.is_begun = true;
                    }
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        let may_begin = matches!(self.wish.of, LogsOf::Service { .. }) || self.nodes.is_empty();
        let goes_on = self.wish.part.follow && may_begin;
        self.is_begun && !goes_on && self.nodes.values().all(|teller| teller.is_done)
    }

    fn take(&mut self, piece: Piece) -> Option<Bytes> {
        let teller = self.nodes.entry(piece.node).or_insert_with(Teller::new);
        teller.heard = Instant::now();
        if piece.head.number <= teller.number {
            return None;
        }
        teller.number = piece.head.number;
        teller.is_done |= piece.head.is_last;
        (!piece.entries.is_empty()).then_some(piece.entries)
    }

    /// Nodes that stopped telling are asked again when the logs are followed, and missing when not.
    fn give_up_the_silent(&mut self) {
        let limit = Duration::from_secs(SILENT_AFTER_S.unsigned_abs());
        let is_silent = |teller: &Teller| !teller.is_done && teller.heard.elapsed() > limit;
        let silent: Vec<NodeId> =
            self.nodes.iter().filter(|(_, teller)| is_silent(teller)).map(|(node, _)| node.clone()).collect();
        for node in silent {
            self.nodes.remove(&node);
            self.missing.insert(node);
        }
    }

    /// Asks those nodes that were not asked yet.
    async fn ask(&mut self) {
        let mut nodes = self.manager.nodes_with(&self.wish.of);
        nodes.retain(|node| !self.nodes.contains_key(node));
        let (again, new): (BTreeSet<_>, _) =
            nodes.into_iter().partition(|node| self.missing.contains(node) && self.is_begun);
        self.ask_these(new, self.wish.clone()).await;
        // What they told before is not to be told twice: these go on from here.
        let since = clock::now() - Nanos::from_secs(SILENT_AFTER_S);
        let part = LogPart { since: Some(since), tail: None, ..self.wish.part.clone() };
        self.ask_these(again, LogWish { part, ..self.wish.clone() }).await;
    }

    async fn ask_these(&mut self, nodes: BTreeSet<NodeId>, wish: LogWish) {
        if nodes.is_empty() {
            return;
        }
        let mut request = AskLogsRequest { wish, nodes: nodes.into_iter().collect() };
        let mut asked = self.manager.ask_for_logs(&request);
        request.nodes.retain(|node| !asked.contains(node));
        if !request.nodes.is_empty() {
            let inner = &self.manager.inner;
            let peers = self.manager.managers_seen().peers.into_iter();
            let others = peers.filter(|peer| peer.node != inner.node && peer.is_reachable).map(|peer| {
                let request = &request;
                async move { inner.client.call::<AskLogs>(&peer.address, request, ASKED_WITHIN).await }
            });
            for answer in futures_util::future::join_all(others).await {
                match answer {
                    Ok(told) => asked.extend(told.nodes),
                    Err(error) => tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "a manager passed no wish for logs on"
                    ),
                }
            }
        }
        self.missing.extend(request.nodes.into_iter().filter(|node| !asked.contains(node)));
        for node in asked {
            self.missing.remove(&node);
            self.nodes.entry(node).or_insert_with(Teller::new);
        }
    }
}

impl Teller {
    fn new() -> Self {
        Self { heard: Instant::now(), number: 0, is_done: false }
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.manager.inner.readers.leave(&self.wish.id);
    }
}

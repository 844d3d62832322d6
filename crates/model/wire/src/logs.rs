//! What managers and nodes say to each other about the logs of tasks.
//!
//! ```text
//!  client ─► manager ── AskLogs ──► the other managers ── session ──► nodes with such tasks
//!               ▲                                                        │
//!               └─────────────────────── TELL_LOGS ◄─────────────────────┘
//! ```
//!
//! The entries are written as the client wants them where they are read: managers pass bytes on.

use objects::{NodeId, ServiceId, TaskId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Callers, Method, RawMethod};

/// A piece of a log, from a node to the manager that asked; see [`piece`]. Answered by [`Heard`].
pub const TELL_LOGS: RawMethod = RawMethod { name: "logs/tell", callers: Callers::Node };

/// Asks a manager to pass a wish on to those nodes that have a session with it.
pub struct AskLogs;

impl Method for AskLogs {
    const NAME: &'static str = "logs/ask";
    const CALLERS: Callers = Callers::Manager;
    type Request = AskLogsRequest;
    type Response = Asked;
}

/// A wish and whom it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AskLogsRequest {
    /// The wish.
    pub wish: LogWish,
    /// The nodes.
    pub nodes: Vec<NodeId>,
}

/// Who was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Those of the nodes that have a session with the manager that was asked.
    pub nodes: Vec<NodeId>,
}

/// Logs that a client wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogWish {
    /// Names the wish; 25 characters as an id has. Who knows it may tell.
    pub id: String,
    /// The manager the client asked.
    pub manager: NodeId,
    /// Where it is, `host:port`.
    pub address: String,
    /// Whose logs.
    pub of: LogsOf,
    /// Which part of them, and how they are written.
    pub part: LogPart,
}

/// Whose logs are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum LogsOf {
    /// Of every task of a service, also of those that start later.
    Service {
        /// Its id.
        id: ServiceId,
    },
    /// Of one task; they end with its container.
    Task {
        /// Its id.
        id: TaskId,
    },
    /// Of something that a later version knows.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Which part of a log, and how its entries are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogPart {
    /// Go on with what is to come.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Only entries at or after this time.
    pub since: Option<Timestamp>,
    /// Only entries at or before this time.
    pub until: Option<Timestamp>,
    /// Only so many of the last entries of each task that are there; `None`: all.
    pub tail: Option<u64>,
    /// With the time before each entry.
    pub timestamps: bool,
    /// With details before each entry.
    pub details: bool,
    /// Each entry in a frame that says of which stream it is.
    pub framed: bool,
}

/// What stands before the bytes of a piece.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PieceHead {
    /// Of which wish.
    pub id: String,
    /// Counts the node's pieces from 1: one that comes again is heard once.
    pub number: u64,
    /// The node has nothing more to tell.
    pub is_last: bool,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heard {
    /// Whether anybody still reads.
    pub goes_on: bool,
    /// Whether the piece was taken; else the reader is slow, and it is to be sent again.
    pub is_taken: bool,
}

/// The body of a call of [`TELL_LOGS`]: the head as one line of JSON, then whole entries.
#[must_use]
pub fn piece(head: &PieceHead, entries: &[u8]) -> Vec<u8> {
    let mut body = serde_json::to_vec(head).expect("a few plain fields serialise");
    body.push(b'\n');
    body.extend_from_slice(entries);
    body
}

/// Reads what [`piece`] wrote; `None` when it is none. The number is where the entries begin.
#[must_use]
pub fn read_piece(body: &[u8]) -> Option<(PieceHead, usize)> {
    let end = body.iter().position(|byte| *byte == b'\n')?;
    Some((serde_json::from_slice(&body[..end]).ok()?, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_reads_back_as_it_was() {
        let head = PieceHead { id: "w".to_owned(), number: 7, is_last: false };
        for entries in [&b""[..], b"\n", b"one\ntwo\x00"] {
            let body = piece(&head, entries);
            let (read, begin) = read_piece(&body).unwrap();
            assert_eq!((read, &body[begin..]), (head.clone(), entries));
        }
        assert_eq!(read_piece(b"no head"), None);
        assert_eq!(read_piece(b"no json\n"), None);
    }

    #[test]
    fn a_wish_reads_back_and_one_of_a_later_version_is_known_as_such() {
        let wish = LogWish { of: LogsOf::Task { id: "t".into() }, ..LogWish::default() };
        let text = serde_json::to_string(&wish).unwrap();
        assert_eq!(serde_json::from_str::<LogWish>(&text).unwrap(), wish);
        let later = r#"{"of":{"kind":"Stack","id":{"name":"s"}}}"#;
        assert_eq!(serde_json::from_str::<LogWish>(later).unwrap(), LogWish::default());
    }
}

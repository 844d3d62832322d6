//! The messages between the daemon and a shim.
//!
//! In and out: frames of eight bytes `[kind, flags, 0, 0, length as little-endian u32]` and a payload. A shim outlives
//! several daemons, so kinds and payloads are only ever added to: a shim answers [`Kind::Failed`] to what it doesn't know, a daemon
//! skips what it doesn't know, and JSON payloads ignore unknown fields. Each request gets one answer, in order; output and
//! news come in between. Never knows what a message leads to.

use objects::Timestamp;
use serde::{Deserialize, Serialize};

/// Version of this protocol, as the shim tells it in [`Hello`].
pub(crate) const PROTOCOL: u32 = 1;

/// Oldest version that this client understands.
pub(crate) const OLDEST_PROTOCOL: u32 = 1;

/// Bytes before each payload.
pub(crate) const HEADER_BYTES: usize = 8;

/// Longest payload towards the shim; it holds this much per client. Chosen: a quarter of a pipe's buffer.
pub(crate) const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Longest payload towards the daemon. Chosen: one read of a full pipe.
pub(crate) const MAX_NEWS_BYTES: usize = 64 * 1024;

/// [`Kind::Attach`]: the client will send input.
pub(crate) const WANTS_STDIN: u8 = 1;
/// [`Kind::Attach`]: the client wants standard output.
pub(crate) const WANTS_STDOUT: u8 = 2;
/// [`Kind::Attach`]: the client wants standard error.
pub(crate) const WANTS_STDERR: u8 = 4;

/// [`Kind::Signal`]: to every process of the container.
pub(crate) const SIGNAL_ALL: u8 = 1;

/// What a frame is about. The numbers are for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Execute the program. Answer: [`Started`] in [`Kind::Done`], or [`Failure`].
    Go = 1,
    /// Send output on this connection from now on; flags say which, and whether input will come.
    Attach = 2,
    /// Bytes for standard input. Not answered.
    Input = 3,
    /// No more input follows on this connection. Not answered.
    InputEnd = 4,
    /// Rows and columns, each a little-endian u16.
    Resize = 5,
    /// A little-endian i32; flags say to whom.
    Signal = 6,
    /// Answer for names from now on, as if the orders had said so; no change when that is so already.
    OpenResolver = 7,
    /// The first frame of every connection: [`Hello`].
    Hello = 64,
    /// A request was carried out.
    Done = 65,
    /// A request was not, or (as first or last frame) the process could not be made or started: [`Failure`].
    Failed = 66,
    /// Output; the flags hold the number of the stream.
    Output = 67,
    /// The last frame of every connection: [`crate::Exit`]. Its record is on disk and all output was sent.
    Exited = 68,
}

impl Kind {
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Go,
            2 => Self::Attach,
            3 => Self::Input,
            4 => Self::InputEnd,
            5 => Self::Resize,
            6 => Self::Signal,
            7 => Self::OpenResolver,
            64 => Self::Hello,
            65 => Self::Done,
            66 => Self::Failed,
            67 => Self::Output,
            68 => Self::Exited,
            _ => return None,
        })
    }
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// A [`Kind`], or the number of one that isn't known here.
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) len: usize,
}

impl Header {
    pub(crate) const fn new(kind: Kind, flags: u8, len: usize) -> Self {
        Self { kind: kind as u8, flags, len }
    }

    #[expect(clippy::cast_possible_truncation, reason = "payloads are at most 64 KiB")]
    pub(crate) const fn encode(self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = (self.len as u32).to_le_bytes();
        [self.kind, self.flags, 0, 0, a, b, c, d]
    }

    pub(crate) const fn decode(bytes: [u8; HEADER_BYTES]) -> Self {
        let [kind, flags, _, _, a, b, c, d] = bytes;
        Self { kind, flags, len: u32::from_le_bytes([a, b, c, d]) as usize }
    }
}

/// A whole frame in one buffer.
pub(crate) fn frame(kind: Kind, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&Header::new(kind, flags, payload.len()).encode());
    bytes.extend_from_slice(payload);
    bytes
}

/// A frame whose payload is JSON.
pub(crate) fn json_frame(kind: Kind, payload: &impl Serialize) -> Vec<u8> {
    let payload = serde_json::to_vec(payload).expect("payloads are plain data with text keys");
    frame(kind, 0, &payload)
}

/// How a shim introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) processes: Processes,
    /// Missing while the process waits for [`Kind::Go`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<Timestamp>,
}

/// Which processes belong to a shim; also the contents of `shim.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Processes {
    pub(crate) shim_pid: i32,
    pub(crate) pid: i32,
    /// From `runtime::start_time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pid_start_time: Option<u64>,
}

/// Why something wasn't done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// Given when the process could not be made or started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
}

/// The answer to [`Kind::Go`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) started_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_begins_with_its_header() {
        let bytes = frame(Kind::Output, 2, b"abc");
        assert_eq!(bytes, b"\x43\x02\0\0\x03\0\0\0abc");
        let header = Header::decode(bytes[..HEADER_BYTES].try_into().unwrap());
        assert_eq!(header, Header::new(Kind::Output, 2, 3));
    }

    #[test]
    fn every_kind_is_found_by_its_number() {
        let known: Vec<_> = (0..=255).filter_map(Kind::from_number).collect();
        assert_eq!(known.len(), 12);
        assert!(known.iter().all(|kind| Kind::from_number(*kind as u8) == Some(*kind)));
    }

    #[test]
    fn messages_of_a_newer_shim_are_understood() {
        let text = r#"{"protocol":2,"processes":{"shim_pid":1,"pid":2,"new":[1]},"mood":"good"}"#;
        let hello: Hello = serde_json::from_str(text).unwrap();
        assert_eq!(hello.processes, Processes { shim_pid: 1, pid: 2, pid_start_time: None });
        assert_eq!(hello.started_at, None);
    }
}

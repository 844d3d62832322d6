//! The record of a container's end.
//!
//! In: what the kernel reported. Out: `exit.json`, there completely or not at all, and the same value again.
//! Never says why a container was stopped; only the engine knows.

use objects::Timestamp;
use serde::{Deserialize, Serialize};

/// How a process that had been started came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 to 255; 128 + signal when a signal ended it, as Docker counts.
    pub code: i32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of the container for lack of memory. Always false for an exec.
    #[serde(default)]
    pub oom_killed: bool,
    /// When its program was executed.
    pub started_at: Timestamp,
    /// When its end was seen.
    pub finished_at: Timestamp,
    /// Lines that could not be written to the log, for example because the disk was full.
    #[serde(default)]
    pub log_lines_dropped: u64,
}

//! Where and how one container's output is kept.
//!
//! In: options that were already validated. Out: plain data that travels to the shim. Never touches a file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Files that are kept when `max-file` is not given: only the current one. Source: moby, `jsonfilelog.go`.
pub const DEFAULT_MAX_FILES: u32 = 1;

/// One of the two output streams of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output, and everything of a container with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// `stdout` or `stderr`, as in the log file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// The number in Docker's multiplexed streams: 1 or 2.
    pub const fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    /// The stream of a number in Docker's multiplexed streams; `None` for anything but 1 and 2.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// What becomes of a container's output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogSpec {
    /// It is only handed to attached clients.
    #[default]
    None,
    /// It is kept in files of Docker's json-file format.
    JsonFile(JsonFileSpec),
}

/// A json-file log: its current file, and how it rotates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonFileSpec {
    /// The current file; rotated ones stand beside it as `<path>.1` (newest), `<path>.2`, … Its directory must exist.
    pub path: PathBuf,
    /// Bytes after which the file rotates; it may be exceeded by one line. `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
    /// How many files are kept, with the current one; at least 1.
    pub max_files: u32,
    /// Written into every line (`attrs`): chosen labels, environment variables and the tag.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
}

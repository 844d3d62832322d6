//! The daemon's side: starts shims, finds them again, talks to them.
//!
//! In: a directory per container or exec. Out: a [`Handle`], streams, and in the end an [`Exit`] or a [`Lost`].
//! All methods may be cancelled by dropping their future. Never keeps state that a restart of the daemon would miss.

mod adopt;
mod attach;
mod connection;
mod lost;
mod program;
mod spawn;
mod wire;

use crate::Exit;

pub use adopt::{AdoptError, Adopted, adopt};
pub use attach::{AttachOptions, AttachReader, AttachWriter, Attached, Output};
pub use connection::{Handle, RequestError};
pub use lost::{CleanUpError, Lost};
pub use program::Program;
pub use spawn::{SpawnError, spawn};

/// What Docker shows when a start failed for no reason of the program's.
/// Source: moby, `daemon/errors.go` (128).
pub(crate) const EXIT_CODE_OTHER: i32 = 128;

/// Why the process could not be created or started, in the words that Docker's clients know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartFailure {
    /// The text of `runtime::StartError`.
    pub message: String,
    /// The exit code Docker shows for it: 126, 127 or 128.
    pub exit_code: i32,
}

/// The end of a container, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The shim saw it.
    Exited(Exit),
    /// The shim is gone and left no record. Also after a failed [`Handle::go`], which tells the reason; then nothing is left.
    Lost(Lost),
}

/// To whom a signal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalTarget {
    /// The process that was started.
    Init,
    /// Every process of the container; for an exec the same as [`SignalTarget::Init`].
    All,
}

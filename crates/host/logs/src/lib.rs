//! Writes, rotates, reads and follows container logs.
//!
//! ```text
//!  container ──pipe──► shim: Writer ──► <id>-json.log, .1, .2 … ──► daemon: Reader ──► API
//!                      (lines, attrs, rotation)                     (tail, since, until, follow)
//! ```
//!
//! In: bytes of a container's two output streams. Out: Docker's json-file format on disk, and [`LogMessage`]s again.
//! The writer is synchronous and small, for the shim; the reader is for the daemon. Both sides only share the files:
//! a reader never blocks a writer. Never decides which driver a container gets; that is the engine's.

mod civil;
mod encode;
mod entry;
mod file;
mod follow;
mod frame;
mod options;
mod reader;
mod scan;
mod spec;
mod writer;

pub use entry::LogMessage;
pub use file::OpenLogError;
pub use frame::{FRAME_HEADER_LEN, frame, frame_header};
pub use options::{LogOptionError, LogSubject, log_spec, validate_log_options};
pub use reader::{ReadLogError, ReadOptions, Reader, Tail};
pub use spec::{DEFAULT_MAX_FILES, JsonFileSpec, LogSpec, OutputStream};
pub use writer::{MAX_LINE_BYTES, Writer};

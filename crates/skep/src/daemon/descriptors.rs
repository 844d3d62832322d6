//! Raises the daemon's own limit of open files as far as it may.
//!
//! In: the limit of this process. Out: a higher one for the daemon, and the one before, which containers still get. Never
//! raises the hard limit: that is the administrator's.

use engine::OpenFiles;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// A daemon needs a few descriptors for each container, and usual limits are low for the sake of `select`, which it does
/// not use. Returns the limit before. Source: the runtime of dockerd's language does the same, `os/rlimit.go`.
pub(crate) fn raise() -> OpenFiles {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "limit of open files not raised");
    }
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    OpenFiles { soft: number(before.current), hard: number(before.maximum) }
}

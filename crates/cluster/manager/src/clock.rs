//! The time, read in one place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use objects::Timestamp;

/// The time now.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// How long from now until `at`; nothing when it has passed.
pub(crate) fn until(at: Timestamp) -> Duration {
    at.since(now()).to_std()
}

//! The time, for answers that name it and for `since` and `until`.
//!
//! In: the system's clock. Out: our timestamp. Never sleeps.

use std::time::SystemTime;

use docker::Timestamp;
use docker::units::parse_moment;

use crate::error::ApiError;
use crate::query::Query;

/// Now.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// A `since` or `until` of the query; `None` where it is missing, empty or `0`.
pub(crate) fn moment(query: &Query, key: &str) -> Result<Option<Timestamp>, ApiError> {
    parse_moment(query.text(key), now()).map_err(|error| ApiError::invalid(error.to_string()))
}

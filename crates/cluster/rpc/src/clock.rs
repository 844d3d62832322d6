//! The machine's clock, and how nodes tell each other about theirs.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use objects::{Nanos, Timestamp};

/// Milliseconds since 1970 on the sender's clock; on every request and every response.
const TIME: HeaderName = HeaderName::from_static("skep-time");

/// The time on this machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(Nanos::from(since).0)
}

/// Writes this machine's time.
pub(crate) fn stamp(headers: &mut HeaderMap) {
    headers.insert(TIME, HeaderValue::from(now().0 / 1_000_000));
}

/// Reads the other side's time.
pub(crate) fn read(headers: &HeaderMap) -> Option<Timestamp> {
    let millis: i64 = headers.get(TIME)?.to_str().ok()?.parse().ok()?;
    Some(Timestamp(millis.checked_mul(1_000_000)?))
}

/// A node whose clock is further off is named in the log. Chosen: certificates are valid from an hour ago; half of that is
/// for what is measured wrong.
const WORTH_A_WORD: Nanos = Nanos::from_secs(30 * 60);

/// Whether the difference of two clocks is more than what a swarm can live with.
pub(crate) fn is_far_off(offset: Nanos) -> bool {
    offset.0.unsigned_abs() > WORTH_A_WORD.0.unsigned_abs()
}

/// `30 s ahead of` or `30 s behind`, for what stands before the other machine.
pub(crate) fn side(offset: Nanos) -> String {
    let seconds = offset.0.unsigned_abs() / 1_000_000_000;
    format!("{seconds} s {}", if offset.0 < 0 { "behind" } else { "ahead of" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_far_off_from_half_an_hour_on_and_the_side_is_named() {
        for (seconds, is_far, text) in [
            (0, false, "0 s ahead of"),
            (1_799, false, "1799 s ahead of"),
            (86_400, true, "86400 s ahead of"),
            (-86_400, true, "86400 s behind"),
        ] {
            let offset = Nanos::from_secs(seconds);
            assert_eq!((is_far_off(offset), side(offset).as_str()), (is_far, text));
        }
    }
}

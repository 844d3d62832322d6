//! Shows times, sizes and ids the way docker does.
//!
//! The clock is read here and nowhere else in the command line.

use crate::CliError;
use objects::{Nanos, Timestamp};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub fn now_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// How long ago `created` (seconds since 1970) was, in docker's words.
pub fn ago(created: i64) -> String {
    docker::units::human_duration(Nanos(now_seconds().saturating_sub(created).saturating_mul(1_000_000_000)))
}

/// How long ago an RFC 3339 time was; empty when it is not one.
pub fn ago_text(time: &str) -> String {
    time.parse::<Timestamp>().map(|time| ago(time.0 / 1_000_000_000)).unwrap_or_default()
}

/// `a=1,b=2`
pub fn labels(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let pairs = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let mut pairs: Vec<String> = pairs.collect();
    pairs.sort();
    pairs.join(",")
}

/// A time of the API as Go prints it: `2026-01-02 03:04:05.678 +0000 UTC`.
pub fn go_time(time: &str) -> String {
    time.replace('T', " ").replace('Z', " +0000 UTC")
}

/// A size with three digits and a decimal unit: `12.3MB`.
pub fn size(bytes: i64) -> String {
    docker::units::human_size(u64::try_from(bytes).unwrap_or(0), 3)
}

/// `text` in at most `keep` characters, the last one `…` when something was cut.
pub fn shorten(text: &str, keep: usize) -> String {
    if text.chars().count() <= keep {
        return text.to_owned();
    }
    text.chars().take(keep.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

/// Seconds since 1970 as `2026-01-02T03:04:05Z`.
pub fn rfc3339(seconds: i64) -> String {
    Timestamp(seconds.saturating_mul(1_000_000_000)).to_string()
}

/// Seconds since 1970 as `2026-01-02 03:04:05 +0000 UTC`.
pub fn unix_time(seconds: i64) -> String {
    let text = Timestamp(seconds.saturating_mul(1_000_000_000)).to_string();
    text.replace('T', " ").replace('Z', " +0000 UTC")
}

/// A moment as the API takes it (`seconds.nanos`): RFC 3339, a date, seconds since 1970, or a duration before now.
///
/// # Errors
/// When the text is none of these.
pub fn moment(text: &str) -> Result<String, CliError> {
    let now = Timestamp(now_seconds().saturating_mul(1_000_000_000));
    // A date, or a time without a zone, is taken as UTC.
    let zoned = match text.len() {
        10 if text.matches('-').count() == 2 => format!("{text}T00:00:00Z"),
        19 if text.contains('T') => format!("{text}Z"),
        _ => text.to_owned(),
    };
    let time = docker::units::parse_moment(&zoned, now).map_err(|error| CliError::new(error.to_string()))?;
    let nanos = time.map_or(0, |time| time.0);
    Ok(format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_text_ends_in_an_ellipsis() {
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("abcd", 4), "abcd");
    }
}

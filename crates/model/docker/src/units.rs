//! Durations and sizes in Go's and Docker's notation.
//!
//! In: texts like `1m30s`, `512m`, `1700000000.5`. Out: nanoseconds, bytes, and the texts people read. Never reads a
//! clock.

use objects::{Nanos, Timestamp};

/// Why a text is no duration. Source: Go, `time.ParseDuration`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a duration, or beyond 292 years.
    #[error("time: invalid duration \"{0}\"")]
    Invalid(String),
    /// A number alone.
    #[error("time: missing unit in duration \"{0}\"")]
    MissingUnit(String),
    /// A unit Go does not know.
    #[error("time: unknown unit \"{unit}\" in duration \"{text}\"")]
    UnknownUnit {
        /// What stood for the unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Reads Go's notation: `300ms`, `-1.5h`, `2h45m`, `0`.
pub fn parse_duration(text: &str) -> Result<Nanos, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Nanos(0));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanos, tail) = parse_term(text, rest)?;
        total = total.checked_add(nanos).filter(|sum| *sum <= 1 << 63).ok_or_else(invalid)?;
        rest = tail;
    }
    match (negative, i64::try_from(total)) {
        (false, Ok(nanos)) => Ok(Nanos(nanos)),
        (true, Ok(nanos)) => Ok(Nanos(-nanos)),
        (true, Err(_)) => Ok(Nanos(i64::MIN)),
        (false, Err(_)) => Err(invalid()),
    }
}

/// One number with its unit, and what follows it.
fn parse_term<'a>(text: &str, rest: &'a str) -> Result<(u64, &'a str), DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let split = |text: &'a str| {
        let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        text.split_at(end)
    };
    let (whole, mut tail) = split(rest);
    let mut fraction = "";
    if let Some(after) = tail.strip_prefix('.') {
        (fraction, tail) = split(after);
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let end = tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
    let (unit, tail) = tail.split_at(end);
    let scale: u64 = match unit {
        "" => return Err(DurationError::MissingUnit(text.to_owned())),
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return Err(DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() }),
    };
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let nanos = whole.checked_mul(scale).ok_or_else(invalid)?;
    let nanos = nanos.checked_add(fraction_of(fraction, scale)).ok_or_else(invalid)?;
    Ok((nanos, tail))
}

/// `0.fraction * scale`, rounded down; digits beyond the 18th cannot matter.
fn fraction_of(digits: &str, scale: u64) -> u64 {
    let digits = &digits[..digits.len().min(18)];
    let value: u128 = digits.parse().unwrap_or(0);
    let power = 10u128.pow(u32::try_from(digits.len()).expect("at most 18"));
    u64::try_from(value * u128::from(scale) / power).expect("less than scale")
}

/// Go's `Duration.String`: `1h0m0s`, `1.5s`, `300ms`, `0s`.
pub fn format_duration(duration: Nanos) -> String {
    let nanos = duration.0.unsigned_abs();
    let sign = if duration.0 < 0 { "-" } else { "" };
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        let (scale, unit) = match nanos {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{unit}", decimal(nanos, scale));
    }
    let minutes = nanos / 60_000_000_000;
    let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / scale` with all its decimals and no trailing zero.
fn decimal(value: u64, scale: u64) -> String {
    let rest = value % scale;
    if rest == 0 {
        return (value / scale).to_string();
    }
    let width = scale.ilog10() as usize;
    let fraction = format!("{rest:0width$}");
    format!("{}.{}", value / scale, fraction.trim_end_matches('0'))
}

/// How long ago, for people: `3 minutes`, `About an hour`, `Less than a second`.
///
/// Source: go-units, `duration.go` `HumanDuration`.
pub fn human_duration(duration: Nanos) -> String {
    let seconds = duration.0 / 1_000_000_000;
    let minutes = seconds / 60;
    // Go rounds the hours to the nearest.
    let hours = (duration.0 + 1_800 * 1_000_000_000) / 3_600_000_000_000;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// Why a text is no size. Source: go-units, `size.go`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with an optional unit.
    #[error("invalid size: '{0}'")]
    Invalid(String),
    /// A unit nobody knows.
    #[error("invalid suffix: '{0}'")]
    Suffix(String),
}

/// Bytes of `512m`, `1.5GiB`, `64k`: powers of 1024, in any case. Source: go-units `RAMInBytes`.
pub fn parse_ram(text: &str) -> Result<i64, SizeError> {
    parse_size(text, 1024)
}

/// Bytes of `512m`, `10GB`: powers of 1000, in any case. Source: go-units `FromHumanSize`.
pub fn parse_human_size(text: &str) -> Result<i64, SizeError> {
    parse_size(text, 1000)
}

fn parse_size(text: &str, base: i64) -> Result<i64, SizeError> {
    let invalid = || SizeError::Invalid(text.to_owned());
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |at| at + 1);
    let (number, suffix) = text.split_at(end);
    let number = number.trim_end();
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: f64 = if plain { number.parse().map_err(|_| invalid())? } else { return Err(invalid()) };
    let lower = suffix.trim_start().to_ascii_lowercase();
    let power = match lower.as_str() {
        "" | "b" => 0,
        _ => {
            let unit = lower.chars().next().expect("not empty");
            let power = "kmgtpe".find(unit).ok_or_else(|| SizeError::Suffix(suffix.to_owned()))? + 1;
            if !matches!(&lower[1..], "" | "b" | "ib") {
                return Err(SizeError::Suffix(suffix.to_owned()));
            }
            power
        }
    };
    #[allow(
        clippy::cast_precision_loss,
        reason = "a power of 1000 or 1024 up to 2^60 is exact enough in Go too"
    )]
    let bytes = value * (base as f64).powi(i32::try_from(power).expect("at most 6"));
    if bytes.is_finite() && bytes < 9.2e18 {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "checked against the range, and Go truncates as well"
        )]
        let bytes = bytes as i64;
        return Ok(bytes);
    }
    Err(invalid())
}

/// `1.5MB`: powers of 1000, `digits` significant digits. Source: go-units `HumanSizeWithPrecision`.
pub fn human_size(bytes: u64, digits: usize) -> String {
    scaled(bytes, 1000.0, digits, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// `1.5MiB`: powers of 1024, four significant digits. Source: go-units `BytesSize`.
pub fn bytes_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, 4, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(bytes: u64, base: f64, digits: usize, units: &[&str]) -> String {
    #[allow(clippy::cast_precision_loss, reason = "shown with at most four digits")]
    let mut value = bytes as f64;
    let mut place = 0;
    while value >= base && place + 1 < units.len() {
        value /= base;
        place += 1;
    }
    format!("{}{}", significant(value, digits), units[place])
}

/// Go's `%.{digits}g` for values from 0 to 1024.
fn significant(value: f64, digits: usize) -> String {
    let whole_digits = match value {
        v if v >= 1000.0 => 4,
        v if v >= 100.0 => 3,
        v if v >= 10.0 => 2,
        _ => 1,
    };
    let text = format!("{value:.*}", digits.saturating_sub(whole_digits));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A `since` or `until` that is neither Unix seconds nor RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse value as time or duration: \"{0}\"")]
pub struct TimeError(pub String);

/// Reads a `since` or `until`: Unix seconds with an optional fraction, RFC 3339, or a duration before `now`.
///
/// `None` for an empty text or `0`. Source: moby, `api/types/time/timestamp.go`.
pub fn parse_moment(text: &str, now: Timestamp) -> Result<Option<Timestamp>, TimeError> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let failed = || TimeError(text.to_owned());
    if let Some(moment) = parse_unix(text) {
        return Ok(Some(moment));
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(Some(moment));
    }
    let ago = parse_duration(text).map_err(|_| failed())?;
    now.0.checked_sub(ago.0).map(|nanos| Some(Timestamp(nanos))).ok_or_else(failed)
}

fn parse_unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || fraction.len() > 9 {
        return None;
    }
    let nanos = i64::try_from(fraction_of(fraction, 1_000_000_000)).expect("less than a second");
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Timestamp)
}

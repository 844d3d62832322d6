//! RFC 3339 times, fast enough for every line of a log.
//!
//! In: nanoseconds since the epoch, or text. Out: text with up to nine digits and `Z` (Go's `RFC3339Nano`), or
//! nanoseconds. Keeps the text of the last second, since lines come in bursts. Never reads a clock.

const NANOS: i64 = 1_000_000_000;

/// Bytes of `2006-01-02T15:04:05`.
const SECOND_LEN: usize = 19;

/// Formats times of one log.
#[derive(Debug)]
pub(crate) struct TimeFormat {
    second: i64,
    text: [u8; SECOND_LEN],
}

impl TimeFormat {
    pub(crate) fn new() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00" }
    }

    /// Appends the time without quotes. Times outside the years 0 to 9999 don't occur: clocks don't run there.
    pub(crate) fn append(&mut self, nanos_since_epoch: i64, out: &mut Vec<u8>) {
        let second = nanos_since_epoch.div_euclid(NANOS);
        if second != self.second {
            self.text = second_text(second);
            self.second = second;
        }
        out.extend_from_slice(&self.text);
        append_fraction(nanos_since_epoch.rem_euclid(NANOS), out);
        out.push(b'Z');
    }
}

fn append_fraction(mut nanos: i64, out: &mut Vec<u8>) {
    if nanos == 0 {
        return;
    }
    let mut text = *b".000000000";
    for place in text[1..].iter_mut().rev() {
        *place = digit(nanos % 10);
        nanos /= 10;
    }
    let len = text.iter().rposition(|&byte| byte != b'0').map_or(0, |last| last + 1);
    out.extend_from_slice(&text[..len]);
}

fn digit(value: i64) -> u8 {
    b'0' + u8::try_from(value.rem_euclid(10)).expect("a remainder of ten fits a byte")
}

fn second_text(second: i64) -> [u8; SECOND_LEN] {
    let (days, rest) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    let (year, month, day) = date_of(days);
    let mut text = *b"0000-00-00T00:00:00";
    text[..4].copy_from_slice(&[digit(year / 1000), digit(year / 100), digit(year / 10), digit(year)]);
    for (at, value) in [(5, month), (8, day), (11, rest / 3600), (14, rest / 60 % 60), (17, rest % 60)] {
        text[at] = digit(value / 10);
        text[at + 1] = digit(value);
    }
    text
}

/// Year, month and day of a day counted from the epoch.
/// Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn date_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`date_of`]. Source: as there, `days_from_civil`.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Reads a time as dockerd and this crate write it; `None` for anything else. Offsets other than `Z` are understood.
pub(crate) fn parse(text: &[u8]) -> Option<i64> {
    let (second, rest) = text.split_at_checked(SECOND_LEN)?;
    let shape_holds =
        [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')].iter().all(|&(at, c)| second[at] == c);
    if !shape_holds {
        return None;
    }
    let (year, month, day) = (number(&second[..4])?, number(&second[5..7])?, number(&second[8..10])?);
    let (hour, minute, second) = (number(&second[11..13])?, number(&second[14..16])?, number(&second[17..])?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanos, zone) = fraction(rest)?;
    let seconds = days_of(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
    seconds.checked_mul(NANOS)?.checked_add(nanos)
}

fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&len) {
        return None;
    }
    let scale = (len..9).fold(1, |scale, _| scale * 10);
    Some((number(&digits[..len])? * scale, &digits[len..]))
}

fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let seconds = number(&[*h1, *h2])? * 3600 + number(&[*m1, *m2])? * 60;
            Some(if *sign == b'+' { seconds } else { -seconds })
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(nanos: i64, text: &str) {
        let mut out = Vec::new();
        TimeFormat::new().append(nanos, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), text);
        assert_eq!(parse(text.as_bytes()), Some(nanos));
    }

    #[test]
    fn times_are_written_and_read_like_go_does() {
        check(0, "1970-01-01T00:00:00Z");
        check(1_700_000_000 * NANOS, "2023-11-14T22:13:20Z");
        check(1_700_000_000 * NANOS + 120_000_000, "2023-11-14T22:13:20.12Z");
        check(1_709_210_096 * NANOS + 1, "2024-02-29T12:34:56.000000001Z");
        check(-1, "1969-12-31T23:59:59.999999999Z");
        check(4_102_444_799 * NANOS, "2099-12-31T23:59:59Z");
    }

    #[test]
    fn every_day_of_four_centuries_is_its_own_inverse() {
        for day in -146_097..146_097 {
            let (year, month, date) = date_of(day);
            assert_eq!(days_of(year, month, date), day);
        }
    }

    #[test]
    fn offsets_are_understood_and_nonsense_is_not() {
        assert_eq!(parse(b"2023-11-14T23:13:20+01:00"), Some(1_700_000_000 * NANOS));
        assert_eq!(parse(b"2023-11-14T21:43:20.5-00:30"), Some(1_700_000_000 * NANOS + NANOS / 2));
        for wrong in
            ["", "2023-11-14", "2023-11-14T22:13:20", "2023-13-14T22:13:20Z", "2023-11-14T22:13:20.Z", "x"]
        {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}

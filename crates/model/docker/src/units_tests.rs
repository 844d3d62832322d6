//! Tests of durations, sizes and moments: tables from Go and go-units, and properties.

use objects::{Nanos, Timestamp};
use proptest::prelude::*;

use crate::units::*;

const SECOND: i64 = 1_000_000_000;

#[test]
fn durations_read_and_print_as_in_go() {
    let check = |text: &str, nanos: i64, printed: &str| {
        assert_eq!(parse_duration(text), Ok(Nanos(nanos)), "{text}");
        assert_eq!(format_duration(Nanos(nanos)), printed, "{text}");
    };
    check("0", 0, "0s");
    check("5s", 5 * SECOND, "5s");
    check("1m30s", 90 * SECOND, "1m30s");
    check("1.5h", 5400 * SECOND, "1h30m0s");
    check("300ms", 300_000_000, "300ms");
    check("-1.5s", -3 * SECOND / 2, "-1.5s");
    check("+.5s", SECOND / 2, "500ms");
    check("1.s", SECOND, "1s");
    check("10us", 10_000, "10µs");
    check("10µs", 10_000, "10µs");
    check("1ns", 1, "1ns");
    check("2160h", 7776 * 1000 * SECOND, "2160h0m0s");
    check("100000h", 360_000_000 * SECOND, "100000h0m0s");
    check("9223372036854775807ns", i64::MAX, "2562047h47m16.854775807s");
    check("-9223372036854775808ns", i64::MIN, "-2562047h47m16.854775808s");
}

#[test]
fn what_is_no_duration_is_refused_in_gos_words() {
    let text = |text: &str| parse_duration(text).unwrap_err().to_string();
    assert_eq!(text("10"), "time: missing unit in duration \"10\"");
    assert_eq!(text("1d"), "time: unknown unit \"d\" in duration \"1d\"");
    for bad in ["", "s", "-", ".s", "x", "9223372036854775808ns", "3000000h"] {
        assert_eq!(text(bad), format!("time: invalid duration \"{bad}\""));
    }
}

#[test]
fn ages_are_told_as_docker_tells_them() {
    let told = |seconds: i64| human_duration(Nanos(seconds * SECOND));
    let hour = 3600;
    for (seconds, text) in [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (45 * 60, "45 minutes"),
        (hour, "About an hour"),
        (2 * hour, "2 hours"),
        (47 * hour, "47 hours"),
        (48 * hour, "2 days"),
        (13 * 24 * hour, "13 days"),
        (14 * 24 * hour, "2 weeks"),
        (60 * 24 * hour, "2 months"),
        (2 * 365 * 24 * hour, "2 years"),
    ] {
        assert_eq!(told(seconds), text, "{seconds} s");
    }
}

#[test]
fn sizes_read_and_print_as_in_go_units() {
    for (text, bytes) in [
        ("32", 32),
        ("32b", 32),
        ("32k", 32 << 10),
        ("1.5GiB", 3 << 29),
        ("512 mb", 512 << 20),
        ("2T", 2 << 40),
    ] {
        assert_eq!(parse_ram(text), Ok(bytes), "{text}");
    }
    assert_eq!(parse_human_size("10GB"), Ok(10_000_000_000));
    for bad in ["", "x", "-1", "1xb", "1kk", "k", "1e30", "1.2.3"] {
        assert!(parse_ram(bad).is_err(), "{bad}");
    }
    assert_eq!(
        (human_size(0, 3), human_size(999, 3), human_size(1_234_567, 3)),
        ("0B".into(), "999B".into(), "1.23MB".into())
    );
    assert_eq!((human_size(71_600_000, 3), human_size(1_000, 4)), ("71.6MB".into(), "1kB".into()));
    assert_eq!(
        (bytes_size(1536), bytes_size(1 << 30), bytes_size(1023)),
        ("1.5KiB".into(), "1GiB".into(), "1023B".into())
    );
}

#[test]
fn moments_are_unix_seconds_or_rfc_3339_or_an_age() {
    let now = Timestamp(100 * SECOND);
    let check = |text: &str, expect: Option<i64>| {
        assert_eq!(parse_moment(text, now), Ok(expect.map(Timestamp)), "{text}");
    };
    check("", None);
    check("0", None);
    check("7", Some(7 * SECOND));
    check("7.5", Some(7 * SECOND + SECOND / 2));
    check("1700000000.000000001", Some(1_700_000_000 * SECOND + 1));
    check("1970-01-01T00:00:09Z", Some(9 * SECOND));
    check("10s", Some(90 * SECOND));
    for bad in ["x", "7.x", "1.0000000001", "--1"] {
        assert!(parse_moment(bad, now).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn a_printed_duration_reads_back(nanos in any::<i64>()) {
        prop_assert_eq!(parse_duration(&format_duration(Nanos(nanos))), Ok(Nanos(nanos)));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,20}") {
        let _ = (parse_duration(&text), parse_ram(&text), parse_moment(&text, Timestamp(0)));
    }
}

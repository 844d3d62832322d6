//! Log entries as the API sends them: one entry, one piece; framed unless the container has a terminal.
//!
//! In: entries of a log, and which decorations a client wants. Out: bytes. Never joins entries: the CLI's parser relies on
//! one entry per frame. Source: moby, `api/server/httputils/write_log_stream.go`.

use std::collections::BTreeMap;

use bytes::Bytes;
use docker::Timestamp;
use http::HeaderValue;
use logs::{LogMessage, OutputStream, Tail};

use crate::call::Call;
use crate::clock;
use crate::error::ApiError;

/// Raw bytes, or frames as clients before 1.42 know them.
pub(crate) const RAW: &str = "application/vnd.docker.raw-stream";
/// Frames.
pub(crate) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// What a client wants of a log.
#[derive(Debug, Clone)]
pub(crate) struct LogRequest {
    pub(crate) options: engine::LogsOptions,
    pub(crate) style: Style,
}

/// How an entry is decorated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) timestamps: bool,
    pub(crate) details: bool,
    pub(crate) framed: bool,
}

impl LogRequest {
    /// Reads the query. `noun` is not part of the wording.
    pub(crate) fn read<S>(call: &Call<S>) -> Result<Self, ApiError> {
        let query = &call.query;
        let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
        if !stdout && !stderr {
            return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
        }
        let options = engine::LogsOptions {
            follow: query.flag("follow"),
            stdout,
            stderr,
            since: clock::moment(query, "since")?,
            until: clock::moment(query, "until")?,
            tail: tail(query.text("tail")),
        };
        let style =
            Style { timestamps: query.flag("timestamps"), details: query.flag("details"), framed: true };
        Ok(Self { options, style })
    }
}

/// What is no number means everything. Source: moby, `daemon/logs.go`.
fn tail(text: &str) -> Tail {
    text.parse().map_or(Tail::All, Tail::Last)
}

/// The content type of a log or attach stream. Source: moby, `container_routes.go` (frames have a type since 1.42).
pub(crate) fn content_type(framed: bool, is_1_42: bool) -> &'static str {
    if framed && is_1_42 { MULTIPLEXED } else { RAW }
}

/// The same as a header.
pub(crate) fn content_header(framed: bool, is_1_42: bool) -> HeaderValue {
    HeaderValue::from_static(content_type(framed, is_1_42))
}

/// Writes entries; remembers which lines are half told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writer {
    style: Style,
    is_within_line: [bool; 2],
}

impl Writer {
    pub(crate) fn new(style: Style) -> Self {
        Self { style, is_within_line: [false; 2] }
    }

    /// Appends one entry. `extra` are further details than those of the entry.
    pub(crate) fn append(&mut self, entry: &LogMessage, extra: &BTreeMap<String, String>, out: &mut Vec<u8>) {
        let place = usize::from(entry.stream == OutputStream::Stderr);
        let goes_on = std::mem::replace(&mut self.is_within_line[place], entry.partial);
        let mut text = Vec::with_capacity(entry.line.len() + 48);
        if !goes_on {
            self.prefix(entry, extra, &mut text);
        }
        text.extend_from_slice(&entry.line);
        if self.style.framed {
            out.extend_from_slice(&logs::frame(entry.stream, &text));
        } else {
            out.extend_from_slice(&text);
        }
    }

    fn prefix(&self, entry: &LogMessage, extra: &BTreeMap<String, String>, text: &mut Vec<u8>) {
        if self.style.timestamps {
            text.extend_from_slice(fixed_nanos(entry.time).as_bytes());
            text.push(b' ');
        }
        if self.style.details {
            let mut all = entry.attrs.clone();
            all.extend(extra.iter().map(|(key, value)| (key.clone(), value.clone())));
            let pairs: Vec<String> =
                all.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
            text.extend_from_slice(pairs.join(",").as_bytes());
            text.push(b' ');
        }
    }
}

/// What went wrong while logs were read, in a frame of its own: clients show it as an error.
/// Source: moby, `pkg/stdcopy` (`Systemerr`).
pub(crate) fn system_error(text: &str) -> Bytes {
    const SYSTEM_ERROR: u8 = 3;
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut frame = vec![SYSTEM_ERROR, 0, 0, 0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&text.as_bytes()[..length as usize]);
    frame.into()
}

/// RFC 3339 with exactly nine digits. Source: moby, `jsonmessage.RFC3339NanoFixed`.
fn fixed_nanos(time: Timestamp) -> String {
    let whole = Timestamp::from_secs(time.0.div_euclid(1_000_000_000));
    if time.0 < 1_000_000_000 {
        // The first second of 1970 prints as Go's zero time; its digits are still those of 1970.
        return format!("1970-01-01T00:00:00.{:09}Z", time.0.max(0));
    }
    let text = whole.to_string();
    format!("{}.{:09}Z", text.trim_end_matches('Z'), time.0.rem_euclid(1_000_000_000))
}

/// Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: &str, partial: bool) -> LogMessage {
        LogMessage {
            time: Timestamp(1_700_000_000_000_000_120),
            stream: OutputStream::Stdout,
            line: line.as_bytes().to_vec(),
            attrs: BTreeMap::from([("b k".to_owned(), "1=2".to_owned())]),
            partial,
        }
    }

    fn check(style: Style, entries: &[LogMessage], expect: &str) {
        let mut writer = Writer::new(style);
        let mut out = Vec::new();
        let extra = BTreeMap::from([("a".to_owned(), "x".to_owned())]);
        entries.iter().for_each(|entry| writer.append(entry, &extra, &mut out));
        assert_eq!(String::from_utf8(out).unwrap(), expect, "{style:?}");
    }

    #[test]
    fn entries_are_decorated_as_dockerd_does() {
        let plain = Style::default();
        check(plain, &[entry("hi\n", false)], "hi\n");
        check(Style { framed: true, ..plain }, &[entry("hi\n", false)], "\u{1}\0\0\0\0\0\0\u{3}hi\n");
        let full = Style { timestamps: true, details: true, framed: false };
        check(full, &[entry("hi\n", false)], "2023-11-14T22:13:20.000000120Z a=x,b+k=1%3D2 hi\n");
    }

    #[test]
    fn a_long_line_is_decorated_once() {
        let style = Style { timestamps: true, ..Style::default() };
        check(
            style,
            &[entry("long ", true), entry("line\n", false), entry("next\n", false)],
            "2023-11-14T22:13:20.000000120Z long line\n2023-11-14T22:13:20.000000120Z next\n",
        );
    }

    #[test]
    fn tails_that_are_no_number_mean_all() {
        assert_eq!(tail("5"), Tail::Last(5));
        for all in ["", "all", "-1", "x"] {
            assert_eq!(tail(all), Tail::All, "{all}");
        }
    }
}

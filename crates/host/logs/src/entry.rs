//! One entry of a json-file log, read back.
//!
//! In: one line of the file. Out: a [`LogMessage`], or nothing for a line that is torn or corrupt. Never fails: a damaged
//! line must not hide the lines after it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use objects::Timestamp;
use serde::Deserialize;

use crate::OutputStream;
use crate::civil;

/// Begins the last field of a line.
const TIME_FIELD: &[u8] = br#""time":""#;

/// Ends a line.
const LINE_END: &[u8] = br#""}"#;

/// Longest time with offset, and what stands around it.
const TIME_WINDOW: usize = TIME_FIELD.len() + LINE_END.len() + 36;

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogMessage {
    /// When the shim read it.
    pub time: Timestamp,
    /// Where the container wrote it.
    pub stream: OutputStream,
    /// The bytes with their newline; without one when `partial`.
    pub line: Vec<u8>,
    /// What `--log-opt labels`, `env` and `tag` added.
    pub attrs: BTreeMap<String, String>,
    /// Whether the line goes on in the next entry of the same stream (it was longer than 16 KiB), or is the last of the
    /// log and had no newline.
    pub partial: bool,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Reads one line, with or without its newline.
pub(crate) fn parse(line: &[u8]) -> Option<LogMessage> {
    let entry: Entry<'_> = serde_json::from_slice(line).ok()?;
    let stream = match entry.stream.as_ref() {
        "stdout" => OutputStream::Stdout,
        "stderr" => OutputStream::Stderr,
        _ => return None,
    };
    Some(LogMessage {
        time: Timestamp(civil::parse(entry.time.as_bytes())?),
        stream,
        partial: !entry.log.ends_with('\n'),
        line: entry.log.into_owned().into_bytes(),
        attrs: entry.attrs.unwrap_or_default(),
    })
}

/// The time of a line without reading the rest of it; `None` when it isn't where dockerd and this crate put it.
pub(crate) fn time_of(line: &[u8]) -> Option<Timestamp> {
    let line = line.strip_suffix(b"\n").unwrap_or(line).strip_suffix(LINE_END)?;
    let window = &line[line.len().saturating_sub(TIME_WINDOW)..];
    let at = window.windows(TIME_FIELD.len()).rposition(|bytes| bytes == TIME_FIELD)?;
    civil::parse(&window[at + TIME_FIELD.len()..]).map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_lines_are_understood() {
        let line = br#"{"log":"a \u003cb\u003e\n","stream":"stderr","attrs":{"k":"v"},"time":"2023-11-14T22:13:20.5Z"}"#;
        let message = parse(line).unwrap();
        assert_eq!(message.line, b"a <b>\n");
        assert_eq!(message.stream, OutputStream::Stderr);
        assert_eq!(message.attrs["k"], "v");
        assert_eq!(message.time, Timestamp(1_700_000_000_500_000_000));
        assert_eq!(time_of(line), Some(message.time));
        assert!(!message.partial);
        let empty = parse(br#"{"stream":"stdout","time":"2023-11-14T22:13:20Z"}"#).unwrap();
        assert!(empty.line.is_empty() && empty.partial);
    }

    #[test]
    fn damaged_lines_are_nothing() {
        for line in
            ["", "\n", "{\"log\":\"x", "{}", "\0\0\0", "{\"log\":\"\",\"stream\":\"stdin\",\"time\":\"\"}"]
        {
            assert_eq!(parse(line.as_bytes()), None, "{line:?}");
            assert_eq!(time_of(line.as_bytes()), None, "{line:?}");
        }
    }
}

//! One line of Docker's json-file format.
//!
//! In: the bytes of a log line, its stream, attributes that were encoded once, its time. Out:
//! `{"log":"…","stream":"…","attrs":{…},"time":"…"}` and a newline, byte for byte as dockerd writes it.
//! Never decides where a line ends.
//! Source: moby, `daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go`.

use std::collections::BTreeMap;

use crate::civil::TimeFormat;
use crate::spec::OutputStream;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// What encoding needs beside the line itself.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// `,"stream":"stdout"` and the attributes, up to the opening quote of the time.
    middle: [Vec<u8>; 2],
    time: TimeFormat,
}

impl Encoder {
    pub(crate) fn new(attrs: &BTreeMap<String, String>) -> Self {
        let middle = |stream: OutputStream| {
            let mut text = format!(r#","stream":"{}","#, stream.name()).into_bytes();
            if !attrs.is_empty() {
                text.extend_from_slice(br#""attrs":"#);
                append_map(attrs, &mut text);
                text.push(b',');
            }
            text.extend_from_slice(br#""time":""#);
            text
        };
        Self { middle: [middle(OutputStream::Stdout), middle(OutputStream::Stderr)], time: TimeFormat::new() }
    }

    /// Appends one line; `line` holds its own newline if the container wrote one.
    pub(crate) fn append(&mut self, stream: OutputStream, line: &[u8], nanos: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"log":""#);
        append_escaped(line, out);
        out.push(b'"');
        out.extend_from_slice(&self.middle[stream as usize]);
        self.time.append(nanos, out);
        out.extend_from_slice(b"\"}\n");
    }
}

fn append_map(attrs: &BTreeMap<String, String>, out: &mut Vec<u8>) {
    for (index, (key, value)) in attrs.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"" } else { b",\"" });
        append_escaped(key.as_bytes(), out);
        out.extend_from_slice(b"\":\"");
        append_escaped(value.as_bytes(), out);
        out.push(b'"');
    }
    out.push(b'}');
}

/// Escapes as Go's JSON encoder for HTML: also `<`, `>`, `&` and the two separators that JavaScript trips over.
fn append_escaped(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        append_valid(chunk.valid().as_bytes(), out);
        // Go replaces each byte that isn't part of a character.
        for _ in chunk.invalid() {
            out.extend_from_slice(br"\ufffd");
        }
    }
}

fn append_valid(text: &[u8], out: &mut Vec<u8>) {
    let mut copied = 0;
    let mut at = 0;
    while at < text.len() {
        if PLAIN[usize::from(text[at])] {
            at += 1;
            continue;
        }
        let separator = match text[at..] {
            [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] => Some(last),
            [0xe2, ..] => {
                at += 3;
                continue;
            }
            _ => None,
        };
        out.extend_from_slice(&text[copied..at]);
        at += append_escape(text[at], separator, out);
        copied = at;
    }
    out.extend_from_slice(&text[copied..]);
}

/// Appends the escape of one character and returns how many bytes the character has.
fn append_escape(byte: u8, separator: Option<u8>, out: &mut Vec<u8>) -> usize {
    if let Some(last) = separator {
        out.extend_from_slice(if last == 0xa8 { br"\u2028" } else { br"\u2029" });
        return 3;
    }
    match byte {
        b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(br"\n"),
        b'\r' => out.extend_from_slice(br"\r"),
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(br"\u00");
            out.extend_from_slice(&digits);
        }
    }
    1
}

/// Which bytes are copied as they are, without a closer look.
static PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 32 {
        plain[byte] = false;
        byte += 1;
    }
    let special = *b"\\\"<>&\xe2";
    let mut index = 0;
    while index < special.len() {
        plain[special[index] as usize] = false;
        index += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(line: &[u8], attrs: &[(&str, &str)]) -> String {
        let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut out = Vec::new();
        Encoder::new(&attrs).append(OutputStream::Stdout, line, 1_700_000_000_120_000_000, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_looks_like_dockers() {
        assert_eq!(
            encoded(b"hello\n", &[]),
            "{\"log\":\"hello\\n\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20.12Z\"}\n"
        );
        assert_eq!(
            encoded(b"x", &[("a", "1"), ("tag", "\"q\"")]),
            "{\"log\":\"x\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"1\",\"tag\":\"\\\"q\\\"\"},\"time\":\"2023-11-14T22:13:20.12Z\"}\n"
        );
    }

    #[test]
    fn special_bytes_are_escaped_as_go_does() {
        let text = |line: &[u8]| {
            let line = encoded(line, &[]);
            line.split_once("\",\"stream\"").unwrap().0.strip_prefix("{\"log\":\"").unwrap().to_owned()
        };
        assert_eq!(text(b"a\\\"\t\r<>&\x1b\x7f"), "a\\\\\\\"\\u0009\\r\\u003c\\u003e\\u0026\\u001b\x7f");
        assert_eq!(text("a\u{2028}\u{2029}€ü😀".as_bytes()), "a\\u2028\\u2029€ü😀");
        assert_eq!(text(b"\xff\xe2\x80ok"), "\\ufffd\\ufffd\\ufffdok");
    }
}

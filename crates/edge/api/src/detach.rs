//! Detach keys: the key sequence that leaves a terminal without ending what runs in it.
//!
//! In: a description such as `ctrl-p,ctrl-q`, and bytes typed. Out: the bytes to pass on, and whether the sequence was
//! complete. Bytes of a sequence that turned out to be none are passed on. Source: moby, `pkg/pools` and
//! `moby/term`, `ascii.go` and `proxy.go`.

use crate::error::ApiError;

/// Source: docker, `--detach-keys`.
const DEFAULT: &[u8] = &[16, 17];

/// Watches typed bytes.
#[derive(Debug, Clone)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    seen: usize,
}

impl DetachKeys {
    /// Reads a description; empty is `ctrl-p,ctrl-q`.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self { keys: DEFAULT.to_vec(), seen: 0 });
        }
        let keys = text.split(',').map(|key| match key.as_bytes() {
            [one] => Ok(*one),
            [b'c', b't', b'r', b'l', b'-', key] => match key {
                b'a'..=b'z' => Ok(key - b'a' + 1),
                b'@' => Ok(0),
                b'[' => Ok(27),
                b'\\' => Ok(28),
                b']' => Ok(29),
                b'^' => Ok(30),
                b'_' => Ok(31),
                _ => Err(unknown(text)),
            },
            _ => Err(unknown(text)),
        });
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, seen: 0 })
    }

    /// What to pass on of `typed`; `true` when the sequence is complete, and what follows it is dropped.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len() + self.seen);
        for &byte in typed {
            if byte == self.keys[self.seen] {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            // What was held back was no sequence. Its first key may be beginning right here.
            out.extend_from_slice(&self.keys[..self.seen]);
            self.seen = 0;
            if byte == self.keys[0] {
                self.seen = 1;
                if self.keys.len() == 1 {
                    return (out, true);
                }
            } else {
                out.push(byte);
            }
        }
        (out, false)
    }

    /// What is still held back when the input ends.
    pub(crate) fn held(&self) -> &[u8] {
        &self.keys[..self.seen]
    }
}

fn unknown(text: &str) -> ApiError {
    ApiError::invalid(format!("invalid escape keys ({text}) provided"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &str, typed: &[&[u8]], expect: &[u8], expect_detached: bool) {
        let mut watch = DetachKeys::parse(keys).unwrap();
        let mut out = Vec::new();
        let mut is_detached = false;
        for piece in typed {
            let (passed, detached) = watch.filter(piece);
            out.extend(passed);
            is_detached |= detached;
        }
        assert_eq!((out.as_slice(), is_detached), (expect, expect_detached), "{keys} {typed:?}");
    }

    #[test]
    fn the_default_sequence_detaches_also_when_split() {
        check("", &[b"ls\n\x10\x11rest"], b"ls\n", true);
        check("", &[b"\x10", b"\x11"], b"", true);
        check("", &[b"\x10", b"x"], b"\x10x", false);
        check("", &[b"\x10\x10\x11"], b"\x10", true);
        check("", &[b"\x11\x10"], b"\x11", false);
    }

    #[test]
    fn own_sequences_are_read_and_wrong_ones_refused() {
        check("ctrl-a,d", &[b"a\x01d"], b"a", true);
        check("q", &[b"abq"], b"ab", true);
        assert_eq!(DetachKeys::parse("ctrl-[").unwrap().keys, [27]);
        for bad in ["ctrl-", "ctrl-A", "xx", "a,,b", ","] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }
}

//! Notices the keys that leave a container without ending it.
//!
//! In: what is typed, in pieces. Out: what is to be sent on, and whether the keys were typed; they themselves are not
//! sent. Source: moby `term/proxy.go` and `term/ascii.go`.

/// Ctrl-p ctrl-q. Source: moby, the default detach keys.
const DEFAULT: [u8; 2] = [16, 17];

/// The keys, and how many of them were typed just now.
#[derive(Debug, Clone)]
pub struct Keys {
    keys: Vec<u8>,
    typed: usize,
}

/// What becomes of a piece of input.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    /// To be sent.
    pub on: Vec<u8>,
    /// The keys were typed; what came behind them is dropped.
    pub is_end: bool,
}

impl Keys {
    /// Reads `ctrl-p,ctrl-q`. What is none, or not given, is the default: the daemon tells what is wrong with it.
    pub fn of(text: Option<&str>) -> Keys {
        let keys = text.and_then(|text| text.split(',').map(key).collect::<Option<Vec<u8>>>());
        Keys { keys: keys.unwrap_or_else(|| DEFAULT.to_vec()), typed: 0 }
    }

    /// Takes what was typed; keys that may become the sequence are held back until that is known.
    pub fn pass(&mut self, input: &[u8]) -> Passed {
        let mut on = Vec::with_capacity(input.len());
        for byte in input {
            while self.keys[self.typed] != *byte && self.typed > 0 {
                // The first of the held keys can't begin it any more; a later one might.
                let held = self.typed;
                let shift = (1..=held).find(|by| self.keys[*by..held] == self.keys[..held - by]);
                let shift = shift.unwrap_or(held);
                on.extend_from_slice(&self.keys[..shift]);
                self.typed = held - shift;
            }
            if self.keys[self.typed] != *byte {
                on.push(*byte);
                continue;
            }
            self.typed += 1;
            if self.typed == self.keys.len() {
                self.typed = 0;
                return Passed { on, is_end: true };
            }
        }
        Passed { on, is_end: false }
    }
}

/// A character, or `ctrl-` and one of `@`, `a` to `z`, `[`, `\`, `]`, `^`, `_`.
fn key(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [byte] => Some(*byte),
        _ => match text.strip_prefix("ctrl-")?.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            [sign @ (b'@' | b'['..=b'_')] => Some(sign - b'@'),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(keys: Option<&str>, pieces: &[&str]) -> (String, bool) {
        let mut keys = Keys::of(keys);
        let mut on = Vec::new();
        for piece in pieces {
            let passed = keys.pass(piece.as_bytes());
            on.extend(passed.on);
            if passed.is_end {
                return (String::from_utf8(on).expect("the test types text"), true);
            }
        }
        (String::from_utf8(on).expect("the test types text"), false)
    }

    #[test]
    fn the_keys_end_it_and_are_not_sent() {
        for (keys, pieces, expect) in [
            (None, &["ab\x10\x11c"][..], ("ab", true)),
            (None, &["\x10", "\x11"], ("", true)),
            (None, &["\x10x\x11"], ("\x10x\x11", false)),
            (None, &["\x10\x10\x11"], ("\x10", true)),
            (Some("ctrl-x,y"), &["\x18", "y"], ("", true)),
            (Some("a,a,b"), &["aaab"], ("a", true)),
            (Some("a,b,a,c"), &["ababac"], ("ab", true)),
            (Some("ctrl-@,ctrl-_"), &["\0\x1f"], ("", true)),
            (Some("nonsense"), &["\x10\x11"], ("", true)),
        ] {
            assert_eq!(passed(keys, pieces), (expect.0.to_owned(), expect.1), "{keys:?} {pieces:?}");
        }
    }
}

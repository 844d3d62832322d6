//! The key that unlocks a manager: `SWMKEY-1-` and 32 bytes in base 64 without padding.

use std::fmt;
use std::str::FromStr;

use crate::authority::PkiError;
use crate::base64;

/// What an unlock key begins with. Source: swarmkit, `manager/encryption/encryption.go`.
const PREFIX: &str = "SWMKEY-1-";

/// Bytes of the key. Source: swarmkit, `manager/encryption/encryption.go` (`HumanReadableKey`).
const BYTES: usize = 32;

/// A key as it is printed and typed.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey([u8; BYTES]);

/// Not of the form of an unlock key. Source: swarmkit, `manager/encryption` (text of moby's 400).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid key string")]
pub struct MalformedUnlockKey;

impl UnlockKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Result<Self, PkiError> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(PkiError::Random)?;
        Ok(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; BYTES] {
        &self.0
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", base64::encode(&self.0).trim_end_matches('='))
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SWMKEY-1-…")
    }
}

impl FromStr for UnlockKey {
    type Err = MalformedUnlockKey;

    fn from_str(text: &str) -> Result<Self, MalformedUnlockKey> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(MalformedUnlockKey)?;
        // The decoder skips spaces and takes padding; a key has neither.
        if digits.contains(|character: char| character.is_whitespace() || character == '=') {
            return Err(MalformedUnlockKey);
        }
        let bytes = base64::decode(digits).ok_or(MalformedUnlockKey)?;
        bytes.try_into().map(Self).map_err(|_| MalformedUnlockKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_typed() {
        let key = UnlockKey::generate().expect("randomness");
        let text = key.to_string();
        assert_eq!(text.len(), "SWMKEY-1-".len() + 43);
        assert_eq!(text.parse(), Ok(key.clone()));
        assert_eq!(format!(" {text}\n").parse(), Ok(key));
    }

    #[test]
    fn malformed_keys_are_refused() {
        let padded = format!("{PREFIX}{}", base64::encode(&[7; 32]));
        let short = format!("{PREFIX}{}", base64::encode(&[7; 31]).trim_end_matches('='));
        for text in ["", "SWMKEY-1-", "SWMKEY-2-AAAA", "SWMKEY-1-A A", &padded, &short] {
            assert_eq!(text.parse::<UnlockKey>(), Err(MalformedUnlockKey), "{text}");
        }
    }

    #[test]
    fn the_key_does_not_show_in_debug_output() {
        let key = UnlockKey([7; 32]);
        assert_eq!(format!("{key:?}"), "SWMKEY-1-…");
    }
}

//! Join tokens: which authority to trust, and a secret that decides the role.
//!
//! `SWMTKN-1-<digest of the root certificate, base 36, 50 digits>-<secret, base 36, 25 digits>`.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::authority::PkiError;
use crate::base36;

/// Digits of a SHA-256 in base 36. Source: swarmkit, `ca/config.go`.
const DIGEST_DIGITS: usize = 50;

/// Bytes of a SHA-256.
const DIGEST_BYTES: usize = 32;

/// Digits of 16 random bytes in base 36. Source: swarmkit, `ca/config.go`.
const SECRET_DIGITS: usize = 25;

/// A token as it is printed and typed.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    digest: String,
    secret: String,
}

/// Not of the form of a join token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid join token")]
pub struct MalformedToken;

/// A manager that has another root than the token's.
///
/// Source of the text: swarmkit, `ca/certificates.go` (`GetRemoteCA`).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("remote CA does not match fingerprint. Expected: {expected}")]
pub struct ForeignRoot {
    /// The root's SHA-256 in hexadecimal.
    pub expected: String,
}

/// A new secret: 16 random bytes as 25 digits.
pub fn new_secret() -> Result<String, PkiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(PkiError::Random)?;
    Ok(base36::encode(&bytes, SECRET_DIGITS))
}

impl JoinToken {
    /// The token for a root certificate (its PEM, byte for byte) and a secret of [`new_secret`].
    #[must_use]
    pub fn new(root_pem: &str, secret: &str) -> Self {
        Self { digest: digest(root_pem), secret: secret.into() }
    }

    /// Refuses a root certificate that the token was not made for.
    pub fn check_root(&self, root_pem: &str) -> Result<(), ForeignRoot> {
        if self.digest == digest(root_pem) {
            return Ok(());
        }
        let expected = base36::decode(&self.digest, DIGEST_BYTES).unwrap_or_default();
        Err(ForeignRoot { expected: expected.iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    /// The part that decides the role; to be compared, never shown.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

fn digest(root_pem: &str) -> String {
    base36::encode(&Sha256::digest(root_pem.as_bytes()), DIGEST_DIGITS)
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SWMTKN-1-{}-{}", self.digest, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SWMTKN-1-{}-…", self.digest)
    }
}

impl FromStr for JoinToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, MalformedToken> {
        let rest = text.strip_prefix("SWMTKN-1-").ok_or(MalformedToken)?;
        let (digest, secret) = rest.split_once('-').ok_or(MalformedToken)?;
        let is_number = |part: &str, digits| {
            part.len() == digits
                && part.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
        };
        if !is_number(digest, DIGEST_DIGITS) || !is_number(secret, SECRET_DIGITS) {
            return Err(MalformedToken);
        }
        // Fifty digits reach further than a digest does.
        base36::decode(digest, DIGEST_BYTES).ok_or(MalformedToken)?;
        Ok(Self { digest: digest.into(), secret: secret.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_typed() {
        let token = JoinToken::new("root", &new_secret().expect("randomness"));
        let text = token.to_string();
        assert_eq!(text.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
        let typed: JoinToken = text.parse().expect("it was printed");
        assert_eq!(typed, token);
        assert_eq!(typed.check_root("root"), Ok(()));
    }

    #[test]
    fn a_foreign_root_is_refused_with_the_digest_that_was_expected() {
        let token = JoinToken::new("root", &new_secret().expect("randomness"));
        // `printf root | sha256sum`
        let expected = "4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2";
        let refused = token.check_root("another root").expect_err("another root");
        assert_eq!(
            refused.to_string(),
            format!("remote CA does not match fingerprint. Expected: {expected}")
        );
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let beyond = format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25));
        for text in ["", "SWMTKN-1-", "SWMTKN-2-1-a-b", "SWMTKN-1-abc-def", &beyond] {
            assert_eq!(text.parse::<JoinToken>(), Err(MalformedToken), "{text}");
        }
    }

    #[test]
    fn the_secret_does_not_show_in_debug_output() {
        let secret = new_secret().expect("randomness");
        assert!(!format!("{:?}", JoinToken::new("root", &secret)).contains(&secret));
    }
}

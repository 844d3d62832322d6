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

    /// Whether the token was made for this root certificate.
    #[must_use]
    pub fn trusts(&self, root_pem: &str) -> bool {
        self.digest == digest(root_pem)
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
        assert!(typed.trusts("root"));
        assert!(!typed.trusts("another root"));
    }

    #[test]
    fn malformed_tokens_are_refused() {
        for text in ["", "SWMTKN-1-", "SWMTKN-2-1-a-b", "SWMTKN-1-abc-def"] {
            assert_eq!(text.parse::<JoinToken>(), Err(MalformedToken), "{text}");
        }
    }

    #[test]
    fn the_secret_does_not_show_in_debug_output() {
        let secret = new_secret().expect("randomness");
        assert!(!format!("{:?}", JoinToken::new("root", &secret)).contains(&secret));
    }
}

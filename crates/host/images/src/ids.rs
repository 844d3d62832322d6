//! Names things by their content: digests, and the id of an image (the digest of its config).
//!
//! In: bytes or text. Out: typed digests that print as `sha256:<64 hex>`. Never reads a file.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// Length of the short form of an id, in hex digits. Source: moby, `pkg/stringid`.
const SHORT_LEN: usize = 12;

/// A SHA-256 digest; prints and serialises as `sha256:<64 lower-case hex digits>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The text is no `sha256:<64 lower-case hex digits>`.
#[derive(Debug, thiserror::Error)]
#[error("invalid checksum digest format: `{0}`")]
pub struct ParseDigestError(pub String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Hasher::over(bytes).finish()
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The whole text, `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 hex digits, as shown in progress lines and tables.
    pub fn short(&self) -> &str {
        &self.hex()[..SHORT_LEN]
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Digest, ParseDigestError> {
        let is_digest = text.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        if is_digest { Ok(Digest(text.to_owned())) } else { Err(ParseDigestError(text.to_owned())) }
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Digest, ParseDigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of an image: the digest of its config, as in `docker images --no-trunc`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub Digest);

impl ImageId {
    /// The whole text, `sha256:…`.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> &str {
        self.0.hex()
    }

    /// The first 12 hex digits.
    pub fn short(&self) -> &str {
        self.0.short()
    }
}

impl FromStr for ImageId {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<ImageId, ParseDigestError> {
        text.parse().map(ImageId)
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A running SHA-256, also usable as a sink.
#[derive(Clone, Default)]
pub(crate) struct Hasher(sha2::Sha256);

impl Hasher {
    fn over(bytes: &[u8]) -> Hasher {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        use fmt::Write as _;
        let mut text = String::from("sha256:");
        for byte in self.0.finalize() {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        }
        Digest(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_published_one() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
    }

    #[test]
    fn only_lower_case_sha256_is_a_digest() {
        for bad in ["", "sha256:", "sha512:00", "sha256:E3B0", &format!("sha256:{}", "g".repeat(64))] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert!(format!("sha256:{}/../x", "0".repeat(59)).parse::<Digest>().is_err());
    }
}

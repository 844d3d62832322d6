//! Image references: `nginx`, `ghcr.io/a/b:1.2`, `alpine@sha256:…`, in familiar and canonical form.
//!
//! In: what a person or a client wrote. Out: registry, path, tag and digest, or Docker's error. Never asks a registry.
//! Source: distribution/reference `normalize.go`, `regexp.go`.

use std::fmt;
use std::str::FromStr;

/// The registry that names without one belong to.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag of a reference without tag and digest.
pub const DEFAULT_TAG: &str = "latest";
/// Longest path. Source: distribution/reference `RepositoryNameTotalLengthMax`.
const LONGEST_PATH: usize = 255;
/// Longest tag. Source: distribution/reference, `TagRegexp`.
const LONGEST_TAG: usize = 128;

/// A normalised image name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`, …
    pub domain: String,
    /// `library/nginx`, …
    pub path: String,
    /// As written; see [`Reference::with_default_tag`].
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

/// Why a text is no image name, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// Upper case in the path.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// 64 hex digits would be taken for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// Path longer than 255 bytes.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// A digest of an algorithm we don't know.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    /// A digest that is too short or too long for its algorithm.
    #[error("invalid checksum digest length")]
    DigestLength,
}

impl Reference {
    /// Reads what a person wrote; `nginx` is `docker.io/library/nginx` without a tag.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if is_identifier(text) {
            return Err(ReferenceError::Identifier(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let (name, digest) = match remainder.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match name.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (name, None),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase(path.to_owned()));
        }
        if !is_domain(domain) || !is_path(path) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        if path.len() > LONGEST_PATH {
            return Err(ReferenceError::TooLong);
        }
        if let Some(digest) = digest {
            check_digest(digest)?;
        }
        Ok(Self {
            domain: domain.to_owned(),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// `docker.io/library/nginx`: neither tag nor digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// `nginx`, `ghcr.io/a/b`: as people write the name, neither tag nor digest.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// `nginx:1.2@sha256:…`: as people write it.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// `docker.io/library/nginx:1.2@sha256:…`.
    pub fn canonical(&self) -> String {
        self.with_suffix(self.name())
    }

    /// The same with tag `latest` when there is neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same with this digest and, as `docker service create` pins it, its tag kept.
    #[must_use]
    pub fn with_digest(mut self, digest: impl Into<String>) -> Self {
        self.digest = Some(digest.into());
        self
    }

    /// Neither tag nor digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest);
        }
        name
    }
}

/// The familiar form.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// Serialises in canonical form.
impl serde::Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.canonical())
    }
}

impl<'de> serde::Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// 64 lower-case hex digits: an image or container id.
pub fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `algorithm:hex` of an algorithm and length we know.
pub fn check_digest(digest: &str) -> Result<(), ReferenceError> {
    let (algorithm, hex) = digest.split_once(':').ok_or(ReferenceError::Format)?;
    let well_formed = !algorithm.is_empty()
        && algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+.".contains(&byte))
        && hex.len() >= 32
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !well_formed {
        return Err(ReferenceError::Format);
    }
    let wanted = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(ReferenceError::DigestAlgorithm),
    };
    if hex.len() != wanted {
        return Err(ReferenceError::DigestLength);
    }
    // go-digest knows lower-case hex only.
    if hex.bytes().any(|byte| byte.is_ascii_uppercase()) { Err(ReferenceError::Format) } else { Ok(()) }
}

/// The registry, and the rest with `library/` added where Docker Hub wants it.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest)) if names_a_host(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, text),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    let rest = match domain == DEFAULT_DOMAIN && !rest.contains('/') {
        true => format!("library/{rest}"),
        false => rest.to_owned(),
    };
    (domain, rest)
}

fn names_a_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if !address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') || address.is_empty() {
                return false;
            }
            (None, port)
        }
        None => match domain.split_once(':') {
            Some((host, _)) => (Some(host), &domain[host.len()..]),
            None => (Some(domain), ""),
        },
    };
    let good_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    good_port && host.is_none_or(|host| host.split('.').all(is_domain_component))
}

fn is_domain_component(part: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = part.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

fn is_path(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(is_path_component)
}

/// Lower-case letters and digits, in runs joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let edges = bytes.first().is_some_and(|b| plain(*b)) && bytes.last().is_some_and(|b| plain(*b));
    edges
        && bytes
            .split(|byte| plain(*byte))
            .all(|joint| matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|byte| *byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

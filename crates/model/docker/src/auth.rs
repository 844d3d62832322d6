//! Registry credentials: the `X-Registry-Auth` header and the body of `POST /auth`.
//!
//! In: base64url of a JSON object. Out: the credentials. Never logs them (`Debug` hides the secrets), never keeps them.

use serde::{Deserialize, Serialize};

/// Credentials of one registry. Names are lower case on the wire.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    /// Account name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Password or access token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// base64 of `username:password`; [`AuthConfig::from_header`] has taken it apart.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    /// Legacy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
    /// Registry the credentials are for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serveraddress: String,
    /// OAuth refresh token, in place of a password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    /// Bearer token to send as it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registrytoken: String,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

/// Answer of `POST /auth`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthResponse {
    /// `Login Succeeded`.
    #[serde(rename = "Status")]
    pub status: String,
    /// A token to keep in place of the password; empty for none.
    #[serde(rename = "IdentityToken", default, skip_serializing_if = "String::is_empty")]
    pub identity_token: String,
}

/// The header is not base64url of a JSON object. Source: moby, `api/types/registry/authconfig.go`.
#[derive(Debug, thiserror::Error)]
pub enum AuthHeaderError {
    /// Not base64.
    #[error("invalid X-Registry-Auth header: illegal base64 data")]
    Base64,
    /// Not the JSON object.
    #[error("invalid X-Registry-Auth header: {0}")]
    Json(#[source] serde_json::Error),
}

impl AuthConfig {
    /// Credentials of an `X-Registry-Auth` header; an empty header or object is `None`.
    ///
    /// Both base64 alphabets and missing padding are accepted, as clients differ.
    pub fn from_header(header: &str) -> Result<Option<Self>, AuthHeaderError> {
        if header.is_empty() {
            return Ok(None);
        }
        let bytes = decode_base64(header).ok_or(AuthHeaderError::Base64)?;
        let mut config: Self =
            crate::lenient::from_slice(&bytes).map(|parsed| parsed.value).map_err(AuthHeaderError::Json)?;
        config.take_auth_apart();
        Ok((config != Self::default()).then_some(config))
    }

    /// Credentials of an `X-Registry-Config` header, by registry; an empty header has none.
    pub fn registries_from_header(
        header: &str,
    ) -> Result<std::collections::BTreeMap<String, Self>, AuthHeaderError> {
        if header.is_empty() {
            return Ok(std::collections::BTreeMap::new());
        }
        let bytes = decode_base64(header).ok_or(AuthHeaderError::Base64)?;
        let mut all: std::collections::BTreeMap<String, Self> =
            serde_json::from_slice(&bytes).map_err(AuthHeaderError::Json)?;
        all.values_mut().for_each(Self::take_auth_apart);
        Ok(all)
    }

    /// The header a client sends with these credentials.
    pub fn to_header(&self) -> String {
        encode_base64url(&serde_json::to_vec(self).expect("strings always serialise"))
    }

    /// Fills `username` and `password` from `auth` when they are missing.
    pub fn take_auth_apart(&mut self) {
        if !self.username.is_empty() || self.auth.is_empty() {
            return;
        }
        let pair = decode_base64(&self.auth).and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some((username, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) {
            self.username = username.to_owned();
            self.password = password.trim_end_matches('\0').to_owned();
        }
    }
}

/// Bytes of a base64 text in either alphabet, padded or not; `None` if it is none.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    if text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        let mut word = 0u32;
        for &byte in chunk {
            word = word << 6 | u32::from(sextet(byte)?);
        }
        word <<= 6 * (4 - chunk.len());
        out.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    Some(out)
}

/// base64 with padding, as Go's `base64.StdEncoding`.
pub fn encode_base64(bytes: &[u8]) -> String {
    encode(bytes, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}

/// base64url with padding, as Go's `base64.URLEncoding`.
pub fn encode_base64url(bytes: &[u8]) -> String {
    encode(bytes, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
}

fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let sextet = (word >> (18 - 6 * place)) & 63;
            out.push(if place <= chunk.len() { char::from(alphabet[sextet as usize]) } else { '=' });
        }
    }
    out
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_of_the_cli_is_read() {
        let header = "eyJ1c2VybmFtZSI6ImpvZSIsInBhc3N3b3JkIjoicHcifQ==";
        let config = AuthConfig::from_header(header).unwrap().unwrap();
        assert_eq!((config.username.as_str(), config.password.as_str()), ("joe", "pw"));
        assert_eq!(config.to_header(), header);
        assert!(!format!("{config:?}").contains("pw"));
    }

    #[test]
    fn an_auth_field_is_taken_apart() {
        let body = encode_base64url(br#"{"auth":"am9lOnB3OjE="}"#);
        let config = AuthConfig::from_header(&body).unwrap().unwrap();
        assert_eq!((config.username.as_str(), config.password.as_str()), ("joe", "pw:1"));
    }

    #[test]
    fn empty_headers_mean_no_credentials_and_bad_ones_are_refused() {
        assert_eq!(AuthConfig::from_header("").unwrap(), None);
        assert_eq!(AuthConfig::from_header("e30=").unwrap(), None);
        assert_eq!(AuthConfig::from_header("bnVsbA==").unwrap(), None);
        assert!(matches!(AuthConfig::from_header("%%%"), Err(AuthHeaderError::Base64)));
        assert!(matches!(AuthConfig::from_header("Zm9v"), Err(AuthHeaderError::Json(_))));
    }

    proptest! {
        #[test]
        fn base64_reads_what_it_wrote(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = encode_base64url(&bytes);
            prop_assert_eq!(decode_base64(&text), Some(bytes.clone()));
            prop_assert_eq!(decode_base64(text.trim_end_matches('=')), Some(bytes));
        }

        #[test]
        fn base64_never_panics(text in ".{0,40}") {
            let _ = decode_base64(&text);
        }
    }
}

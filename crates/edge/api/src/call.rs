//! One request on its way to a handler: version, path parts, query, headers, body.
//!
//! In: what hyper read. Out: typed access, with Docker's errors for bodies that are no JSON, too long or of another
//! content type. Never acts on anything.

use std::io;

use bytes::Bytes;
use docker::{ApiVersion, AuthConfig, lenient};
use futures_util::{Stream, StreamExt};
use http::request::Parts;
use http::{HeaderName, header};
use http_body_util::{BodyExt, BodyStream, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::leftover::RequestBody;
use crate::query::Query;
use crate::route::Params;

/// Longest JSON body. chosen: a service spec with every allowed environment is below the 1.5 MiB of one Raft entry.
const LONGEST_BODY: usize = 4 * 1024 * 1024;
/// Longest credentials header. chosen: hyper bounds all headers as well; tokens of registries stay below 16 KiB.
const LONGEST_AUTH: usize = 64 * 1024;
/// Source: moby, `api/types/registry/authconfig.go`.
const REGISTRY_AUTH: HeaderName = HeaderName::from_static("x-registry-auth");

/// A request.
pub(crate) struct Call<S = crate::AppState> {
    pub(crate) state: S,
    pub(crate) version: ApiVersion,
    pub(crate) params: Params,
    pub(crate) query: Query,
    pub(crate) parts: Parts,
    pub(crate) body: RequestBody,
}

impl Call {
    /// This node's manager, to read from: it has everything that was acknowledged anywhere before this call.
    pub(crate) async fn reader(&self) -> Result<manager::Manager, ApiError> {
        let manager = self.state.swarm.manager()?;
        manager.barrier().await?;
        Ok(manager)
    }
}

impl<S> Call<S> {
    /// A named part of the path.
    pub(crate) fn param(&self, name: &str) -> &str {
        let found = self.params.iter().find(|(key, _)| *key == name);
        &found.expect("the route's pattern names the part").1
    }

    /// Whether the request's version is `1.{minor}` or newer.
    pub(crate) fn is_at_least(&self, minor: u16) -> bool {
        self.version >= ApiVersion::v1(minor)
    }

    /// A header as text; empty when missing or not ASCII.
    pub(crate) fn header(&self, name: &HeaderName) -> &str {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whether the client asks to leave HTTP with `Upgrade: tcp`.
    pub(crate) fn wants_upgrade(&self) -> bool {
        self.parts.headers.contains_key(header::UPGRADE)
    }

    /// The credentials header as it came; `None` if there is none. An empty one counts as none.
    pub(crate) fn registry_auth_header(&self) -> Result<Option<String>, ApiError> {
        let header = self.header(&REGISTRY_AUTH);
        if header.len() > LONGEST_AUTH {
            return Err(ApiError::invalid("invalid X-Registry-Auth header: too long"));
        }
        Ok((!header.is_empty()).then(|| header.to_owned()))
    }

    /// The credentials of the header. A header that cannot be read counts as none: so does dockerd, for pulls of public
    /// images by clients that send rubbish.
    pub(crate) fn registry_auth(&self) -> Option<AuthConfig> {
        AuthConfig::from_header(self.header(&REGISTRY_AUTH)).ok().flatten()
    }

    /// The body as JSON, and the members nobody read. An empty body is the default, as by dockerd.
    ///
    /// Source: moby, `api/server/httputils/httputils.go` `ReadJSON`.
    pub(crate) async fn json<T>(&mut self) -> Result<lenient::Parsed<T>, ApiError>
    where
        T: DeserializeOwned + Default,
    {
        let bytes = self.json_bytes().await?;
        parse_json(&bytes)
    }

    /// The bytes of a JSON body, for routes that read them twice; empty if there is none.
    pub(crate) async fn json_bytes(&mut self) -> Result<Bytes, ApiError> {
        let bytes = self.bytes().await?;
        if !bytes.is_empty() {
            check_content_type(self.header(&header::CONTENT_TYPE))?;
        }
        Ok(bytes)
    }

    /// The whole body, bounded.
    pub(crate) async fn bytes(&mut self) -> Result<Bytes, ApiError> {
        // Said to be too long: no need to read it first.
        if hyper::body::Body::size_hint(&self.body).lower() > LONGEST_BODY as u64 {
            return Err(ApiError::TooLarge { most: LONGEST_BODY });
        }
        match Limited::new(&mut self.body, LONGEST_BODY).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge { most: LONGEST_BODY }),
            Err(_) => Err(ApiError::invalid("invalid JSON: got EOF while reading request body")),
        }
    }

    /// The body as it arrives (archives).
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        BodyStream::new(self.body).filter_map(|frame| async move {
            match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(io::Error::other(error))),
            }
        })
    }
}

/// Reads a JSON body; see [`Call::json`].
pub(crate) fn parse_json<T>(bytes: &[u8]) -> Result<lenient::Parsed<T>, ApiError>
where
    T: DeserializeOwned + Default,
{
    if bytes.is_empty() {
        return Ok(lenient::Parsed { value: T::default(), unknown: Vec::new() });
    }
    lenient::from_slice(bytes).map_err(|error| {
        if error.is_eof() {
            ApiError::invalid("invalid JSON: got EOF while reading request body")
        } else if error.to_string().starts_with("trailing characters") {
            ApiError::invalid("unexpected content after JSON")
        } else {
            ApiError::invalid(of_a_value(&error).unwrap_or_else(|| format!("invalid JSON: {error}")))
        }
    })
}

/// How serde's own complaints begin, when the JSON does not fit the type.
const OF_SERDE: [&str; 5] =
    ["invalid type:", "invalid value:", "invalid length", "missing field", "duplicate field"];

/// What is wrong with a value that fits as JSON: the type's own text, without the place. dockerd finds it after reading.
fn of_a_value(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    if !error.is_data() || OF_SERDE.iter().any(|own| text.starts_with(own)) {
        return None;
    }
    let end = format!(" at line {} column {}", error.line(), error.column());
    Some(text.strip_suffix(&end).unwrap_or(&text).to_owned())
}

/// Source: moby, `httputils.matchesContentType`.
fn check_content_type(value: &str) -> Result<(), ApiError> {
    let kind = value.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    if !kind.contains('/') {
        return Err(ApiError::invalid(format!(
            "malformed Content-Type header ({value}): mime: no media type"
        )));
    }
    Err(ApiError::invalid(format!("unsupported Content-Type header ({kind}): must be 'application/json'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_that_are_no_json_are_refused_in_dockers_words() {
        let text =
            |body: &str| parse_json::<docker::VolumeCreateRequest>(body.as_bytes()).unwrap_err().to_string();
        assert_eq!(text("{"), "invalid JSON: got EOF while reading request body");
        assert_eq!(text("{} {}"), "unexpected content after JSON");
        assert!(text("{\"Name\": 1}").starts_with("invalid JSON: "), "{}", text("{\"Name\": 1}"));
        assert!(text("[").starts_with("invalid JSON: "));
        assert!(parse_json::<docker::VolumeCreateRequest>(b"").is_ok());
        assert!(parse_json::<docker::VolumeCreateRequest>(b"null").is_ok());
    }

    #[test]
    fn a_word_that_means_nothing_is_refused_without_a_word_about_json() {
        let text = |body: &str| parse_json::<objects::NodeSpec>(body.as_bytes()).unwrap_err().to_string();
        assert_eq!(text(r#"{"Role":"foo"}"#), r#"invalid Role: "foo""#);
        assert_eq!(text(r#"{"Availability": "foo", "Role": "worker"}"#), r#"invalid Availability: "foo""#);
        assert!(text(r#"{"Role":1}"#).starts_with("invalid JSON: "), "{}", text(r#"{"Role":1}"#));
    }

    #[test]
    fn only_json_is_taken_for_json() {
        assert!(check_content_type("application/json; charset=utf-8").is_ok());
        let text = |kind| check_content_type(kind).unwrap_err().to_string();
        assert_eq!(
            text("text/plain"),
            "unsupported Content-Type header (text/plain): must be 'application/json'"
        );
        assert_eq!(text(""), "malformed Content-Type header (): mime: no media type");
    }
}

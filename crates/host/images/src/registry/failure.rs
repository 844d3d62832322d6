//! Turns what went wrong with a registry into errors in Docker's words.
//!
//! In: failed requests and answers that are no success. Out: [`PullError`]. Never hides a refused login behind "not
//! found".

use std::error::Error;
use std::io;

use docker::Reference;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::errors::{PullError, errno_text};

/// An answer that is no success.
pub(crate) struct Refusal {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    /// Source: moby, `distribution/errors.go`, `translatePullError`; distribution, `errcode`.
    pub(crate) fn into_error(self, reference: &Reference) -> PullError {
        let (code, cause) = self.code_and_text();
        let name = reference.familiar_name();
        match code.as_str() {
            "MANIFEST_UNKNOWN" => PullError::ManifestUnknown { reference: reference.familiar(), cause },
            "NAME_UNKNOWN" => PullError::RepositoryUnknown { name, cause },
            "DENIED" => PullError::AccessDenied { name, cause },
            "UNAUTHORIZED" => PullError::Unauthorized { method: self.method, url: self.url, cause },
            _ => PullError::Registry { status: self.status.as_u16(), cause },
        }
    }

    /// The registry's error code, and `code: message`; without a usable body both come from the status, as the
    /// answer to a HEAD has none.
    pub(crate) fn code_and_text(&self) -> (String, String) {
        let item =
            serde_json::from_slice::<Envelope>(&self.body).ok().and_then(|e| e.errors.into_iter().next());
        if let Some(Item { code, message }) = item
            && !code.is_empty()
        {
            let words = code.to_lowercase().replace('_', " ");
            let text = if message.is_empty() { words } else { format!("{words}: {message}") };
            return (code, text);
        }
        let known = match self.status.as_u16() {
            401 => Some(("UNAUTHORIZED", "unauthorized: authentication required")),
            403 => Some(("DENIED", "denied: requested access to the resource is denied")),
            404 => Some(("MANIFEST_UNKNOWN", "manifest unknown: manifest unknown")),
            429 => Some(("TOOMANYREQUESTS", "toomanyrequests: too many requests")),
            _ => None,
        };
        match known {
            Some((code, text)) => (code.to_owned(), text.to_owned()),
            None => (String::new(), format!("received unexpected HTTP status: {}", self.status)),
        }
    }
}

/// A request that got no answer, or not all of it.
pub(crate) fn transport(method: &'static str, url: &str, error: &reqwest::Error) -> PullError {
    let io = root_io(error);
    let cause = match io {
        Some(io) if error.is_connect() && io.raw_os_error().is_some() => {
            format!("dial tcp {}: connect: {}", host_port(url), errno_text(io))
        }
        _ if error.is_timeout() => "net/http: request canceled (Client.Timeout exceeded)".to_owned(),
        _ => deepest(error),
    };
    // What a retry cannot change: a certificate, a redirect that is refused, a name that does not resolve.
    let is_transient = if error.is_connect() {
        io.is_some_and(|io| matches!(io.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut))
            || error.is_timeout()
    } else {
        !error.is_redirect() && !error.is_builder()
    };
    PullError::Transport { method, url: url.to_owned(), cause, is_transient }
}

fn root_io(error: &reqwest::Error) -> Option<&io::Error> {
    let mut found = None;
    let mut source = error.source();
    while let Some(cause) = source {
        found = cause.downcast_ref::<io::Error>().or(found);
        source = cause.source();
    }
    found
}

fn deepest(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn host_port(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(url) => format!(
            "{}:{}",
            url.host_str().unwrap_or_default(),
            url.port_or_known_default().unwrap_or_default()
        ),
        Err(_) => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expect: &str) {
        let refusal = Refusal {
            method: "Get",
            url: "https://r/v2/a/manifests/b".to_owned(),
            status: StatusCode::from_u16(status).unwrap(),
            body: body.as_bytes().to_vec(),
        };
        let reference = Reference::parse("alpine:3").unwrap();
        assert_eq!(crate::message(&refusal.into_error(&reference)), expect);
    }

    #[test]
    fn refusals_have_dockers_words() {
        check(404, "", "manifest for alpine:3 not found: manifest unknown: manifest unknown");
        check(
            404,
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#,
            "repository alpine not found: name unknown: repository name not known to registry",
        );
        check(
            401,
            r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
            "pull access denied for alpine, repository does not exist or may require 'docker login': \
             denied: requested access to the resource is denied",
        );
        check(401, "", "Get \"https://r/v2/a/manifests/b\": unauthorized: authentication required");
        check(
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#,
            "toomanyrequests: You have reached your pull rate limit.",
        );
        check(500, "oops", "received unexpected HTTP status: 500 Internal Server Error");
    }
}

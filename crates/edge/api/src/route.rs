//! Routes: what a path and method lead to, and how a path is matched.
//!
//! In: a method and a decoded path without version prefix. Out: the handler and the named parts of the path. Never
//! looks at the query or body. Source for "always 404": moby, `api/server/server.go` (no 405 is ever answered).

use std::pin::Pin;

use docker::ApiVersion;
use http::Method;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;

/// What a handler returns.
pub(crate) type Handling = Pin<Box<dyn Future<Output = Result<Answer, ApiError>> + Send>>;

/// One row of the route table.
pub(crate) struct Route<S> {
    /// GET also answers HEAD where `path` is `/_ping`; everything else is exact.
    pub(crate) method: Method,
    /// `{name}` is one segment, `{name...}` one or more (image names hold slashes).
    pub(crate) path: &'static str,
    /// Requests of an older version do not see the route.
    pub(crate) since: ApiVersion,
    /// One line for the coverage document.
    pub(crate) about: &'static str,
    /// What happens.
    pub(crate) action: Action<S>,
}

/// What a route does.
pub(crate) enum Action<S> {
    /// Serves the request.
    Serve(fn(Call<S>) -> Handling),
    /// Part of the API that this version does not have: 501, with this reason.
    Refuse(&'static str),
}

impl<S> Clone for Action<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Action<S> {}

/// Makes a row whose handler is an `async fn(Call) -> Result<Answer, ApiError>`.
macro_rules! serve {
    ($method:ident $path:literal, $since:literal, $handler:path, $about:literal) => {
        $crate::route::Route {
            method: http::Method::$method,
            path: $path,
            since: docker::ApiVersion::v1($since),
            about: $about,
            action: $crate::route::Action::Serve(|call| Box::pin($handler(call))),
        }
    };
}

/// Makes a row that answers 501.
macro_rules! refuse {
    ($method:ident $path:literal, $since:literal, $about:literal) => {
        $crate::route::Route {
            method: http::Method::$method,
            path: $path,
            since: docker::ApiVersion::v1($since),
            about: $about,
            action: $crate::route::Action::Refuse($about),
        }
    };
}

pub(crate) use {refuse, serve};

/// The named parts of a path, in order.
pub(crate) type Params = Vec<(&'static str, String)>;

impl<S> Route<S> {
    /// The named parts if the path fits.
    pub(crate) fn fits(&self, segments: &[&str]) -> Option<Params> {
        let pattern: Vec<&'static str> = self.path.split('/').skip(1).collect();
        let greedy = pattern.iter().position(|part| part.ends_with("...}"));
        let extra = match greedy {
            Some(_) => segments.len().checked_sub(pattern.len())?,
            None if segments.len() == pattern.len() => 0,
            None => return None,
        };
        let mut params = Params::new();
        let mut at = 0;
        for (place, part) in pattern.iter().enumerate() {
            let take = if Some(place) == greedy { extra + 1 } else { 1 };
            let found = &segments[at..at + take];
            at += take;
            match name_of(part) {
                Some(name) if found.iter().all(|segment| !segment.is_empty()) => {
                    params.push((name, found.join("/")));
                }
                None if found == [*part] => {}
                _ => return None,
            }
        }
        Some(params)
    }
}

fn name_of(part: &'static str) -> Option<&'static str> {
    let inner = part.strip_prefix('{')?.strip_suffix('}')?;
    Some(inner.trim_end_matches("..."))
}

/// A path taken apart: the version it asks for, and the rest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'p> {
    /// The text after `/v`, if there is such a prefix.
    pub(crate) version: Option<&'p str>,
    /// What is left, beginning with a slash.
    pub(crate) path: &'p str,
}

/// Takes `/v1.41` off a path. Source: moby, `api/server/server.go` `versionMatcher` (`/v{version:[0-9.]+}`).
pub(crate) fn split_version(path: &str) -> Target<'_> {
    let versioned = path.strip_prefix("/v").and_then(|rest| {
        let end = rest.find('/')?;
        let (version, path) = rest.split_at(end);
        let numeric = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        numeric.then_some(Target { version: Some(version), path })
    });
    versioned.unwrap_or(Target { version: None, path })
}

/// Percent-decodes; `None` for bad escapes or what is no UTF-8.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                out.push(u8::try_from(high * 16 + low).expect("two hex digits"));
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &'static str, path: &str, expect: Option<&[(&str, &str)]>) {
        let route: Route<()> = Route {
            method: Method::GET,
            path: pattern,
            since: ApiVersion::MIN,
            about: "",
            action: Action::Refuse(""),
        };
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let found = route.fits(&segments);
        let found: Option<Vec<(&str, &str)>> =
            found.as_ref().map(|params| params.iter().map(|(name, value)| (*name, value.as_str())).collect());
        assert_eq!(found.as_deref(), expect, "{pattern} against {path}");
    }

    #[test]
    fn names_with_slashes_fit_only_greedy_parts() {
        check("/images/{name...}/json", "/images/a/json", Some(&[("name", "a")]));
        check("/images/{name...}/json", "/images/r:5000/a/b/json", Some(&[("name", "r:5000/a/b")]));
        check("/images/{name...}/json", "/images/json", None);
        check("/images/{name...}", "/images/a/b", Some(&[("name", "a/b")]));
        check("/containers/{name}/json", "/containers/a/b/json", None);
        check("/containers/{name}/json", "/containers//json", None);
        check("/containers/json", "/containers/json", Some(&[]));
        check("/containers/json", "/containers/json/", None);
    }

    #[test]
    fn versions_come_off_the_path() {
        assert_eq!(split_version("/v1.41/info"), Target { version: Some("1.41"), path: "/info" });
        assert_eq!(split_version("/v1/info"), Target { version: Some("1"), path: "/info" });
        assert_eq!(split_version("/version"), Target { version: None, path: "/version" });
        assert_eq!(split_version("/v1.41"), Target { version: None, path: "/v1.41" });
        assert_eq!(split_version("/volumes/x"), Target { version: None, path: "/volumes/x" });
    }

    #[test]
    fn escapes_are_decoded_or_refused() {
        assert_eq!(decode("a%2Fb+c", false).as_deref(), Some("a/b+c"));
        assert_eq!(decode("a%2fb+c", true).as_deref(), Some("a/b c"));
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decode(bad, true), None, "{bad}");
        }
    }
}

//! Proves to a registry who asks: the challenge of a 401, and the token or password that answers it.
//!
//! In: `WWW-Authenticate`, credentials. Out: the value of `Authorization`. Never sends credentials in the clear when
//! the registry itself is reached with verified TLS, and never logs them.

use docker::AuthConfig;
use reqwest::RequestBuilder;
use serde::Deserialize;

use super::endpoint::{Endpoint, Protection};
use super::failure::{Refusal, transport};
use super::session::read_limited;
use crate::errors::PullError;

/// Longest answer of a token service. Chosen: tokens have a few kilobytes.
const MAX_TOKEN_ANSWER: usize = 1 << 20;
/// What the token service logs. Source: moby sends `docker`; the value is free.
const CLIENT_ID: &str = "skep";

/// What a registry wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

/// The proof, ready to be put on a request.
#[derive(Clone)]
pub(crate) enum Proof {
    Basic { username: String, password: String },
    Bearer(String),
}

impl Proof {
    pub(crate) fn put_on(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Proof::Basic { username, password } => request.basic_auth(username, Some(password)),
            Proof::Bearer(token) => request.bearer_auth(token),
        }
    }
}

/// The challenges of one or more `WWW-Authenticate` headers; unknown schemes are left out.
pub(crate) fn challenges<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    headers.filter_map(challenge).collect()
}

fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (String::new(), String::new(), String::new());
    for (key, value) in parameters(rest) {
        match key.to_ascii_lowercase().as_str() {
            "realm" => realm = value,
            "service" => service = value,
            "scope" => scope = value,
            _ => {}
        }
    }
    (!realm.is_empty()).then_some(Challenge::Bearer { realm, service, scope })
}

/// Splits `key="value, with commas",key2=token`. Source: RFC 9110, section 11.2.
fn parameters(mut rest: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([',', ' ', '\t']).to_owned();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        found.push((key, value));
        rest = next;
    }
    found
}

fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            _ => value.push(c),
        }
    }
    (value, "")
}

/// Answers a challenge, if it names no scope for pulling from `repository`; an empty one is for no repository at all.
pub(crate) async fn answer(
    endpoint: &Endpoint,
    repository: &str,
    credentials: Option<&AuthConfig>,
    challenge: &Challenge,
    refusal: &Refusal,
) -> Result<Proof, PullError> {
    match challenge {
        Challenge::Basic => basic(credentials, refusal),
        Challenge::Bearer { realm, service, scope } => {
            if let Some(token) = credentials.map(|c| &c.registrytoken).filter(|t| !t.is_empty()) {
                return Ok(Proof::Bearer(token.clone()));
            }
            let scope = match scope.is_empty() && !repository.is_empty() {
                true => format!("repository:{repository}:pull"),
                false => scope.clone(),
            };
            token(endpoint, realm, service, &scope, credentials).await.map(Proof::Bearer)
        }
    }
}

fn basic(credentials: Option<&AuthConfig>, refusal: &Refusal) -> Result<Proof, PullError> {
    match credentials {
        Some(c) if !c.username.is_empty() => {
            Ok(Proof::Basic { username: c.username.clone(), password: c.password.clone() })
        }
        // Source: distribution, `registry/client/auth`, `ErrNoBasicAuthCredentials`.
        _ => Err(PullError::Unauthorized {
            method: refusal.method,
            url: refusal.url.clone(),
            cause: "no basic auth credentials".to_owned(),
        }),
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// Asks the token service. Source: distribution, `docs/spec/auth/token` and `docs/spec/auth/oauth`.
async fn token(
    endpoint: &Endpoint,
    realm: &str,
    service: &str,
    scope: &str,
    credentials: Option<&AuthConfig>,
) -> Result<String, PullError> {
    if endpoint.protection == Protection::Verified && !realm.starts_with("https://") {
        return Err(PullError::Invalid(format!(
            "registry sends credentials to an unprotected address: {realm}"
        )));
    }
    let refresh = credentials.map(|c| c.identitytoken.as_str()).filter(|t| !t.is_empty());
    let user = credentials.filter(|c| !c.username.is_empty());
    let (method, request) = match refresh {
        Some(refresh) => {
            let form = [
                ("grant_type", "refresh_token"),
                ("service", service),
                ("scope", scope),
                ("client_id", CLIENT_ID),
                ("refresh_token", refresh),
            ];
            let body: Vec<String> = form.iter().map(|(k, v)| format!("{k}={}", percent_encode(v))).collect();
            let request = endpoint.client.post(realm);
            let content_type = "application/x-www-form-urlencoded";
            ("Post", request.header(reqwest::header::CONTENT_TYPE, content_type).body(body.join("&")))
        }
        None => {
            let mut query = Vec::new();
            if !scope.is_empty() {
                query.push(format!("scope={}", percent_encode(scope)));
            }
            if !service.is_empty() {
                query.push(format!("service={}", percent_encode(service)));
            }
            if let Some(user) = user {
                query.push(format!("account={}", percent_encode(&user.username)));
            }
            let joint = if realm.contains('?') { '&' } else { '?' };
            let request = endpoint.client.get(format!("{realm}{joint}{}", query.join("&")));
            (
                "Get",
                match user {
                    Some(user) => request.basic_auth(&user.username, Some(&user.password)),
                    None => request,
                },
            )
        }
    };
    let answer = request.send().await.map_err(|e| transport(method, realm, &e))?;
    let status = answer.status();
    let body = read_limited(answer, MAX_TOKEN_ANSWER).await.map_err(|e| e.into_error(method, realm))?;
    if !status.is_success() {
        let refusal = Refusal { method, url: realm.to_owned(), status, body };
        let (_, cause) = refusal.code_and_text();
        return Err(match status.as_u16() {
            401 | 403 => PullError::Unauthorized { method, url: realm.to_owned(), cause },
            status => PullError::Registry { status, cause: format!("{method} \"{realm}\": {cause}") },
        });
    }
    let answer: TokenAnswer =
        serde_json::from_slice(&body).map_err(|source| PullError::Parse { what: "token", source })?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return Err(PullError::Invalid(
            "authorization server did not include a token in the response".to_owned(),
        ));
    }
    Ok(token)
}

/// For queries and forms. Source: RFC 3986, "unreserved characters".
pub(crate) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expect: &[Challenge]) {
        assert_eq!(challenges([header].into_iter()), expect, "{header}");
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: &str, scope: &str| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.to_owned(),
            scope: scope.to_owned(),
        };
        check("Basic realm=\"x\"", &[Challenge::Basic]);
        check("basic", &[Challenge::Basic]);
        check(
            r#"Bearer realm="https://a/token",service="r.io",scope="repository:a/b:pull,push""#,
            &[bearer("https://a/token", "r.io", "repository:a/b:pull,push")],
        );
        check(r#"Bearer realm=https://a/token, service="q\"x""#, &[bearer("https://a/token", "q\"x", "")]);
        check("Negotiate abc", &[]);
        check("Bearer service=\"x\"", &[]);
        check("Bearer realm=\"unclosed", &[bearer("unclosed", "", "")]);
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(percent_encode("repository:a/b:pull ü&"), "repository%3Aa%2Fb%3Apull%20%C3%BC%26");
    }
}

//! Finds the address at which a registry answers, and asks it whether credentials are good.
//!
//! In: a domain, credentials. Out: an endpoint, or a failure in Docker's words. Never asks a mirror: what is sent is for
//! the registry itself.

use docker::AuthConfig;
use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Response, StatusCode};

use super::auth::{self, Proof};
use super::endpoint::{Endpoint, Registry};
use super::failure::{Refusal, transport};
use super::session::read_limited;
use crate::errors::{PullError, PushError};

/// Longest error text that is read.
const MAX_ERROR: usize = 64 << 10;

/// The first address that answers, whatever it says.
pub(crate) async fn reach(registry: &Registry, domain: &str) -> Result<Endpoint, PullError> {
    let no_client = |error: reqwest::Error| PullError::Transport {
        method: "Get",
        url: format!("https://{domain}/v2/"),
        cause: crate::message(&error),
        is_transient: false,
    };
    let mut failed = None;
    for endpoint in registry.endpoints(domain).await.map_err(no_client)? {
        if endpoint.is_mirror {
            continue;
        }
        match ping(&endpoint, None).await {
            Ok(_) => {
                registry.has_answered(&endpoint);
                return Ok(endpoint);
            }
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| PullError::Invalid(format!("no endpoint for {domain}"))))
}

async fn ping(endpoint: &Endpoint, proof: Option<&Proof>) -> Result<Response, PullError> {
    let url = format!("{}/v2/", endpoint.base);
    let mut request = endpoint.client.get(&url);
    if let Some(proof) = proof {
        request = proof.put_on(request);
    }
    request.send().await.map_err(|e| transport("Get", &url, &e))
}

/// Whether the registry of `credentials.serveraddress` takes them. One that wants none takes all, as for Docker.
/// Source: moby, `registry/auth.go`, `loginV2`.
pub(crate) async fn check_login(registry: &Registry, credentials: &AuthConfig) -> Result<(), PushError> {
    let endpoint = reach(registry, domain(&credentials.serveraddress)).await?;
    let answer = ping(&endpoint, None).await?;
    if answer.status().is_success() {
        return Ok(());
    }
    let url = format!("{}/v2/", endpoint.base);
    let wrong = |status: StatusCode| PushError::WrongLogin { url: url.clone(), status: status.to_string() };
    let status = answer.status();
    let wanted: Vec<String> = answer
        .headers()
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    let body = read_limited(answer, MAX_ERROR).await.unwrap_or_default();
    let Some(challenge) = auth::challenges(wanted.iter().map(String::as_str)).into_iter().next() else {
        return Err(wrong(status));
    };
    let refusal = Refusal { method: "Get", url: url.clone(), status, body };
    let proof = match auth::answer(&endpoint, "", Some(credentials), &challenge, &refusal).await {
        Ok(proof) => proof,
        Err(PullError::Unauthorized { .. }) => return Err(wrong(StatusCode::UNAUTHORIZED)),
        Err(error) => return Err(error.into()),
    };
    let answer = ping(&endpoint, Some(&proof)).await?;
    if answer.status().is_success() { Ok(()) } else { Err(wrong(answer.status())) }
}

/// The registry of an address as clients write it. Source: moby, `registry/auth.go`, `ConvertToHostname`, and
/// `registry/config.go`, `IndexServer`.
fn domain(address: &str) -> &str {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    match host.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => docker::reference::DEFAULT_DOMAIN,
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_their_registry() {
        for (address, expect) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("http://127.0.0.1:5000", "127.0.0.1:5000"),
            ("ghcr.io/x", "ghcr.io"),
        ] {
            assert_eq!(domain(address), expect, "{address}");
        }
    }
}

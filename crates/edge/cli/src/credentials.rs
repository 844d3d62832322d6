//! Registry credentials of the user, from docker's `config.json`.
//!
//! In: an image's name. Out: the `X-Registry-Auth` header. Credential helpers are programs of their own and are not run.

use docker::auth::AuthConfig;
use serde_json::Value;
use std::path::PathBuf;

/// Key of Docker Hub in `config.json`. Source: docker/cli `registry.IndexServer`.
const HUB: &str = "https://index.docker.io/v1/";

/// The header for `image`, if the user is logged in at its registry.
pub(crate) fn for_image(image: &str) -> Option<String> {
    let registry = match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => HUB,
    };
    let folder = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")))?;
    let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).ok()?).ok()?;
    header(&config["auths"][registry], registry)
}

fn header(entry: &Value, registry: &str) -> Option<String> {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let mut auth = AuthConfig {
        username: text("username"),
        password: text("password"),
        auth: text("auth"),
        serveraddress: registry.to_owned(),
        email: text("email"),
        identitytoken: text("identitytoken"),
        registrytoken: text("registrytoken"),
    };
    auth.take_auth_apart();
    let known = !auth.username.is_empty() || !auth.identitytoken.is_empty() || !auth.registrytoken.is_empty();
    known.then(|| auth.to_header())
}

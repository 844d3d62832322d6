//! Registry credentials of the user, from docker's `config.json`.
//!
//! In: an image's name, or a login. Out: the headers with credentials, and the file as docker writes it. Credential helpers are programs of their own and are not run.

use crate::CliError;
use docker::auth::{AuthConfig, encode_base64url};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Key of Docker Hub in `config.json`. Source: docker/cli `registry.IndexServer`.
const HUB: &str = "https://index.docker.io/v1/";

/// The header for `image`, if the user is logged in at its registry.
pub(crate) fn for_image(image: &str) -> Option<String> {
    let registry = match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => HUB,
    };
    header(&read()["auths"][registry], registry)
}

/// The header of builds: every registry the user is logged in at.
pub(crate) fn for_build() -> String {
    let config = read();
    let entries = config["auths"].as_object().into_iter().flatten();
    let all: BTreeMap<&String, AuthConfig> =
        entries.filter_map(|(registry, entry)| Some((registry, credentials(entry, registry)?))).collect();
    encode_base64url(&serde_json::to_vec(&all).expect("strings always serialise"))
}

/// Keeps the password of a registry, or forgets it; whether there was one before.
///
/// # Errors
/// When the file cannot be replaced.
pub(crate) fn set(registry: &str, login: Option<(&str, &str)>) -> Result<bool, CliError> {
    let folder = folder().ok_or_else(|| CliError::new("neither DOCKER_CONFIG nor HOME is set"))?;
    let (path, new) = (folder.join("config.json"), folder.join("config.json.new"));
    let failed = |error: std::io::Error| CliError::file("write", &path.display().to_string(), &error);
    let mut config = read();
    if !config.is_object() {
        config = serde_json::json!({});
    }
    if !config["auths"].is_object() {
        config["auths"] = serde_json::json!({});
    }
    let auths = config["auths"].as_object_mut().expect("made above");
    let had = auths.remove(registry).is_some();
    if let Some((username, password)) = login {
        let auth = encode_base64url(format!("{username}:{password}").as_bytes());
        // The file's alphabet is the other one.
        let auth = auth.replace('-', "+").replace('_', "/");
        auths.insert(registry.to_owned(), serde_json::json!({"auth": auth}));
    }
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed)?;
    let text = serde_json::to_string_pretty(&config).expect("JSON that was read can be written");
    file.write_all(text.as_bytes()).map_err(failed)?;
    std::fs::rename(&new, &path).map_err(failed)?;
    Ok(had)
}

/// The name of a registry in `config.json`.
pub(crate) fn key(server: &str) -> &str {
    let host =
        server.split_once("://").map_or(server, |(_, rest)| rest).split('/').next().unwrap_or_default();
    if ["", "docker.io", "index.docker.io", "registry-1.docker.io"].contains(&host) { HUB } else { host }
}

fn folder() -> Option<PathBuf> {
    std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")))
}

/// The file; null when there is none that can be read.
fn read() -> Value {
    let bytes = folder().and_then(|folder| std::fs::read(folder.join("config.json")).ok());
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn header(entry: &Value, registry: &str) -> Option<String> {
    credentials(entry, registry).map(|auth| auth.to_header())
}

fn credentials(entry: &Value, registry: &str) -> Option<AuthConfig> {
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
    known.then_some(auth)
}

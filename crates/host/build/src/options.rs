//! What a client says about a build.
//!
//! In: values of a request. Out: plain data. Never does anything itself.

use std::collections::BTreeMap;

use docker::{AuthConfig, HostConfig};
use images::Platform;

/// Options of one build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Path of the Dockerfile in the context; empty is `Dockerfile`.
    pub dockerfile: String,
    /// Names for the image, checked by the caller.
    pub tags: Vec<String>,
    /// `--build-arg`; `None` takes the Dockerfile's default.
    pub arguments: BTreeMap<String, Option<String>>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// The last stage to build, by name or number; empty is the last one.
    pub target: String,
    /// Whether to make every step anew.
    pub no_cache: bool,
    /// Whether to ask registries for newer base images.
    pub pull: bool,
    /// Whether containers of steps that succeed are removed.
    pub removes: bool,
    /// Whether all containers are removed.
    pub always_removes: bool,
    /// For base images without a platform of their own; `None` is this machine's.
    pub platform: Option<Platform>,
    /// Credentials by registry, as clients name them.
    pub auth: BTreeMap<String, AuthConfig>,
    /// For the containers of `RUN`.
    pub limits: Limits,
}

/// What the containers of `RUN` get.
#[derive(Debug, Clone, Default)]
pub struct Limits(pub HostConfig);

impl BuildOptions {
    /// Credentials for a registry. Source: moby, `builder/dockerfile/imagecontext.go`, and `registry.ResolveAuthConfig`.
    pub(crate) fn auth_of(&self, domain: &str) -> Option<AuthConfig> {
        let hub = "https://index.docker.io/v1/";
        let key = if domain == docker::reference::DEFAULT_DOMAIN { hub } else { domain };
        let host = |address: &str| {
            let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
            rest.split('/').next().unwrap_or_default().to_owned()
        };
        let exact = self.auth.get(key);
        exact.or_else(|| self.auth.iter().find(|(key, _)| host(key) == domain).map(|(_, auth)| auth)).cloned()
    }
}

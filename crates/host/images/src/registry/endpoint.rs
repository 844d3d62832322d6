//! Decides where a repository is asked for: mirrors first, then its registry; with TLS, or without where allowed.
//!
//! In: the configuration and a domain. Out: endpoints in the order to try, each with an HTTP client. Never sends a
//! request except to resolve a name that a CIDR may make insecure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use reqwest::{Certificate, Client, ClientBuilder, redirect};

use crate::options::RegistryConfig;

/// Where Docker Hub answers the registry protocol. Source: moby, `registry.DefaultV2Registry`.
const HUB: &str = "registry-1.docker.io";
/// Chosen: a host that does not answer for this long will not answer soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Chosen: a transfer that stands still for this long is dead and tried again.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Source: Go, `net/http`, `defaultCheckRedirect`.
const MAX_REDIRECTS: usize = 10;

/// Reaches registries as configured.
pub(crate) struct Registry {
    config: RegistryConfig,
    networks: Vec<IpNet>,
    /// By host; making one reads certificates, hence it is kept.
    clients: Mutex<BTreeMap<(String, Protection), Client>>,
    /// Insecure hosts that last answered without TLS: asked that way first, since a plain server may keep a TLS
    /// greeting waiting for long.
    plain: Mutex<BTreeSet<String>>,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protection {
    /// TLS with a certificate that is checked.
    Verified,
    /// TLS with any certificate, or none.
    Insecure,
}

/// One place to ask.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// `https://host:port`, without a slash at the end.
    pub(crate) base: String,
    pub(crate) protection: Protection,
    /// A mirror may fail or lack something: the registry itself is then asked.
    pub(crate) is_mirror: bool,
    pub(crate) client: Client,
}

impl Registry {
    pub(crate) fn new(config: RegistryConfig) -> Registry {
        let networks = config.insecure.iter().filter_map(|entry| entry.parse().ok()).collect();
        Registry { config, networks, clients: Mutex::default(), plain: Mutex::default() }
    }

    /// Places to ask for a repository of `domain`, best first; at least one.
    pub(crate) async fn endpoints(&self, domain: &str) -> Result<Vec<Endpoint>, reqwest::Error> {
        let mut endpoints = Vec::new();
        if domain == docker::reference::DEFAULT_DOMAIN {
            for mirror in &self.config.mirrors {
                let base = mirror.trim_end_matches('/').to_owned();
                let (scheme, host) = base.split_once("://").unwrap_or(("https", &base));
                let is_insecure = scheme == "http" || self.is_insecure(host).await;
                let protection = if is_insecure { Protection::Insecure } else { Protection::Verified };
                let client = self.client(host, protection)?;
                endpoints.push(Endpoint { base, protection, is_mirror: true, client });
            }
        }
        let host = if domain == docker::reference::DEFAULT_DOMAIN { HUB } else { domain };
        let is_insecure = self.is_insecure(host).await;
        let protection = if is_insecure { Protection::Insecure } else { Protection::Verified };
        let client = self.client(host, protection)?;
        let is_plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner).contains(host);
        let schemes: &[&str] = match (is_insecure, is_plain) {
            (false, _) => &["https"],
            (true, false) => &["https", "http"],
            (true, true) => &["http", "https"],
        };
        endpoints.extend(schemes.iter().map(|scheme| Endpoint {
            base: format!("{scheme}://{host}"),
            protection,
            is_mirror: false,
            client: client.clone(),
        }));
        Ok(endpoints)
    }

    /// Remembers how an endpoint was reached.
    pub(crate) fn has_answered(&self, endpoint: &Endpoint) {
        let mut plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        match endpoint.base.split_once("://") {
            Some(("http", host)) => drop(plain.insert(host.to_owned())),
            Some((_, host)) => drop(plain.remove(host)),
            None => {}
        }
    }

    /// Whether `host[:port]` may be reached without verified TLS. Source: moby, `registry.isSecureIndex`.
    async fn is_insecure(&self, host: &str) -> bool {
        let name = host_name(host);
        if self.config.insecure.iter().any(|entry| entry == host || entry == name) || name == "localhost" {
            return true;
        }
        if let Ok(address) = name.parse::<IpAddr>() {
            return address.is_loopback() || self.networks.iter().any(|net| net.contains(&address));
        }
        if self.networks.is_empty() {
            return false;
        }
        match tokio::net::lookup_host((name, 0)).await {
            Ok(mut found) => found.any(|a| self.networks.iter().any(|net| net.contains(&a.ip()))),
            // The request itself will tell that the name does not resolve.
            Err(_) => false,
        }
    }

    fn client(&self, host: &str, protection: Protection) -> Result<Client, reqwest::Error> {
        let key = (host.to_owned(), protection);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = self.build(host, protection)?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn build(&self, host: &str, protection: Protection) -> Result<Client, reqwest::Error> {
        let mut builder = ClientBuilder::new()
            .user_agent(concat!("skep/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT);
        let name = host_name(host);
        if name == "localhost" || name.parse::<IpAddr>().is_ok_and(|a| a.is_loopback()) {
            // A proxy's loopback is not ours.
            builder = builder.no_proxy();
        }
        match protection {
            Protection::Insecure => {
                builder = builder
                    .tls_danger_accept_invalid_certs(true)
                    .redirect(redirect::Policy::limited(MAX_REDIRECTS));
            }
            Protection::Verified => {
                builder =
                    builder.tls_certs_merge(self.extra_certificates(host)).redirect(never_to_plain_http());
            }
        }
        builder.build()
    }

    /// Certificate authorities an admin laid down for this registry alone.
    fn extra_certificates(&self, host: &str) -> Vec<Certificate> {
        let mut found = Vec::new();
        for folder in &self.config.certs_dirs {
            let Ok(entries) = std::fs::read_dir(folder.join(host)) else { continue };
            let files =
                entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "crt"));
            for file in files {
                let read = std::fs::read(&file).map_err(|e| e.to_string());
                match read.and_then(|pem| Certificate::from_pem_bundle(&pem).map_err(|e| e.to_string())) {
                    Ok(certificates) => found.extend(certificates),
                    Err(error) => tracing::warn!(file = %file.display(), error, "certificate not read"),
                }
            }
        }
        found
    }
}

/// Follows redirects, but not from a protected connection to an open one.
fn never_to_plain_http() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        if attempt.previous().len() >= MAX_REDIRECTS {
            attempt.error(RedirectError("stopped after 10 redirects"))
        } else if attempt.url().scheme() == "http" {
            attempt.error(RedirectError("registry redirects from https to http"))
        } else {
            attempt.follow()
        }
    })
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct RedirectError(&'static str);

/// `host[:port]` or `[v6]:port` without port and brackets.
fn host_name(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(insecure: &[&str], domain: &str, expect: &[&str]) {
        let config = RegistryConfig {
            insecure: insecure.iter().map(|s| (*s).to_owned()).collect(),
            mirrors: vec!["http://127.0.0.1:9/".to_owned()],
            certs_dirs: Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoints = runtime.block_on(Registry::new(config).endpoints(domain)).unwrap();
        let bases: Vec<&str> = endpoints.iter().map(|e| e.base.as_str()).collect();
        assert_eq!(bases, expect, "{domain}");
    }

    #[test]
    fn only_loopback_and_listed_registries_are_asked_in_the_clear() {
        check(&[], "127.0.0.1:5000", &["https://127.0.0.1:5000", "http://127.0.0.1:5000"]);
        check(&[], "localhost:5000", &["https://localhost:5000", "http://localhost:5000"]);
        check(&[], "[::1]:5000", &["https://[::1]:5000", "http://[::1]:5000"]);
        check(&[], "192.0.2.1:5000", &["https://192.0.2.1:5000"]);
        check(&["192.0.2.0/24"], "192.0.2.1:5000", &["https://192.0.2.1:5000", "http://192.0.2.1:5000"]);
        check(&["r.test:1"], "r.test:1", &["https://r.test:1", "http://r.test:1"]);
        check(&["r.test:1"], "r.test:2", &["https://r.test:2"]);
    }

    #[test]
    fn mirrors_are_asked_before_docker_hub_only() {
        check(&[], "docker.io", &["http://127.0.0.1:9", "https://registry-1.docker.io"]);
    }
}

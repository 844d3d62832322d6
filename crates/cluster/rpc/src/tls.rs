//! A node's identity on connections: what it shows and what it trusts.
//!
//! In: PEM. Out: the settings of TLS 1.3 for both ends. Sessions are never resumed: every connection is verified against
//! the roots of its own moment.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use objects::ClusterId;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, VerifierBuilderError};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};

use crate::peer::{NotOfASwarm, Peer};
use crate::verify::{ClientVerifier, ServerVerifier, TrustAll};

/// What both ends say they speak. Source: RFC 9113, 3.2.
const PROTOCOL: &[u8] = b"h2";

/// What a node shows and trusts.
#[derive(Clone)]
pub struct Credentials {
    /// Its certificate, then those that lead to an older root during a rotation; PEM.
    pub certificate: String,
    /// Its key, PEM (PKCS #8).
    pub key: String,
    /// The roots it trusts, PEM; several during a rotation.
    pub roots: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Not usable as a node's credentials.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCredentials {
    /// Not PEM, or without what it should hold.
    #[error("read the {what}")]
    Pem {
        /// Of what.
        what: &'static str,
        /// What is wrong.
        #[source]
        source: pem::Error,
    },
    /// There is no certificate, or no root.
    #[error("there is no {what}")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// The certificate names no node of a swarm.
    #[error(transparent)]
    NotOfASwarm(#[from] NotOfASwarm),
    /// A root is of no use, or the key is not the certificate's.
    #[error("use the {what}")]
    Unusable {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The roots are of no use.
    #[error("use the roots")]
    Verifier(#[from] VerifierBuilderError),
}

/// A node's identity, shared by everything that talks for it.
///
/// Copies are the same identity: what replaces it in one place replaces it in all.
#[derive(Clone)]
pub struct Tls {
    current: Arc<RwLock<Arc<Current>>>,
}

/// The identity at some moment.
pub(crate) struct Current {
    /// Grows with each replacement.
    pub(crate) generation: u64,
    pub(crate) own: Option<Peer>,
    pub(crate) client: Arc<ClientConfig>,
    /// None for a machine that is joining: it has nothing to show.
    pub(crate) server: Option<Arc<ServerConfig>>,
}

impl Tls {
    /// For a node with a certificate.
    pub fn new(credentials: &Credentials) -> Result<Self, InvalidCredentials> {
        Ok(Self::of(Current::new(credentials, 0)?))
    }

    /// For a machine that is about to join: shows nothing, and trusts managers under `roots` (PEM) of any swarm.
    pub fn joining(roots: &str) -> Result<Self, InvalidCredentials> {
        let verifier = ServerVerifier::new(&Arc::new(store(roots)?), None, provider())?;
        Ok(Self::of(Current {
            generation: 0,
            own: None,
            client: without_certificate(verifier),
            server: None,
        }))
    }

    /// For the very first question: shows nothing, and believes anybody.
    pub(crate) fn blind() -> Self {
        let client = without_certificate(TrustAll::new(provider()));
        Self::of(Current { generation: 0, own: None, client, server: None })
    }

    fn of(current: Current) -> Self {
        Self { current: Arc::new(RwLock::new(Arc::new(current))) }
    }

    /// Replaces the identity. New connections have the new one, live ones and their streams stay as they are; a
    /// [`Client`](crate::Client) makes a new connection for its next call.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), InvalidCredentials> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(Current::new(credentials, current.generation + 1)?);
        Ok(())
    }

    /// Who this node is; `None` while it is joining.
    #[must_use]
    pub fn own(&self) -> Option<Peer> {
        self.current().own.clone()
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Current {
    fn new(credentials: &Credentials, generation: u64) -> Result<Self, InvalidCredentials> {
        let chain = certificates(&credentials.certificate, "certificate")?;
        let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())
            .map_err(|source| InvalidCredentials::Pem { what: "key", source })?;
        let own = Peer::of_der(chain.first().ok_or(InvalidCredentials::Missing { what: "certificate" })?)?;
        let roots = Arc::new(store(&credentials.roots)?);
        let client = client(&roots, &own.cluster, chain.clone(), key.clone_key())?;
        let server = server(&roots, &own.cluster, chain, key)?;
        Ok(Self { generation, own: Some(own), client: Arc::new(client), server: Some(Arc::new(server)) })
    }
}

fn client(
    roots: &Arc<RootCertStore>,
    cluster: &ClusterId,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, InvalidCredentials> {
    let verifier = ServerVerifier::new(roots, Some(cluster.clone()), provider())?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(|source| InvalidCredentials::Unusable { what: "key", source })?;
    settle(&mut config);
    Ok(config)
}

fn without_certificate(verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    settle(&mut config);
    Arc::new(config)
}

fn settle(config: &mut ClientConfig) {
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
}

fn server(
    roots: &Arc<RootCertStore>,
    cluster: &ClusterId,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, InvalidCredentials> {
    let verifier = ClientVerifier::new(roots, cluster.clone(), provider())?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|source| InvalidCredentials::Unusable { what: "key", source })?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(text: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, InvalidCredentials> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| InvalidCredentials::Pem { what, source })
}

fn store(roots: &str) -> Result<RootCertStore, InvalidCredentials> {
    let mut store = RootCertStore::empty();
    for root in certificates(roots, "roots")? {
        store.add(root).map_err(|source| InvalidCredentials::Unusable { what: "roots", source })?;
    }
    if store.is_empty() {
        return Err(InvalidCredentials::Missing { what: "root" });
    }
    Ok(store)
}

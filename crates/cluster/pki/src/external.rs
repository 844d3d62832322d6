//! An authority outside of the swarm, by the protocol of `cfssl`.
//!
//! In: requests. Out: certificates that nobody has checked yet: [`crate::Signer`] does. The authority is asked over
//! HTTPS with this manager's certificate, and must be certified by the swarm's root itself.

use std::time::Duration;

use objects::{Cluster, Nanos, Timestamp};
use reqwest::{Certificate, Client};
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, PkiError};
use crate::identity::{Identity, unit};
use crate::node_key::NodeKey;
use crate::signer::SignError;
use crate::{certificate, trust_bundle};

/// Time for one answer. Source: swarmkit, `ca/external.go` (`defaultExternalCAPerformTimeout` 5 s).
const TIMEOUT: Duration = Duration::from_secs(5);

/// The end of the time in which an answer can have been made that was asked for at `now`.
///
/// Authorities that do not back-date certify from the second in which they sign.
pub(crate) fn answered_by(now: Timestamp) -> Timestamp {
    now + Nanos::from(TIMEOUT)
}

/// Longest answer that is read, bytes. Source: swarmkit, `ca/external.go` (`CertificateMaxSize`).
const LONGEST_ANSWER: usize = 1 << 20;

/// Profile under which another root is signed. Source: swarmkit, `ca/external.go` (`ExternalCrossSignProfile`).
const CROSS_SIGN_PROFILE: &str = "CA";

/// Extension that makes a certificate an authority's. Source: RFC 5280, section 4.2.1.9.
const BASIC_CONSTRAINTS: &str = "2.5.29.19";

/// Talks to authorities outside of the swarm as one manager.
#[derive(Clone)]
pub struct ExternalAuthority {
    identity: reqwest::Identity,
}

/// The authorities of one root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalUrls {
    root: String,
    urls: Vec<String>,
}

/// Why an authority outside gave no certificate.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// This manager's own certificate cannot be used.
    #[error("prepare to talk to the external CA")]
    Prepare(#[source] reqwest::Error),
    /// Not `https`. Source of the text: swarmkit, `manager/controlapi/ca_rotation.go`.
    #[error("invalid HTTP scheme")]
    Scheme,
    /// It was not reached, or is not to be trusted.
    #[error("unable to reach the external CA at {url}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// Its answer is longer than any certificate.
    #[error("the answer of the external CA at {url} is too long")]
    TooLong {
        /// Where.
        url: String,
    },
    /// Its answer is not what the protocol says.
    #[error("the answer of the external CA at {url} cannot be read")]
    Malformed {
        /// Where.
        url: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// It said no.
    #[error("the external CA at {url} refused: {message}")]
    Refused {
        /// Where.
        url: String,
        /// In its words.
        message: String,
    },
    /// There is none for this root.
    #[error("no valid signer found")]
    Nobody,
}

/// `cfssl`'s `signer.SignRequest`, as far as a swarm uses it.
#[derive(Serialize)]
struct Request<'a> {
    hosts: Vec<String>,
    certificate_request: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Subject<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    profile: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<Extension>,
}

#[derive(Serialize)]
struct Extension {
    id: &'static str,
    critical: bool,
    /// DER in hexadecimal.
    value: String,
}

#[derive(Serialize)]
struct Subject<'a> {
    #[serde(rename = "CN")]
    common_name: &'a str,
    names: [Name<'a>; 1],
}

#[derive(Serialize)]
struct Name<'a> {
    #[serde(rename = "O")]
    organisation: &'a str,
    #[serde(rename = "OU")]
    unit: &'a str,
}

/// `cfssl`'s `api.Response`.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
    result: Option<Signed>,
    #[serde(default)]
    errors: Option<Vec<Complaint>>,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(default)]
    certificate: String,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

impl ExternalUrls {
    /// Where a cluster's spec says that the authority of a root (PEM) is. One that names no root is the present root's.
    #[must_use]
    pub fn of(cluster: &Cluster, root: &str) -> Self {
        let present = trust_bundle::normalise(&cluster.internal.ca_certificate);
        let root = trust_bundle::normalise(root);
        let is_of_root = |named: &str| match named.trim() {
            "" => present == root,
            named => trust_bundle::normalise(named) == root,
        };
        let authorities = cluster.spec.ca_config.external_cas.iter();
        let urls =
            authorities.filter(|known| is_of_root(&known.ca_cert)).map(|known| known.url.clone()).collect();
        Self { root, urls }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.urls.is_empty()
    }
}

impl ExternalAuthority {
    /// As the manager with this certificate chain (PEM) and key.
    pub fn new(chain: &str, key: &NodeKey) -> Result<Self, ExternalError> {
        let identity = reqwest::Identity::from_pem([chain, key.pem()].concat().as_bytes());
        Ok(Self { identity: identity.map_err(ExternalError::Prepare)? })
    }

    /// Whether one of the authorities answers and is certified by its root.
    pub async fn check_reachable(&self, authorities: &ExternalUrls) -> Result<(), ExternalError> {
        let client = self.client(&authorities.root)?;
        let mut refusal = ExternalError::Nobody;
        for url in &authorities.urls {
            // Any answer will do: a handshake has taken place.
            match client.head(https(url)?).send().await {
                Ok(_) => return Ok(()),
                Err(source) => refusal = ExternalError::Unreachable { url: url.clone(), source },
            }
        }
        Err(refusal)
    }

    /// Asks the authorities, one after the other, to certify the key of a request (PEM). Returns PEM, unchecked.
    pub(crate) async fn sign(
        &self,
        authorities: &ExternalUrls,
        request: &str,
        identity: &Identity,
    ) -> Result<String, ExternalError> {
        let name = Name { organisation: identity.cluster.as_str(), unit: unit(identity.role) };
        let subject = Some(Subject { common_name: identity.node.as_str(), names: [name] });
        let request = Request {
            hosts: identity.dns_names(),
            certificate_request: request,
            subject,
            profile: "",
            extensions: Vec::new(),
        };
        self.ask(authorities, &request).await
    }

    /// Asks the authorities of the present root to sign another root, of which the swarm has the key.
    ///
    /// The result is the other root's name and key, PEM; it is checked to be that, and to be trusted by who trusts the
    /// present root.
    pub async fn cross_sign(
        &self,
        authorities: &ExternalUrls,
        root: &Authority,
        now: Timestamp,
    ) -> Result<String, SignError> {
        let constraints = certificate::basic_constraints(&root.certificate).map_err(PkiError::Root)?;
        // The protocol passes nothing on from a request but names: what makes it an authority is said once more.
        let extension = Extension { id: BASIC_CONSTRAINTS, critical: true, value: hex(&constraints) };
        let request = Request {
            hosts: Vec::new(),
            certificate_request: &root.request()?,
            subject: None,
            profile: CROSS_SIGN_PROFILE,
            extensions: vec![extension],
        };
        let signed = trust_bundle::normalise(&self.ask(authorities, &request).await?);
        trust_bundle::verify_authority(&signed, &authorities.root, answered_by(now))?;
        let (signed_facts, own) = (certificate::facts(&signed), certificate::facts(&root.certificate));
        match (signed_facts, own) {
            (Ok(signed_facts), Ok(own))
                if signed_facts.subject == own.subject && signed_facts.public_key == own.public_key =>
            {
                Ok(signed)
            }
            _ => Err(SignError::Foreign),
        }
    }

    fn client(&self, root: &str) -> Result<Client, ExternalError> {
        let roots = Certificate::from_pem_bundle(root.as_bytes()).map_err(ExternalError::Prepare)?;
        Client::builder()
            .identity(self.identity.clone())
            .tls_certs_only(roots)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(ExternalError::Prepare)
    }

    async fn ask(&self, authorities: &ExternalUrls, request: &Request<'_>) -> Result<String, ExternalError> {
        let client = self.client(&authorities.root)?;
        let mut refusal = ExternalError::Nobody;
        for url in &authorities.urls {
            match ask_one(&client, url, request).await {
                Ok(certificate) => return Ok(certificate),
                Err(because) => refusal = because,
            }
        }
        Err(refusal)
    }
}

async fn ask_one(client: &Client, url: &str, request: &Request<'_>) -> Result<String, ExternalError> {
    let unreachable = |source| ExternalError::Unreachable { url: url.to_owned(), source };
    let mut response = client.post(https(url)?).json(request).send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(unreachable)? {
        if body.len() + part.len() > LONGEST_ANSWER {
            return Err(ExternalError::TooLong { url: url.to_owned() });
        }
        body.extend_from_slice(&part);
    }
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|source| ExternalError::Malformed { url: url.to_owned(), source })?;
    match answer.result {
        Some(signed) if answer.success && !signed.certificate.is_empty() => Ok(signed.certificate),
        _ => Err(ExternalError::Refused { url: url.to_owned(), message: complaints(answer.errors) }),
    }
}

fn complaints(errors: Option<Vec<Complaint>>) -> String {
    let texts: Vec<_> = errors
        .unwrap_or_default()
        .into_iter()
        .map(|complaint| format!("{} (code {})", complaint.message, complaint.code))
        .collect();
    if texts.is_empty() { "no reason given".into() } else { texts.join(", ") }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn https(url: &str) -> Result<&str, ExternalError> {
    let is_https = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    if is_https { Ok(url) } else { Err(ExternalError::Scheme) }
}

//! Who signs certificates for the nodes of a swarm right now.
//!
//! In: the cluster object. Out: chains. While the swarm changes its root, the new root signs, and the chain carries the
//! cross-signed certificate that makes the old root trust it. The choice itself is in the cluster object.

use objects::{Cluster, ClusterInternal, Nanos, Timestamp};
use rcgen::PublicKeyData;

use crate::authority::{Authority, PkiError};
use crate::certificate::{self, InvalidCertificate};
use crate::external::{ExternalAuthority, ExternalError, ExternalUrls, answered_by};
use crate::identity::Identity;
use crate::node_key;
use crate::trust_bundle::{self, Untrusted};

/// The root that signs, and what its chains need.
#[derive(Clone)]
pub struct Signer {
    root: Authority,
    cross_signed: String,
    trusted: String,
    outside: ExternalUrls,
    validity: Nanos,
}

/// Why no certificate was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The swarm's own authority failed.
    #[error(transparent)]
    Own(#[from] PkiError),
    /// The authority outside failed.
    #[error(transparent)]
    External(#[from] ExternalError),
    /// What the authority outside signed is not what it was asked for.
    #[error("the external CA issued a certificate that the swarm does not trust")]
    Untrusted(#[from] Untrusted),
    /// As before: it certifies somebody else, or another key.
    #[error("the external CA issued a certificate for another node or key")]
    Foreign,
    /// No key and nobody to ask. Source of the text: swarmkit, `ca/certificates.go` (`ErrNoValidSigner`).
    #[error("no valid signer found")]
    Nobody,
}

impl Signer {
    /// Of a swarm as it is now.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        let internal = &cluster.internal;
        let own = (&internal.ca_certificate, &internal.ca_key, "");
        let (certificate, key, cross_signed) = match &internal.root_rotation {
            Some(rotation) => (&rotation.ca_certificate, &rotation.ca_key, rotation.cross_signed.as_str()),
            None => own,
        };
        Self {
            root: Authority { certificate: certificate.clone(), key: key.clone() },
            cross_signed: cross_signed.to_owned(),
            trusted: trusted_roots(internal),
            outside: ExternalUrls::of(cluster, certificate),
            validity: cluster.spec.ca_config.node_cert_expiry,
        }
    }

    /// What a node is to trust, PEM: the root of the swarm, and the new one while it changes.
    #[must_use]
    pub fn trusted(&self) -> &str {
        &self.trusted
    }

    /// Certifies the key of a request. The chain is PEM: the node's certificate, then what is between it and the root.
    ///
    /// `external` is asked when the settings name an authority outside for the root, and nobody else then.
    /// Source: swarmkit, `ca/server.go` (`signNodeCert`).
    pub async fn sign(
        &self,
        external: &ExternalAuthority,
        request: &str,
        identity: &Identity,
        now: Timestamp,
    ) -> Result<String, SignError> {
        if self.outside.is_empty() {
            if self.root.key.is_empty() {
                return Err(SignError::Nobody);
            }
            return Ok(self.root.certify(request, identity, now, self.validity)? + &self.cross_signed);
        }
        let chain = external.sign(&self.outside, request, identity).await?;
        let chain = trust_bundle::normalise(&chain) + &self.cross_signed;
        if trust_bundle::verify(&chain, &self.root.certificate, answered_by(now))? != *identity {
            return Err(SignError::Foreign);
        }
        match is_for_the_key_of(&chain, request) {
            Ok(true) => Ok(chain),
            _ => Err(SignError::Foreign),
        }
    }
}

/// What a node is to trust, PEM: the root of the swarm, and the new one while it changes.
fn trusted_roots(internal: &ClusterInternal) -> String {
    let next = internal.root_rotation.as_ref().map(|rotation| rotation.ca_certificate.as_str());
    [internal.ca_certificate.as_str(), next.unwrap_or_default()].concat()
}

fn is_for_the_key_of(chain: &str, request: &str) -> Result<bool, InvalidCertificate> {
    let key = node_key::requested_key(request).map_err(|_| InvalidCertificate)?;
    Ok(certificate::facts(chain)?.public_key == key.subject_public_key_info())
}

//! Makes the swarm's root and the certificates of its nodes.
//!
//! A node's certificate says who it is (CN), what it may do (OU) and in which swarm (O).

use objects::{NodeId, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use time::{Duration, OffsetDateTime};

/// The authority's common name. Source: swarmkit, `ca/certificates.go`.
const ROOT_NAME: &str = "swarm-ca";

/// 20 years. Source: swarmkit, `ca/certificates.go` (`RootCAExpiration` 630720000s).
const ROOT_VALIDITY: Duration = Duration::seconds(630_720_000);

/// Certificates are valid from an hour ago, for clocks that are behind.
/// Source: swarmkit, `ca/certificates.go` (`CertBackdate`).
const BACKDATED: Duration = Duration::hours(1);

/// Shortest validity of a node's certificate. Source: swarmkit, `ca/certificates.go` (`MinNodeCertExpiration`).
pub(crate) const SHORTEST_VALIDITY_SECONDS: i64 = 3600;

/// What a node may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Take part in consensus and issue certificates.
    Manager,
    /// Run tasks.
    Worker,
}

impl Role {
    /// The OU of its certificates, and a DNS name in them.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Manager => "swarm-manager",
            Self::Worker => "swarm-worker",
        }
    }
}

/// Why a key or certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The machine gave no randomness.
    #[error("read random bytes: {0}")]
    Random(getrandom::Error),
    /// The library refused.
    #[error("{doing}")]
    Make {
        /// What was being made.
        doing: &'static str,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// The time is outside of what certificates can say.
    #[error("a time beyond what certificates can carry")]
    Time(#[source] time::error::ComponentRange),
    /// The swarm asks for certificates that end sooner than they can be renewed.
    #[error("minimum certificate expiry time is: 1h0m0s")]
    TooShort,
}

/// A root certificate and its key.
#[derive(Clone)]
pub struct Authority {
    /// PEM of the certificate; join tokens carry its digest.
    pub certificate: String,
    /// PEM of the key (PKCS #8). Whoever has it can add nodes to the swarm.
    pub key: String,
}

/// A certificate and the key it was made for.
#[derive(Clone)]
pub struct Issued {
    /// PEM.
    pub certificate: String,
    /// PEM (PKCS #8).
    pub key: String,
}

impl Authority {
    /// Makes a new root: P-256, valid for 20 years from an hour before `now`.
    pub fn create(now: Timestamp) -> Result<Self, PkiError> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, ROOT_NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date(now)? - BACKDATED;
        params.not_after = params.not_before + ROOT_VALIDITY;
        let certificate = params
            .self_signed(&key)
            .map_err(|source| PkiError::Make { doing: "sign the root certificate", source })?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Makes a key and a certificate for a node; valid for `validity_seconds` (at least an hour) from `now`.
    pub fn issue(
        &self,
        node: &NodeId,
        role: Role,
        swarm: &str,
        now: Timestamp,
        validity_seconds: i64,
    ) -> Result<Issued, PkiError> {
        if validity_seconds < SHORTEST_VALIDITY_SECONDS {
            return Err(PkiError::TooShort);
        }
        let root_key = KeyPair::from_pem(&self.key)
            .map_err(|source| PkiError::Make { doing: "read the root key", source })?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, root_key)
            .map_err(|source| PkiError::Make { doing: "read the root certificate", source })?;
        let key = new_key()?;
        let mut names = vec![role.unit().to_owned(), node.to_string()];
        if role == Role::Manager {
            names.push(ROOT_NAME.into());
        }
        let mut params = CertificateParams::new(names)
            .map_err(|source| PkiError::Make { doing: "name a node's certificate", source })?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, swarm);
        params.distinguished_name.push(DnType::OrganizationalUnitName, role.unit());
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date(now)? - BACKDATED;
        params.not_after = date(now)? + Duration::seconds(validity_seconds);
        let certificate = params
            .signed_by(&key, &issuer)
            .map_err(|source| PkiError::Make { doing: "sign a node's certificate", source })?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn new_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| PkiError::Make { doing: "make a key", source })
}

fn date(time: Timestamp) -> Result<OffsetDateTime, PkiError> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0)).map_err(PkiError::Time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);
    const DAY: i64 = 86_400;

    #[test]
    fn a_nodes_certificate_names_its_issuer_and_itself() {
        let authority = Authority::create(NOW).expect("a root");
        let node = NodeId::from("nodeid");
        let issued = authority.issue(&node, Role::Manager, "swarmid", NOW, 90 * DAY).expect("a certificate");
        let root = facts(&authority.certificate).expect("a certificate");
        let leaf = facts(&issued.certificate).expect("a certificate");
        assert_eq!(leaf.issuer, root.subject);
        assert_ne!(leaf.public_key, root.public_key);
        let text = String::from_utf8_lossy(&leaf.subject).into_owned();
        for name in ["swarmid", "swarm-manager", "nodeid"] {
            assert!(text.contains(name), "{name} in {text}");
        }
        assert_eq!(leaf.not_after_unix, NOW.0 / 1_000_000_000 + 90 * DAY);
        assert_eq!(root.not_after_unix - root.not_before_unix, 630_720_000);
    }

    #[test]
    fn a_validity_below_an_hour_is_refused() {
        let authority = Authority::create(NOW).expect("a root");
        let issued = authority.issue(&NodeId::from("n"), Role::Worker, "s", NOW, 3599);
        assert!(matches!(issued, Err(PkiError::TooShort)));
    }
}

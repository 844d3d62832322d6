//! The swarm's root: made, brought by a user, or crossed with another; and the certificates it signs.
//!
//! A node's certificate says who it is (CN), what it may do (OU) and in which swarm (O). A cross-signed certificate has
//! the new root's name and key and the old root's signature: who trusts the old root trusts leaves of the new one.

use objects::{Nanos, Timestamp};
use rcgen::string::PrintableString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, SubjectPublicKeyInfo,
};
use time::{Duration, OffsetDateTime};

use crate::certificate;
use crate::identity::{Identity, unit};
use crate::node_key::{self, InvalidRequest, NodeKey, new_key, read_key};
use crate::trust_bundle;

/// The authority's common name. Source: swarmkit, `ca/certificates.go`.
pub(crate) const ROOT_NAME: &str = "swarm-ca";

/// 20 years. Source: swarmkit, `ca/certificates.go` (`RootCAExpiration` 630720000s).
const ROOT_VALIDITY: Duration = Duration::seconds(630_720_000);

/// Certificates are valid from an hour ago, for clocks that are behind.
/// Source: swarmkit, `ca/certificates.go` (`CertBackdate`).
const BACKDATED: Duration = Duration::hours(1);

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
    /// The request for a certificate is not one.
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    /// The root certificate cannot be read.
    #[error("the swarm's root certificate cannot be read")]
    Root(#[from] certificate::InvalidCertificate),
    /// The time is outside of what certificates can say.
    #[error("a time beyond what certificates can carry")]
    Time(#[source] time::error::ComponentRange),
}

/// Why a root certificate that a user brought is refused.
///
/// Source of the texts: swarmkit, `manager/controlapi/ca_rotation.go`; where it passes on what a library says, our own.
#[derive(Debug, thiserror::Error)]
pub enum GivenRootError {
    /// No certificate in the text.
    #[error("could not parse the desired CA certificate")]
    Certificate,
    /// More than one.
    #[error("the desired CA certificate cannot contain multiple certificates")]
    Multiple,
    /// It may not sign others.
    #[error("the desired CA certificate is not the certificate of an authority")]
    NotAnAuthority,
    /// The key cannot be read.
    #[error("could not parse the desired CA key")]
    Key(#[source] PkiError),
    /// The key is another one's.
    #[error("certificate key mismatch")]
    Mismatch,
    /// What it signs would not be recognised as its own.
    #[error("the desired CA certificate has a name that cannot be signed for")]
    Name,
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
    /// The key.
    pub key: NodeKey,
}

impl Authority {
    /// Makes a new root: P-256, valid for 20 years from an hour before `now`.
    pub fn create(now: Timestamp) -> Result<Self, PkiError> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // As Go writes it: a verifier compares names byte for byte, and `cfssl` would write another one when it cross-signs.
        let name = PrintableString::try_from(ROOT_NAME).expect("it has letters and a hyphen");
        params.distinguished_name.push(DnType::CommonName, DnValue::PrintableString(name));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date(now)? - BACKDATED;
        params.not_after = params.not_before + ROOT_VALIDITY;
        let certificate = params
            .self_signed(&key)
            .map_err(|source| PkiError::Make { doing: "sign the root certificate", source })?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Checks a root that a user brought: its certificate, and its key unless an authority outside keeps that (empty).
    ///
    /// The result has the usual form of PEM. Whether the certificate lasts long enough is decided in
    /// `membership::trust`.
    pub fn given(certificate: &str, key: &str) -> Result<Self, GivenRootError> {
        let ders: Vec<_> = trust_bundle::ders(certificate).collect();
        let der = match ders.as_slice() {
            [] => return Err(GivenRootError::Certificate),
            [der] => der,
            _ => return Err(GivenRootError::Multiple),
        };
        let parsed = certificate::parse(der).map_err(|_| GivenRootError::Certificate)?;
        if !parsed.is_ca() {
            return Err(GivenRootError::NotAnAuthority);
        }
        let certificate = trust_bundle::normalise(certificate);
        if key.is_empty() {
            return Ok(Self { certificate, key: String::new() });
        }
        let pair = read_key(key, "read the desired CA key").map_err(GivenRootError::Key)?;
        if pair.subject_public_key_info() != parsed.public_key().raw {
            return Err(GivenRootError::Mismatch);
        }
        let authority = Self { certificate, key: pair.serialize_pem() };
        if !authority.signs_under_its_name(der) {
            return Err(GivenRootError::Name);
        }
        Ok(authority)
    }

    /// Certifies the key of a request (its PEM); valid for `validity` from `now`. Returns PEM.
    ///
    /// The settings of a swarm allow an hour at least; a shorter life is back-dated by no more than its own length, so
    /// that its renewal is not due at once.
    /// Whatever else the request asks for is ignored: names and uses follow from `identity`.
    pub fn certify(
        &self,
        request: &str,
        identity: &Identity,
        now: Timestamp,
        validity: Nanos,
    ) -> Result<String, PkiError> {
        self.sign(&node_key::requested_key(request)?, identity, now, validity)
    }

    /// Makes a key and a certificate for a node; as [`Authority::certify`].
    pub fn issue(&self, identity: &Identity, now: Timestamp, validity: Nanos) -> Result<Issued, PkiError> {
        let key = NodeKey::generate()?;
        let certificate = self.certify(&key.request()?, identity, now, validity)?;
        Ok(Issued { certificate, key })
    }

    /// The name and key of another root in a certificate of this one (PEM), for as long as the other root lasts.
    pub fn cross_sign(&self, root: &str, now: Timestamp) -> Result<String, PkiError> {
        let make = |source| PkiError::Make { doing: "cross-sign a root certificate", source };
        let der = certificate::first_der(root)?;
        let facts = certificate::facts_of(&certificate::parse(&der)?);
        let key = SubjectPublicKeyInfo::from_der(&facts.public_key).map_err(make)?;
        let mut params = authority_params(&der)?;
        params.use_authority_key_identifier_extension = true;
        params.not_before = date(now)? - BACKDATED;
        params.not_after = date(facts.valid_until)?;
        Ok(params.signed_by(&key, &self.issuer()?).map_err(make)?.pem())
    }

    /// A request for a certificate with this root's name and key, PEM.
    pub(crate) fn request(&self) -> Result<String, PkiError> {
        let make = |source| PkiError::Make { doing: "request a cross-signed certificate", source };
        let params = authority_params(&certificate::first_der(&self.certificate)?)?;
        let key = read_key(&self.key, "read the root key")?;
        params.serialize_request(&key).and_then(|request| request.pem()).map_err(make)
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        now: Timestamp,
        validity: Nanos,
    ) -> Result<String, PkiError> {
        let make = |source| PkiError::Make { doing: "sign a node's certificate", source };
        let mut params = CertificateParams::new(identity.dns_names()).map_err(make)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, identity.cluster.as_str());
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit(identity.role));
        params.distinguished_name.push(DnType::CommonName, identity.node.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let validity = Duration::nanoseconds(validity.0);
        params.not_before = date(now)? - BACKDATED.min(validity);
        params.not_after = date(now)? + validity;
        Ok(params.signed_by(key, &self.issuer()?).map_err(make)?.pem())
    }

    /// Whether what it signs names it byte for byte: verifiers compare names so, and the library writes them anew.
    fn signs_under_its_name(&self, der: &[u8]) -> bool {
        let (Ok(params), Ok(own)) = (authority_params(der), certificate::parse(der)) else { return false };
        let trial = self.issuer().and_then(|issuer| {
            let make = |source| PkiError::Make { doing: "sign a trial certificate", source };
            Ok(params.signed_by(&new_key()?, &issuer).map_err(make)?.pem())
        });
        let Some(trial) = trial.ok().and_then(|pem| certificate::facts(&pem).ok()) else { return false };
        let name = own.subject().as_raw();
        trial.issuer == name && trial.subject == name
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, PkiError> {
        let key = read_key(&self.key, "read the root key")?;
        Issuer::from_ca_cert_pem(&self.certificate, key)
            .map_err(|source| PkiError::Make { doing: "read the root certificate", source })
    }
}

/// What a certificate for the authority of `der` must say, all but its dates.
fn authority_params(der: &[u8]) -> Result<CertificateParams, PkiError> {
    let own = certificate::parse(der)?;
    let constraints = own.basic_constraints().ok().flatten();
    let path = constraints.and_then(|found| found.value.path_len_constraint);
    let path = path.and_then(|length| u8::try_from(length).ok());
    let mut params = CertificateParams::default();
    params.distinguished_name = certificate::subject_name(&own)?;
    params.is_ca = IsCa::Ca(path.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Leaves point to their issuer by this number: both certificates of the authority must have the same one.
    if let Some(number) = certificate::key_identifier(&own) {
        params.key_identifier_method = KeyIdMethod::PreSpecified(number);
    }
    Ok(params)
}

fn date(time: Timestamp) -> Result<OffsetDateTime, PkiError> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0)).map_err(PkiError::Time)
}

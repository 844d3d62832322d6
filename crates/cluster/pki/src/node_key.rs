//! A node's key: made once when it joins, kept for as long as it is in the swarm.
//!
//! In: nothing, or the PEM of before. Out: requests for certificates. The same key asks for every certificate of the
//! node, so that a file replaced halfway through a renewal cannot part a key from its certificate, and so that a node
//! whose certificate has run out can still prove who it is.

use std::fmt;

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SubjectPublicKeyInfo,
};
use sha2::{Digest as _, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::authority::PkiError;
use crate::{base64, certificate};

const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const END: &str = "-----END CERTIFICATE REQUEST-----";

/// A P-256 key.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeKey {
    pem: String,
}

/// Not a request for a certificate, one that its key did not sign, or one for a kind of key that nobody can check.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("invalid certificate signing request")]
pub struct InvalidRequest;

impl NodeKey {
    /// A new key.
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self { pem: new_key()?.serialize_pem() })
    }

    /// A key from its PEM (PKCS #8).
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Ok(Self { pem: read_key(pem, "read a node's key")?.serialize_pem() })
    }

    pub(crate) fn from_der(der: &[u8]) -> Result<Self, PkiError> {
        let make = |source| PkiError::Make { doing: "read a node's key", source };
        Ok(Self { pem: KeyPair::try_from(der).map_err(make)?.serialize_pem() })
    }

    pub(crate) fn der(&self) -> Result<Vec<u8>, PkiError> {
        Ok(self.pair()?.serialize_der())
    }

    /// PEM (PKCS #8), for TLS and for the key file. Secret.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A request for a certificate (PKCS #10, PEM). It names nobody: the authority decides whom it certifies.
    pub fn request(&self) -> Result<String, PkiError> {
        let make = |source| PkiError::Make { doing: "make a certificate request", source };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(&self.pair()?).and_then(|request| request.pem()).map_err(make)
    }

    /// Whether the first certificate of `pem` was made for this key.
    #[must_use]
    pub fn is_certified_by(&self, pem: &str) -> bool {
        let (Ok(pair), Ok(facts)) = (self.pair(), certificate::facts(pem)) else { return false };
        pair.subject_public_key_info() == facts.public_key
    }

    fn pair(&self) -> Result<KeyPair, PkiError> {
        read_key(&self.pem, "read a node's key")
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(…)")
    }
}

/// What tells the key that a request (PKCS #10, PEM) is made for from every other: SHA-256 of its public half. Who sent the
/// request has the other half.
pub fn requested_key_digest(pem: &str) -> Result<[u8; 32], InvalidRequest> {
    let key = requested_key(pem)?;
    Ok(Sha256::digest(key.subject_public_key_info()).into())
}

/// The key that a request is made for; the request's signature shows that its sender has the other half.
pub(crate) fn requested_key(pem: &str) -> Result<SubjectPublicKeyInfo, InvalidRequest> {
    let body = pem.split_once(BEGIN).and_then(|(_, rest)| Some(rest.split_once(END)?.0));
    let der = body.and_then(base64::decode).ok_or(InvalidRequest)?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| InvalidRequest)?;
    request.verify_signature().map_err(|_| InvalidRequest)?;
    let key = &request.certification_request_info.subject_pki;
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| InvalidRequest)
}

pub(crate) fn new_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| PkiError::Make { doing: "make a key", source })
}

pub(crate) fn read_key(pem: &str, doing: &'static str) -> Result<KeyPair, PkiError> {
    KeyPair::from_pem(pem).map_err(|source| PkiError::Make { doing, source })
}

//! Reads the few parts of a certificate that the API shows and that decisions need.
//!
//! In: PEM. Out: subject, issuer and public key as DER, and the validity. It checks no signature: that is
//! [`crate::verify`].

use objects::{Timestamp, TlsInfo};
use rcgen::{DistinguishedName, DnType, DnValue};
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Extension};

use crate::{base64, trust_bundle};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// DER of the subject's name.
    pub subject: Vec<u8>,
    /// DER of the issuer's name.
    pub issuer: Vec<u8>,
    /// DER of the public key with its algorithm.
    pub public_key: Vec<u8>,
    /// Not valid before.
    pub valid_from: Timestamp,
    /// Not valid after.
    pub valid_until: Timestamp,
}

/// Not a certificate in PEM.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("not a certificate in PEM form")]
pub struct InvalidCertificate;

/// Reads the first certificate of a PEM text.
pub fn facts(pem: &str) -> Result<CertificateFacts, InvalidCertificate> {
    let der = first_der(pem)?;
    Ok(facts_of(&parse(&der)?))
}

/// What the API shows of a node that trusts `root` and has the certificate at the head of `chain`.
///
/// The issuer's key comes from the certificate above the first one, in `chain` or else in `root` (one certificate or
/// several). For the cluster itself, `chain` is the root certificate that signs.
pub fn tls_info(root: &str, chain: &str) -> Result<TlsInfo, InvalidCertificate> {
    let leaf = facts(chain)?;
    let above = trust_bundle::split(chain)
        .into_iter()
        .skip(1)
        .chain(trust_bundle::split(root))
        .filter_map(|pem| facts(&pem).ok())
        .find(|above| above.subject == leaf.issuer);
    let above = match above {
        Some(above) => above,
        None if leaf.issuer == leaf.subject => leaf,
        None => return Err(InvalidCertificate),
    };
    Ok(TlsInfo {
        trust_root: root.to_owned(),
        cert_issuer_subject: base64::encode(&above.subject),
        cert_issuer_public_key: base64::encode(&above.public_key),
    })
}

pub(crate) fn first_der(pem: &str) -> Result<Vec<u8>, InvalidCertificate> {
    trust_bundle::ders(pem).next().ok_or(InvalidCertificate)
}

/// A certificate and nothing after it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, InvalidCertificate> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(InvalidCertificate),
    }
}

pub(crate) fn facts_of(certificate: &X509Certificate<'_>) -> CertificateFacts {
    let validity = certificate.validity();
    CertificateFacts {
        subject: certificate.subject().as_raw().to_vec(),
        issuer: certificate.issuer().as_raw().to_vec(),
        public_key: certificate.public_key().raw.to_vec(),
        valid_from: Timestamp::from_secs(validity.not_before.timestamp()),
        valid_until: Timestamp::from_secs(validity.not_after.timestamp()),
    }
}

/// The subject in the form that the library writes; a name with several attributes in one part is refused.
pub(crate) fn subject_name(
    certificate: &X509Certificate<'_>,
) -> Result<DistinguishedName, InvalidCertificate> {
    let mut name = DistinguishedName::new();
    for part in certificate.subject().iter_rdn() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(InvalidCertificate);
        };
        let oid: Vec<u64> = attribute.attr_type().iter().ok_or(InvalidCertificate)?.collect();
        let text = attribute.as_str().map_err(|_| InvalidCertificate)?;
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => {
                DnValue::PrintableString(text.try_into().map_err(|_| InvalidCertificate)?)
            }
            Tag::Ia5String => DnValue::Ia5String(text.try_into().map_err(|_| InvalidCertificate)?),
            _ => return Err(InvalidCertificate),
        };
        name.push(DnType::from_oid(&oid), value);
    }
    Ok(name)
}

/// DER of the extension that makes the certificate an authority's.
pub(crate) fn basic_constraints(pem: &str) -> Result<Vec<u8>, InvalidCertificate> {
    let der = first_der(pem)?;
    let certificate = parse(&der)?;
    let is_it = |extension: &&X509Extension<'_>| {
        matches!(extension.parsed_extension(), ParsedExtension::BasicConstraints(_))
    };
    certificate.iter_extensions().find(is_it).map(|found| found.value.to_vec()).ok_or(InvalidCertificate)
}

/// The number by which certificates point to this one's key.
pub(crate) fn key_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(number) => Some(number.0.to_vec()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_refused_without_a_panic() {
        for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "MIIB"] {
            assert_eq!(facts(text), Err(InvalidCertificate));
        }
        for length in 0..64 {
            let bytes = vec![0x30; length];
            assert!(parse(&bytes).is_err());
        }
    }
}

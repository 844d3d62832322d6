//! Texts of several certificates: takes them apart, and checks a chain against the roots that a node trusts.
//!
//! In: PEM and the time. Out: DER, tidy PEM, or whom a chain certifies. Never asks what the bearer may do.

use objects::Timestamp;
use x509_parser::certificate::X509Certificate;

use crate::base64;
use crate::certificate::{self, InvalidCertificate};
use crate::identity::Identity;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Characters of a line of PEM. Source: RFC 7468, section 2.
pub(crate) const PEM_LINE: usize = 64;

/// Certificates between a leaf and its root that are followed. chosen: a rotation adds one, an authority outside may
/// have one or two of its own.
const LONGEST_CHAIN: usize = 4;

/// Certificates that a text may have. chosen: far more than a rotation makes, and a bound on the work of a check.
const MOST_CERTIFICATES: usize = 16;

/// Why a chain is not to be trusted.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Untrusted {
    /// Not PEM, or without the names of a node.
    #[error(transparent)]
    Invalid(#[from] InvalidCertificate),
    /// No trusted root signed it, not even indirectly.
    #[error("certificate signed by unknown authority")]
    UnknownAuthority,
    /// It was valid once.
    #[error("certificate has expired: it was valid until {until}, and this machine's clock says {now}")]
    Expired {
        /// The last moment.
        until: Timestamp,
        /// The time here.
        now: Timestamp,
    },
    /// It is not valid yet; most likely a clock is wrong.
    #[error(
        "certificate is not valid yet: it is valid from {from}, and this machine's clock says {now}; \
         is the clock right?"
    )]
    NotYetValid {
        /// The first moment.
        from: Timestamp,
        /// The time here.
        now: Timestamp,
    },
}

/// The certificates of a text, each as PEM of its own in the usual form.
pub(crate) fn split(pem: &str) -> Vec<String> {
    ders(pem).map(|der| encode("CERTIFICATE", &der)).collect()
}

/// The certificates of a text in the usual form: nothing around them, lines of 64, one line end.
///
/// A join token carries the digest of this form.
pub(crate) fn normalise(pem: &str) -> String {
    split(pem).concat()
}

/// Whom `chain` (a node's certificate, then what stands between it and a root) certifies, by one of `roots` at `now`.
///
/// The authorities must be valid too. `now` is this machine's clock.
pub fn verify(chain: &str, roots: &str, now: Timestamp) -> Result<Identity, Untrusted> {
    check(chain, roots, now, |_| true)?;
    Ok(Identity::of(chain)?)
}

/// Checks that one of `roots` lets the first certificate of `chain` sign others.
pub(crate) fn verify_authority(chain: &str, roots: &str, now: Timestamp) -> Result<(), Untrusted> {
    check(chain, roots, now, |first| first.is_ca())
}

fn check(
    chain: &str,
    roots: &str,
    now: Timestamp,
    is_of_use: impl Fn(&X509Certificate<'_>) -> bool,
) -> Result<(), Untrusted> {
    let chain: Vec<_> = ders(chain).take(MOST_CERTIFICATES).collect();
    let roots: Vec<_> = ders(roots).take(MOST_CERTIFICATES).collect();
    let (first, between) = chain.split_first().ok_or(InvalidCertificate)?;
    let first = certificate::parse(first)?;
    let between: Vec<_> = between.iter().filter_map(|der| certificate::parse(der).ok()).collect();
    let roots: Vec<_> = roots.iter().filter_map(|der| certificate::parse(der).ok()).collect();
    if !is_of_use(&first) {
        return Err(Untrusted::UnknownAuthority);
    }
    follow(&first, &between, &roots, now, LONGEST_CHAIN)
}

/// Checks one certificate and those above it.
fn follow(
    certificate: &X509Certificate<'_>,
    between: &[X509Certificate<'_>],
    roots: &[X509Certificate<'_>],
    now: Timestamp,
    steps_left: usize,
) -> Result<(), Untrusted> {
    check_dates(certificate, now)?;
    let issued = |above: &&X509Certificate<'_>| {
        above.subject().as_raw() == certificate.issuer().as_raw()
            && above.is_ca()
            && certificate.verify_signature(Some(above.public_key())).is_ok()
    };
    // Roots first: when a chain ends at one, it does not matter what else it carries.
    let mut refusal = Untrusted::UnknownAuthority;
    for root in roots.iter().filter(issued) {
        match check_dates(root, now) {
            Ok(()) => return Ok(()),
            Err(because) => refusal = because,
        }
    }
    if steps_left == 0 {
        return Err(refusal);
    }
    for above in between.iter().filter(issued) {
        match follow(above, between, roots, now, steps_left - 1) {
            Ok(()) => return Ok(()),
            Err(because) => refusal = because,
        }
    }
    Err(refusal)
}

fn check_dates(certificate: &X509Certificate<'_>, now: Timestamp) -> Result<(), Untrusted> {
    let facts = certificate::facts_of(certificate);
    if now < facts.valid_from {
        return Err(Untrusted::NotYetValid { from: facts.valid_from, now });
    }
    if now > facts.valid_until {
        return Err(Untrusted::Expired { until: facts.valid_until, now });
    }
    Ok(())
}

/// The bytes of each certificate of a text; what is no base 64 is left out.
pub(crate) fn ders(pem: &str) -> impl Iterator<Item = Vec<u8>> {
    pem.split(BEGIN).skip(1).filter_map(|part| base64::decode(part.split_once(END)?.0))
}

/// `bytes` as PEM.
pub(crate) fn encode(label: &str, bytes: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    push_lines(&mut text, bytes);
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// `bytes` in lines of base 64.
pub(crate) fn push_lines(text: &mut String, bytes: &[u8]) {
    let mut digits = base64::encode(bytes);
    while !digits.is_empty() {
        let rest = digits.split_off(digits.len().min(PEM_LINE));
        text.push_str(&digits);
        text.push('\n');
        digits = rest;
    }
}

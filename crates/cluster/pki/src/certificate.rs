//! Reads the few parts of a certificate that the API shows and that decisions need.
//!
//! In: PEM. Out: subject, issuer and public key as DER, and the validity. It checks no signature: trust is decided
//! elsewhere.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

use crate::base64;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, which holds the version.
const CONTEXT_0: u8 = 0xA0;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// DER of the subject's name.
    pub subject: Vec<u8>,
    /// DER of the issuer's name.
    pub issuer: Vec<u8>,
    /// DER of the public key with its algorithm.
    pub public_key: Vec<u8>,
    /// Seconds since 1970.
    pub not_before_unix: i64,
    /// Seconds since 1970.
    pub not_after_unix: i64,
}

/// Not a certificate in PEM.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a certificate in PEM form")]
pub struct InvalidCertificate;

/// Reads the first certificate of a PEM text.
pub fn facts(pem: &str) -> Result<CertificateFacts, InvalidCertificate> {
    parse(&der(pem).ok_or(InvalidCertificate)?).ok_or(InvalidCertificate)
}

fn der(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    base64::decode(body)
}

// Certificate = SEQUENCE { SEQUENCE { [0] version, serial, algorithm, issuer, validity, subject, public key, … }, … }
fn parse(der: &[u8]) -> Option<CertificateFacts> {
    let (certificate, _) = Element::read(der)?.of(SEQUENCE)?;
    let (mut rest, _) =
        Element::read(certificate.content)?.of(SEQUENCE).map(|(body, rest)| (body.content, rest))?;
    let mut next = || {
        let found = Element::read(rest)?;
        rest = found.rest;
        Some(found.element)
    };
    let first = next()?;
    if first.tag == CONTEXT_0 {
        next()?; // The serial number follows a version.
    }
    next()?; // The signature's algorithm.
    let issuer = next()?;
    let validity = next()?;
    let subject = next()?;
    let public_key = next()?;
    let from = Element::read(validity.content)?;
    let until = Element::read(from.rest)?;
    Some(CertificateFacts {
        subject: subject.whole.to_vec(),
        issuer: issuer.whole.to_vec(),
        public_key: public_key.whole.to_vec(),
        not_before_unix: unix_time(&from.element)?,
        not_after_unix: unix_time(&until.element)?,
    })
}

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

struct Found<'a> {
    element: Element<'a>,
    rest: &'a [u8],
}

impl<'a> Found<'a> {
    fn of(self, tag: u8) -> Option<(Element<'a>, &'a [u8])> {
        (self.element.tag == tag).then_some((self.element, self.rest))
    }
}

impl<'a> Element<'a> {
    fn read(bytes: &'a [u8]) -> Option<Found<'a>> {
        let (&tag, after_tag) = bytes.split_first()?;
        let (&first, after_first) = after_tag.split_first()?;
        let (length, body) = if first < 0x80 {
            (usize::from(first), after_first)
        } else {
            let digits = usize::from(first & 0x7F);
            let (length, body) = after_first.split_at_checked(digits)?;
            // More than four digits would be a certificate of gigabytes.
            let is_sane = (1..=4).contains(&digits);
            (is_sane.then(|| length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))?, body)
        };
        let (content, rest) = body.split_at_checked(length)?;
        let whole = &bytes[..bytes.len() - rest.len()];
        Some(Found { element: Self { tag, content, whole }, rest })
    }
}

fn unix_time(element: &Element<'_>) -> Option<i64> {
    let text = std::str::from_utf8(element.content).ok()?;
    let (year_digits, text) = match element.tag {
        UTC_TIME => text.split_at_checked(2)?,
        GENERALIZED_TIME => text.split_at_checked(4)?,
        _ => return None,
    };
    let year: i32 = year_digits.parse().ok()?;
    let year = match element.tag {
        UTC_TIME if year < 50 => 2000 + year,
        UTC_TIME => 1900 + year,
        _ => year,
    };
    let number = |from: usize| text.get(from..from + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(number(0)?).ok()?, number(2)?).ok()?;
    let time = Time::from_hms(number(4)?, number(6)?, number(8)?).ok()?;
    let at: OffsetDateTime = PrimitiveDateTime::new(date, time).assume_utc();
    Some(at.unix_timestamp())
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
            assert_eq!(parse(&bytes), None);
        }
    }
}

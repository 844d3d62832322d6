//! Writes replies.
//!
//! In: the query, a code, records. Out: bytes that fit where they go; what does not fit is left out and said to be missing.
//! Numbers are those of RFC 1035 and RFC 6891.

use std::net::IpAddr;

use crate::query::{Edns, HEADER_BYTES, Header, Query};

pub(crate) const KIND_A: u16 = 1;
pub(crate) const KIND_PTR: u16 = 12;
pub(crate) const KIND_AAAA: u16 = 28;
const KIND_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// A reply, in the flags of a header.
const IS_REPLY: u8 = 0x80;
const IS_TRUNCATED: u8 = 0x02;
const RECURSION_AVAILABLE: u8 = 0x80;

/// Where the question's name begins, as a pointer.
const NAME_OF_QUESTION: [u8; 2] = [0xc0, 12];

/// What we take in datagrams, as we say it to those who ask. Source: unbound and others; the path to a container's own
/// loopback has no smaller packets.
const OUR_UDP_BYTES: u16 = 1232;
const OPT_BYTES: usize = 11;

/// How it went. Numbers above 15 need EDNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Code {
    /// Answered, be it with nothing.
    NoError = 0,
    /// The query breaks the rules.
    Malformed = 1,
    /// Nobody who should know answers.
    Failed = 2,
    /// There is no such name.
    NoSuchName = 3,
    /// Only lookups are done here.
    NotImplemented = 4,
    /// An EDNS of the future.
    BadVersion = 16,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    /// A name, as it is written in messages.
    Name(Vec<u8>),
}

/// Records and for how long they may be kept.
#[derive(Debug)]
pub(crate) struct Records<'r> {
    pub(crate) data: &'r [Data],
    pub(crate) ttl_s: u32,
}

/// A reply without a question, to a query that could not be read.
pub(crate) fn bare(header: Header, code: Code) -> Vec<u8> {
    let mut bytes = begin(header, code);
    bytes.extend([0; HEADER_BYTES - 4]);
    bytes
}

/// A reply of at most `limit` bytes, which is at least 512.
pub(crate) fn write(query: &Query<'_>, code: Code, records: &Records<'_>, limit: usize) -> Vec<u8> {
    let mut bytes = begin(query.header, code);
    bytes.extend([0, 1, 0, 0, 0, 0, 0, u8::from(query.edns.is_some())]);
    bytes.extend(query.question);
    let room = limit.saturating_sub(if query.edns.is_some() { OPT_BYTES } else { 0 });
    let mut written = 0u16;
    for data in records.data {
        let length = bytes.len();
        put_record(&mut bytes, data, records.ttl_s);
        if bytes.len() > room || written == u16::MAX {
            bytes.truncate(length);
            bytes[2] |= IS_TRUNCATED;
            break;
        }
        written += 1;
    }
    bytes[6..8].copy_from_slice(&written.to_be_bytes());
    if let Some(edns) = query.edns {
        put_edns(&mut bytes, edns, code);
    }
    bytes
}

/// A reply that says: ask again by TCP.
pub(crate) fn truncated(query: &Query<'_>) -> Vec<u8> {
    let mut bytes = write(query, Code::NoError, &Records { data: &[], ttl_s: 0 }, 512);
    bytes[2] |= IS_TRUNCATED;
    bytes
}

fn begin(header: Header, code: Code) -> Vec<u8> {
    let [_, low] = (code as u16 & 0xf).to_be_bytes();
    let mut bytes = Vec::with_capacity(128);
    bytes.extend([header.id[0], header.id[1], IS_REPLY | header.kept_flags, RECURSION_AVAILABLE | low]);
    bytes
}

fn put_record(bytes: &mut Vec<u8>, data: &Data, ttl_s: u32) {
    let mut put = |kind: u16, value: &[u8]| {
        bytes.extend(NAME_OF_QUESTION);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        bytes.extend(ttl_s.to_be_bytes());
        // Addresses and names have at most 255 bytes.
        bytes.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
        bytes.extend(value);
    };
    match data {
        Data::Address(IpAddr::V4(address)) => put(KIND_A, &address.octets()),
        Data::Address(IpAddr::V6(address)) => put(KIND_AAAA, &address.octets()),
        Data::Name(name) => put(KIND_PTR, name),
    }
}

fn put_edns(bytes: &mut Vec<u8>, edns: Edns, code: Code) {
    let [_, high] = ((code as u16) >> 4).to_be_bytes();
    bytes.push(0);
    bytes.extend(KIND_OPT.to_be_bytes());
    bytes.extend(OUR_UDP_BYTES.to_be_bytes());
    bytes.extend([high, 0, if edns.wants_dnssec { 0x80 } else { 0 }, 0, 0, 0]);
}

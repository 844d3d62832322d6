//! Reads a query: who asks for what, and how much may come back.
//!
//! In: bytes from a socket. Out: the question, or why there is none. Records beside the question are skipped, all but the
//! one that says how long a reply may be (EDNS). Numbers are those of RFC 1035 and RFC 6891.

pub(crate) const HEADER_BYTES: usize = 12;

/// Longest label and longest name, as text with dots. Source: RFC 1035, 2.3.4.
pub(crate) const LABEL_BYTES_MAX: usize = 63;
pub(crate) const TEXT_BYTES_MAX: usize = 253;

const KIND_OPT: u16 = 41;
/// chosen: as many as in any query that was ever seen, twice.
const RECORDS_MAX: u16 = 8;

/// A query that can be answered.
#[derive(Debug)]
pub(crate) struct Query<'q> {
    pub(crate) header: Header,
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// The question as it came; a reply repeats it.
    pub(crate) question: &'q [u8],
    pub(crate) edns: Option<Edns>,
}

/// What a reply repeats of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: [u8; 2],
    /// Operation and "recursion desired", in their places.
    pub(crate) kept_flags: u8,
}

/// What the asker says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) udp_bytes: u16,
    pub(crate) version: u8,
    pub(crate) wants_dnssec: bool,
}

/// Why there is nothing to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Not even a header, or not a query: an answer might go round in circles.
    NotAQuery,
    /// A query that breaks the rules.
    Malformed(Header),
    /// A query for an operation other than to look something up.
    OtherOperation(Header),
}

/// A name as text with dots, without the last one; empty for the root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    bytes: [u8; TEXT_BYTES_MAX + 1],
    length: usize,
    /// A label has a dot in it, so that the text says something else than the name.
    is_ambiguous: bool,
}

impl Name {
    /// The text, if it says what the name says.
    pub(crate) fn text(&self) -> Option<&[u8]> {
        if self.is_ambiguous { None } else { self.bytes.get(..self.length) }
    }

    fn push(&mut self, label: &[u8]) -> Option<()> {
        let start = if self.length == 0 { 0 } else { self.length + 1 };
        let end = start + label.len();
        if end > TEXT_BYTES_MAX {
            return None;
        }
        if start > 0 {
            self.bytes[start - 1] = b'.';
        }
        self.bytes[start..end].copy_from_slice(label);
        self.length = end;
        self.is_ambiguous |= label.contains(&b'.');
        Some(())
    }
}

/// Reads a message from a client.
pub(crate) fn read(bytes: &[u8]) -> Result<Query<'_>, Unreadable> {
    const ANSWER: u8 = 0x80;
    const OPERATION: u8 = 0x78;
    const RECURSION_DESIRED: u8 = 0x01;
    let &[a, b, flags, ..] = bytes else { return Err(Unreadable::NotAQuery) };
    if bytes.len() < HEADER_BYTES || flags & ANSWER != 0 {
        return Err(Unreadable::NotAQuery);
    }
    let header = Header { id: [a, b], kept_flags: flags & (OPERATION | RECURSION_DESIRED) };
    if flags & OPERATION != 0 {
        return Err(Unreadable::OtherOperation(header));
    }
    read_body(bytes, header).ok_or(Unreadable::Malformed(header))
}

fn read_body(bytes: &[u8], header: Header) -> Option<Query<'_>> {
    if u16_at(bytes, 4)? != 1 {
        return None;
    }
    let (name, end_of_name) = read_name(bytes)?;
    let (kind, class) = (u16_at(bytes, end_of_name)?, u16_at(bytes, end_of_name + 2)?);
    let end = end_of_name + 4;
    let edns = read_edns(bytes, end)?;
    Some(Query { header, name, kind, class, question: bytes.get(HEADER_BYTES..end)?, edns })
}

/// The name of the question and where it ends. It has nothing before it to point to, so that pointers are refused.
fn read_name(bytes: &[u8]) -> Option<(Name, usize)> {
    let mut name = Name { bytes: [0; TEXT_BYTES_MAX + 1], length: 0, is_ambiguous: false };
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        if length > LABEL_BYTES_MAX {
            return None;
        }
        name.push(bytes.get(at..at + length)?)?;
        at += length;
    }
}

/// Looks for EDNS among the records behind the question. The outer `None` is for a message that breaks off.
fn read_edns(bytes: &[u8], mut at: usize) -> Option<Option<Edns>> {
    const DNSSEC_OK: u8 = 0x80;
    let before = u16_at(bytes, 6)?.checked_add(u16_at(bytes, 8)?)?;
    let all = before.checked_add(u16_at(bytes, 10)?)?;
    if all > RECORDS_MAX {
        return None;
    }
    let mut found = None;
    for _ in 0..all {
        at = skip_name(bytes, at)?;
        let &[k1, k2, s1, s2, _, version, flags, _, l1, l2] = bytes.get(at..at + 10)? else { return None };
        at += 10 + usize::from(u16::from_be_bytes([l1, l2]));
        if at > bytes.len() {
            return None;
        }
        if u16::from_be_bytes([k1, k2]) == KIND_OPT && found.is_none() {
            let udp_bytes = u16::from_be_bytes([s1, s2]);
            found = Some(Edns { udp_bytes, version, wants_dnssec: flags & DNSSEC_OK != 0 });
        }
    }
    Some(found)
}

fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    const POINTER: u8 = 0xc0;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length if length & POINTER == POINTER => return Some(at + 2),
            length if usize::from(length) <= LABEL_BYTES_MAX => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

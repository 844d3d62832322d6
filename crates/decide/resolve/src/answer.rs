//! Decides about one query.
//!
//! In: its bytes, the tables, what is to become of unknown names. Out: an [`Answer`].

use std::net::IpAddr;

use names::View;

use crate::find;
use crate::query::{self, Query, Unreadable};
use crate::reply::{self, Code, Data, KIND_A, KIND_AAAA, KIND_PTR, Records};

/// For how long an address may be kept: for this one use.
///
/// Docker says 600. Names follow the health of tasks within 100 ms here, and a client that keeps an address goes on
/// calling a task that is gone: stale answers are what users complain about most (moby#30134, #26772). Clients that heed
/// the number (nginx, Envoy, c-ares, a caching daemon in the container) would undo that with any number but 0; asking
/// again costs a few microseconds and never leaves the machine. Consul's default for the same reason is 0, too.
pub const TTL_S: u32 = 0;

/// Longest reply in a datagram, however much the client says it takes. chosen: glibc, c-ares and systemd-resolved ask
/// for no more; some 140 addresses.
const UDP_BYTES_MAX: u16 = 4096;

/// Any kind of record, and any class. Source: RFC 1035.
const ANY: u16 = 255;
const CLASS_IN: u16 = 1;

/// What becomes of a name that no table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Others are asked.
    Forward,
    /// There is no such name: nobody else is to be asked (an internal network, a machine without resolvers).
    NoSuchName,
    /// It can't be told at the moment.
    Fail,
}

/// What is known where the query was asked.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The names of the container's networks, in the order in which they are asked.
    pub tables: &'a [View<'a>],
    /// For all other names.
    pub unknown: Unknown,
}

/// By which way a query came and the reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram, of a limited length.
    Udp,
    /// A stream.
    Tcp,
}

/// What is to be done about a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Send this.
    Reply(Vec<u8>),
    /// Ask others.
    Forward,
    /// It is no query: an answer to it could be answered, for ever.
    Ignore,
}

/// Answers a query. `rotation` counts answers: it says which of several addresses comes first.
pub fn answer(query: &[u8], scope: &Scope<'_>, transport: Transport, rotation: u32) -> Answer {
    let query = match query::read(query) {
        Ok(query) => query,
        Err(Unreadable::NotAQuery) => return Answer::Ignore,
        Err(Unreadable::Malformed(header)) => return Answer::Reply(reply::bare(header, Code::Malformed)),
        Err(Unreadable::OtherOperation(header)) => {
            return Answer::Reply(reply::bare(header, Code::NotImplemented));
        }
    };
    let limit = limit(&query, transport);
    let say = |code, data: &[Data]| {
        Answer::Reply(reply::write(&query, code, &Records { data, ttl_s: TTL_S }, limit))
    };
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return say(Code::BadVersion, &[]);
    }
    match (known(&query, scope.tables, rotation), scope.unknown) {
        (Some(data), _) => say(Code::NoError, &data),
        (None, Unknown::Forward) => Answer::Forward,
        (None, Unknown::NoSuchName) => say(Code::NoSuchName, &[]),
        (None, Unknown::Fail) => say(Code::Failed, &[]),
    }
}

pub(crate) fn limit(query: &Query<'_>, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => u16::MAX.into(),
        // Source: RFC 6891, 6.2.3: less than 512 is to be read as 512.
        Transport::Udp => query.edns.map_or(512, |edns| edns.udp_bytes.clamp(512, UDP_BYTES_MAX)).into(),
    }
}

/// What the tables say; nothing about a kind of record that they don't have, for a name that they do.
fn known(query: &Query<'_>, tables: &[View<'_>], rotation: u32) -> Option<Vec<Data>> {
    let name = query.name.text().filter(|_| matches!(query.class, CLASS_IN | ANY))?;
    if matches!(query.kind, KIND_PTR | ANY)
        && let Some(address) = find::pointed_address(name)
    {
        return find::name_of(tables, address).map(|name| vec![Data::Name(name)]);
    }
    let kind = query.kind;
    let mut found = find::addresses(tables, name, |address| is_of_kind(address, kind))?;
    if !found.is_empty() {
        let first = rotation as usize % found.len();
        found.rotate_left(first);
    }
    Some(found.into_iter().map(Data::Address).collect())
}

fn is_of_kind(address: &IpAddr, kind: u16) -> bool {
    match kind {
        KIND_A => address.is_ipv4(),
        KIND_AAAA => address.is_ipv6(),
        ANY => true,
        _ => false,
    }
}

//! Forgets tracked connections, so that their next packet is translated by today's rules.
//!
//! In: what the connections to forget look like. Out: how many were. Never touches other connections.

use std::net::IpAddr;

use rustix::net::netlink;

use crate::NetlinkError;
use crate::socket::{self, Socket};
use crate::wire::{self, Encoder};

/// `NFNL_SUBSYS_CTNETLINK << 8`; numbers below are from linux/netfilter/nfnetlink_conntrack.h.
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const ANY_FAMILY: u8 = 0;
const IPV4: u8 = libc::AF_INET as u8;
const IPV6: u8 = libc::AF_INET6 as u8;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_SOURCE: u16 = 1;
const IP_DESTINATION: u16 = 2;
const IPV6_SOURCE: u16 = 3;
const IPV6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const PORT_SOURCE: u16 = 2;
const PORT_DESTINATION: u16 = 3;
/// Which parts of a filter tuple count. Source: linux, net/netfilter/nf_internals.h.
const BY_IP_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_PORT_DESTINATION: u32 = 1 << 5;

/// Which connections to forget; what is absent does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// Protocol number.
    pub protocol: Option<u8>,
    /// Port the client sent to.
    pub asked_port: Option<u16>,
    /// Address the client sent to.
    pub asked: Option<IpAddr>,
    /// Who answers: the address the destination was translated to.
    pub answered_by: Option<IpAddr>,
    /// Port that answers.
    pub answered_from_port: Option<u16>,
    /// Only connections to one of these addresses, or to a loopback address, whose destination was not translated; of the
    /// version of the first of them.
    pub untranslated_to: Option<Vec<IpAddr>>,
}

/// A socket for tracked connections of the namespace it was opened in.
#[derive(Debug)]
pub struct ConntrackSocket {
    socket: Socket,
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tuple {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

impl ConntrackSocket {
    /// Opens the socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Some(netlink::NETFILTER), 0)? })
    }

    /// Gives memory back until the next use, for sockets that are kept and rarely used.
    pub fn rest(&mut self) {
        self.socket.rest();
    }

    /// Forgets the connections that match any of `filters`, and tells how many. Goes once through all connections; for
    /// a single filter the kernel preselects.
    pub fn forget(&mut self, filters: &[FlowFilter]) -> Result<usize, NetlinkError> {
        if filters.is_empty() {
            return Ok(0);
        }
        let found = self.find(filters)?;
        let mut forgotten = 0;
        for Identity { family, attributes } in &found {
            let sequence = self.socket.next_sequence();
            let request =
                message((DELETE, *family), socket::ACK, sequence, |encoder| encoder.raw(attributes));
            match self.socket.acknowledged("forget connection", sequence, request.bytes()) {
                Ok(()) => forgotten += 1,
                // It ended by itself meanwhile.
                Err(e) if e.is_missing() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(forgotten)
    }

    /// What identifies each matching connection.
    fn find(&mut self, filters: &[FlowFilter]) -> Result<Vec<Identity>, NetlinkError> {
        let sequence = self.socket.next_sequence();
        let family = match filters {
            _ if filters.iter().all(|filter| filter.family() == Some(IPV4)) => IPV4,
            _ if filters.iter().all(|filter| filter.family() == Some(IPV6)) => IPV6,
            _ => ANY_FAMILY,
        };
        let request = message((GET, family), socket::DUMP, sequence, |encoder| {
            if let [only] = filters {
                // The kernel preselects by address only where it knows the family.
                put_filter(
                    encoder,
                    &FlowFilter {
                        answered_by: only.answered_by.filter(|_| family != ANY_FAMILY),
                        ..only.clone()
                    },
                );
            }
        });
        let mut found = Vec::new();
        self.socket.exchange("list connections", sequence, request.bytes(), |answer| {
            if answer.kind == NEW {
                found.extend(identity_if_matching(answer.payload, filters));
            }
        })?;
        Ok(found)
    }
}

/// A connection as a request names it.
struct Identity {
    family: u8,
    attributes: Vec<u8>,
}

/// `kind` with the family of the addresses.
fn message(
    (kind, family): (u16, u8),
    flags: u16,
    sequence: u32,
    build: impl FnOnce(&mut Encoder),
) -> Encoder {
    let mut encoder = Encoder::new();
    let mark = encoder.start(kind, flags | socket::REQUEST, sequence);
    encoder.raw(&[family, 0, 0, 0]);
    build(&mut encoder);
    encoder.finish(mark);
    encoder
}

/// Asks the kernel (5.8 or newer; older ones ignore it) to list less.
fn put_filter(encoder: &mut Encoder, filter: &FlowFilter) {
    let protocol = |flag: u32| if filter.protocol.is_some() { flag | BY_PROTOCOL } else { flag };
    let (mut original, mut reply) = (0, 0);
    if let Some(port) = filter.asked_port {
        original = protocol(BY_PORT_DESTINATION);
        let tuple = encoder.nest(TUPLE_ORIGINAL);
        put_protocol(encoder, filter.protocol, Some((PORT_DESTINATION, port)));
        encoder.end(tuple);
    }
    if let Some(ip) = filter.answered_by {
        reply = protocol(BY_IP_SOURCE);
        let tuple = encoder.nest(TUPLE_REPLY);
        let nest = encoder.nest(TUPLE_IP);
        match ip {
            IpAddr::V4(ip) => encoder.attribute(IP_SOURCE, &ip.octets()),
            IpAddr::V6(ip) => encoder.attribute(IPV6_SOURCE, &ip.octets()),
        }
        encoder.end(nest);
        put_protocol(encoder, filter.protocol, None);
        encoder.end(tuple);
    }
    let nest = encoder.nest(FILTER);
    encoder.u32(FILTER_ORIGINAL, original);
    encoder.u32(FILTER_REPLY, reply);
    encoder.end(nest);
}

fn put_protocol(encoder: &mut Encoder, protocol: Option<u8>, port: Option<(u16, u16)>) {
    let Some(protocol) = protocol else { return };
    let nest = encoder.nest(TUPLE_PROTOCOL);
    encoder.u8(PROTOCOL_NUMBER, protocol);
    if let Some((kind, port)) = port {
        encoder.attribute(kind, &port.to_be_bytes());
    }
    encoder.end(nest);
}

fn identity_if_matching(payload: &[u8], filters: &[FlowFilter]) -> Option<Identity> {
    let family = *payload.first()?;
    let (mut original, mut reply) = (Tuple::default(), Tuple::default());
    let mut identity = Encoder::new();
    for (kind, value) in wire::attributes_after(payload, 4) {
        match kind {
            TUPLE_ORIGINAL => {
                original = read_tuple(value);
                identity.attribute(kind | wire::NESTED, value);
            }
            TUPLE_REPLY => reply = read_tuple(value),
            ID | ZONE => identity.attribute(kind, value),
            _ => {}
        }
    }
    filters
        .iter()
        .any(|filter| filter.matches(&original, &reply))
        .then(|| Identity { family, attributes: identity.bytes().to_vec() })
}

impl FlowFilter {
    /// The family of the connections that can match; none when both can.
    fn family(&self) -> Option<u8> {
        let untranslated = self.untranslated_to.as_ref().and_then(|to| to.first().copied());
        let is_ipv4 = self.asked.or(self.answered_by).or(untranslated)?.is_ipv4();
        Some(if is_ipv4 { IPV4 } else { IPV6 })
    }

    fn matches(&self, original: &Tuple, reply: &Tuple) -> bool {
        self.protocol.is_none_or(|protocol| protocol == original.protocol)
            && self.asked_port.is_none_or(|port| port == original.destination_port)
            && self.asked.is_none_or(|ip| Some(ip) == original.destination)
            && self.answered_by.is_none_or(|ip| Some(ip) == reply.source)
            && self.answered_from_port.is_none_or(|port| port == reply.source_port)
            && self.untranslated_to.as_ref().is_none_or(|addresses| {
                original.destination == reply.source
                    && original.destination.is_some_and(|ip| is_one_of(ip, addresses))
            })
    }
}

fn is_one_of(ip: IpAddr, addresses: &[IpAddr]) -> bool {
    let is_of_version = addresses.first().is_some_and(|first| first.is_ipv4() == ip.is_ipv4());
    is_of_version && (ip.is_loopback() || addresses.contains(&ip))
}

fn read_tuple(bytes: &[u8]) -> Tuple {
    let mut tuple = Tuple::default();
    let port = |value: &[u8]| value.try_into().map(u16::from_be_bytes).unwrap_or(0);
    let ip = crate::route::read_ip;
    for (part, value) in wire::attributes(bytes) {
        for (kind, value) in wire::attributes(value) {
            match (part, kind) {
                (TUPLE_IP, IP_SOURCE | IPV6_SOURCE) => tuple.source = ip(value),
                (TUPLE_IP, IP_DESTINATION | IPV6_DESTINATION) => tuple.destination = ip(value),
                (TUPLE_PROTOCOL, PROTOCOL_NUMBER) => tuple.protocol = value.first().copied().unwrap_or(0),
                (TUPLE_PROTOCOL, PORT_SOURCE) => tuple.source_port = port(value),
                (TUPLE_PROTOCOL, PORT_DESTINATION) => tuple.destination_port = port(value),
                _ => {}
            }
        }
    }
    tuple
}

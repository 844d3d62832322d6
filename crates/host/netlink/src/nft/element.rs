//! Keys and values of sets and maps.
//!
//! In: addresses, ports, marks. Out: bytes as they lie in the kernel's registers, and type numbers that only `nft list`
//! reads. Names and numbers are those of linux/netfilter/nf_tables.h.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Verdict;
use super::batch::{DATA_VALUE, LIST_ITEM, put_verdict};
use crate::route::Mac;
use crate::wire::Encoder;

const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
/// The kernel's data type for verdicts; values have type 0 as far as it is concerned.
const TYPE_VERDICT: u32 = 0xffff_ff00;

/// Type numbers that only `nft list` reads, 6 bits per part of a concatenation. Source: nftables, include/datatype.h.
const SHOWN_INTEGER: u32 = 4;
const SHOWN_IPV4: u32 = 7;
const SHOWN_IPV6: u32 = 8;
const SHOWN_ETHER: u32 = 9;
const SHOWN_PROTOCOL: u32 = 12;
const SHOWN_PORT: u32 = 13;
const SHOWN_MARK: u32 = 19;
const SHOWN_IFNAME: u32 = 41;

/// A key of a map, or an element of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapKey {
    /// `inet_proto . inet_service`.
    Port {
        /// Protocol number.
        protocol: u8,
        /// Destination port.
        port: u16,
    },
    /// `ipv4_addr . inet_proto . inet_service`.
    AddressPort {
        /// Destination address.
        ip: Ipv4Addr,
        /// Protocol number.
        protocol: u8,
        /// Destination port.
        port: u16,
    },
    /// A 32-bit number, such as what `numgen` makes.
    Number(u32),
    /// `ipv4_addr` or `ipv6_addr`.
    Address(IpAddr),
    /// `ether_addr`.
    Mac(Mac),
    /// `ifname . ether_addr . ipv4_addr` or `… . ipv6_addr`: who may speak at a port of a bridge.
    Station {
        /// Name of the link, padded with zero bytes.
        link: [u8; libc::IFNAMSIZ],
        /// Its Ethernet address.
        mac: Mac,
        /// Its address.
        ip: IpAddr,
    },
}

/// A value of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapValue {
    /// What to do.
    Verdict(Verdict),
    /// `ipv4_addr` or `ipv6_addr`.
    Address(IpAddr),
    /// `ipv4_addr . inet_service` or `ipv6_addr . inet_service`.
    Socket(SocketAddr),
    /// A packet's or a connection's mark.
    Mark(u32),
    /// A zone of connection tracking.
    Zone(u16),
}

impl MapKey {
    /// A [`MapKey::Station`] of a link by its name; longer names are cut, and then match nothing.
    pub fn station(link: &str, mac: Mac, ip: IpAddr) -> Self {
        Self::Station { link: padded(link), mac, ip }
    }

    /// The key as it lies in registers: every part starts at a multiple of four bytes.
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Port { protocol, port } => {
                let [high, low] = port.to_be_bytes();
                vec![protocol, 0, 0, 0, high, low, 0, 0]
            }
            Self::AddressPort { ip, protocol, port } => {
                let mut bytes = ip.octets().to_vec();
                bytes.extend(Self::Port { protocol, port }.bytes());
                bytes
            }
            Self::Number(number) => number.to_ne_bytes().to_vec(),
            Self::Address(ip) => address_bytes(ip),
            Self::Mac(mac) => mac.0.to_vec(),
            Self::Station { link, mac, ip } => {
                let mut bytes = link.to_vec();
                bytes.extend(mac.0);
                bytes.extend([0; 2]);
                bytes.extend(address_bytes(ip));
                bytes
            }
        }
    }

    pub(super) fn shown_type(self) -> u32 {
        match self {
            Self::Port { .. } => SHOWN_PROTOCOL << 6 | SHOWN_PORT,
            Self::AddressPort { .. } => SHOWN_IPV4 << 12 | SHOWN_PROTOCOL << 6 | SHOWN_PORT,
            Self::Number(_) => SHOWN_INTEGER,
            Self::Address(ip) => shown_address(ip),
            Self::Mac(_) => SHOWN_ETHER,
            Self::Station { ip, .. } => SHOWN_IFNAME << 12 | SHOWN_ETHER << 6 | shown_address(ip),
        }
    }
}

impl MapValue {
    pub(super) fn length(&self) -> u32 {
        u32::try_from(self.bytes().len()).expect("values are short")
    }

    pub(super) fn shown_type(&self) -> u32 {
        match self {
            Self::Verdict(_) => TYPE_VERDICT,
            Self::Address(ip) => shown_address(*ip),
            Self::Socket(socket) => shown_address(socket.ip()) << 6 | SHOWN_PORT,
            Self::Mark(_) => SHOWN_MARK,
            Self::Zone(_) => SHOWN_INTEGER,
        }
    }

    /// The value as it lies in registers; a verdict is none.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Verdict(_) => Vec::new(),
            Self::Address(ip) => address_bytes(*ip),
            Self::Socket(socket) => socket_bytes(socket.ip(), socket.port()),
            Self::Mark(mark) => mark.to_ne_bytes().to_vec(),
            Self::Zone(zone) => zone.to_ne_bytes().to_vec(),
        }
    }
}

fn shown_address(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { SHOWN_IPV4 } else { SHOWN_IPV6 }
}

pub(super) fn address_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn socket_bytes(ip: IpAddr, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let mut bytes = address_bytes(ip);
    bytes.extend([high, low, 0, 0]);
    bytes
}

/// A link's name as the kernel compares it.
pub(super) fn padded(link: &str) -> [u8; libc::IFNAMSIZ] {
    let mut padded = [0u8; libc::IFNAMSIZ];
    let length = link.len().min(libc::IFNAMSIZ - 1);
    padded[..length].copy_from_slice(&link.as_bytes()[..length]);
    padded
}

pub(super) fn put_element(encoder: &mut Encoder, key: MapKey, value: Option<&MapValue>) {
    let item = encoder.nest(LIST_ITEM);
    let nest = encoder.nest(ELEMENT_KEY);
    encoder.attribute(DATA_VALUE, &key.bytes());
    encoder.end(nest);
    if let Some(value) = value {
        let nest = encoder.nest(ELEMENT_DATA);
        match value {
            MapValue::Verdict(verdict) => put_verdict(encoder, verdict),
            other => encoder.attribute(DATA_VALUE, &other.bytes()),
        }
        encoder.end(nest);
    }
    encoder.end(item);
}

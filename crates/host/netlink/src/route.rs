//! Links, addresses and routes of the network namespace the socket was opened in.
//!
//! In: plain values. Out: changed kernel objects, or lists of what is there. Many changes go as one [`RouteBatch`].
//! Synchronous, without threads and with one
//! reusable buffer, so that the init of a container calls it between `clone` and `execve`. Never decides names or
//! addresses.

mod address;
mod batch;
mod link;
mod neighbour;
mod policy;
mod vxlan;

pub(crate) use address::read_address;
pub(crate) use link::read_link;

pub use batch::RouteBatch;
pub use link::{BridgePort, NewBridge};
pub use neighbour::{ForwardingEntry, Neighbour};
pub use policy::PolicyRule;
pub use vxlan::{NewVxlan, Vxlan};

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use crate::NetlinkError;
use crate::socket::{self, Socket};
use crate::wire::{Encoder, Mark, Message};

/// An Ethernet address; shows as `02:42:ac:11:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A network namespace, named by an open file of it or by a process inside it.
#[derive(Debug, Clone, Copy)]
pub enum Namespace<'a> {
    /// An open `/proc/…/ns/net` or bind mount of one.
    Fd(BorrowedFd<'a>),
    /// A process id in the caller's own pid namespace.
    Pid(u32),
}

/// What the kernel tells about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The number the other calls take.
    pub index: u32,
    /// At most 15 bytes.
    pub name: String,
    /// `bridge`, `veth`, …; empty for physical links and the loopback.
    pub kind: String,
    /// Absent when the link has no Ethernet address.
    pub mac: Option<Mac>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// The bridge this link is a port of.
    pub master: Option<u32>,
    /// Administratively up.
    pub is_up: bool,
    /// The other end is up too. Asking for a link makes the kernel (6.8 or newer) pass a change on at once that it would
    /// otherwise tell the bridge some milliseconds later; until then a port drops everything.
    pub has_carrier: bool,
}

/// A veth pair to be made: one end here, the other in `peer_namespace`.
#[derive(Debug, Clone, Copy)]
pub struct VethPair<'a> {
    /// Name of this end, at most 15 bytes.
    pub name: &'a str,
    /// Bridge (its index) this end becomes a port of.
    pub master: Option<u32>,
    /// Largest packet of both ends in bytes.
    pub mtu: u32,
    /// Sets this end up at once.
    pub up: bool,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Ethernet address of the other end.
    pub peer_mac: Option<Mac>,
    /// Where the other end goes; `None` leaves it here.
    pub peer_namespace: Option<Namespace<'a>>,
}

/// A link that shares another one's wire under an Ethernet address of its own.
#[derive(Debug, Clone, Copy)]
pub struct Macvlan<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// The link (its index) whose wire it shares.
    pub parent: u32,
    /// Which of its siblings it reaches.
    pub mode: MacvlanMode,
    /// Its Ethernet address; `None` lets the kernel choose.
    pub mac: Option<Mac>,
    /// Largest packet in bytes; 0 is the parent's.
    pub mtu: u32,
    /// Where it is made.
    pub namespace: Namespace<'a>,
}

/// Which of its siblings a macvlan link reaches. Source of the numbers: linux/if_link.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MacvlanMode {
    /// None.
    Private = 1,
    /// All, by way of a switch that sends back.
    Vepa = 2,
    /// All.
    Bridge = 4,
    /// It is the only one.
    Passthru = 8,
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The link.
    pub index: u32,
    /// The address itself.
    pub ip: IpAddr,
    /// Length of the network part in bits.
    pub prefix: u8,
}

/// The routing table that everybody looks at. Source: linux/rtnetlink.h, `RT_TABLE_MAIN`.
pub const MAIN_TABLE: u32 = 254;

/// A route of any table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Network address; unspecified together with `prefix` 0 is the default route.
    pub destination: IpAddr,
    /// Length of the network part in bits.
    pub prefix: u8,
    /// Next hop, if any.
    pub gateway: Option<IpAddr>,
    /// Outgoing link, if any.
    pub index: Option<u32>,
    /// Routing table; 254 is main, 255 is local.
    pub table: u32,
}

/// A socket for links, addresses and routes.
///
/// It stays in the network namespace that the calling thread was in at `open`, also after that thread moved on.
#[derive(Debug)]
pub struct RouteSocket {
    socket: Socket,
}

impl RouteSocket {
    /// Opens the socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(None, 0)? })
    }

    /// Adds the default route of the gateway's family. `index` may be left out when the gateway is on a known subnet.
    pub fn add_default_route(&mut self, gateway: IpAddr, index: Option<u32>) -> Result<(), NetlinkError> {
        self.add_route(&Route {
            destination: unspecified_like(gateway),
            prefix: 0,
            gateway: Some(gateway),
            index,
            table: u32::from(libc::RT_TABLE_MAIN),
        })
    }

    /// Makes this the default route of the gateway's family, in place of the one there may be.
    pub fn replace_default_route(&mut self, gateway: IpAddr, index: u32) -> Result<(), NetlinkError> {
        let table = u32::from(libc::RT_TABLE_MAIN);
        let destination = unspecified_like(gateway);
        self.replace_route(&Route {
            destination,
            prefix: 0,
            gateway: Some(gateway),
            index: Some(index),
            table,
        })
    }

    /// Sends one request built by `build` and waits for the kernel's acknowledgement.
    fn request(
        &mut self,
        operation: &'static str,
        kind: u16,
        flags: u16,
        build: impl FnOnce(&mut Encoder),
    ) -> Result<(), NetlinkError> {
        let (sequence, encoder) = self.message(kind, flags | socket::ACK, build);
        self.socket.acknowledged(operation, sequence, encoder.bytes())
    }

    /// Sends one query and gives every answer to `each`.
    fn query(
        &mut self,
        operation: &'static str,
        kind: u16,
        flags: u16,
        build: impl FnOnce(&mut Encoder),
        each: impl FnMut(Message<'_>),
    ) -> Result<(), NetlinkError> {
        let (sequence, encoder) = self.message(kind, flags, build);
        self.socket.exchange(operation, sequence, encoder.bytes(), each)
    }

    fn message(&mut self, kind: u16, flags: u16, build: impl FnOnce(&mut Encoder)) -> (u32, Encoder) {
        let sequence = self.socket.next_sequence();
        let mut encoder = Encoder::new();
        let mark: Mark = encoder.start(kind, flags | socket::REQUEST, sequence);
        build(&mut encoder);
        encoder.finish(mark);
        (sequence, encoder)
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = NetlinkError;

    fn from_str(text: &str) -> Result<Self, NetlinkError> {
        let refuse = || NetlinkError::Name(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refuse)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() { Err(refuse()) } else { Ok(Self(bytes)) }
    }
}

/// The unspecified address of the same family.
fn unspecified_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn family_of(ip: IpAddr) -> u8 {
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).expect("address families in use are below 256")
}

/// Appends an address in network order.
fn put_ip(encoder: &mut Encoder, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => encoder.attribute(kind, &ip.octets()),
        IpAddr::V6(ip) => encoder.attribute(kind, &ip.octets()),
    }
}

/// Reads an address in network order of either family.
pub(crate) fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// Refuses names that the kernel would refuse or cut, so that the error names the culprit.
fn check_name(name: &str) -> Result<(), NetlinkError> {
    let bad = name.is_empty()
        || name.len() >= libc::IFNAMSIZ
        || name == "."
        || name == ".."
        || name.bytes().any(|byte| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace());
    if bad { Err(NetlinkError::Name(name.to_owned())) } else { Ok(()) }
}

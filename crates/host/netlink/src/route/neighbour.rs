//! Neighbours (address to Ethernet address) and forwarding entries (Ethernet address to place).
//!
//! In: entries that are to stay for ever. Out: those that are there. What the kernel learned by itself is not listed.
//! Changes go through [`super::RouteBatch`].

use std::net::IpAddr;

use super::{Mac, RouteSocket, family_of, put_ip, read_ip};
use crate::NetlinkError;
use crate::socket;
use crate::wire::{self, Encoder, Message};

/// Source: linux/neighbour.h.
const HEADER: usize = 12;
const DESTINATION: u16 = 1;
const LINK_ADDRESS: u16 = 2;
const MASTER: u16 = 9;
const PERMANENT: u16 = 0x80;
const NO_ARP: u16 = 0x40;
/// The entry is the link's own (of a VXLAN).
const SELF: u8 = 0x02;
/// The entry is that of the bridge which the link is a port of.
const OF_BRIDGE: u8 = 0x04;
const BRIDGE_FAMILY: u8 = 7;

/// A neighbour that is known for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The link behind which it is.
    pub index: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// Where frames to an Ethernet address go, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardingEntry {
    /// The link: a VXLAN, or a port of a bridge.
    pub index: u32,
    /// Where frames are to go.
    pub mac: Mac,
    /// The machine that a VXLAN sends them to; `None` for the entry of the bridge, which sends them out by the port.
    pub remote: Option<IpAddr>,
}

impl RouteSocket {
    /// Every permanent neighbour, of both families.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut found = Vec::new();
        self.query(
            "list neighbours",
            libc::RTM_GETNEIGH,
            socket::DUMP,
            |encoder| encoder.raw(&[0; HEADER]),
            |message| found.extend(read_neighbour(&message)),
        )?;
        Ok(found)
    }

    /// Every forwarding entry that was made by hand: those of VXLANs and of bridges, not a bridge's own addresses.
    pub fn forwarding(&mut self) -> Result<Vec<ForwardingEntry>, NetlinkError> {
        let mut found = Vec::new();
        self.query(
            "list forwarding entries",
            libc::RTM_GETNEIGH,
            socket::DUMP,
            |encoder| {
                let mut header = [0; HEADER];
                header[0] = BRIDGE_FAMILY;
                encoder.raw(&header);
            },
            |message| found.extend(read_forwarding(&message)),
        )?;
        Ok(found)
    }
}

pub(super) fn put_neighbour(encoder: &mut Encoder, neighbour: &Neighbour) {
    put_header(encoder, family_of(neighbour.ip), neighbour.index, PERMANENT, 0);
    put_ip(encoder, DESTINATION, neighbour.ip);
    encoder.attribute(LINK_ADDRESS, &neighbour.mac.0);
}

pub(super) fn put_forwarding(encoder: &mut Encoder, entry: &ForwardingEntry) {
    put_forwarding_anywhere(encoder, entry);
    if let Some(remote) = entry.remote {
        put_ip(encoder, DESTINATION, remote);
    }
}

/// The entry without the machine it leads to: whichever that is.
pub(super) fn put_forwarding_anywhere(encoder: &mut Encoder, entry: &ForwardingEntry) {
    let (state, flags) = match entry.remote {
        Some(_) => (PERMANENT, SELF),
        // What is permanent there is the bridge's own address.
        None => (NO_ARP, OF_BRIDGE),
    };
    put_header(encoder, BRIDGE_FAMILY, entry.index, state, flags);
    encoder.attribute(LINK_ADDRESS, &entry.mac.0);
}

fn put_header(encoder: &mut Encoder, family: u8, index: u32, state: u16, flags: u8) {
    encoder.raw(&[family, 0, 0, 0]);
    encoder.raw(&index.to_ne_bytes());
    let [low, high] = state.to_ne_bytes();
    encoder.raw(&[low, high, flags, 0]);
}

/// The parts of a listed entry that both kinds have.
struct Listed {
    index: u32,
    state: u16,
    destination: Option<IpAddr>,
    mac: Option<Mac>,
    is_of_bridge: bool,
}

fn read(message: &Message<'_>) -> Option<Listed> {
    if message.kind != libc::RTM_NEWNEIGH {
        return None;
    }
    let mut listed = Listed {
        index: wire::read_u32(message.payload, 4)?,
        state: wire::read_u16(message.payload, 8)?,
        destination: None,
        mac: None,
        is_of_bridge: false,
    };
    for (kind, value) in wire::attributes_after(message.payload, HEADER) {
        match kind {
            DESTINATION => listed.destination = read_ip(value),
            LINK_ADDRESS => listed.mac = value.try_into().ok().map(Mac),
            MASTER => listed.is_of_bridge = true,
            _ => {}
        }
    }
    Some(listed)
}

fn read_neighbour(message: &Message<'_>) -> Option<Neighbour> {
    let Listed { index, state, destination, mac, .. } = read(message)?;
    let is_permanent = state & PERMANENT != 0 && *message.payload.first()? != BRIDGE_FAMILY;
    is_permanent.then_some(Neighbour { index, ip: destination?, mac: mac? })
}

fn read_forwarding(message: &Message<'_>) -> Option<ForwardingEntry> {
    let Listed { index, state, destination: remote, mac, is_of_bridge } = read(message)?;
    let is_made_by_hand = if is_of_bridge { state & NO_ARP != 0 } else { remote.is_some() };
    is_made_by_hand.then_some(ForwardingEntry { index, mac: mac?, remote })
}

//! VXLAN links: Ethernet between machines, inside UDP.
//!
//! In: number, own address, port. Out: a link that sends only where its forwarding entries say. Never floods or learns.

use std::net::IpAddr;

use super::link::{INFO_DATA, INFO_KIND, LINK_HEADER, header, put_namespace};
use super::{Namespace, RouteSocket, check_name, put_ip, read_ip};
use crate::NetlinkError;
use crate::socket;
use crate::wire::{self, Message};

/// Source: linux/if_link.h.
const ID: u16 = 1;
const LOCAL: u16 = 4;
const TTL: u16 = 5;
const LEARNING: u16 = 7;
const PROXY: u16 = 11;
const PORT: u16 = 15;
const LOCAL6: u16 = 17;
/// chosen: as what a machine sends itself; without it, the packet inside would decide.
const HOPS: u8 = 64;

/// A VXLAN to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewVxlan<'a> {
    /// Name, at most 15 bytes; it must be free both here and where the link goes.
    pub name: &'a str,
    /// What it carries where.
    pub vxlan: Vxlan,
    /// Largest packet inside, in bytes.
    pub mtu: u32,
    /// Where the link goes. Its UDP socket stays in the namespace of this netlink socket.
    pub namespace: Namespace<'a>,
}

/// What a VXLAN link carries where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier, 24 bits.
    pub vni: u32,
    /// Address of this machine that packets are sent from.
    pub local: IpAddr,
    /// UDP port, here and on the other machines.
    pub port: u16,
}

impl RouteSocket {
    /// Makes a VXLAN link that answers for the neighbours it knows and learns none. Fails with `EEXIST` when the number is
    /// in use on this machine.
    pub fn add_vxlan(&mut self, new: &NewVxlan<'_>) -> Result<(), NetlinkError> {
        check_name(new.name)?;
        let Vxlan { vni, local, port } = new.vxlan;
        self.request("add vxlan", libc::RTM_NEWLINK, socket::CREATE | socket::EXCLUSIVE, |encoder| {
            header(encoder, 0, 0, 0);
            encoder.text(libc::IFLA_IFNAME, new.name);
            encoder.u32(libc::IFLA_MTU, new.mtu);
            put_namespace(encoder, new.namespace);
            let info = encoder.nest(libc::IFLA_LINKINFO);
            encoder.text(INFO_KIND, "vxlan");
            let data = encoder.nest(INFO_DATA);
            encoder.u32(ID, vni);
            put_ip(encoder, if local.is_ipv4() { LOCAL } else { LOCAL6 }, local);
            encoder.u8(TTL, HOPS);
            encoder.u8(LEARNING, 0);
            encoder.u8(PROXY, 1);
            encoder.attribute(PORT, &port.to_be_bytes());
            encoder.end(data);
            encoder.end(info);
        })
    }

    /// What the VXLAN link of that name carries; `None` when there is no such link, or it is none.
    pub fn vxlan(&mut self, name: &str) -> Result<Option<Vxlan>, NetlinkError> {
        check_name(name)?;
        let mut found = None;
        let result = self.query(
            "look up vxlan",
            libc::RTM_GETLINK,
            socket::ACK,
            |encoder| {
                header(encoder, 0, 0, 0);
                encoder.text(libc::IFLA_IFNAME, name);
            },
            |message| found = read_vxlan(&message),
        );
        match result {
            Ok(()) => Ok(found),
            Err(e) if e.is_missing() => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn read_vxlan(message: &Message<'_>) -> Option<Vxlan> {
    let mut attributes = wire::attributes_after(message.payload, LINK_HEADER);
    let (_, info) = attributes.find(|(kind, _)| *kind == libc::IFLA_LINKINFO)?;
    let part = |wanted: u16| wire::attributes(info).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    if wire::read_text(part(INFO_KIND)?) != "vxlan" {
        return None;
    }
    let (mut vni, mut local, mut port) = (None, None, None);
    for (kind, value) in wire::attributes(part(INFO_DATA)?) {
        match kind {
            ID => vni = wire::read_u32(value, 0),
            LOCAL | LOCAL6 => local = read_ip(value),
            PORT => port = value.try_into().ok().map(u16::from_be_bytes),
            _ => {}
        }
    }
    Some(Vxlan { vni: vni?, local: local?, port: port? })
}

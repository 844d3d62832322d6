//! Makes, changes, lists and deletes links.
//!
//! In: names, indexes, Ethernet addresses. Out: links, or the kernel's refusal.

use std::os::fd::AsRawFd;

use super::{Link, Mac, Macvlan, Namespace, RouteSocket, VethPair, check_name};
use crate::NetlinkError;
use crate::socket;
use crate::wire::{self, Encoder, Message};

const IFF_UP: u32 = libc::IFF_UP as u32;
/// Source: linux/if.h; libc lacks it.
const IFF_LOWER_UP: u32 = 1 << 16;
pub(super) const INFO_KIND: u16 = 1;
pub(super) const INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
/// Numbers of a bridge's and a bridge port's attributes. Source: linux/if_link.h.
const BRIDGE_MULTICAST_SNOOPING: u16 = 23;
const BRIDGE_FAMILY: u8 = 7;
const PORT_HAIRPIN: u16 = 4;
const PORT_LEARNING: u16 = 8;
const PORT_ISOLATED: u16 = 33;
/// Length of `struct ifinfomsg`.
pub(super) const LINK_HEADER: usize = 16;

/// A bridge to be made, down and without address.
#[derive(Debug, Clone, Copy)]
pub struct NewBridge<'a> {
    /// Name, at most 15 bytes.
    pub name: &'a str,
    /// A fixed address, that does not change with every port.
    pub mac: Mac,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it listens who wants which multicast; if not, multicast goes to every port.
    pub snoops_multicast: bool,
}

/// How a port of a bridge behaves; what is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Frames may go back out by the port that they came in by.
    pub hairpin: Option<bool>,
    /// The bridge learns senders behind this port.
    pub learning: Option<bool>,
    /// No frame goes from here to another isolated port.
    pub isolated: Option<bool>,
}

impl RouteSocket {
    /// Every link of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut found = Vec::new();
        self.query(
            "list links",
            libc::RTM_GETLINK,
            socket::DUMP,
            |encoder| header(encoder, 0, 0, 0),
            |message| found.extend(read_link(&message)),
        )?;
        Ok(found)
    }

    /// The link of that name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        check_name(name)?;
        let mut found = None;
        let result = self.query(
            "look up link",
            libc::RTM_GETLINK,
            socket::ACK,
            |encoder| {
                header(encoder, 0, 0, 0);
                encoder.text(libc::IFLA_IFNAME, name);
            },
            |message| found = read_link(&message),
        );
        match result {
            Ok(()) => Ok(found),
            Err(e) if e.is_missing() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The index of the link of that name; [`NetlinkError::NoLink`] when there is none.
    pub fn index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        self.link(name)?.map(|link| link.index).ok_or_else(|| NetlinkError::NoLink(name.to_owned()))
    }

    /// Makes a bridge, down and without address. A fixed `mac` keeps it from changing with every port.
    pub fn add_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<(), NetlinkError> {
        self.make_bridge(&NewBridge { name, mac, mtu, snoops_multicast: true })
    }

    /// Makes a bridge, down and without address.
    pub fn make_bridge(&mut self, bridge: &NewBridge<'_>) -> Result<(), NetlinkError> {
        check_name(bridge.name)?;
        self.request("add bridge", libc::RTM_NEWLINK, socket::CREATE | socket::EXCLUSIVE, |encoder| {
            header(encoder, 0, 0, 0);
            encoder.text(libc::IFLA_IFNAME, bridge.name);
            encoder.attribute(libc::IFLA_ADDRESS, &bridge.mac.0);
            encoder.u32(libc::IFLA_MTU, bridge.mtu);
            let info = encoder.nest(libc::IFLA_LINKINFO);
            encoder.text(INFO_KIND, "bridge");
            if !bridge.snoops_multicast {
                let data = encoder.nest(INFO_DATA);
                encoder.u8(BRIDGE_MULTICAST_SNOOPING, 0);
                encoder.end(data);
            }
            encoder.end(info);
        })
    }

    /// Makes a veth pair in one request: this end named, attached to its bridge and up; the other end in its namespace.
    /// A port of a bridge gets packets back that it sent to itself ([`RouteSocket::set_hairpin`]).
    pub fn add_veth(&mut self, pair: &VethPair<'_>) -> Result<(), NetlinkError> {
        check_name(pair.name)?;
        check_name(pair.peer_name)?;
        let flags = if pair.up { IFF_UP } else { 0 };
        self.request("add veth pair", libc::RTM_NEWLINK, socket::CREATE | socket::EXCLUSIVE, |encoder| {
            header(encoder, 0, flags, flags);
            encoder.text(libc::IFLA_IFNAME, pair.name);
            encoder.u32(libc::IFLA_MTU, pair.mtu);
            if let Some(master) = pair.master {
                encoder.u32(libc::IFLA_MASTER, master);
            }
            let info = encoder.nest(libc::IFLA_LINKINFO);
            encoder.text(INFO_KIND, "veth");
            let data = encoder.nest(INFO_DATA);
            let peer = encoder.nest(VETH_INFO_PEER);
            header(encoder, 0, 0, 0);
            encoder.text(libc::IFLA_IFNAME, pair.peer_name);
            encoder.u32(libc::IFLA_MTU, pair.mtu);
            if let Some(mac) = pair.peer_mac {
                encoder.attribute(libc::IFLA_ADDRESS, &mac.0);
            }
            if let Some(namespace) = pair.peer_namespace {
                put_namespace(encoder, namespace);
            }
            encoder.end(peer);
            encoder.end(data);
            encoder.end(info);
        })?;
        if pair.master.is_none() {
            return Ok(());
        }
        let index = self.index(pair.name)?;
        self.set_hairpin(index)
    }

    /// Makes a macvlan link in its namespace, down and without address.
    pub fn add_macvlan(&mut self, link: &Macvlan<'_>) -> Result<(), NetlinkError> {
        const MACVLAN_MODE: u16 = 1;
        check_name(link.name)?;
        self.request("add macvlan link", libc::RTM_NEWLINK, socket::CREATE | socket::EXCLUSIVE, |encoder| {
            header(encoder, 0, 0, 0);
            encoder.text(libc::IFLA_IFNAME, link.name);
            encoder.u32(libc::IFLA_LINK, link.parent);
            if link.mtu > 0 {
                encoder.u32(libc::IFLA_MTU, link.mtu);
            }
            if let Some(mac) = link.mac {
                encoder.attribute(libc::IFLA_ADDRESS, &mac.0);
            }
            put_namespace(encoder, link.namespace);
            let info = encoder.nest(libc::IFLA_LINKINFO);
            encoder.text(INFO_KIND, "macvlan");
            let data = encoder.nest(INFO_DATA);
            encoder.u32(MACVLAN_MODE, link.mode as u32);
            encoder.end(data);
            encoder.end(info);
        })
    }

    /// Sets the link up; the kernel then adds its subnet routes.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.change("set link up", index, IFF_UP, |_| ())
    }

    /// Sets the link down; the kernel then drops its routes.
    pub fn set_down(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.request("set link down", libc::RTM_NEWLINK, 0, |encoder| header(encoder, index, 0, IFF_UP))
    }

    /// Makes the link a port of a bridge, or of none.
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<(), NetlinkError> {
        self.change("set master of link", index, 0, |encoder| {
            encoder.u32(libc::IFLA_MASTER, master.unwrap_or(0))
        })
    }

    /// Makes the link a port of a bridge as [`RouteSocket::add_veth`] does, and sets it up.
    pub fn enslave(&mut self, index: u32, master: u32) -> Result<(), NetlinkError> {
        self.change("attach link to bridge", index, IFF_UP, |encoder| {
            encoder.u32(libc::IFLA_MASTER, master)
        })?;
        self.set_hairpin(index)
    }

    /// Lets a port of a bridge get frames back that it sent. Where the kernel translates addresses inside the bridge
    /// (br_netfilter), a container would otherwise not reach a port that it publishes itself.
    pub fn set_hairpin(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.set_bridge_port(index, &BridgePort { hairpin: Some(true), ..BridgePort::default() })
    }

    /// Keeps frames of this port of a bridge from the other isolated ports.
    pub fn set_isolated(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.set_bridge_port(index, &BridgePort { isolated: Some(true), ..BridgePort::default() })
    }

    /// Changes how a port of a bridge behaves.
    pub fn set_bridge_port(&mut self, index: u32, wanted: &BridgePort) -> Result<(), NetlinkError> {
        let BridgePort { hairpin, learning, isolated } = *wanted;
        self.request("set bridge port", libc::RTM_SETLINK, 0, |encoder| {
            family_header(encoder, BRIDGE_FAMILY, index, 0, 0);
            let port = encoder.nest(libc::IFLA_PROTINFO);
            for (kind, value) in
                [(PORT_HAIRPIN, hairpin), (PORT_LEARNING, learning), (PORT_ISOLATED, isolated)]
            {
                if let Some(value) = value {
                    encoder.u8(kind, u8::from(value));
                }
            }
            encoder.end(port);
        })
    }

    /// Sets the largest packet in bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.change("set mtu of link", index, 0, |encoder| encoder.u32(libc::IFLA_MTU, mtu))
    }

    /// Sets the Ethernet address.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), NetlinkError> {
        self.change("set address of link", index, 0, |encoder| encoder.attribute(libc::IFLA_ADDRESS, &mac.0))
    }

    /// Renames the link; most kernels want it down for that.
    pub fn set_name(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        check_name(name)?;
        self.change("rename link", index, 0, |encoder| encoder.text(libc::IFLA_IFNAME, name))
    }

    /// Moves the link into another network namespace; it is down there and may get another index.
    pub fn move_link(&mut self, index: u32, namespace: Namespace<'_>) -> Result<(), NetlinkError> {
        self.change("move link", index, 0, |encoder| put_namespace(encoder, namespace))
    }

    /// Deletes the link; of a veth pair, both ends.
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.request("delete link", libc::RTM_DELLINK, 0, |encoder| header(encoder, index, 0, 0))
    }

    fn change(
        &mut self,
        operation: &'static str,
        index: u32,
        flags: u32,
        attributes: impl FnOnce(&mut Encoder),
    ) -> Result<(), NetlinkError> {
        self.request(operation, libc::RTM_NEWLINK, 0, |encoder| {
            header(encoder, index, flags, flags);
            attributes(encoder);
        })
    }
}

/// Appends a `struct ifinfomsg` of no particular family.
pub(super) fn header(encoder: &mut Encoder, index: u32, flags: u32, change: u32) {
    family_header(encoder, 0, index, flags, change);
}

fn family_header(encoder: &mut Encoder, family: u8, index: u32, flags: u32, change: u32) {
    encoder.raw(&[family, 0, 0, 0]);
    encoder.raw(&index.to_ne_bytes());
    encoder.raw(&flags.to_ne_bytes());
    encoder.raw(&change.to_ne_bytes());
}

pub(super) fn put_namespace(encoder: &mut Encoder, namespace: Namespace<'_>) {
    match namespace {
        Namespace::Fd(fd) => encoder.u32(libc::IFLA_NET_NS_FD, fd.as_raw_fd().cast_unsigned()),
        Namespace::Pid(pid) => encoder.u32(libc::IFLA_NET_NS_PID, pid),
    }
}

/// Reads a link from a new-link or delete-link message.
pub(crate) fn read_link(message: &Message<'_>) -> Option<Link> {
    if message.kind != libc::RTM_NEWLINK && message.kind != libc::RTM_DELLINK {
        return None;
    }
    let flags = wire::read_u32(message.payload, 8)?;
    let mut link = Link {
        index: wire::read_u32(message.payload, 4)?,
        name: String::new(),
        kind: String::new(),
        mac: None,
        mtu: 0,
        master: None,
        is_up: flags & IFF_UP != 0,
        has_carrier: flags & IFF_LOWER_UP != 0,
    };
    for (kind, value) in wire::attributes_after(message.payload, LINK_HEADER) {
        match kind {
            libc::IFLA_IFNAME => link.name = wire::read_text(value),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            libc::IFLA_MTU => link.mtu = wire::read_u32(value, 0)?,
            libc::IFLA_MASTER => link.master = wire::read_u32(value, 0).filter(|index| *index != 0),
            libc::IFLA_LINKINFO => {
                let info = wire::attributes(value).find(|(kind, _)| *kind == INFO_KIND);
                link.kind = info.map(|(_, name)| wire::read_text(name)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

//! Decides what a node's piece of an overlay network is: its VXLAN, and who is found where.
//!
//! In: a network as the node is told of it, and the machine's way to the others. Out: an [`OverlayPlan`]. Everything that
//! sends on an overlay has an Ethernet address that follows from its address ([`MacAddress::of`]), so nobody has to ask, and
//! nothing is flooded or learned. Never touches the kernel.
//!
//! ```text
//!  container ── br0 ── vx0 ── (UDP) ── vx0 ── br0 ── container       frames to a container of another node
//!                       ├ forwarding: Ethernet address ─► machine
//!                       └ neighbours: address ─► Ethernet address, answered for by vx0 itself
//!
//!  ingress network: only nodes are found across machines; their br0 has an address and routes
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use objects::NodeId;
use wire::network::{EndpointView, NetworkView};

use crate::encryption;

/// What VXLAN puts around a frame: Ethernet, IPv4 or IPv6, UDP, its own header. Source: RFC 7348.
const HEADERS_V4: u32 = 50;
const HEADERS_V6: u32 = 70;
/// What ESP with AES-GCM adds: its header 8, the nonce 8, its trailer 2, the check value 16. What it encrypts is a multiple of
/// 4, and so is this with the headers around it. Source: RFC 4106. Docker has 26: its check value has 8 bytes.
const HEADERS_ENCRYPTION: u32 = 34;
const ENCRYPTION_ALIGN: u32 = 4;
/// Smallest packet that every IPv4 host takes. Source: RFC 791.
const MTU_MIN: u32 = 576;
/// Source: moby, `daemon/libnetwork/drivers/overlay`: namespaces are named by this many digits of the network's id.
const NAME_LENGTH: usize = 12;

/// An Ethernet address; shows as `02:42:0a:00:01:05`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// The way from this machine to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Underlay {
    /// Largest packet of the link with the data path's address, in bytes.
    pub mtu: u32,
}

/// A node's piece of an overlay network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayPlan {
    /// Name of its pinned namespace.
    pub name: String,
    /// Number of the VXLAN.
    pub vni: u32,
    /// UDP port of the VXLAN.
    pub port: u16,
    /// Address of this machine that the others send to.
    pub local: IpAddr,
    /// Largest packet inside, in bytes.
    pub mtu: u32,
    /// Whether containers have addresses of IPv6.
    pub has_ipv6: bool,
    /// The machine behind which an Ethernet address is.
    pub forwarding: BTreeMap<MacAddress, IpAddr>,
    /// Ethernet addresses of those who are not on this node; with `own`, also of those who are.
    pub neighbours: BTreeMap<IpAddr, MacAddress>,
    /// The node's own addresses with the length of their networks: of the ingress network, else none.
    pub own: Vec<IpNet>,
}

impl MacAddress {
    /// The Ethernet address of who has this address.
    pub fn of(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The Ethernet address of who has these addresses: their first of IPv4 decides.
    pub fn of_all(addresses: &[IpAddr]) -> Option<Self> {
        addresses.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(Self::of(*ip)) } else { None })
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Name of the outer end of a container's link, in the namespace of the network: `p` and its IPv4 address in hex.
pub fn port_name(addresses: &[IpAddr]) -> Option<String> {
    addresses
        .iter()
        .find_map(|ip| if let IpAddr::V4(ip) = ip { Some(format!("p{:08x}", ip.to_bits())) } else { None })
}

/// Name of the pinned namespace of a network.
pub fn namespace_name(network: &objects::NetworkId) -> String {
    network.as_str().chars().take(NAME_LENGTH).collect()
}

/// Largest packet inside, when packets to other machines may have `underlay` bytes and a user asked for `wanted`.
pub fn mtu(underlay: Underlay, local: IpAddr, encrypted: bool, wanted: Option<u32>) -> u32 {
    let headers = if local.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    let room = underlay.mtu.saturating_sub(headers);
    let room = if encrypted {
        room.saturating_sub(HEADERS_ENCRYPTION) / ENCRYPTION_ALIGN * ENCRYPTION_ALIGN
    } else {
        room
    };
    let wanted = wanted.filter(|mtu| *mtu > 0).unwrap_or(room);
    room.min(wanted).max(MTU_MIN)
}

impl OverlayPlan {
    /// The piece of `node`; `None` while the node is not told of itself.
    pub fn of(view: &NetworkView, node: &NodeId, underlay: Underlay) -> Option<Self> {
        let own = view.peers.get(node)?;
        let mut plan = Self {
            name: namespace_name(&view.id),
            vni: view.vni,
            port: if view.encrypted { encryption::port(view.data_path_port) } else { view.data_path_port },
            local: own.data_path,
            mtu: mtu(underlay, own.data_path, view.encrypted, view.mtu),
            has_ipv6: view.subnets.iter().any(|subnet| matches!(subnet, IpNet::V6(_))),
            forwarding: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            own: Vec::new(),
        };
        if view.ingress {
            plan.own = with_prefixes(&own.addresses, &view.subnets);
            plan.find_nodes(view, node);
        } else {
            plan.find_containers(view, node);
        }
        Some(plan)
    }

    fn find_containers(&mut self, view: &NetworkView, node: &NodeId) {
        for endpoint in view.endpoints.values().filter(|endpoint| endpoint.node != *node) {
            let machine = view.peers.get(&endpoint.node).map(|peer| peer.data_path);
            if let (Some(machine), Some(mac)) = (machine, mac_of(endpoint)) {
                self.forwarding.insert(mac, machine);
                self.neighbours.extend(endpoint.addresses.iter().map(|ip| (*ip, mac)));
            }
        }
    }

    fn find_nodes(&mut self, view: &NetworkView, node: &NodeId) {
        for peer in view.peers.iter().filter(|(id, _)| *id != node).map(|(_, peer)| peer) {
            if let Some(mac) = MacAddress::of_all(&peer.addresses) {
                self.forwarding.insert(mac, peer.data_path);
                self.neighbours.extend(peer.addresses.iter().map(|ip| (*ip, mac)));
            }
        }
        for endpoint in view.endpoints.values().filter(|endpoint| endpoint.node == *node) {
            if let Some(mac) = mac_of(endpoint) {
                self.neighbours.extend(endpoint.addresses.iter().map(|ip| (*ip, mac)));
            }
        }
    }
}

fn mac_of(endpoint: &EndpointView) -> Option<MacAddress> {
    MacAddress::of_all(&endpoint.addresses)
}

/// Addresses with the prefix of the subnet that holds them; one that no subnet holds stands alone.
pub(crate) fn with_prefixes(addresses: &[IpAddr], subnets: &[IpNet]) -> Vec<IpNet> {
    let in_subnet = |ip: &IpAddr| {
        let prefix = subnets.iter().find(|subnet| subnet.contains(ip)).map(IpNet::prefix_len);
        prefix.and_then(|prefix| IpNet::new(*ip, prefix).ok()).unwrap_or_else(|| IpNet::from(*ip))
    };
    addresses.iter().map(in_subnet).collect()
}

#[cfg(test)]
pub(crate) mod tests;

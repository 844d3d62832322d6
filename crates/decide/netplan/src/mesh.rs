//! Decides the routing mesh of a node: which task answers a published port, through which node it is reached, and how its
//! answers find back.
//!
//! In: the ingress network as the node is told of it. Out: a [`MeshPlan`] with the tables of the ingress namespace, and the
//! [`TaskSide`] of a container. A client keeps its address all the way. Never touches the kernel.
//!
//! ```text
//!  machine ── up0 │ ingress namespace │ br0 ── task of this node
//!                 │  port ─► task     │     └─ vx0 ── ingress namespace of a peer ── task of the peer
//!
//!  what comes from a peer    has a zone of its own, and its connection the peer's mark
//!  answers of marked ones    go back to that peer (routing table per mark)
//!  a container               marks what came in by the ingress network; its answers go to its node's ingress address
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use objects::{NodeId, PortConfig, PortProtocol, PublishMode};
use wire::network::{EndpointView, NetworkView, PeerView};

use crate::overlay::{MacAddress, port_name, with_prefixes};
use crate::port::Protocol;
use crate::table::{Action, Base, Chain, Family, Key, Map, MapKind, Match, Rule, Table, Value, Version};

/// Name of the tables in the ingress namespace, and of that in a container.
pub const TABLE: &str = "skep-mesh";
/// Name of the ingress namespace's end of its link to the machine.
pub const UPLINK: &str = "up0";
/// Name of its bridge.
pub const BRIDGE: &str = "br0";
/// Name of its VXLAN.
pub const VXLAN: &str = "vx0";
/// Map from protocol and port to the chain of the port.
pub const PORTS: &str = "ports";
const PEERS: &str = "peers";
const MARKS: &str = "marks";
const ZONES: &str = "zones";
const STATIONS: &str = "stations";
const STATIONS6: &str = "stations6";
/// Mark, in a container, of connections that came in by the ingress network: `skep` in ASCII.
pub const TASK_MARK: u32 = 0x736b_6570;
/// Routing table, in a container, for answers of such connections. chosen: above what the kernel and tools use.
pub const TASK_TABLE: u32 = 0x736b;
/// Routing tables in the ingress namespace begin here; a peer's mark is added. chosen: as above.
const TABLES_BASE: u32 = 0x10_0000;
/// chosen: before the main table.
pub const RULE_PRIORITY: u32 = 100;
/// Smallest packet that a link of IPv6 has to carry, in bytes; the kernel has no IPv6 on one that carries less.
/// Source: RFC 8200, 5.
pub const MTU_MIN_V6: u32 = 1280;
/// Headers of IP and TCP without options, in bytes.
const HEADERS_V4: u32 = 40;
const HEADERS_V6: u32 = 60;
const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

/// The routing mesh of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshPlan {
    /// The node's own addresses on the ingress network, with the length of their networks.
    pub own: Vec<IpNet>,
    /// Largest packet on the ingress network, in bytes.
    pub mtu: u32,
    /// The link between machine and ingress namespace.
    pub links: Vec<LinkSubnet>,
    /// The other nodes.
    pub peers: BTreeMap<NodeId, MeshPeer>,
    /// The node's address through which a task of another node is reached.
    pub routes: BTreeMap<IpAddr, IpAddr>,
    /// Containers of this node on the ingress network: the names of their ports, and their addresses.
    pub stations: BTreeMap<IpAddr, (String, MacAddress)>,
    /// Where published ports lead; a port without backends is not held here.
    pub ports: BTreeMap<(Protocol, u16), Vec<SocketAddr>>,
}

/// Two addresses that machine and ingress namespace talk with; nobody else sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSubnet {
    /// The machine's.
    pub machine: IpNet,
    /// The ingress namespace's: what the machine translates published ports to.
    pub ingress: IpAddr,
}

impl LinkSubnet {
    /// The link's usual addresses: one pair per version. chosen: link-local addresses of IPv4 far from what clouds answer
    /// at, and a unique local network of IPv6 whose random part is `skep` and zeroes.
    pub fn usual(with_ipv6: bool) -> Vec<Self> {
        const MACHINE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 73, 1), 30);
        const INGRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 73, 2);
        const MACHINE6: Ipv6Net =
            Ipv6Net::new_assert(Ipv6Addr::new(0xfd73, 0x6b65, 0x7000, 0, 0, 0, 0, 1), 126);
        const INGRESS6: Ipv6Addr = Ipv6Addr::new(0xfd73, 0x6b65, 0x7000, 0, 0, 0, 0, 2);
        let v4 = Self { machine: MACHINE.into(), ingress: INGRESS.into() };
        let v6 = Self { machine: MACHINE6.into(), ingress: INGRESS6.into() };
        if with_ipv6 { vec![v4, v6] } else { vec![v4] }
    }
}

/// Another node, as the ingress namespace knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshPeer {
    /// Mark and zone of what it forwards, and of the way back. Stays the same while the node has its address.
    pub mark: u16,
    /// Its Ethernet address on the ingress network.
    pub mac: MacAddress,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
}

/// A default route of its own for marked packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkRoute {
    /// The mark.
    pub mark: u32,
    /// The routing table.
    pub table: u32,
    /// Where they go.
    pub via: IpAddr,
}

impl MeshPlan {
    /// The mesh of `node`; `None` while it has no address on the ingress network.
    pub fn of(view: &NetworkView, node: &NodeId, mtu: u32, links: &[LinkSubnet]) -> Option<Self> {
        let own = view.peers.get(node).filter(|own| !own.addresses.is_empty())?;
        let is_here = |endpoint: &&EndpointView| endpoint.node == *node;
        let remote = view.endpoints.values().filter(|endpoint| !is_here(endpoint));
        Some(Self {
            own: with_prefixes(&own.addresses, &view.subnets),
            mtu,
            links: links.to_vec(),
            peers: peers(view.peers.iter().filter(|(id, _)| *id != node)),
            routes: remote.flat_map(|endpoint| routes_to(endpoint, view)).collect(),
            stations: view.endpoints.values().filter(is_here).flat_map(stations_of).collect(),
            ports: ports(view),
        })
    }

    /// Where answers to what peers forwarded go.
    pub fn mark_routes(&self) -> BTreeSet<MarkRoute> {
        let of_peer = |peer: &MeshPeer| {
            let mark = u32::from(peer.mark);
            let route = move |via: &IpAddr| MarkRoute { mark, table: TABLES_BASE + mark, via: *via };
            peer.addresses.iter().map(route).collect::<Vec<_>>()
        };
        self.peers.values().flat_map(of_peer).collect()
    }

    /// The rules of the ingress namespace.
    pub fn table(&self) -> Table {
        let macs = || self.peers.values().map(|peer| (Key::Mac(peer.mac), peer.mark));
        let marks = macs().map(|(mac, mark)| (mac, Value::Mark(mark.into()))).collect();
        let zones = macs().map(|(mac, mark)| (mac, Value::Zone(mark))).collect();
        let peers = macs().map(|(mac, _)| (mac, Value::Nothing)).collect();
        let ports = self.ports.keys().map(|(protocol, port)| {
            (Key::Port(*protocol, *port), Value::Chain(port_chain(*protocol, *port)))
        });
        let maps = vec![
            Map { name: MARKS, kind: MapKind::MacMarks, elements: marks },
            Map { name: ZONES, kind: MapKind::MacZones, elements: zones },
            Map { name: PEERS, kind: MapKind::Macs, elements: peers },
            Map { name: PORTS, kind: MapKind::PortChains, elements: ports.collect() },
        ];
        let mut chains: Vec<_> = self
            .ports
            .iter()
            .map(|((protocol, port), backends)| Chain {
                name: port_chain(*protocol, *port),
                base: None,
                rules: port_rules(*protocol, backends),
            })
            .collect();
        chains.extend(self.base_chains());
        Table { family: Family::Inet, name: TABLE, maps, chains }
    }

    fn base_chains(&self) -> [Chain; 5] {
        let from_bridge = || Match::In(BRIDGE);
        let early = vec![Rule::when([from_bridge()], Action::ZoneOfSender(ZONES))];
        let marking = vec![
            // On every packet: a connection of before a rebuild of the namespace finds back as well.
            Rule::when([from_bridge(), Match::Original], Action::MarkOfSender(MARKS)),
            Rule::when([from_bridge(), Match::Reply, Match::MarkedAtAll], Action::MarkPacket),
        ];
        let publish = vec![Rule::when([Match::In(UPLINK)], Action::ChainOfPort(PORTS))];
        [
            Chain::base("early", Base::Early, early),
            Chain::base("marking", Base::Marking, marking),
            Chain::base("publish", Base::NatIn, publish),
            Chain::base("source", Base::NatOut, self.source_rules()),
            Chain::base("passing", Base::Forward, self.forward_rules()),
        ]
    }

    /// Clients that only this machine knows (its loopback, its bridges) come with the machine's address on the link, which
    /// means nothing elsewhere: they get the node's.
    fn source_rules(&self) -> Vec<Rule> {
        let of_link = |link: &LinkSubnet| {
            let own = self.own.iter().map(IpNet::addr).find(|own| own.is_ipv4() == link.ingress.is_ipv4())?;
            let from = Match::From(link.machine.trunc());
            Some(Rule::when([Match::Out(BRIDGE), from], Action::Source(own)))
        };
        self.links.iter().filter_map(of_link).collect()
    }

    /// From the machine to published ports, from peers to the containers of this node, and answers. A container opens no
    /// connection by way of this namespace.
    fn forward_rules(&self) -> Vec<Rule> {
        let clamp = |version, headers| {
            let bytes = u16::try_from(self.mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
            Rule::when([Match::Version(version), Match::Syn], Action::ClampSegment(bytes))
        };
        vec![
            clamp(Version::V4, HEADERS_V4),
            clamp(Version::V6, HEADERS_V6),
            Rule::when([Match::Established], Action::Accept),
            Rule::when([Match::In(UPLINK), Match::Out(BRIDGE), Match::Translated], Action::Accept),
            Rule::when([Match::In(BRIDGE), Match::Out(BRIDGE), Match::SenderIn(PEERS)], Action::Accept),
            Rule::when([Match::In(BRIDGE)], Action::Refuse),
        ]
    }

    /// The rules at the ports of the bridge: everybody speaks for itself, and to its node alone.
    pub fn port_table(&self) -> Table {
        let stations = |version| {
            let of_version = self.stations.iter().filter(move |(ip, _)| Version::of(**ip) == version);
            let key = |(ip, (link, mac)): (&IpAddr, &(String, MacAddress))| {
                (Key::Station(link.clone(), *mac, *ip), Value::Nothing)
            };
            of_version.map(key).collect()
        };
        let peers = self.peers.values().map(|peer| (Key::Mac(peer.mac), Value::Nothing)).collect();
        let maps = vec![
            Map { name: PEERS, kind: MapKind::Macs, elements: peers },
            Map { name: STATIONS, kind: MapKind::Stations(Version::V4), elements: stations(Version::V4) },
            Map { name: STATIONS6, kind: MapKind::Stations(Version::V6), elements: stations(Version::V6) },
        ];
        let ports = vec![
            Rule::when([Match::In(VXLAN), Match::SenderIn(PEERS)], Action::Accept),
            Rule::when([Match::StationIn(Version::V4, STATIONS)], Action::Accept),
            Rule::when([Match::ArpStationIn(STATIONS)], Action::Accept),
            Rule::when([Match::StationIn(Version::V6, STATIONS6)], Action::Accept),
        ];
        let chains =
            vec![Chain::base("ports", Base::Ports, ports), Chain::base("passing", Base::Passing, vec![])];
        Table { family: Family::Bridge, name: TABLE, maps, chains }
    }
}

/// The ports that some task serves, with the versions of IP that one has.
pub fn served(view: &NetworkView) -> BTreeSet<(Protocol, u16, Version)> {
    let of_port = |((protocol, port), backends): ((Protocol, u16), Vec<SocketAddr>)| {
        backends.into_iter().map(move |to| (protocol, port, Version::of(to.ip())))
    };
    ports(view).into_iter().flat_map(of_port).collect()
}

/// The ingress network as it is on a node that has no IPv6 there.
pub fn without_ipv6(mut view: NetworkView) -> NetworkView {
    view.subnets.retain(|subnet| subnet.addr().is_ipv4());
    view.gateways.retain(IpAddr::is_ipv4);
    view.peers.values_mut().for_each(|peer| peer.addresses.retain(IpAddr::is_ipv4));
    view.endpoints.values_mut().for_each(|endpoint| endpoint.addresses.retain(IpAddr::is_ipv4));
    view
}

/// The protocol and number of a port that is published on every node; `None` for one that is not, or has no number.
pub fn published(port: &PortConfig) -> Option<(Protocol, u16)> {
    let number = u16::try_from(port.published_port).ok().filter(|number| *number != 0)?;
    (port.publish_mode == PublishMode::Ingress).then(|| (protocol_of(&port.protocol), number))
}

/// Name of the chain of a published port.
pub fn port_chain(protocol: Protocol, port: u16) -> String {
    format!("{protocol}_{port}")
}

/// The rules of the chain of a published port.
pub fn port_rules(protocol: Protocol, backends: &[SocketAddr]) -> Vec<Rule> {
    let of_version = |version| {
        let to: Vec<_> = backends.iter().filter(|to| Version::of(to.ip()) == version).copied().collect();
        let action = Action::TranslatePort(protocol, to.clone());
        (!to.is_empty()).then(|| Rule::when([Match::Version(version)], action))
    };
    VERSIONS.into_iter().filter_map(of_version).collect()
}

/// Numbers follow from addresses, so that they are the same after a restart; of two nodes that would get the same one, the
/// one whose id is later gets the next that is free.
fn peers<'a>(all: impl Iterator<Item = (&'a NodeId, &'a PeerView)>) -> BTreeMap<NodeId, MeshPeer> {
    let mut taken = BTreeSet::new();
    let mut found = BTreeMap::new();
    for (id, peer) in all {
        let Some(mac) = MacAddress::of_all(&peer.addresses) else { continue };
        let [.., high, low] = mac.0;
        let first = u16::from_be_bytes([high, low]);
        let numbers = (0..=u16::MAX).map(|step| first.wrapping_add(step)).filter(|number| *number != 0);
        let mut free = numbers.filter(|number| !taken.contains(number));
        let Some(mark) = free.next() else { continue };
        taken.insert(mark);
        found.insert(id.clone(), MeshPeer { mark, mac, addresses: peer.addresses.clone() });
    }
    found
}

fn routes_to<'a>(
    endpoint: &'a EndpointView,
    view: &'a NetworkView,
) -> impl Iterator<Item = (IpAddr, IpAddr)> + 'a {
    let nodes = view.peers.get(&endpoint.node).map(|peer| peer.addresses.as_slice()).unwrap_or_default();
    endpoint.addresses.iter().filter_map(|ip| {
        let via = nodes.iter().find(|via| via.is_ipv4() == ip.is_ipv4())?;
        Some((*ip, *via))
    })
}

fn stations_of(endpoint: &EndpointView) -> Vec<(IpAddr, (String, MacAddress))> {
    let (Some(name), Some(mac)) = (port_name(&endpoint.addresses), MacAddress::of_all(&endpoint.addresses))
    else {
        return Vec::new();
    };
    endpoint.addresses.iter().map(|ip| (*ip, (name.clone(), mac))).collect()
}

fn ports(view: &NetworkView) -> BTreeMap<(Protocol, u16), Vec<SocketAddr>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let serving = view.endpoints.values().filter(|endpoint| endpoint.is_serving);
    for endpoint in serving {
        let service = endpoint.service.as_ref().and_then(|service| view.services.get(service));
        let ports = service.into_iter().flat_map(|service| &service.ports);
        for port in ports.filter(|port| port.publish_mode == PublishMode::Ingress) {
            let is_it = |own: &&PortConfig| {
                own.protocol == port.protocol && own.published_port == port.published_port
            };
            // Each task is reached at its own port; one that does not say it (of an older manager) at the service's.
            let own = endpoint.ports.iter().find(is_it);
            let Some(own) = own.or(Some(port).filter(|_| endpoint.ports.is_empty())) else { continue };
            // Out of range: refused long before it comes here.
            let (Ok(published), Ok(target)) =
                (u16::try_from(port.published_port), u16::try_from(own.target_port))
            else {
                continue;
            };
            if published == 0 || target == 0 {
                continue;
            }
            let backends = found.entry((protocol_of(&port.protocol), published)).or_default();
            backends.extend(endpoint.addresses.iter().map(|ip| SocketAddr::new(*ip, target)));
        }
    }
    for backends in found.values_mut() {
        backends.sort_unstable();
        backends.dedup();
    }
    found
}

fn protocol_of(protocol: &PortProtocol) -> Protocol {
    match protocol {
        PortProtocol::Tcp => Protocol::Tcp,
        PortProtocol::Udp => Protocol::Udp,
        PortProtocol::Sctp => Protocol::Sctp,
    }
}

/// What a container with published ports needs in its own namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSide {
    /// Name of its interface on the ingress network.
    pub link: String,
    /// Its addresses there, with the length of their networks.
    pub own: Vec<IpNet>,
    /// The node's addresses there.
    pub node: Vec<IpAddr>,
    /// Its addresses on other networks, with the length of their networks.
    pub others: Vec<IpNet>,
    /// The addresses that it has when it talks to the world: of the interface with the default route, one per version.
    pub outward: Vec<IpAddr>,
}

impl TaskSide {
    /// Where answers to what came in by the ingress network go.
    pub fn mark_routes(&self) -> BTreeSet<MarkRoute> {
        let route = |via: IpAddr| MarkRoute { mark: TASK_MARK, table: TASK_TABLE, via };
        self.reachable().map(route).collect()
    }

    /// Next hops for everything, of the versions that have no other way out: without a route the kernel would not even begin
    /// to answer. Connections that the container opens that way are refused by its node.
    pub fn last_resorts(&self) -> Vec<IpAddr> {
        let has_way_out = |via: &IpAddr| self.outward.iter().any(|ip| ip.is_ipv4() == via.is_ipv4());
        self.reachable().filter(|via| !has_way_out(via)).collect()
    }

    /// The node's addresses of the versions that the container has.
    fn reachable(&self) -> impl Iterator<Item = IpAddr> {
        let has = |via: &&IpAddr| self.own.iter().any(|own| own.addr().is_ipv4() == via.is_ipv4());
        self.node.iter().filter(has).copied()
    }

    /// The rules. A server that answers with datagrams of its own (an unconnected one) sends them from the address that the
    /// kernel picks for the client. What comes in is therefore translated to just that address, and its answers back.
    pub fn table(&self) -> Table {
        let come_in = || Match::InNamed(self.link.clone());
        let marking = vec![Rule::when([come_in(), Match::Original], Action::MarkConnection(TASK_MARK))];
        // Who is on the ingress network (a node, for clients that only it knows) is answered from the address there.
        let near =
            self.own.iter().map(|own| Rule::when([come_in(), Match::From(own.trunc())], Action::Accept));
        let mut others = self.others.clone();
        others.sort_unstable_by_key(|other| (std::cmp::Reverse(other.prefix_len()), *other));
        let on_link = others.iter().map(|other| {
            Rule::when([come_in(), Match::From(other.trunc())], Action::Translate(vec![other.addr()]))
        });
        let outward = self.outward.iter().map(|ip| {
            Rule::when([come_in(), Match::Version(Version::of(*ip))], Action::Translate(vec![*ip]))
        });
        let answering = near.chain(on_link).chain(outward).collect();
        let back = vec![Rule::when([Match::Marked(TASK_MARK)], Action::MarkPacket)];
        let chains = vec![
            Chain::base("marking", Base::Marking, marking),
            Chain::base("answering", Base::NatIn, answering),
            Chain::base("back", Base::Reroute, back),
        ];
        Table { family: Family::Inet, name: TABLE, maps: Vec::new(), chains }
    }
}

#[cfg(test)]
mod tests;

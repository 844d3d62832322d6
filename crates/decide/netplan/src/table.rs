//! A table of rules as a value, in the words of nft.
//!
//! In: chains, maps and rules that other modules decide on. Out: the same as text that `nft -f` reads, for logs and tests;
//! `host/network` encodes it. Decides nothing.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::overlay::MacAddress;
use crate::port::Protocol;

/// A table of its own; what it holds replaces what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What its chains see.
    pub family: Family,
    /// Its name, unique per family and namespace.
    pub name: &'static str,
    /// Maps and sets.
    pub maps: Vec<Map>,
    /// A chain comes before those that lead to it.
    pub chains: Vec<Chain>,
}

/// What chains of a table see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Packets of both IP versions.
    Inet,
    /// Frames that pass a bridge.
    Bridge,
}

/// A map, or a set when its elements have no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Unique in the table.
    pub name: &'static str,
    /// What its elements are.
    pub kind: MapKind,
    /// No key twice.
    pub elements: Vec<(Key, Value)>,
}

/// What a map leads from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapKind {
    /// From an address of one version to a chain.
    AddressChains(Version),
    /// A set of addresses of one version.
    Addresses(Version),
    /// From protocol and port to a chain.
    PortChains,
    /// From an Ethernet address to a mark.
    MacMarks,
    /// From an Ethernet address to a zone of connection tracking.
    MacZones,
    /// A set of Ethernet addresses.
    Macs,
    /// A set of who may speak at which port of a bridge.
    Stations(Version),
}

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// An address.
    Address(IpAddr),
    /// A protocol and a port.
    Port(Protocol, u16),
    /// An Ethernet address.
    Mac(MacAddress),
    /// A link, its Ethernet address, its address.
    Station(String, MacAddress, IpAddr),
}

/// A value of a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Of a set.
    Nothing,
    /// It goes on in that chain.
    Chain(String),
    /// A mark.
    Mark(u32),
    /// A zone.
    Zone(u16),
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Unique in the table.
    pub name: String,
    /// Where the kernel enters it; `None` when only other chains do.
    pub base: Option<Base>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where the kernel enters a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Before connection tracking.
    Early,
    /// After it, before anything is translated.
    Marking,
    /// Destination translation of what comes in.
    NatIn,
    /// Destination translation of what this namespace sends.
    NatLocal,
    /// Source translation.
    NatOut,
    /// What passes through; what no rule accepts is dropped.
    Forward,
    /// What this namespace sends, after translation.
    Output,
    /// What this namespace sends, to be routed again when its mark changes.
    Reroute,
    /// Frames that come in by a port of a bridge; what no rule accepts is dropped.
    Ports,
    /// Frames from one port of a bridge to another; what no rule accepts is dropped.
    Passing,
}

/// A rule: when everything matches, the action happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All of them have to hold.
    pub matches: Vec<Match>,
    /// What happens then.
    pub action: Action,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Came in by this link.
    In(&'static str),
    /// Came in by this link of a container.
    InNamed(String),
    /// Leaves by this link.
    Out(&'static str),
    /// A packet of this version.
    Version(Version),
    /// From this network.
    From(IpNet),
    /// To an address in this set.
    ToOneOf(Version, &'static str),
    /// Of a connection that both sides know, or an error about one.
    Established,
    /// Of a connection whose destination was translated.
    Translated,
    /// The way that the connection's first packet went.
    Original,
    /// The way back.
    Reply,
    /// Of a connection with this mark.
    Marked(u32),
    /// Of a connection with any mark.
    MarkedAtAll,
    /// TCP that opens a connection, or answers to that.
    Syn,
    /// The frame's sender is in this set.
    SenderIn(&'static str),
    /// Link, sender and address of the frame's packet are in this set.
    StationIn(Version, &'static str),
    /// Link, sender and address of the frame's ARP message are in this set.
    ArpStationIn(&'static str),
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Our table has nothing against it.
    Accept,
    /// It is dropped.
    Drop,
    /// It is answered by ICMP port unreachable.
    Refuse,
    /// It goes on in the chain that the map names for its destination.
    ChainOfDestination(Version, &'static str),
    /// It goes on in the chain that the map names for its protocol and port.
    ChainOfPort(&'static str),
    /// The way there is tracked in the zone that the map names for the frame's sender.
    ZoneOfSender(&'static str),
    /// The connection gets the mark that the map names for the frame's sender.
    MarkOfSender(&'static str),
    /// The connection gets this mark.
    MarkConnection(u32),
    /// The packet gets the mark of its connection.
    MarkPacket,
    /// It goes to these addresses in turn, connection by connection; the port stays. At least one, all of one version.
    Translate(Vec<IpAddr>),
    /// It goes to these addresses and ports in turn, connection by connection. At least one, all of one version.
    TranslatePort(Protocol, Vec<SocketAddr>),
    /// It comes from this address.
    Source(IpAddr),
    /// A TCP segment has at most so many bytes.
    ClampSegment(u16),
}

impl Version {
    /// The version of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl Rule {
    /// A rule that asks for nothing.
    pub fn always(action: Action) -> Self {
        Self { matches: Vec::new(), action }
    }

    /// A rule with conditions.
    pub fn when(matches: impl Into<Vec<Match>>, action: Action) -> Self {
        Self { matches: matches.into(), action }
    }
}

impl Chain {
    /// A chain that the kernel enters.
    pub fn base(name: &str, base: Base, rules: Vec<Rule>) -> Self {
        Self { name: name.to_owned(), base: Some(base), rules }
    }
}

/// Text for a chain's name that is the same for no two addresses; nft's grammar knows no colon there.
pub fn name_part(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("{:032x}", ip.to_bits()),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Inet => "inet",
            Family::Bridge => "bridge",
        };
        writeln!(f, "table {family} {} {{", self.name)?;
        self.maps.iter().try_for_each(|map| map.fmt(f))?;
        self.chains.iter().try_for_each(|chain| chain.fmt(f))?;
        writeln!(f, "}}")
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |version| if version == Version::V4 { "ipv4_addr" } else { "ipv6_addr" };
        let (noun, kind) = match self.kind {
            MapKind::AddressChains(version) => ("map", format!("type {} : verdict", address(version))),
            MapKind::Addresses(version) => ("set", format!("type {}", address(version))),
            MapKind::PortChains => ("map", "type inet_proto . inet_service : verdict".to_owned()),
            MapKind::MacMarks => ("map", "type ether_addr : mark".to_owned()),
            MapKind::MacZones => ("map", "typeof ether saddr : ct zone".to_owned()),
            MapKind::Macs => ("set", "type ether_addr".to_owned()),
            MapKind::Stations(version) => ("set", format!("type ifname . ether_addr . {}", address(version))),
        };
        writeln!(f, "  {noun} {} {{\n    {kind}", self.name)?;
        if !self.elements.is_empty() {
            let elements: Vec<_> = self.elements.iter().map(|(key, value)| format!("{key}{value}")).collect();
            writeln!(f, "    elements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(f, "  }}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => ip.fmt(f),
            Self::Port(protocol, port) => write!(f, "{protocol} . {port}"),
            Self::Mac(mac) => mac.fmt(f),
            Self::Station(link, mac, ip) => write!(f, "{link} . {mac} . {ip}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Chain(name) => write!(f, " : goto {name}"),
            Self::Mark(mark) => write!(f, " : {mark}"),
            Self::Zone(zone) => write!(f, " : {zone}"),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  chain {} {{", self.name)?;
        if let Some(base) = self.base {
            writeln!(f, "    {base}")?;
        }
        for rule in &self.rules {
            f.write_str("    ")?;
            for condition in &rule.matches {
                write!(f, "{condition} ")?;
            }
            writeln!(f, "{}", rule.action)?;
        }
        writeln!(f, "  }}")
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Early => "type filter hook prerouting priority -300; policy accept;",
            Self::Marking => "type filter hook prerouting priority -150; policy accept;",
            Self::NatIn => "type nat hook prerouting priority -100; policy accept;",
            Self::NatLocal => "type nat hook output priority -100; policy accept;",
            Self::NatOut => "type nat hook postrouting priority 100; policy accept;",
            Self::Forward => "type filter hook forward priority 0; policy drop;",
            Self::Output => "type filter hook output priority 0; policy accept;",
            Self::Reroute => "type route hook output priority -150; policy accept;",
            Self::Ports => "type filter hook prerouting priority -300; policy drop;",
            Self::Passing => "type filter hook forward priority 0; policy drop;",
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        })
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(link) => write!(f, "iifname {link}"),
            Self::InNamed(link) => write!(f, "iifname {link}"),
            Self::Out(link) => write!(f, "oifname {link}"),
            Self::Version(Version::V4) => f.write_str("meta nfproto ipv4"),
            Self::Version(Version::V6) => f.write_str("meta nfproto ipv6"),
            Self::From(network) => write!(f, "{} saddr {network}", Version::of(network.addr())),
            Self::ToOneOf(version, set) => write!(f, "{version} daddr @{set}"),
            Self::Established => f.write_str("ct state established,related"),
            Self::Translated => f.write_str("ct status dnat"),
            Self::Original => f.write_str("ct direction original"),
            Self::Reply => f.write_str("ct direction reply"),
            Self::Marked(mark) => write!(f, "ct mark {mark}"),
            Self::MarkedAtAll => f.write_str("ct mark != 0"),
            Self::Syn => f.write_str("tcp flags syn"),
            Self::SenderIn(set) => write!(f, "ether saddr @{set}"),
            Self::StationIn(version, set) => {
                write!(f, "ether type {version} iifname . ether saddr . {version} saddr @{set}")
            }
            Self::ArpStationIn(set) => {
                write!(f, "ether type arp iifname . arp saddr ether . arp saddr ip @{set}")
            }
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Refuse => f.write_str("reject with icmpx port-unreachable"),
            Self::ChainOfDestination(version, map) => write!(f, "{version} daddr vmap @{map}"),
            Self::ChainOfPort(map) => write!(f, "meta l4proto . th dport vmap @{map}"),
            Self::ZoneOfSender(map) => write!(f, "ct original zone set ether saddr map @{map}"),
            Self::MarkOfSender(map) => write!(f, "ct mark set ether saddr map @{map}"),
            Self::MarkConnection(mark) => write!(f, "ct mark set {mark}"),
            Self::MarkPacket => f.write_str("meta mark set ct mark"),
            Self::Translate(to) => {
                let version = to.first().map_or(Version::V4, |ip| Version::of(*ip));
                write!(f, "dnat {version} to {}", in_turn(to, ToString::to_string, ToString::to_string))
            }
            Self::TranslatePort(protocol, to) => {
                let version = to.first().map_or(Version::V4, |to| Version::of(to.ip()));
                let pair = |to: &SocketAddr| format!("{} . {}", to.ip(), to.port());
                let to = in_turn(to, ToString::to_string, pair);
                write!(f, "meta l4proto {protocol} dnat {version} to {to}")
            }
            Self::Source(ip) => write!(f, "snat {} to {ip}", Version::of(*ip)),
            Self::ClampSegment(bytes) => write!(f, "tcp option maxseg size set {bytes}"),
        }
    }
}

fn in_turn<T>(all: &[T], alone: impl Fn(&T) -> String, in_map: impl Fn(&T) -> String) -> String {
    if let [only] = all {
        return alone(only);
    }
    let turns: Vec<_> = all.iter().enumerate().map(|(turn, to)| format!("{turn} : {}", in_map(to))).collect();
    format!("numgen inc mod {} map {{ {} }}", all.len(), turns.join(", "))
}

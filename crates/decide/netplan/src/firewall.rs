//! Decides the rules that bridges need, as values.
//!
//! In: bridges with their subnets. Out: chains in the order of their making; ports are looked up in maps that
//! `host/network` fills. The rules see only packets of our bridges and packets to published ports. Never names a port.
//!
//! ```text
//!  prerouting, output ─► publish ─► (map) chain of the port ─► dnat to a backend
//!  forward: internal to elsewhere ─► drop; established, same bridge, dnat ─► accept; anything else into a bridge ─► drop
//!  postrouting: leaving, hairpin, from 127/8 ─► masquerade
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::port::HostPort;

/// The chain that looks up published ports.
pub const PUBLISH: &str = "publish";
/// The chain that answers connections to ports without backends.
pub const REFUSE: &str = "refuse";
const LOOPBACK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
const LOOPBACK6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128));

/// A bridge whose containers are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its link.
    pub name: String,
    /// Its containers' addresses.
    pub subnets: Vec<IpNet>,
    /// Nothing leaves it or comes in from elsewhere.
    pub is_internal: bool,
    /// Its containers talk to each other.
    pub joins_containers: bool,
    /// Its containers show themselves outside with the machine's address.
    pub masquerades: bool,
}

/// The machine's link to the ingress namespace, through which ports that a swarm publishes are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The machine's end.
    pub name: String,
    /// What stands for clients of IPv4 that only this machine knows: its own address in the swarm.
    pub machine: Ipv4Addr,
    /// The same for IPv6: its address on the link. `None` while the link has no IPv6.
    pub machine6: Option<Ipv6Addr>,
}

/// The rules of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// A chain comes before those that lead to it.
    pub chains: Vec<Chain>,
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Unique in the table.
    pub name: &'static str,
    /// Where the kernel enters it; `None` when only other chains do.
    pub base: Option<Base>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where the kernel enters a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Before connection tracking.
    Raw,
    /// Destination translation of what comes in.
    NatIn,
    /// Destination translation of what this machine sends.
    NatLocal,
    /// Source translation.
    NatOut,
    /// What passes through.
    Forward,
    /// What is for this machine.
    Input,
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
    In(String),
    /// Leaves by this link.
    Out(String),
    /// Leaves by any other link.
    NotOut(String),
    /// Came in by any other link.
    NotIn(String),
    /// From this network.
    From(IpNet),
    /// To this network.
    To(IpNet),
    /// To any address of this machine.
    ToLocal,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Of a connection that both sides know, or an error about one.
    Established,
    /// The first packet of a connection.
    New,
    /// Of a connection whose destination was translated.
    Translated,
    /// TCP.
    Tcp,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Our table has nothing against it.
    Accept,
    /// It is dropped.
    Drop,
    /// It goes through another chain.
    Jump(&'static str),
    /// It gets the sender address of the link it leaves by.
    Masquerade,
    /// It gets this sender address.
    Source(IpAddr),
    /// It goes on in the chain that the map of published (address, protocol, port) names.
    PublishedAt,
    /// It goes on in the chain that the map of published (protocol, port) names.
    Published,
    /// The same for IPv6.
    Published6,
    /// It goes on in [`REFUSE`] if its (protocol, port) has no backends.
    RefuseUnserved,
    /// The same for IPv6.
    RefuseUnserved6,
    /// It is answered by a reset.
    Reset,
    /// It is answered by ICMP port unreachable.
    Unreachable,
}

/// Name of the chain that holds a published port's rule, `tcp_8080` or `udp_127.0.0.1_53`.
pub fn port_chain(host: &HostPort) -> String {
    match host.ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => format!("{}_{}", host.protocol, host.port),
        IpAddr::V4(ip) => format!("{}_{}_{}", host.protocol, ip, host.port),
        // nft's grammar knows no colon in names.
        IpAddr::V6(ip) => format!("{}_{:032x}_{}", host.protocol, ip.to_bits(), host.port),
    }
}

impl Firewall {
    /// The rules for these bridges, and for the link to the ingress namespace if there is one.
    pub fn of(bridges: &[Bridge], uplink: Option<&Uplink>) -> Self {
        let publish = Chain {
            name: PUBLISH,
            base: None,
            rules: vec![
                Rule { matches: vec![Match::Ipv4], action: Action::PublishedAt },
                Rule { matches: vec![Match::Ipv4], action: Action::Published },
                Rule { matches: vec![Match::Ipv6], action: Action::Published6 },
            ],
        };
        let to_publish = || vec![Rule { matches: vec![Match::ToLocal], action: Action::Jump(PUBLISH) }];
        let each = |rules: fn(&Bridge) -> Vec<Rule>| bridges.iter().flat_map(rules).collect::<Vec<_>>();
        let mut forward = each(enclosing_rules);
        forward.push(Rule { matches: vec![Match::Established], action: Action::Accept });
        forward.extend(each(forward_rules));
        forward.extend(uplink.into_iter().flat_map(|uplink| entering_rules(&uplink.name)));
        let mut raw = each(loopback_rules);
        raw.extend(uplink.into_iter().flat_map(|uplink| loopback_rules_of(&uplink.name)));
        // Before the masquerading: it would give them an address that no other machine knows.
        let mut leaving: Vec<_> =
            uplink.into_iter().flat_map(|uplink| source_rules(uplink, bridges)).collect();
        leaving.extend(each(masquerade_rules));
        let chains = vec![
            publish,
            refuse(),
            Chain { name: "raw", base: Some(Base::Raw), rules: raw },
            Chain { name: "prerouting", base: Some(Base::NatIn), rules: to_publish() },
            Chain { name: "output", base: Some(Base::NatLocal), rules: to_publish() },
            Chain { name: "postrouting", base: Some(Base::NatOut), rules: leaving },
            Chain { name: "forward", base: Some(Base::Forward), rules: forward },
            Chain {
                name: "input",
                base: Some(Base::Input),
                rules: vec![
                    Rule { matches: vec![Match::New, Match::Ipv4], action: Action::RefuseUnserved },
                    Rule { matches: vec![Match::New, Match::Ipv6], action: Action::RefuseUnserved6 },
                ],
            },
        ];
        Self { chains }
    }
}

fn refuse() -> Chain {
    let rules = vec![
        Rule { matches: vec![Match::Tcp], action: Action::Reset },
        Rule { matches: vec![], action: Action::Unreachable },
    ];
    Chain { name: REFUSE, base: None, rules }
}

/// The bridge lets packets with loopback addresses pass (`route_localnet`), so that this machine reaches published ports
/// through 127.0.0.1. A container must not use that to reach what listens on this machine's loopback.
fn loopback_rules(bridge: &Bridge) -> Vec<Rule> {
    loopback_rules_of(&bridge.name)
}

fn loopback_rules_of(link: &str) -> Vec<Rule> {
    let come_in = || Match::In(link.to_owned());
    vec![
        Rule { matches: vec![come_in(), Match::To(LOOPBACK)], action: Action::Drop },
        Rule { matches: vec![come_in(), Match::From(LOOPBACK)], action: Action::Drop },
    ]
}

/// Tasks anywhere see the client's own address. Addresses of the machine's loopback and of its bridges mean something on it
/// alone: the machine's address stands for them.
fn source_rules(uplink: &Uplink, bridges: &[Bridge]) -> Vec<Rule> {
    let subnets = bridges.iter().flat_map(|bridge| &bridge.subnets).copied();
    let leave = |from: IpNet| {
        let machine = match from {
            IpNet::V4(_) => uplink.machine.into(),
            IpNet::V6(_) => uplink.machine6?.into(),
        };
        let matches = vec![Match::From(from), Match::Out(uplink.name.clone())];
        Some(Rule { matches, action: Action::Source(machine) })
    };
    [LOOPBACK, LOOPBACK6].into_iter().chain(subnets).filter_map(leave).collect()
}

/// Only published ports lead into the ingress namespace.
fn entering_rules(link: &str) -> Vec<Rule> {
    let out = || Match::Out(link.to_owned());
    vec![
        Rule { matches: vec![out(), Match::Translated], action: Action::Accept },
        Rule { matches: vec![out()], action: Action::Drop },
    ]
}

/// Outside clients keep their address. Two kinds of clients cannot: one with a loopback address, to which no container
/// could answer, and one on the same bridge, which would get the answer directly and not know its sender.
fn masquerade_rules(bridge: &Bridge) -> Vec<Rule> {
    let out = || Match::Out(bridge.name.clone());
    let mut rules = vec![Rule { matches: vec![Match::From(LOOPBACK), out()], action: Action::Masquerade }];
    for subnet in &bridge.subnets {
        if subnet.addr().is_ipv4() {
            let hairpin = vec![Match::From(*subnet), out(), Match::Translated];
            rules.push(Rule { matches: hairpin, action: Action::Masquerade });
        }
        if bridge.masquerades && !bridge.is_internal {
            let leaving = vec![Match::From(*subnet), Match::NotOut(bridge.name.clone())];
            rules.push(Rule { matches: leaving, action: Action::Masquerade });
        }
    }
    rules
}

/// An internal network has no way in or out, not even for what was under way when it became one's only network.
fn enclosing_rules(bridge: &Bridge) -> Vec<Rule> {
    if !bridge.is_internal {
        return Vec::new();
    }
    let name = || bridge.name.clone();
    vec![
        Rule { matches: vec![Match::In(name()), Match::NotOut(name())], action: Action::Drop },
        Rule { matches: vec![Match::NotIn(name()), Match::Out(name())], action: Action::Drop },
    ]
}

fn forward_rules(bridge: &Bridge) -> Vec<Rule> {
    let out = || Match::Out(bridge.name.clone());
    // With br_netfilter, frames between two containers of one bridge come through here as well. Ports of a bridge whose
    // containers don't talk to each other are isolated besides; what is left for the rule goes by way of the gateway.
    let inside = match bridge.joins_containers {
        true => Action::Accept,
        false => Action::Drop,
    };
    let mut rules = vec![
        Rule { matches: vec![Match::In(bridge.name.clone()), out()], action: inside },
        Rule { matches: vec![out(), Match::Translated], action: Action::Accept },
        Rule { matches: vec![out()], action: Action::Drop },
    ];
    if !bridge.joins_containers {
        // A published port is published for everybody.
        rules.swap(0, 1);
    }
    rules
}

impl fmt::Display for Firewall {
    /// In nft's words, for logs and tests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chain in &self.chains {
            match chain.base {
                Some(base) => writeln!(f, "{} ({base:?})", chain.name)?,
                None => writeln!(f, "{}", chain.name)?,
            }
            for rule in &chain.rules {
                f.write_str("  ")?;
                for condition in &rule.matches {
                    write!(f, "{condition} ")?;
                }
                writeln!(f, "{}", rule.action)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(link) => write!(f, "iifname {link}"),
            Self::Out(link) => write!(f, "oifname {link}"),
            Self::NotOut(link) => write!(f, "oifname != {link}"),
            Self::NotIn(link) => write!(f, "iifname != {link}"),
            Self::From(IpNet::V4(network)) => write!(f, "ip saddr {network}"),
            Self::From(IpNet::V6(network)) => write!(f, "ip6 saddr {network}"),
            Self::To(IpNet::V4(network)) => write!(f, "ip daddr {network}"),
            Self::To(IpNet::V6(network)) => write!(f, "ip6 daddr {network}"),
            Self::ToLocal => f.write_str("fib daddr type local"),
            Self::Ipv4 => f.write_str("meta nfproto ipv4"),
            Self::Ipv6 => f.write_str("meta nfproto ipv6"),
            Self::Established => f.write_str("ct state established,related"),
            Self::New => f.write_str("ct state new"),
            Self::Translated => f.write_str("ct status dnat"),
            Self::Tcp => f.write_str("meta l4proto tcp"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Source(IpAddr::V4(ip)) => write!(f, "snat ip to {ip}"),
            Self::Source(IpAddr::V6(ip)) => write!(f, "snat ip6 to {ip}"),
            Self::PublishedAt => f.write_str("ip daddr . meta l4proto . th dport vmap @published_at"),
            Self::Published => f.write_str("meta l4proto . th dport vmap @published"),
            Self::Published6 => f.write_str("meta l4proto . th dport vmap @published6"),
            Self::RefuseUnserved => f.write_str("meta l4proto . th dport vmap @unserved"),
            Self::RefuseUnserved6 => f.write_str("meta l4proto . th dport vmap @unserved6"),
            Self::Reset => f.write_str("reject with tcp reset"),
            Self::Unreachable => f.write_str("reject with icmpx port-unreachable"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Protocol;

    #[test]
    fn the_rules_of_one_bridge_are_these() {
        let bridge = bridge("skep0", "172.17.0.0/16");
        let expect = "\
publish
  meta nfproto ipv4 ip daddr . meta l4proto . th dport vmap @published_at
  meta nfproto ipv4 meta l4proto . th dport vmap @published
  meta nfproto ipv6 meta l4proto . th dport vmap @published6
refuse
  meta l4proto tcp reject with tcp reset
  reject with icmpx port-unreachable
raw (Raw)
  iifname skep0 ip daddr 127.0.0.0/8 drop
  iifname skep0 ip saddr 127.0.0.0/8 drop
prerouting (NatIn)
  fib daddr type local jump publish
output (NatLocal)
  fib daddr type local jump publish
postrouting (NatOut)
  ip saddr 127.0.0.0/8 oifname skep0 masquerade
  ip saddr 172.17.0.0/16 oifname skep0 ct status dnat masquerade
  ip saddr 172.17.0.0/16 oifname != skep0 masquerade
forward (Forward)
  ct state established,related accept
  iifname skep0 oifname skep0 accept
  oifname skep0 ct status dnat accept
  oifname skep0 drop
input (Input)
  ct state new meta nfproto ipv4 meta l4proto . th dport vmap @unserved
  ct state new meta nfproto ipv6 meta l4proto . th dport vmap @unserved6
";
        assert_eq!(Firewall::of(&[bridge], None).to_string(), expect);
    }

    fn bridge(name: &str, subnet: &str) -> Bridge {
        Bridge {
            name: name.into(),
            subnets: subnet.split(' ').map(|subnet| subnet.parse().unwrap()).collect(),
            is_internal: false,
            joins_containers: true,
            masquerades: true,
        }
    }

    /// The rules of the chains `forward` and `postrouting`.
    fn rules_of(bridges: &[Bridge], chain: &str) -> String {
        let mut firewall = Firewall::of(bridges, None);
        firewall.chains.retain(|found| found.name == chain);
        firewall.to_string().lines().skip(1).map(|line| format!("{}\n", line.trim())).collect()
    }

    #[test]
    fn bridges_are_kept_apart_and_internal_ones_closed() {
        let inside = Bridge { is_internal: true, ..bridge("in0", "10.1.0.0/24") };
        let expect = "\
iifname in0 oifname != in0 drop
iifname != in0 oifname in0 drop
ct state established,related accept
iifname a0 oifname a0 accept
oifname a0 ct status dnat accept
oifname a0 drop
iifname in0 oifname in0 accept
oifname in0 ct status dnat accept
oifname in0 drop
";
        let bridges = [bridge("a0", "10.0.0.0/24 fd00::/64"), inside];
        assert_eq!(rules_of(&bridges, "forward"), expect);
        let masqueraded = rules_of(&bridges, "postrouting");
        assert!(masqueraded.contains("ip6 saddr fd00::/64 oifname != a0 masquerade"));
        assert!(masqueraded.contains("ip saddr 10.0.0.0/24 oifname != a0 masquerade"));
        assert!(!masqueraded.contains("ip saddr 10.1.0.0/24 oifname != in0"));
    }

    #[test]
    fn containers_that_do_not_talk_to_each_other_still_reach_published_ports() {
        let apart = Bridge { joins_containers: false, masquerades: false, ..bridge("gw0", "10.0.0.0/24") };
        let expect = "\
ct state established,related accept
oifname gw0 ct status dnat accept
iifname gw0 oifname gw0 drop
oifname gw0 drop
";
        let bridges = [apart];
        assert_eq!(rules_of(&bridges, "forward"), expect);
        assert!(!rules_of(&bridges, "postrouting").contains("!="));
    }

    #[test]
    fn clients_that_only_this_machine_knows_enter_the_mesh_with_its_addresses() {
        let mut uplink = Uplink {
            name: "up".into(),
            machine: [192, 0, 2, 1].into(),
            machine6: Some("fd73::1".parse().unwrap()),
        };
        let bridges = [bridge("a0", "10.0.0.0/24 fd00::/64")];
        let leaving = |uplink: &Uplink| {
            let mut firewall = Firewall::of(&bridges, Some(uplink));
            firewall.chains.retain(|chain| chain.name == "postrouting");
            let text = firewall.to_string();
            text.lines()
                .filter(|line| line.contains("snat"))
                .map(|line| format!("{}\n", line.trim()))
                .collect::<String>()
        };
        let expect = "\
ip saddr 127.0.0.0/8 oifname up snat ip to 192.0.2.1
ip6 saddr ::1/128 oifname up snat ip6 to fd73::1
ip saddr 10.0.0.0/24 oifname up snat ip to 192.0.2.1
ip6 saddr fd00::/64 oifname up snat ip6 to fd73::1
";
        assert_eq!(leaving(&uplink), expect);
        uplink.machine6 = None;
        assert!(!leaving(&uplink).contains("ip6"), "without IPv6 on the link there is nothing to translate");
    }

    #[test]
    fn every_place_has_a_chain_name_of_its_own_that_nft_can_read() {
        let names = ["0.0.0.0", "127.0.0.1", "::", "::1"]
            .map(|ip| port_chain(&HostPort { protocol: Protocol::Tcp, ip: ip.parse().unwrap(), port: 80 }));
        assert_eq!(names[0], "tcp_80");
        assert_eq!(names[1], "tcp_127.0.0.1_80");
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        assert!(names.iter().all(|name| !name.contains(':') && name.len() < 128));
    }
}

//! Decides the rules that bridges need, as values.
//!
//! In: bridges with their subnets. Out: chains in the order of their making; ports are looked up in maps that
//! `host/network` fills. The rules see only packets of our bridges and packets to published ports. Never names a port.
//!
//! ```text
//!  prerouting, output ─► publish ─► (map) chain of the port ─► dnat to a backend
//!  forward: established, same bridge, dnat ─► accept; anything else into a bridge ─► drop
//!  postrouting: leaving, hairpin, from 127/8 ─► masquerade
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::port::HostPort;

/// The chain that looks up published ports.
pub const PUBLISH: &str = "publish";
/// The chain that answers connections to ports without backends.
pub const REFUSE: &str = "refuse";
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// A bridge whose containers are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its link.
    pub name: String,
    /// Its containers' addresses.
    pub subnet: Ipv4Net,
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
    /// IPv4 from this network.
    From(Ipv4Net),
    /// IPv4 to this network.
    To(Ipv4Net),
    /// To any address of this machine.
    ToLocal,
    /// IPv4.
    Ipv4,
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
    /// It goes on in the chain that the map of published (address, protocol, port) names.
    PublishedAt,
    /// It goes on in the chain that the map of published (protocol, port) names.
    Published,
    /// It goes on in [`REFUSE`] if its (protocol, port) has no backends.
    RefuseUnserved,
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
    /// The rules for these bridges.
    pub fn of(bridges: &[Bridge]) -> Self {
        let publish = Chain {
            name: PUBLISH,
            base: None,
            rules: vec![
                Rule { matches: vec![Match::Ipv4], action: Action::PublishedAt },
                Rule { matches: vec![Match::Ipv4], action: Action::Published },
            ],
        };
        let to_publish = || vec![Rule { matches: vec![Match::ToLocal], action: Action::Jump(PUBLISH) }];
        let each = |rules: fn(&Bridge) -> Vec<Rule>| bridges.iter().flat_map(rules).collect::<Vec<_>>();
        let mut forward = vec![Rule { matches: vec![Match::Established], action: Action::Accept }];
        forward.extend(each(forward_rules));
        let chains = vec![
            publish,
            refuse(),
            Chain { name: "raw", base: Some(Base::Raw), rules: each(loopback_rules) },
            Chain { name: "prerouting", base: Some(Base::NatIn), rules: to_publish() },
            Chain { name: "output", base: Some(Base::NatLocal), rules: to_publish() },
            Chain { name: "postrouting", base: Some(Base::NatOut), rules: each(masquerade_rules) },
            Chain { name: "forward", base: Some(Base::Forward), rules: forward },
            Chain {
                name: "input",
                base: Some(Base::Input),
                rules: vec![Rule { matches: vec![Match::New, Match::Ipv4], action: Action::RefuseUnserved }],
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
    let from_bridge = || Match::In(bridge.name.clone());
    vec![
        Rule { matches: vec![from_bridge(), Match::To(LOOPBACK)], action: Action::Drop },
        Rule { matches: vec![from_bridge(), Match::From(LOOPBACK)], action: Action::Drop },
    ]
}

/// Outside clients keep their address. Two kinds of clients cannot: one with a loopback address, to which no container
/// could answer, and one on the same bridge, which would get the answer directly and not know its sender.
fn masquerade_rules(bridge: &Bridge) -> Vec<Rule> {
    let out = || Match::Out(bridge.name.clone());
    let from_bridge = || Match::From(bridge.subnet);
    vec![
        Rule { matches: vec![Match::From(LOOPBACK), out()], action: Action::Masquerade },
        Rule { matches: vec![from_bridge(), out(), Match::Translated], action: Action::Masquerade },
        Rule { matches: vec![from_bridge(), Match::NotOut(bridge.name.clone())], action: Action::Masquerade },
    ]
}

fn forward_rules(bridge: &Bridge) -> Vec<Rule> {
    let out = || Match::Out(bridge.name.clone());
    vec![
        // With br_netfilter, frames between two containers of one bridge come through here as well.
        Rule { matches: vec![Match::In(bridge.name.clone()), out()], action: Action::Accept },
        Rule { matches: vec![out(), Match::Translated], action: Action::Accept },
        Rule { matches: vec![out()], action: Action::Drop },
    ]
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
            Self::From(network) => write!(f, "ip saddr {network}"),
            Self::To(network) => write!(f, "ip daddr {network}"),
            Self::ToLocal => f.write_str("fib daddr type local"),
            Self::Ipv4 => f.write_str("meta nfproto ipv4"),
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
            Self::PublishedAt => f.write_str("ip daddr . meta l4proto . th dport vmap @published_at"),
            Self::Published => f.write_str("meta l4proto . th dport vmap @published"),
            Self::RefuseUnserved => f.write_str("meta l4proto . th dport vmap @unserved"),
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
        let bridge = Bridge { name: "skep0".into(), subnet: "172.17.0.0/16".parse().unwrap() };
        let expect = "\
publish
  meta nfproto ipv4 ip daddr . meta l4proto . th dport vmap @published_at
  meta nfproto ipv4 meta l4proto . th dport vmap @published
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
";
        assert_eq!(Firewall::of(&[bridge]).to_string(), expect);
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

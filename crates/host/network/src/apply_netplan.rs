//! Turns a netplan into nf_tables transactions.
//!
//! In: the rules of all bridges, published ports, changes of ports. Out: one transaction each: the whole table anew, or
//! only the chains and map elements of the ports that changed. Never looks at what is in the kernel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netlink::nft::{
    BaseChain, Batch, ChainKind, CtState, Direction, Family, Hook, IpField, MapKey, MapValue, Rule, Verdict,
};
use netplan::firewall::{self, Action, Base, Firewall, Match};
use netplan::{Backend, HostPort, PortChange, Protocol};

const PUBLISHED: &str = "published";
const PUBLISHED_AT: &str = "published_at";
const UNSERVED: &str = "unserved";
const PUBLISHED6: &str = "published6";
const UNSERVED6: &str = "unserved6";
const TCP: u8 = 6;

/// The whole table anew, whatever was in it. Tracked connections do not notice.
pub(crate) fn rebuild<'a>(
    table: &str,
    firewall: &Firewall,
    ports: impl Iterator<Item = (&'a HostPort, &'a [Backend])>,
) -> Batch {
    let mut batch = Batch::new(Family::Inet, table);
    batch.replace_table();
    let port = MapKey::Port { protocol: 0, port: 0 };
    let address_port = MapKey::AddressPort { ip: Ipv4Addr::UNSPECIFIED, protocol: 0, port: 0 };
    let verdict = MapValue::Verdict(Verdict::Accept);
    for map in [PUBLISHED, PUBLISHED6, UNSERVED, UNSERVED6] {
        batch.add_map(map, port, &verdict);
    }
    batch.add_map(PUBLISHED_AT, address_port, &verdict);
    for chain in &firewall.chains {
        match chain.base {
            Some(base) => batch.add_base_chain(chain.name, base_chain(base)),
            None => batch.add_chain(chain.name),
        }
        for rule in &chain.rules {
            batch.add_rule(chain.name, &encode(rule));
        }
    }
    for (host, backends) in ports {
        put(&mut batch, host, backends);
    }
    batch
}

/// Only what these ports need.
pub(crate) fn change(table: &str, changes: &[PortChange]) -> Batch {
    let mut batch = Batch::new(Family::Inet, table);
    for change in changes {
        let before = change.before.as_deref();
        let after = change.after.as_deref();
        match (before, after) {
            (Some([_, ..]), Some(backends @ [_, ..])) => {
                // The element stays, so that no connection finds the port missing.
                let chain = firewall::port_chain(&change.host);
                batch.flush_chain(&chain);
                put_translation(&mut batch, &chain, change.host.protocol, backends);
            }
            _ => {
                if let Some(before) = before {
                    take_away(&mut batch, &change.host, before);
                }
                if let Some(after) = after {
                    put(&mut batch, &change.host, after);
                }
            }
        }
    }
    batch
}

/// The table removed.
pub(crate) fn remove(table: &str) -> Batch {
    let mut batch = Batch::new(Family::Inet, table);
    batch.add_table();
    batch.delete_table();
    batch
}

fn put(batch: &mut Batch, host: &HostPort, backends: &[Backend]) {
    let Some((map, key)) = place(host, backends) else { return };
    if backends.is_empty() {
        let refuse = Verdict::Goto(firewall::REFUSE.to_owned());
        batch.add_elements(map, &[(key, MapValue::Verdict(refuse))]);
        return;
    }
    let chain = firewall::port_chain(host);
    batch.add_chain(&chain);
    put_translation(batch, &chain, host.protocol, backends);
    batch.add_elements(map, &[(key, MapValue::Verdict(Verdict::Goto(chain)))]);
}

fn take_away(batch: &mut Batch, host: &HostPort, backends: &[Backend]) {
    let Some((map, key)) = place(host, backends) else { return };
    batch.delete_elements(map, &[key]);
    if !backends.is_empty() {
        batch.delete_chain(&firewall::port_chain(host));
    }
}

fn put_translation(batch: &mut Batch, chain: &str, protocol: Protocol, backends: &[Backend]) {
    // The map that leads here decides by protocol already; without this match, `nft -f` refuses what `nft list` printed.
    let rule = Rule::new().protocol(protocol.number());
    if let [only] = backends {
        batch.add_rule(chain, &rule.dnat_socket(SocketAddr::new(only.ip, only.port)));
        return;
    }
    let elements: Vec<_> = (0u32..)
        .zip(backends)
        .map(|(turn, to)| (MapKey::Number(turn), MapValue::Socket(SocketAddr::new(to.ip, to.port))))
        .collect();
    let count = u32::try_from(elements.len()).expect("backends are addresses of one subnet");
    if let Some(map) = batch.add_anonymous_map(&elements) {
        let is_ipv6 = backends.iter().any(|backend| backend.ip.is_ipv6());
        batch.add_rule(chain, &rule.dnat_in_turn_socket(map, count, is_ipv6));
    }
}

/// The map that holds a port, and its key there. Ports of single addresses of IPv6 have no rules.
fn place(host: &HostPort, backends: &[Backend]) -> Option<(&'static str, MapKey)> {
    let (protocol, port) = (host.protocol.number(), host.port);
    let of_all = |map| Some((map, MapKey::Port { protocol, port }));
    match (host.ip, backends.is_empty()) {
        (IpAddr::V4(_), true) => of_all(UNSERVED),
        (IpAddr::V4(ip), false) if ip.is_unspecified() => of_all(PUBLISHED),
        (IpAddr::V4(ip), false) => Some((PUBLISHED_AT, MapKey::AddressPort { ip, protocol, port })),
        (IpAddr::V6(ip), _) if !ip.is_unspecified() => None,
        (IpAddr::V6(_), true) => of_all(UNSERVED6),
        (IpAddr::V6(_), false) => of_all(PUBLISHED6),
    }
}

fn base_chain(base: Base) -> BaseChain {
    let (kind, hook, priority) = match base {
        Base::Raw => (ChainKind::Filter, Hook::Prerouting, -300),
        Base::NatIn => (ChainKind::Nat, Hook::Prerouting, -100),
        Base::NatLocal => (ChainKind::Nat, Hook::Output, -100),
        Base::NatOut => (ChainKind::Nat, Hook::Postrouting, 100),
        Base::Forward => (ChainKind::Filter, Hook::Forward, 0),
        Base::Input => (ChainKind::Filter, Hook::Input, 0),
    };
    BaseChain { kind, hook, priority }
}

fn encode(rule: &firewall::Rule) -> Rule {
    let matched = rule.matches.iter().fold(Rule::new(), |encoded, condition| match condition {
        Match::In(link) => encoded.interface(Direction::In, link, true),
        Match::Out(link) => encoded.interface(Direction::Out, link, true),
        Match::NotOut(link) => encoded.interface(Direction::Out, link, false),
        Match::NotIn(link) => encoded.interface(Direction::In, link, false),
        Match::From(network) => encoded.network(IpField::Source, network.network(), network.prefix_len()),
        Match::To(network) => encoded.network(IpField::Destination, network.network(), network.prefix_len()),
        Match::ToLocal => encoded.destination_is_local(),
        Match::Ipv4 => encoded.ipv4(),
        Match::Ipv6 => encoded.ipv6(),
        Match::Established => encoded.ct_state(CtState::ESTABLISHED | CtState::RELATED),
        Match::New => encoded.ct_state(CtState::NEW),
        Match::Translated => encoded.ct_is_dnat(),
        Match::Tcp => encoded.protocol(TCP),
    });
    match rule.action {
        Action::Accept => matched.verdict(&Verdict::Accept),
        Action::Drop => matched.verdict(&Verdict::Drop),
        Action::Jump(chain) => matched.verdict(&Verdict::Jump(chain.to_owned())),
        Action::Masquerade => matched.masquerade(),
        Action::Source(ip) => matched.snat_address(ip),
        Action::PublishedAt => matched.address_port_verdict(PUBLISHED_AT),
        Action::Published => matched.port_verdict(PUBLISHED),
        Action::Published6 => matched.port_verdict(PUBLISHED6),
        Action::RefuseUnserved => matched.port_verdict(UNSERVED),
        Action::RefuseUnserved6 => matched.port_verdict(UNSERVED6),
        Action::Reset => matched.reject(true),
        Action::Unreachable => matched.reject(false),
    }
}

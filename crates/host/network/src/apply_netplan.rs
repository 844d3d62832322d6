//! Turns a netplan into nf_tables transactions.
//!
//! In: the rules of all bridges, published ports, changes of ports. Out: one transaction each: the whole table anew, or
//! only the chains and map elements of the ports that changed. Never looks at what is in the kernel.

use std::net::{IpAddr, Ipv4Addr};

use netlink::nft::{
    BaseChain, Batch, ChainKind, CtState, Direction, Family, Hook, IpField, MapKey, MapValue, Rule, Verdict,
};
use netplan::firewall::{self, Action, Base, Firewall, Match};
use netplan::{Backend, HostPort, PortChange, Protocol};

const PUBLISHED: &str = "published";
const PUBLISHED_AT: &str = "published_at";
const UNSERVED: &str = "unserved";
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
    batch.add_map(PUBLISHED, port, &verdict);
    batch.add_map(PUBLISHED_AT, address_port, &verdict);
    batch.add_map(UNSERVED, port, &verdict);
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
        batch.add_rule(chain, &rule.dnat(only.ip, only.port));
        return;
    }
    let elements: Vec<_> = (0u32..)
        .zip(backends)
        .map(|(turn, backend)| (MapKey::Number(turn), MapValue::Destination(backend.ip, backend.port)))
        .collect();
    let count = u32::try_from(elements.len()).expect("backends are addresses of one subnet");
    if let Some(map) = batch.add_anonymous_map(&elements) {
        batch.add_rule(chain, &rule.dnat_in_turn(map, count));
    }
}

/// The map that holds a port, and its key there. Ports of IPv6 addresses have no rules.
fn place(host: &HostPort, backends: &[Backend]) -> Option<(&'static str, MapKey)> {
    let IpAddr::V4(ip) = host.ip else { return None };
    let protocol = host.protocol.number();
    if backends.is_empty() {
        Some((UNSERVED, MapKey::Port { protocol, port: host.port }))
    } else if ip.is_unspecified() {
        Some((PUBLISHED, MapKey::Port { protocol, port: host.port }))
    } else {
        Some((PUBLISHED_AT, MapKey::AddressPort { ip, protocol, port: host.port }))
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
        Action::Source(ip) => matched.snat_address(ip.into()),
        Action::PublishedAt => matched.address_port_verdict(PUBLISHED_AT),
        Action::Published => matched.port_verdict(PUBLISHED),
        Action::RefuseUnserved => matched.port_verdict(UNSERVED),
        Action::Reset => matched.reject(true),
        Action::Unreachable => matched.reject(false),
    }
}

//! Turns a table of rules into an nf_tables transaction.
//!
//! In: tables and chains of `netplan`. Out: batches. Never looks at what is in the kernel.

use std::net::{IpAddr, SocketAddr};

use netlink::nft::{
    BaseChain, Batch, ChainKind, CtDirection, CtState, Direction, Family, Hook, IpField, MapKey, MapValue,
    Rule, StationField, Verdict,
};
use netlink::route::Mac;
use netplan::MacAddress;
use netplan::table::{self, Action, Base, Key, Map, MapKind, Match, Table, Value, Version};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_ARP: u16 = 0x0806;
const UNSPECIFIED: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)];

/// An empty batch for a table.
pub(crate) fn batch(family: table::Family, name: &str) -> Batch {
    let family = match family {
        table::Family::Inet => Family::Inet,
        table::Family::Bridge => Family::Bridge,
    };
    Batch::new(family, name)
}

/// The whole table anew, whatever was in it. Tracked connections do not notice.
pub(crate) fn replace(table: &Table) -> Batch {
    let mut batch = batch(table.family, table.name);
    batch.replace_table();
    for map in &table.maps {
        add_map(&mut batch, map);
    }
    for chain in &table.chains {
        match chain.base {
            None => batch.add_chain(&chain.name),
            Some(base @ (Base::Forward | Base::Ports | Base::Passing)) => {
                batch.add_dropping_chain(&chain.name, base_chain(base));
            }
            Some(base) => batch.add_base_chain(&chain.name, base_chain(base)),
        }
        put_rules(&mut batch, &chain.name, &chain.rules);
    }
    // Chains come first: elements lead to them.
    for map in &table.maps {
        add_elements(&mut batch, map.name, &map.elements);
    }
    batch
}

/// Appends rules to a chain.
pub(crate) fn put_rules(batch: &mut Batch, chain: &str, rules: &[table::Rule]) {
    for rule in rules {
        let matched = rule.matches.iter().fold(Rule::new(), matching);
        let rule = acting(batch, matched, &rule.action);
        batch.add_rule(chain, &rule);
    }
}

/// Adds elements to a map or set.
pub(crate) fn add_elements(batch: &mut Batch, map: &str, elements: &[(Key, Value)]) {
    if elements.iter().all(|(_, value)| *value == Value::Nothing) {
        let keys: Vec<_> = elements.iter().map(|(key, _)| map_key(key)).collect();
        batch.add_keys(map, &keys);
    } else {
        let elements: Vec<_> =
            elements.iter().filter_map(|(key, value)| Some((map_key(key), map_value(value)?))).collect();
        batch.add_elements(map, &elements);
    }
}

/// Deletes an element, which must be there, of a map or set.
pub(crate) fn delete_element(batch: &mut Batch, map: &str, key: &Key) {
    batch.delete_elements(map, &[map_key(key)]);
}

pub(crate) fn mac(mac: MacAddress) -> Mac {
    Mac(mac.0)
}

fn add_map(batch: &mut Batch, map: &Map) {
    let none = |version| UNSPECIFIED[usize::from(version == Version::V6)];
    let mac = Mac([0; 6]);
    let chain = MapValue::Verdict(Verdict::Accept);
    match map.kind {
        MapKind::AddressChains(version) => batch.add_map(map.name, MapKey::Address(none(version)), &chain),
        MapKind::Addresses(version) => batch.add_set(map.name, MapKey::Address(none(version))),
        MapKind::PortChains => batch.add_map(map.name, MapKey::Port { protocol: 0, port: 0 }, &chain),
        MapKind::MacMarks => batch.add_map(map.name, MapKey::Mac(mac), &MapValue::Mark(0)),
        MapKind::MacZones => batch.add_map(map.name, MapKey::Mac(mac), &MapValue::Zone(0)),
        MapKind::Macs => batch.add_set(map.name, MapKey::Mac(mac)),
        MapKind::Stations(version) => batch.add_set(map.name, MapKey::station("", mac, none(version))),
    }
}

fn map_key(key: &Key) -> MapKey {
    match key {
        Key::Address(ip) => MapKey::Address(*ip),
        Key::Port(protocol, port) => MapKey::Port { protocol: protocol.number(), port: *port },
        Key::Mac(address) => MapKey::Mac(mac(*address)),
        Key::Station(link, address, ip) => MapKey::station(link, mac(*address), *ip),
    }
}

fn map_value(value: &Value) -> Option<MapValue> {
    match value {
        Value::Nothing => None,
        Value::Chain(name) => Some(MapValue::Verdict(Verdict::Goto(name.clone()))),
        Value::Mark(mark) => Some(MapValue::Mark(*mark)),
        Value::Zone(zone) => Some(MapValue::Zone(*zone)),
    }
}

fn base_chain(base: Base) -> BaseChain {
    let (kind, hook, priority) = match base {
        Base::Early | Base::Ports => (ChainKind::Filter, Hook::Prerouting, -300),
        Base::Marking => (ChainKind::Filter, Hook::Prerouting, -150),
        Base::NatIn => (ChainKind::Nat, Hook::Prerouting, -100),
        Base::NatLocal => (ChainKind::Nat, Hook::Output, -100),
        Base::NatOut => (ChainKind::Nat, Hook::Postrouting, 100),
        Base::Forward | Base::Passing => (ChainKind::Filter, Hook::Forward, 0),
        Base::Output => (ChainKind::Filter, Hook::Output, 0),
        Base::Reroute => (ChainKind::Route, Hook::Output, -150),
    };
    BaseChain { kind, hook, priority }
}

fn matching(rule: Rule, condition: &Match) -> Rule {
    match condition {
        Match::In(link) => rule.interface(Direction::In, link, true),
        Match::InNamed(link) => rule.interface(Direction::In, link, true),
        Match::Out(link) => rule.interface(Direction::Out, link, true),
        Match::Version(Version::V4) => rule.ipv4(),
        Match::Version(Version::V6) => rule.ipv6(),
        Match::From(network) => rule.network(IpField::Source, network.network(), network.prefix_len()),
        Match::ToOneOf(version, set) => rule.destination_in(*version == Version::V6, set),
        Match::Established => rule.ct_state(CtState::ESTABLISHED | CtState::RELATED),
        Match::Translated => rule.ct_is_dnat(),
        Match::Original => rule.ct_direction(CtDirection::Original),
        Match::Reply => rule.ct_direction(CtDirection::Reply),
        Match::Marked(mark) => rule.ct_mark(*mark, true),
        Match::MarkedAtAll => rule.ct_mark(0, false),
        Match::Syn => rule.tcp_syn(),
        Match::SenderIn(set) => rule.mac_in(set),
        Match::StationIn(Version::V4, set) => {
            rule.ether_type(ETHERTYPE_IPV4).station_in(StationField::Ipv4, set)
        }
        Match::StationIn(Version::V6, set) => {
            rule.ether_type(ETHERTYPE_IPV6).station_in(StationField::Ipv6, set)
        }
        Match::ArpStationIn(set) => rule.ether_type(ETHERTYPE_ARP).station_in(StationField::Arp, set),
    }
}

fn acting(batch: &mut Batch, rule: Rule, action: &Action) -> Rule {
    match action {
        Action::Accept => rule.verdict(&Verdict::Accept),
        Action::Drop => rule.verdict(&Verdict::Drop),
        Action::Refuse => rule.reject(false),
        Action::ChainOfDestination(version, map) => rule.destination_verdict(*version == Version::V6, map),
        Action::ChainOfPort(map) => rule.port_verdict(map),
        Action::ZoneOfSender(map) => rule.set_original_zone_by_mac(map),
        Action::MarkOfSender(map) => rule.set_ct_mark_by_mac(map),
        Action::MarkConnection(mark) => rule.set_ct_mark(*mark),
        Action::MarkPacket => rule.mark_as_connection(),
        Action::Translate(to) => translate(batch, rule, to),
        Action::TranslatePort(protocol, to) => translate_port(batch, rule.protocol(protocol.number()), to),
        Action::Source(ip) => rule.snat_address(*ip),
        Action::ClampSegment(bytes) => rule.clamp_segment(*bytes),
    }
}

fn translate(batch: &mut Batch, rule: Rule, to: &[IpAddr]) -> Rule {
    if let [only] = to {
        return rule.dnat_address(*only);
    }
    let is_ipv6 = to.first().is_some_and(IpAddr::is_ipv6);
    match in_turn(batch, to.iter().map(|ip| MapValue::Address(*ip))) {
        Some((map, count)) => rule.dnat_in_turn_address(map, count, is_ipv6),
        None => rule,
    }
}

fn translate_port(batch: &mut Batch, rule: Rule, to: &[SocketAddr]) -> Rule {
    if let [only] = to {
        return rule.dnat_socket(*only);
    }
    let is_ipv6 = to.first().is_some_and(SocketAddr::is_ipv6);
    match in_turn(batch, to.iter().map(|to| MapValue::Socket(*to))) {
        Some((map, count)) => rule.dnat_in_turn_socket(map, count, is_ipv6),
        None => rule,
    }
}

/// An anonymous map from turns to these values, and how many there are.
fn in_turn(batch: &mut Batch, to: impl Iterator<Item = MapValue>) -> Option<(u32, u32)> {
    let elements: Vec<_> = (0u32..).zip(to).map(|(turn, to)| (MapKey::Number(turn), to)).collect();
    let count = u32::try_from(elements.len()).ok()?;
    Some((batch.add_anonymous_map(&elements)?, count))
}

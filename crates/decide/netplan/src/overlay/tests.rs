//! Plans of overlay networks, as tables of what is known and what follows.

use super::*;
use wire::network::PeerView;

pub(crate) fn peer(last: u8, own: &[&str]) -> PeerView {
    let addresses = own.iter().map(|ip| ip.parse().unwrap()).collect();
    PeerView { data_path: [192, 0, 2, last].into(), addresses, encryption_generation: last.into() }
}

pub(crate) fn endpoint(node: &str, addresses: &[&str]) -> EndpointView {
    EndpointView {
        node: node.into(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        is_serving: true,
        ports: Vec::new(),
        ..EndpointView::default()
    }
}

fn view() -> NetworkView {
    NetworkView {
        id: "abcdefghijklmnop".into(),
        vni: 4097,
        data_path_port: 4789,
        subnets: vec!["10.0.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
        peers: [("a", 1), ("b", 2), ("c", 3)].map(|(id, n)| (id.into(), peer(n, &[]))).into(),
        endpoints: [
            ("1".to_owned(), endpoint("a", &["10.0.1.5"])),
            ("2".to_owned(), endpoint("b", &["10.0.1.6", "fd00:1::6"])),
            ("3".to_owned(), endpoint("nobody", &["10.0.1.7"])),
        ]
        .into(),
        ..NetworkView::default()
    }
}

const ETHERNET: Underlay = Underlay { mtu: 1500 };

/// The plan's entries as lines.
fn shown(plan: &OverlayPlan) -> Vec<String> {
    let forwarding = plan.forwarding.iter().map(|(mac, machine)| format!("{mac} at {machine}"));
    let neighbours = plan.neighbours.iter().map(|(ip, mac)| format!("{ip} is {mac}"));
    forwarding.chain(neighbours).collect()
}

#[test]
fn containers_of_other_nodes_are_found_and_those_of_this_one_are_not_in_the_way() {
    let plan = OverlayPlan::of(&view(), &"a".into(), ETHERNET).unwrap();
    assert_eq!((plan.name.as_str(), plan.vni, plan.port, plan.mtu), ("abcdefghijkl", 4097, 4789, 1450));
    assert_eq!((plan.local, plan.own.len()), ([192, 0, 2, 1].into(), 0));
    assert_eq!(
        shown(&plan),
        ["02:42:0a:00:01:06 at 192.0.2.2", "10.0.1.6 is 02:42:0a:00:01:06", "fd00:1::6 is 02:42:0a:00:01:06",]
    );
}

#[test]
fn on_the_ingress_network_nodes_are_found_and_containers_of_this_node() {
    let mut view = NetworkView { ingress: true, ..view() };
    view.peers = [("a", 1), ("b", 2)]
        .map(|(id, n)| (id.into(), peer(n, &[&format!("10.0.1.10{n}"), &format!("fd00:1::10{n}")])))
        .into();
    let plan = OverlayPlan::of(&view, &"a".into(), ETHERNET).unwrap();
    let own: Vec<_> = plan.own.iter().map(ToString::to_string).collect();
    assert_eq!(own, ["10.0.1.101/24", "fd00:1::101/64"]);
    assert_eq!(
        shown(&plan),
        [
            "02:42:0a:00:01:66 at 192.0.2.2",
            "10.0.1.5 is 02:42:0a:00:01:05",
            "10.0.1.102 is 02:42:0a:00:01:66",
            "fd00:1::102 is 02:42:0a:00:01:66",
        ]
    );
}

#[test]
fn a_node_that_is_not_told_of_itself_has_no_piece() {
    assert_eq!(OverlayPlan::of(&view(), &"z".into(), ETHERNET), None);
}

#[test]
fn packets_inside_leave_room_for_what_is_put_around_them() {
    let check = |underlay, local: &str, encrypted, wanted, expect| {
        let local = local.parse().unwrap();
        assert_eq!(mtu(Underlay { mtu: underlay }, local, encrypted, wanted), expect);
    };
    check(1500, "192.0.2.1", false, None, 1450);
    check(1500, "2001:db8::1", false, None, 1430);
    check(9000, "192.0.2.1", false, None, 8950);
    check(9000, "192.0.2.1", false, Some(1400), 1400);
    check(1400, "192.0.2.1", false, Some(1450), 1350);
    check(1500, "192.0.2.1", false, Some(0), 1450);
    check(1500, "192.0.2.1", true, None, 1416);
    check(1500, "2001:db8::1", true, None, 1396);
    check(1501, "192.0.2.1", true, None, 1416);
    check(1504, "192.0.2.1", true, None, 1420);
    check(60, "192.0.2.1", false, None, 576);
}

#[test]
fn a_port_is_named_by_its_address() {
    let addresses = ["fd00::1", "10.0.1.255"].map(|ip| ip.parse().unwrap());
    assert_eq!(port_name(&addresses).as_deref(), Some("p0a0001ff"));
    assert_eq!(port_name(&addresses[..1]), None);
}

//! The routing mesh of one node of two, and the container's side of it.

use super::*;
use objects::PortConfig;
use wire::network::ServiceView;

fn view() -> NetworkView {
    let peer = |last: u8| PeerView {
        data_path: [192, 0, 2, last].into(),
        addresses: vec![[10, 0, 0, 10 + last].into(), format!("fd00::1{last}").parse().unwrap()],
        encryption_generation: 0,
    };
    let endpoint = |node: &str, addresses: &[&str], is_serving| EndpointView {
        node: node.into(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        service: Some("web".into()),
        is_serving,
        ports: Vec::new(),
        ..EndpointView::default()
    };
    let port = |protocol, published_port, mode| PortConfig {
        target_port: 8080,
        published_port,
        protocol,
        publish_mode: mode,
        ..PortConfig::default()
    };
    let web = ServiceView {
        ports: vec![
            port(PortProtocol::Tcp, 80, PublishMode::Ingress),
            port(PortProtocol::Udp, 53, PublishMode::Ingress),
            port(PortProtocol::Tcp, 81, PublishMode::Host),
        ],
        ..ServiceView::default()
    };
    NetworkView {
        ingress: true,
        subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        peers: [("a".into(), peer(1)), ("b".into(), peer(2))].into(),
        endpoints: [
            ("1".to_owned(), endpoint("a", &["10.0.0.21", "fd00::21"], true)),
            ("2".to_owned(), endpoint("b", &["10.0.0.22"], true)),
            ("3".to_owned(), endpoint("b", &["10.0.0.23"], false)),
        ]
        .into(),
        services: [("web".into(), web), ("none".into(), ServiceView::default())].into(),
        ..NetworkView::default()
    }
}

fn plan() -> MeshPlan {
    let links = [
        LinkSubnet { machine: "169.254.7.1/30".parse().unwrap(), ingress: "169.254.7.2".parse().unwrap() },
        LinkSubnet { machine: "fd07::1/126".parse().unwrap(), ingress: "fd07::2".parse().unwrap() },
    ];
    MeshPlan::of(&view(), &"a".into(), 1450, &links).unwrap()
}

#[test]
fn the_rules_of_the_ingress_namespace_are_these() {
    let expect = "\
table inet skep-mesh {
  map marks {
    type ether_addr : mark
    elements = { 02:42:0a:00:00:0c : 12 }
  }
  map zones {
    typeof ether saddr : ct zone
    elements = { 02:42:0a:00:00:0c : 12 }
  }
  set peers {
    type ether_addr
    elements = { 02:42:0a:00:00:0c }
  }
  map ports {
    type inet_proto . inet_service : verdict
    elements = { tcp . 80 : goto tcp_80, udp . 53 : goto udp_53 }
  }
  chain tcp_80 {
    meta nfproto ipv4 meta l4proto tcp dnat ip to numgen inc mod 2 map { 0 : 10.0.0.21 . 8080, 1 : 10.0.0.22 . 8080 }
    meta nfproto ipv6 meta l4proto tcp dnat ip6 to [fd00::21]:8080
  }
  chain udp_53 {
    meta nfproto ipv4 meta l4proto udp dnat ip to numgen inc mod 2 map { 0 : 10.0.0.21 . 8080, 1 : 10.0.0.22 . 8080 }
    meta nfproto ipv6 meta l4proto udp dnat ip6 to [fd00::21]:8080
  }
  chain early {
    type filter hook prerouting priority -300; policy accept;
    iifname br0 ct original zone set ether saddr map @zones
  }
  chain marking {
    type filter hook prerouting priority -150; policy accept;
    iifname br0 ct direction original ct mark set ether saddr map @marks
    iifname br0 ct direction reply ct mark != 0 meta mark set ct mark
  }
  chain publish {
    type nat hook prerouting priority -100; policy accept;
    iifname up0 meta l4proto . th dport vmap @ports
  }
  chain source {
    type nat hook postrouting priority 100; policy accept;
    oifname br0 ip saddr 169.254.7.0/30 snat ip to 10.0.0.11
    oifname br0 ip6 saddr fd07::/126 snat ip6 to fd00::11
  }
  chain passing {
    type filter hook forward priority 0; policy drop;
    meta nfproto ipv4 tcp flags syn tcp option maxseg size set 1410
    meta nfproto ipv6 tcp flags syn tcp option maxseg size set 1390
    ct state established,related accept
    iifname up0 oifname br0 ct status dnat accept
    iifname br0 oifname br0 ether saddr @peers accept
    iifname br0 reject with icmpx port-unreachable
  }
}
";
    assert_eq!(plan().table().to_string(), expect);
}

#[test]
fn at_the_ports_of_the_bridge_everybody_speaks_for_itself() {
    let expect = "\
table bridge skep-mesh {
  set peers {
    type ether_addr
    elements = { 02:42:0a:00:00:0c }
  }
  set stations {
    type ifname . ether_addr . ipv4_addr
    elements = { p0a000015 . 02:42:0a:00:00:15 . 10.0.0.21 }
  }
  set stations6 {
    type ifname . ether_addr . ipv6_addr
    elements = { p0a000015 . 02:42:0a:00:00:15 . fd00::21 }
  }
  chain ports {
    type filter hook prerouting priority -300; policy drop;
    iifname vx0 ether saddr @peers accept
    ether type ip iifname . ether saddr . ip saddr @stations accept
    ether type arp iifname . arp saddr ether . arp saddr ip @stations accept
    ether type ip6 iifname . ether saddr . ip6 saddr @stations6 accept
  }
  chain passing {
    type filter hook forward priority 0; policy drop;
  }
}
";
    assert_eq!(plan().port_table().to_string(), expect);
}

#[test]
fn a_container_answers_from_the_address_that_it_has_for_the_client() {
    let side = TaskSide {
        link: "eth0".to_owned(),
        own: vec!["10.0.0.21/24".parse().unwrap()],
        node: ["10.0.0.11", "fd00::11"].map(|ip| ip.parse().unwrap()).to_vec(),
        others: ["172.18.0.5/16", "10.0.1.7/24"].map(|net| net.parse().unwrap()).to_vec(),
        outward: vec!["172.18.0.5".parse().unwrap()],
    };
    let expect = "\
table inet skep-mesh {
  chain marking {
    type filter hook prerouting priority -150; policy accept;
    iifname eth0 ct direction original ct mark set 1936418160
  }
  chain answering {
    type nat hook prerouting priority -100; policy accept;
    iifname eth0 ip saddr 10.0.0.0/24 accept
    iifname eth0 ip saddr 10.0.1.0/24 dnat ip to 10.0.1.7
    iifname eth0 ip saddr 172.18.0.0/16 dnat ip to 172.18.0.5
    iifname eth0 meta nfproto ipv4 dnat ip to 172.18.0.5
  }
  chain back {
    type route hook output priority -150; policy accept;
    ct mark 1936418160 meta mark set ct mark
  }
}
";
    assert_eq!(side.table().to_string(), expect);
    let routes = side.mark_routes();
    assert_eq!(
        routes.into_iter().collect::<Vec<_>>(),
        [MarkRoute { mark: TASK_MARK, table: TASK_TABLE, via: side.node[0] }]
    );
    assert_eq!(side.last_resorts(), [] as [IpAddr; 0]);
    let own = ["10.0.0.21/24", "fd00::21/64"].map(|net| net.parse().unwrap()).to_vec();
    assert_eq!(TaskSide { own, ..side.clone() }.last_resorts(), side.node[1..]);
}

#[test]
fn tasks_of_others_are_reached_through_their_node_while_they_drain_too() {
    let plan = plan();
    let routes: Vec<_> = plan.routes.iter().map(|(to, via)| format!("{to} via {via}")).collect();
    assert_eq!(routes, ["10.0.0.22 via 10.0.0.12", "10.0.0.23 via 10.0.0.12"]);
    let marked: Vec<_> =
        plan.mark_routes().iter().map(|r| format!("{} {:#x} via {}", r.mark, r.table, r.via)).collect();
    assert_eq!(marked, ["12 0x10000c via 10.0.0.12", "12 0x10000c via fd00::12"]);
}

#[test]
fn a_port_is_served_over_the_versions_that_a_serving_task_has() {
    let shown = |view: &NetworkView| -> Vec<_> {
        served(view)
            .iter()
            .map(|(protocol, port, version)| format!("{protocol} {port} {version:?}"))
            .collect()
    };
    let mut view = view();
    assert_eq!(shown(&view), ["tcp 80 V4", "tcp 80 V6", "udp 53 V4", "udp 53 V6"]);
    // What is left has no address of IPv6.
    view.endpoints.remove("1");
    assert_eq!(shown(&view), ["tcp 80 V4", "udp 53 V4"]);
}

#[test]
fn a_node_without_ipv6_plans_as_if_the_network_had_none() {
    let plan = MeshPlan::of(&without_ipv6(view()), &"a".into(), 1200, &LinkSubnet::usual(false)).unwrap();
    let shown = format!("{plan:?}{}{}", plan.table(), plan.port_table());
    assert!(!shown.contains("fd00"), "{shown}");
    assert_eq!(plan.own.len(), 1);
}

#[test]
fn a_node_without_an_address_on_the_ingress_network_has_no_mesh() {
    let mut view = view();
    view.peers.get_mut(&NodeId::from("a")).unwrap().addresses.clear();
    assert_eq!(MeshPlan::of(&view, &"a".into(), 1450, &[]), None);
}

#[test]
fn no_two_peers_have_one_mark_and_none_has_zero() {
    let peer =
        |ip: [u8; 4]| PeerView { data_path: ip.into(), addresses: vec![ip.into()], encryption_generation: 0 };
    let all: BTreeMap<NodeId, PeerView> = [
        ("a".into(), peer([10, 1, 0, 5])),
        ("b".into(), peer([10, 2, 0, 5])),
        ("c".into(), peer([10, 3, 0, 6])),
        ("d".into(), peer([10, 3, 0, 0])),
        ("e".into(), PeerView { addresses: vec![], ..peer([10, 0, 0, 1]) }),
    ]
    .into();
    let marks: Vec<_> = peers(all.iter()).into_iter().map(|(id, peer)| (id.to_string(), peer.mark)).collect();
    let named = |id: &str, mark| (id.to_owned(), mark);
    assert_eq!(marks, [named("a", 5), named("b", 6), named("c", 7), named("d", 1)]);
}

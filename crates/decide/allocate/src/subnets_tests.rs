//! Subnets and numbers of networks.

use super::*;
use objects::{Node, Timestamp};
use proptest::prelude::*;
use store::Write;

fn store(pools: &[&str], size: u32, own: &[&str]) -> Store {
    let mut cluster = Cluster { id: "c".into(), subnet_size: size, ..Cluster::default() };
    cluster.default_addr_pool = pools.iter().map(|pool| (*pool).to_owned()).collect();
    let mut node = Node { id: "n".into(), ..Node::default() };
    node.description.hostname = "one".to_owned();
    node.internal.own_networks = own.iter().map(|net| net.parse().unwrap()).collect();
    let mut store = Store::new();
    store.apply(1, Timestamp(1), &[Write::Create(cluster.into()), Write::Create(node.into())]).unwrap();
    store
}

fn spec(name: &str, configs: &[(&str, &str)]) -> NetworkSpec {
    let configs = configs.iter().map(|(subnet, gateway)| IpamConfig {
        subnet: (*subnet).to_owned(),
        gateway: (*gateway).to_owned(),
        ..IpamConfig::default()
    });
    let options = IpamOptions { configs: configs.collect(), ..IpamOptions::default() };
    NetworkSpec { name: name.to_owned(), ipam_options: Some(options), ..NetworkSpec::default() }
}

/// Makes the network and stores it; what it got as `subnet gateway` …
fn add(store: &mut Store, spec: NetworkSpec) -> String {
    let made = match network(store, spec.name.as_str().into(), spec) {
        Ok(made) => made,
        Err(error) => return error.to_string(),
    };
    let shown: Vec<_> = made.subnets().iter().map(|it| format!("{} {}", it.net, it.gateway)).collect();
    let shown = format!("{} {}", made.vni().unwrap(), shown.join(" "));
    store.apply(store.applied() + 1, Timestamp(1), &[Write::Create(made.into())]).unwrap();
    shown
}

#[test]
fn subnets_come_one_after_the_other_and_overlap_nothing() {
    let mut store = store(&[], 0, &["10.0.1.0/25", "10.0.2.7/32", "0.0.0.0/0"]);
    assert_eq!(add(&mut store, spec("ingress", &[])), "4097 10.0.0.0/24 10.0.0.1");
    assert_eq!(add(&mut store, spec("a", &[])), "4098 10.0.3.0/24 10.0.3.1");
    assert_eq!(add(&mut store, spec("b", &[("10.0.4.0/23", "10.0.5.9")])), "4099 10.0.4.0/23 10.0.5.9");
    assert_eq!(add(&mut store, spec("c", &[])), "4100 10.0.6.0/24 10.0.6.1");
    let taken = "invalid pool request: Pool overlaps with other one on this address space (network b has 10.0.4.0/23)";
    assert_eq!(add(&mut store, spec("d", &[("10.0.5.0/24", "")])), taken);
    let used = "invalid pool request: 10.0.1.0/24 overlaps 10.0.1.0/25, which node one uses";
    assert_eq!(add(&mut store, spec("d", &[("10.0.1.0/24", "")])), used);
}

#[test]
fn pools_are_cut_as_the_cluster_says_until_they_are_used_up() {
    let mut store = store(&["10.9.0.0/28", "172.30.0.0/29"], 29, &[]);
    assert_eq!(add(&mut store, spec("a", &[])), "4097 10.9.0.0/29 10.9.0.1");
    assert_eq!(add(&mut store, spec("b", &[])), "4098 10.9.0.8/29 10.9.0.9");
    assert_eq!(add(&mut store, spec("c", &[])), "4099 172.30.0.0/29 172.30.0.1");
    assert!(add(&mut store, spec("d", &[])).starts_with("could not find an available"));
}

#[test]
fn networks_move_out_of_the_way_of_a_machine_that_uses_the_default_pool() {
    let mut busy = store(&["10.0.0.0/8"], 24, &["10.0.0.0/8", "172.16.0.0/16"]);
    assert_eq!(add(&mut busy, spec("a", &[])), "4097 172.17.0.0/24 172.17.0.1");
    let mut busy = store(&["10.1.0.0/16"], 24, &["10.0.0.0/8"]);
    assert!(add(&mut busy, spec("a", &[])).starts_with("could not find an available"));
}

#[test]
fn a_network_with_ipv6_gets_a_subnet_of_each_family() {
    let mut store = store(&[], 24, &[]);
    let with_v6 = NetworkSpec { ipv6_enabled: true, ..spec("a", &[("fd00:1::/64", "")]) };
    assert_eq!(add(&mut store, with_v6), "4097 10.0.0.0/24 10.0.0.1 fd00:1::/64 fd00:1::1");
    let with_v6 = NetworkSpec { ipv6_enabled: true, ..spec("b", &[]) };
    let made = add(&mut store, with_v6);
    assert!(made.starts_with("4098 10.0.1.0/24 10.0.1.1 fd") && made.contains(":1002::/64"), "{made}");
}

#[test]
fn a_number_that_was_asked_for_belongs_to_one_network() {
    let mut store = store(&[], 24, &[]);
    let with = |name: &str, vni: u32| {
        let options = [(SHORT_VXLAN_OPTION.to_owned(), vni.to_string())].into();
        let driver = Driver { name: OVERLAY.to_owned(), options };
        NetworkSpec { driver_configuration: Some(driver), ..spec(name, &[]) }
    };
    assert!(add(&mut store, with("a", 5000)).starts_with("5000 "));
    assert_eq!(add(&mut store, with("b", 5000)), "requested vxlan id 5000 is already in use by network a");
    assert!(add(&mut store, spec("b", &[])).starts_with("5001 "));
    assert!(add(&mut store, with("c", LAST_VNI)).starts_with("16777215 "));
    assert!(add(&mut store, spec("d", &[])).starts_with("4097 "));
}

proptest! {
    #[test]
    fn no_two_networks_share_an_address_or_a_number(
        wishes in prop::collection::vec(prop::option::of((0u8..6, 22u8..28)), 1..20),
        own in prop::collection::vec((0u8..6, 22u8..32), 0..4),
    ) {
        let own: Vec<String> = own.iter().map(|(third, size)| format!("10.0.{third}.0/{size}")).collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let mut store = store(&["10.0.0.0/20"], 24, &own);
        for (position, wish) in wishes.iter().enumerate() {
            let subnet = wish.map(|(third, size)| format!("10.0.{third}.0/{size}"));
            let configs: Vec<(&str, &str)> = subnet.iter().map(|net| (net.as_str(), "")).collect();
            add(&mut store, spec(&format!("n{position}"), &configs));
        }
        let nets: Vec<IpNet> = store.networks().flat_map(|it| it.subnets()).map(|it| it.net).collect();
        let own: Vec<IpNet> = own.iter().map(|net| net.parse().unwrap()).collect();
        for (position, net) in nets.iter().enumerate() {
            prop_assert!(nets[..position].iter().chain(&own).all(|other| !overlap(net, other)), "{nets:?}");
        }
        let vnis: BTreeSet<_> = store.networks().map(|it| it.vni()).collect();
        prop_assert_eq!(vnis.len(), nets.len());
    }
}

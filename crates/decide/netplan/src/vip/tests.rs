//! Where VIPs lead, step by step and at once.

use super::*;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use wire::network::ServiceView;

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn service(vips: &[&str]) -> ServiceView {
    ServiceView { vips: ips(vips), ..ServiceView::default() }
}

fn endpoint(service: &str, addresses: &[&str], is_serving: bool) -> EndpointView {
    EndpointView {
        addresses: ips(addresses),
        service: Some(service.into()),
        is_serving,
        ports: Vec::new(),
        ..EndpointView::default()
    }
}

fn view() -> NetworkView {
    NetworkView {
        services: [
            ("web".into(), service(&["10.0.1.2", "fd00::2"])),
            ("db".into(), service(&["10.0.1.3"])),
            ("rr".into(), service(&[])),
        ]
        .into(),
        endpoints: [
            ("1".to_owned(), endpoint("web", &["10.0.1.11", "fd00::11"], true)),
            ("2".to_owned(), endpoint("web", &["10.0.1.10", "fd00::10"], true)),
            ("3".to_owned(), endpoint("web", &["10.0.1.12"], false)),
            ("4".to_owned(), endpoint("rr", &["10.0.1.13"], true)),
            ("5".to_owned(), EndpointView { is_serving: true, ..EndpointView::default() }),
        ]
        .into(),
        ..NetworkView::default()
    }
}

#[test]
fn the_table_of_a_client_is_this() {
    let expect = "\
table inet skep-vip {
  map vips {
    type ipv4_addr : verdict
    elements = { 10.0.1.2 : goto vip_10.0.1.2 }
  }
  set unserved {
    type ipv4_addr
    elements = { 10.0.1.3 }
  }
  map vips6 {
    type ipv6_addr : verdict
    elements = { fd00::2 : goto vip_fd000000000000000000000000000002 }
  }
  set unserved6 {
    type ipv6_addr
  }
  chain vip_10.0.1.2 {
    dnat ip to numgen inc mod 2 map { 0 : 10.0.1.10, 1 : 10.0.1.11 }
  }
  chain vip_fd000000000000000000000000000002 {
    dnat ip6 to numgen inc mod 2 map { 0 : fd00::10, 1 : fd00::11 }
  }
  chain output {
    type nat hook output priority -100; policy accept;
    ip daddr vmap @vips
    ip6 daddr vmap @vips6
  }
  chain refuse {
    type filter hook output priority 0; policy accept;
    ip daddr @unserved reject with icmpx port-unreachable
    ip6 daddr @unserved6 reject with icmpx port-unreachable
  }
}
";
    assert_eq!(table([VipPlan::of(&view())].iter()).to_string(), expect);
}

#[test]
fn an_address_that_two_networks_have_is_the_first_ones() {
    let mut second = view();
    second.endpoints.clear();
    let both = [VipPlan::of(&view()), VipPlan::of(&second)];
    assert_eq!(table(both.iter()), table(both[..1].iter()));
}

#[test]
fn only_vips_that_lead_elsewhere_change() {
    let mut plan = VipPlan::of(&view());
    let mut news = NetworkNews::default();
    news.endpoints.insert("1".to_owned(), Some(endpoint("web", &["10.0.1.11", "fd00::11"], false)));
    news.endpoints.insert("6".to_owned(), Some(endpoint("db", &["10.0.1.14"], true)));
    news.services.insert("rr".into(), Some(service(&["10.0.1.4"])));
    let changes = plan.take_in(&news);
    let change = |vip: &str, before: Option<&[&str]>, after: Option<&[&str]>| VipChange {
        vip: vip.parse().unwrap(),
        before: before.map(ips),
        after: after.map(ips),
    };
    assert_eq!(
        changes,
        [
            change("10.0.1.2", Some(&["10.0.1.10", "10.0.1.11"]), Some(&["10.0.1.10"])),
            change("10.0.1.3", Some(&[]), Some(&["10.0.1.14"])),
            change("fd00::2", Some(&["fd00::10", "fd00::11"]), Some(&["fd00::10"])),
            change("10.0.1.4", None, Some(&["10.0.1.13"])),
        ]
    );
    assert_eq!(changes[0].left().collect::<Vec<_>>(), ips(&["10.0.1.11"]));
    assert_eq!(plan.take_in(&news), []);
    let mut gone = NetworkNews::default();
    gone.services.insert("web".into(), None);
    let left: Vec<_> = plan.take_in(&gone).iter().flat_map(VipChange::left).collect();
    assert_eq!(left, ips(&["10.0.1.10", "fd00::10"]));
}

fn any_view() -> impl Strategy<Value = NetworkView> {
    let vip = || (2u8..5).prop_map(|last| IpAddr::from([10, 0, 1, last]));
    // No VIP is that of two services: those who allocate see to that.
    let services = btree_map("[a-c]", any::<bool>(), 0..4).prop_map(|all| {
        let view = |id: &str| {
            let last = id.as_bytes()[0] - b'a' + 2;
            ServiceView { vips: vec![[10, 0, 1, last].into()], ..ServiceView::default() }
        };
        let none = ServiceView::default();
        all.into_iter()
            .map(|(id, has_vip)| (id.as_str().into(), if has_vip { view(&id) } else { none.clone() }))
            .collect()
    });
    let endpoints = btree_map(
        "[1-4]",
        ("[a-c]", vec(vip(), 1..3), any::<bool>()).prop_map(|(service, addresses, is_serving)| {
            EndpointView {
                addresses,
                service: Some(service.as_str().into()),
                is_serving,
                ports: Vec::new(),
                ..EndpointView::default()
            }
        }),
        0..5,
    );
    (services, endpoints).prop_map(|(services, endpoints)| NetworkView {
        services,
        endpoints,
        ..NetworkView::default()
    })
}

proptest! {
    #[test]
    fn news_lead_to_what_the_whole_says(views in vec(any_view(), 2..6)) {
        let mut plan = VipPlan::of(&views[0]);
        let mut known = plan.all();
        for pair in views.windows(2) {
            let changes = plan.take_in(&NetworkNews::between(&pair[0], &pair[1]));
            for change in &changes {
                prop_assert_eq!(known.get(&change.vip), change.before.as_ref());
                prop_assert_ne!(&change.before, &change.after);
                match &change.after {
                    Some(after) => drop(known.insert(change.vip, after.clone())),
                    None => drop(known.remove(&change.vip)),
                }
            }
            prop_assert_eq!(&known, &VipPlan::of(&pair[1]).all());
            let mut replaced = VipPlan::of(&pair[0]);
            prop_assert_eq!(replaced.replace(&pair[1]).len(), changes.len());
            prop_assert_eq!(replaced, plan.clone());
        }
    }
}

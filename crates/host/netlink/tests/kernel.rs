//! Links, addresses, routes and errors against a real kernel, in a network namespace of its own. Needs root.
#![allow(unsafe_code, reason = "a thread enters a namespace of its own")]

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::os::fd::AsFd;
    use std::process::Command;

    use netlink::namespace;
    use netlink::nft::{
        BaseChain, Batch, ChainKind, CtDirection, Direction, Family, Hook, IpField, MapKey, MapValue,
        NftSocket, Rule, StationField, Verdict,
    };
    use netlink::route::{
        BridgePort, ForwardingEntry, Mac, Namespace, Neighbour, NewBridge, NewVxlan, PolicyRule, Route,
        RouteBatch, RouteSocket, VethPair, Vxlan,
    };
    use netlink::watch::{Event, Watch};
    use netlink::xfrm::{AeadKey, Association, Policy, Way, XfrmBatch, XfrmSocket};

    /// Runs `job` in a thread with a network namespace of its own.
    fn apart(job: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            // SAFETY: only this thread, which owns nothing yet, gets another network namespace.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
                .expect("these tests need root");
            job();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn pair() -> VethPair<'static> {
        VethPair {
            name: "left",
            master: None,
            mtu: 1400,
            up: true,
            peer_name: "right",
            peer_mac: Some(Mac([2, 0, 0, 0, 0, 9])),
            peer_namespace: None,
        }
    }

    #[test]
    fn what_is_made_is_listed() {
        apart(|| {
            let mut route = RouteSocket::open().unwrap();
            route.add_bridge("br", Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
            let bridge = route.index("br").unwrap();
            route.add_veth(&VethPair { master: Some(bridge), ..pair() }).unwrap();
            let right = route.index("right").unwrap();
            route.set_name(right, "eth7").unwrap();
            route.set_mac(right, Mac([2, 0, 0, 0, 0, 8])).unwrap();
            route.set_mtu(right, 1300).unwrap();
            let v4: IpAddr = "10.1.0.2".parse().unwrap();
            let v6: IpAddr = "fd00::2".parse().unwrap();
            route.add_address(right, v4, 24).unwrap();
            route.add_address(right, v6, 64).unwrap();
            route.set_up(right).unwrap();
            route.add_default_route("10.1.0.1".parse().unwrap(), None).unwrap();

            let left = route.link("left").unwrap().unwrap();
            assert_eq!(
                (left.kind.as_str(), left.master, left.mtu, left.is_up),
                ("veth", Some(bridge), 1400, true)
            );
            let eth7 = route.link("eth7").unwrap().unwrap();
            assert_eq!((eth7.mac, eth7.mtu, eth7.has_carrier), (Some(Mac([2, 0, 0, 0, 0, 8])), 1300, true));
            assert!(route.link("right").unwrap().is_none());
            assert_eq!(route.links().unwrap().len(), 4);
            let addresses: Vec<_> =
                route.addresses().unwrap().into_iter().map(|a| (a.ip, a.prefix)).collect();
            assert!(addresses.contains(&(v4, 24)) && addresses.contains(&(v6, 64)), "{addresses:?}");
            let default = route.routes().unwrap().into_iter().find(|r| r.prefix == 0 && r.gateway.is_some());
            assert_eq!(default.and_then(|r| r.index), Some(right));

            route.delete_link(left.index).unwrap();
            assert!(route.link("eth7").unwrap().is_none(), "a pair goes together");
        });
    }

    #[test]
    fn refusals_say_what_was_tried_and_why_in_the_kernel_s_words() {
        apart(|| {
            let mut route = RouteSocket::open().unwrap();
            route.add_veth(&pair()).unwrap();
            let twice = route.add_veth(&pair()).unwrap_err();
            assert!(twice.is_exists() && twice.to_string().starts_with("add veth pair"), "{twice}");
            let gateway = route.add_default_route("10.9.9.9".parse().unwrap(), None).unwrap_err();
            assert_eq!(gateway.to_string(), "add route: Nexthop has invalid gateway");
            let gone = route.set_up(4711).unwrap_err();
            assert!(gone.is_missing(), "{gone}");
            let long = route.add_bridge("a-name-of-16-byt", Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap_err();
            assert!(long.to_string().contains("a-name-of-16-byt"), "{long}");
        });
    }

    #[test]
    fn a_batch_is_applied_as_a_whole_or_not_at_all_and_only_others_are_watched() {
        apart(|| {
            let (mut ours, mut other) = (NftSocket::open().unwrap(), NftSocket::open().unwrap());
            let mut watch = Watch::rules(ours.port()).unwrap();
            let mut bad = Batch::new(Family::Inet, "t");
            bad.add_table();
            bad.add_chain("a");
            bad.add_rule("nosuch", &Rule::new().verdict(&Verdict::Accept));
            bad.add_chain("b");
            let refused = ours.commit(bad).unwrap_err();
            assert!(refused.is_missing(), "{refused}");
            let mut delete = Batch::new(Family::Inet, "t");
            delete.delete_table();
            assert!(ours.commit(delete).unwrap_err().is_missing(), "nothing of the refused batch is left");

            let mut good = Batch::new(Family::Inet, "t");
            good.replace_table();
            ours.commit(good).unwrap();
            let mut seen = Vec::new();
            assert!(!watch.read(16, |event| seen.push(event)).unwrap());
            assert_eq!(seen, []);
            let mut flush = Batch::new(Family::Inet, "t");
            flush.delete_table();
            other.commit(flush).unwrap();
            watch.read(16, |event| seen.push(event)).unwrap();
            let expect =
                Event::Rules { family: 1, table: "t".to_owned(), is_structure: true, by: other.port() };
            assert_eq!(seen, [expect]);
        });
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn mac(last: u8) -> Mac {
        Mac([2, 0x42, 10, 0, 0, last])
    }

    #[test]
    fn a_vxlan_is_made_in_another_namespace_and_keeps_its_socket_here() {
        apart(|| {
            let mut route = RouteSocket::open().unwrap();
            let overlay = namespace::make().unwrap();
            for (vni, local, port) in [(4097, "192.0.2.1", 4789), (4098, "2001:db8::1", 4790)] {
                let vxlan = Vxlan { vni, local: ip(local), port };
                let name = format!("vx{vni}");
                let new =
                    NewVxlan { name: &name, vxlan, mtu: 1450, namespace: Namespace::Fd(overlay.as_fd()) };
                route.add_vxlan(&new).unwrap();
                assert!(route.link(&name).unwrap().is_none());
                let again = NewVxlan { name: "other", ..new };
                assert!(
                    route.add_vxlan(&again).unwrap_err().is_exists(),
                    "the number is taken on this machine"
                );
                namespace::within(overlay.as_fd(), || {
                    let mut route = RouteSocket::open().unwrap();
                    assert_eq!(route.vxlan(&name).unwrap(), Some(vxlan));
                    let link = route.link(&name).unwrap().unwrap();
                    assert_eq!((link.kind.as_str(), link.mtu), ("vxlan", 1450));
                    assert_eq!(route.vxlan("lo").unwrap(), None);
                    assert_eq!(route.vxlan("nosuch").unwrap(), None);
                })
                .unwrap();
            }
        });
    }

    struct Entries {
        neighbours: Vec<Neighbour>,
        forwarding: Vec<ForwardingEntry>,
        routes: Vec<Route>,
        rules: Vec<PolicyRule>,
    }

    fn entries(br: u32, vx: u32) -> Entries {
        let neighbours: Vec<_> = (2..250)
            .flat_map(|n| [format!("10.0.0.{n}"), format!("fd00::{n}")].map(|a| (n, ip(&a))))
            .map(|(n, ip)| Neighbour { index: vx, ip, mac: mac(n) })
            .collect();
        let forwarding: Vec<_> = (2..250)
            .flat_map(|n| [Some(ip("192.0.2.2")), None].map(|remote| (n, remote)))
            .map(|(n, remote)| ForwardingEntry { index: vx, mac: mac(n), remote })
            .collect();
        let routes: Vec<_> = (2..5u8)
            .map(|n| Route {
                destination: ip(&format!("10.0.1.{n}")),
                prefix: 32,
                gateway: Some(ip(&format!("10.0.0.{n}"))),
                index: Some(br),
                table: if n == 2 { 254 } else { 100_000 + u32::from(n) },
            })
            .collect();
        let rules: Vec<_> = (2..5)
            .map(|n| PolicyRule { is_ipv6: n == 4, priority: 100, mark: n, table: 100_000 + n })
            .collect();
        Entries { neighbours, forwarding, routes, rules }
    }

    #[test]
    fn entries_are_put_listed_and_deleted_in_batches() {
        apart(|| {
            let mut route = RouteSocket::open().unwrap();
            let bridge =
                NewBridge { name: "br", mac: Mac([2, 0, 0, 0, 0, 1]), mtu: 1450, snoops_multicast: false };
            route.make_bridge(&bridge).unwrap();
            let own = namespace::own().unwrap();
            let vxlan = Vxlan { vni: 7, local: ip("192.0.2.1"), port: 4789 };
            let new = NewVxlan { name: "vx", vxlan, mtu: 1450, namespace: Namespace::Fd(own.as_fd()) };
            route.add_vxlan(&new).unwrap();
            let (br, vx) = (route.index("br").unwrap(), route.index("vx").unwrap());
            route.enslave(vx, br).unwrap();
            let port = BridgePort { learning: Some(false), isolated: Some(true), hairpin: Some(false) };
            route.set_bridge_port(vx, &port).unwrap();
            route.set_up(br).unwrap();
            route.add_address(br, ip("10.0.0.1"), 16).unwrap();

            let Entries { neighbours, forwarding: entries, routes, rules } = entries(br, vx);
            // Twice: what is there already is no error.
            for _ in 0..2 {
                let mut batch = RouteBatch::new();
                neighbours.iter().for_each(|n| batch.put_neighbour(n));
                entries.iter().for_each(|e| batch.put_forwarding(e));
                routes.iter().for_each(|r| batch.put_route(r));
                rules.iter().for_each(|r| batch.add_rule(r));
                route.commit(batch).unwrap();
                let sorted = |mut all: Vec<_>| {
                    all.sort();
                    all
                };
                assert_eq!(sorted(route.neighbours().unwrap()), sorted(neighbours.clone()));
                let mut listed = route.forwarding().unwrap();
                listed.sort();
                let mut wanted = entries.clone();
                wanted.sort();
                assert_eq!(listed, wanted);
                let listed = route.routes().unwrap();
                assert!(routes.iter().all(|route| listed.contains(route)), "{listed:?}");
                let mut listed = route.policy_rules().unwrap();
                listed.sort_by_key(|rule| rule.mark);
                assert_eq!(listed, rules);
            }
            // What moves to another machine is replaced, not added to.
            let mut batch = RouteBatch::new();
            batch.put_forwarding(&ForwardingEntry { remote: Some(ip("192.0.2.3")), ..entries[0] });
            route.commit(batch).unwrap();
            let to_first: Vec<_> = route
                .forwarding()
                .unwrap()
                .into_iter()
                .filter(|e| e.mac == mac(2) && e.remote.is_some())
                .collect();
            assert_eq!(to_first, [ForwardingEntry { remote: Some(ip("192.0.2.3")), ..entries[0] }]);
            // Twice: what is gone already is no error.
            for _ in 0..2 {
                let mut batch = RouteBatch::new();
                neighbours.iter().for_each(|n| batch.delete_neighbour(n));
                entries.iter().for_each(|e| batch.delete_forwarding(e));
                routes.iter().for_each(|r| batch.delete_route(r));
                rules.iter().for_each(|r| batch.delete_rule(r));
                route.commit(batch).unwrap();
            }
            assert_eq!(route.neighbours().unwrap(), []);
            assert_eq!(route.forwarding().unwrap(), []);
            assert_eq!(route.policy_rules().unwrap(), []);
        });
    }

    #[test]
    fn a_refused_change_does_not_stop_what_follows_and_is_told() {
        apart(|| {
            let mut route = RouteSocket::open().unwrap();
            route.add_bridge("br", Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
            let index = route.index("br").unwrap();
            let mut batch = RouteBatch::new();
            let bad = Neighbour { index: 4711, ip: ip("10.0.0.2"), mac: mac(2) };
            let good = Neighbour { index, ..bad };
            (0..300).for_each(|_| batch.put_neighbour(&bad));
            batch.put_neighbour(&good);
            let refused = route.commit(batch).unwrap_err();
            assert!(refused.to_string().starts_with("put neighbour") && refused.is_missing(), "{refused}");
            assert_eq!(route.neighbours().unwrap(), [good]);
        });
    }

    #[test]
    fn a_pinned_namespace_stays_until_it_is_unpinned() {
        apart(|| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("pin");
            std::fs::write(&path, "").unwrap();
            assert_eq!(namespace::open(&path).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
            drop(namespace::make_pinned(&path).unwrap());
            let found = namespace::open(&path).unwrap();
            let links = namespace::within(found.as_fd(), || RouteSocket::open().unwrap().links().unwrap());
            assert_eq!(links.unwrap().len(), 1);
            drop(found);
            namespace::unpin(&path).unwrap();
            assert!(namespace::open(&path).is_err());
            std::fs::remove_file(&path).unwrap();
        });
    }

    /// What `nft list ruleset` prints, without indentation.
    fn listed() -> String {
        let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nft is installed");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    }

    fn filter(hook: Hook, priority: i32) -> BaseChain {
        BaseChain { kind: ChainKind::Filter, hook, priority }
    }

    fn marking_rules() -> Batch {
        let mut batch = Batch::new(Family::Inet, "t");
        batch.replace_table();
        batch.add_map("marks", MapKey::Mac(mac(0)), &MapValue::Mark(0));
        batch.add_elements("marks", &[(MapKey::Mac(mac(2)), MapValue::Mark(2))]);
        batch.add_map("zones", MapKey::Mac(mac(0)), &MapValue::Zone(0));
        batch.add_elements("zones", &[(MapKey::Mac(mac(2)), MapValue::Zone(2))]);
        batch.add_set("peers", MapKey::Mac(mac(0)));
        batch.add_keys("peers", &[MapKey::Mac(mac(2))]);
        batch.add_set("unserved", MapKey::Address(ip("0.0.0.0")));
        batch.add_keys("unserved", &[MapKey::Address(ip("10.0.0.9"))]);
        batch.add_base_chain("early", filter(Hook::Prerouting, -300));
        batch.add_rule(
            "early",
            &Rule::new().interface(Direction::In, "br0", true).set_original_zone_by_mac("zones"),
        );
        batch.add_rule("early", &Rule::new().ct_direction(CtDirection::Original).set_ct_mark_by_mac("marks"));
        let back = Rule::new().ct_direction(CtDirection::Reply).ct_mark(0, false);
        batch.add_rule("early", &back.mark_as_connection());
        batch.add_dropping_chain("forward", filter(Hook::Forward, 0));
        batch.add_rule("forward", &Rule::new().tcp_syn().clamp_segment(1410));
        batch.add_rule("forward", &Rule::new().mac_in("peers").verdict(&Verdict::Accept));
        batch.add_rule("forward", &Rule::new().destination_in(false, "unserved").reject(false));
        batch
            .add_base_chain("back", BaseChain { kind: ChainKind::Route, hook: Hook::Output, priority: -150 });
        batch.add_rule("back", &Rule::new().ct_mark(7, true).mark_as_connection());
        batch.add_rule("back", &Rule::new().set_ct_mark(7));
        batch
    }

    fn add_translating_rules(batch: &mut Batch) {
        let nat = |hook, priority| BaseChain { kind: ChainKind::Nat, hook, priority };
        batch.add_base_chain("nat", nat(Hook::Prerouting, -100));
        batch.add_rule(
            "nat",
            &Rule::new().network(IpField::Source, ip("fd00::"), 64).dnat_address(ip("fd00::7")),
        );
        batch.add_rule("nat", &Rule::new().ipv4().dnat_address(ip("10.0.0.7")));
        batch.add_rule("nat", &Rule::new().protocol(6).dnat_socket("[fd00::7]:80".parse().unwrap()));
        for addresses in [["10.0.0.1", "10.0.0.2"], ["fd00::1", "fd00::2"]] {
            let elements: Vec<_> =
                (0..).zip(addresses).map(|(n, to)| (MapKey::Number(n), MapValue::Address(ip(to)))).collect();
            let map = batch.add_anonymous_map(&elements).unwrap();
            batch.add_rule("nat", &Rule::new().dnat_in_turn_address(map, 2, ip(addresses[0]).is_ipv6()));
        }
        let sockets: Vec<_> = ["[fd00::1]:80", "[fd00::2]:81"].map(|to| to.parse().unwrap()).to_vec();
        let elements: Vec<_> =
            (0..).zip(sockets).map(|(n, to)| (MapKey::Number(n), MapValue::Socket(to))).collect();
        let map = batch.add_anonymous_map(&elements).unwrap();
        batch.add_rule("nat", &Rule::new().protocol(6).dnat_in_turn_socket(map, 2, true));
        batch.add_base_chain("post", nat(Hook::Postrouting, 100));
        batch.add_rule("post", &Rule::new().ipv4().snat_address(ip("10.0.0.3")));
        batch.add_rule("post", &Rule::new().ipv6().snat_address(ip("fd00::3")));
    }

    fn port_rules() -> Batch {
        let mut batch = Batch::new(Family::Bridge, "b");
        batch.replace_table();
        for (set, none) in [("stations", "0.0.0.0"), ("stations6", "::")] {
            batch.add_set(set, MapKey::station("", mac(0), ip(none)));
        }
        batch.add_keys("stations", &[MapKey::station("p1", mac(3), ip("10.0.0.3"))]);
        batch.add_keys("stations6", &[MapKey::station("p1", mac(3), ip("fd00::3"))]);
        batch.add_dropping_chain("ports", filter(Hook::Prerouting, -300));
        let accept = Verdict::Accept;
        let rule = Rule::new().ether_type(0x800).station_in(StationField::Ipv4, "stations");
        batch.add_rule("ports", &rule.verdict(&accept));
        let rule = Rule::new().ether_type(0x806).station_in(StationField::Arp, "stations");
        batch.add_rule("ports", &rule.verdict(&accept));
        let rule = Rule::new().ether_type(0x86dd).station_in(StationField::Ipv6, "stations6");
        batch.add_rule("ports", &rule.verdict(&accept));
        batch
    }

    const SHOWN_BY_NFT: [&str; 22] = [
        "iifname \"br0\" ct original zone set ether saddr map @zones",
        "ct direction original ct mark set ether saddr map @marks",
        "ct direction reply ct mark != 0x00000000 meta mark set ct mark",
        "tcp flags syn tcp option maxseg size set 1410",
        "ether saddr @peers accept",
        "ip daddr @unserved reject",
        "type route hook output priority mangle; policy accept;",
        "ct mark 0x00000007 meta mark set ct mark",
        "ct mark set 0x00000007",
        "ip6 saddr fd00::/64 dnat ip6 to fd00::7",
        "dnat ip to numgen inc mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }",
        "dnat ip6 to numgen inc mod 2 map { 0 : fd00::1, 1 : fd00::2 }",
        "meta l4proto tcp dnat ip6 to [fd00::7]:80",
        "meta l4proto tcp dnat ip6 to numgen inc mod 2 map { 0 : fd00::1 . 80, 1 : fd00::2 . 81 }",
        "snat ip to 10.0.0.3",
        "snat ip6 to fd00::3",
        "type filter hook forward priority filter; policy drop;",
        "elements = { \"p1\" . 02:42:0a:00:00:03 . 10.0.0.3 }",
        "elements = { \"p1\" . 02:42:0a:00:00:03 . fd00::3 }",
        "iifname . ether saddr . ip saddr @stations accept",
        "iifname . arp saddr ether . arp saddr ip @stations accept",
        "iifname . ether saddr . ip6 saddr @stations6 accept",
    ];

    #[test]
    fn the_kernel_understands_what_the_mesh_needs_as_nft_does() {
        apart(|| {
            let mut nft = NftSocket::open().unwrap();
            let mut batch = marking_rules();
            add_translating_rules(&mut batch);
            nft.commit(batch).unwrap();
            nft.commit(port_rules()).unwrap();
            let listed = listed();
            for expect in SHOWN_BY_NFT {
                assert!(listed.contains(expect), "no `{expect}` in\n{listed}");
            }
        });
    }

    #[test]
    fn policies_are_made_changed_listed_and_removed() {
        apart(|| {
            let mut xfrm = XfrmSocket::open().unwrap();
            let policies =
                [("192.0.2.1", "192.0.2.2"), ("fd00::1", "fd00::2")].map(|(source, destination)| {
                    let (source, destination) = (ip(source), ip(destination));
                    Policy {
                        way: Way::Out,
                        source,
                        destination,
                        port: 4790,
                        request_id: 7,
                        spi: Some(0x1001),
                    }
                });
            let mut batch = XfrmBatch::new();
            for policy in policies {
                batch.put_policy(&policy);
                batch.put_policy(&Policy { spi: Some(0x1002), ..policy });
                batch.put_policy(&Policy { way: Way::In, spi: None, ..policy });
            }
            let of_all = Policy {
                source: ip("0.0.0.0"),
                destination: ip("0.0.0.0"),
                way: Way::In,
                spi: None,
                ..policies[0]
            };
            batch.put_policy(&of_all);
            xfrm.commit(batch).unwrap();
            let mut found = xfrm.policies().unwrap();
            found.sort_unstable();
            assert_eq!(found.len(), 5);
            assert!(found.contains(&of_all));
            assert!(
                found.iter().filter(|policy| policy.way == Way::Out).all(|policy| policy.spi == Some(0x1002))
            );
            let mut batch = XfrmBatch::new();
            for policy in found {
                batch.delete_policy(&policy);
                batch.delete_policy(&policy);
            }
            xfrm.commit(batch).expect("what is gone may be removed");
            assert_eq!(xfrm.policies().unwrap(), []);
        });
    }

    /// Where the kernel has ESP, the association is listed; where it has none, it says so in a way that callers can tell.
    #[test]
    fn associations_are_made_where_the_kernel_has_esp() {
        apart(|| {
            let mut xfrm = XfrmSocket::open().unwrap();
            let association = Association {
                source: ip("192.0.2.1"),
                destination: ip("192.0.2.2"),
                spi: 0x1001,
                request_id: 7,
                key: AeadKey([7; 20]),
            };
            match xfrm.add_association(&association) {
                Ok(()) => {
                    let [found] = xfrm.associations().unwrap()[..] else { panic!("one is there") };
                    assert_eq!((found.spi, found.destination), (0x1001, association.destination));
                    xfrm.delete_association(&found).unwrap();
                    assert_eq!(xfrm.associations().unwrap(), []);
                }
                Err(error) => {
                    let errno = error.errno();
                    assert!(
                        [Some(libc::EPROTONOSUPPORT), Some(libc::ENOENT), Some(libc::ENOSYS)]
                            .contains(&errno),
                        "{error:?}"
                    );
                    eprintln!("NOT CHECKED: associations, because this kernel has no ESP ({error})");
                }
            }
        });
    }
}

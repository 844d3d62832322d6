//! Links, addresses, routes and errors against a real kernel, in a network namespace of its own. Needs root.
#![allow(unsafe_code, reason = "a thread enters a namespace of its own")]

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netlink::nft::{Batch, Family, NftSocket, Verdict};
    use netlink::route::{Mac, RouteSocket, VethPair};
    use netlink::watch::{Event, Watch};

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
            bad.add_rule("nosuch", &netlink::nft::Rule::new().verdict(&Verdict::Accept));
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
}

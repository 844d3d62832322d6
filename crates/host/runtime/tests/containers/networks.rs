//! Interfaces, in a network namespace of the test's own.

use std::os::fd::AsRawFd;

use runtime::{Address, Interface, Network};

use crate::Test;
use crate::bed::{Bed, chain, succeeded};

pub(crate) const TESTS: &[Test] = &[
    ("an_interface_is_ready_when_the_program_starts", an_interface_is_ready_when_the_program_starts),
    ("an_outer_end_may_lie_in_a_pinned_namespace", an_outer_end_may_lie_in_a_pinned_namespace),
    ("a_failed_container_leaves_no_interface", a_failed_container_leaves_no_interface),
    ("the_hosts_network_can_be_shared", the_hosts_network_can_be_shared),
];

/// Runs `body` in a child of this program that has a network namespace with a bridge, so that the host's stays as it is.
fn apart(body: impl FnOnce()) {
    // SAFETY: this test program has a single thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // SAFETY: the child is alone in its network namespace from here on; nothing else depends on it.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            let mut socket = netlink::route::RouteSocket::open().unwrap();
            socket.add_bridge("bridge0", netlink::route::Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
            let bridge = socket.index("bridge0").unwrap();
            socket.add_address(bridge, [10, 9, 8, 1].into(), 24).unwrap();
            socket.set_up(bridge).unwrap();
            body();
        }))
        .is_ok();
        // SAFETY: ends only this copy of the program.
        unsafe { libc::_exit(i32::from(!passed)) };
    }
    assert_eq!(crate::bed::wait(pid), 0);
}

fn interface() -> Interface {
    Interface {
        host_name: "veth-test".into(),
        bridge: Some("bridge0".into()),
        macvlan: None,
        namespace: None,
        isolated: false,
        name: "eth0".into(),
        mac: Some([2, 0x42, 10, 9, 8, 7]),
        addresses: vec![Address { ip: [10, 9, 8, 7].into(), prefix_len: 24 }],
        gateways: vec![[10, 9, 8, 1].into()],
        mtu: 1400,
    }
}

fn an_interface_is_ready_when_the_program_starts(bed: &Bed) {
    apart(|| {
        let mut spec = bed.spec(
            "ip -o addr show dev eth0 | grep -o 'inet.*/24'; ip route; cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address; \
             cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ping -c 1 -W 2 10.9.8.1 | grep -c ' 0% packet loss'; \
             ping -c 1 -W 2 127.0.0.1 | grep -c ' 0% packet loss'",
        );
        spec.network = Network::Interfaces(vec![interface()]);
        let out = succeeded(bed.run(&spec));
        assert_eq!(
            out,
            "inet 10.9.8.7/24\ndefault via 10.9.8.1 dev eth0 \n10.9.8.0/24 dev eth0 scope link  src 10.9.8.7 \n1400\n\
             02:42:0a:09:08:07\n1\n1\n1\n"
        );
    });
}

fn an_outer_end_may_lie_in_a_pinned_namespace(bed: &Bed) {
    apart(|| {
        let there = std::fs::File::open("/proc/self/ns/net").unwrap();
        // SAFETY: as in `apart`.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        let own = || std::fs::read_link("/proc/self/ns/net").unwrap();
        let home = own();
        let mut spec = bed.spec("ping -c 1 -W 2 10.9.8.1 | grep -c ' 0% packet loss'");
        let namespace = Some(format!("/proc/self/fd/{}", there.as_raw_fd()).into());
        let pinned = Interface { namespace, isolated: true, ..interface() };
        spec.network = Network::Interfaces(vec![pinned.clone()]);
        assert_eq!(succeeded(bed.run(&spec)), "1\n");
        assert_eq!(own(), home, "the creator is back where it was");
        let gone = Interface { namespace: Some("/nowhere".into()), ..pinned };
        spec.network = Network::Interfaces(vec![gone]);
        assert!(chain(&bed.refusal(&spec)).starts_with("open network namespace"));
    });
}

fn a_failed_container_leaves_no_interface(bed: &Bed) {
    apart(|| {
        let mut spec = bed.spec("true");
        spec.network = Network::Interfaces(vec![interface()]);
        spec.process.args = vec!["nonsense".into()];
        bed.refusal(&spec);
        assert_eq!(netlink::route::RouteSocket::open().unwrap().link("veth-test").unwrap(), None);
        let missing = Interface { bridge: Some("nobridge".into()), ..interface() };
        spec.network = Network::Interfaces(vec![missing]);
        let text = chain(&bed.refusal(&spec));
        assert_eq!(text, "connect interface `veth-test`: link `nobridge` not found");
    });
}

fn the_hosts_network_can_be_shared(bed: &Bed) {
    let mut spec = bed.spec("readlink /proc/self/ns/net");
    spec.network = Network::Host;
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(succeeded(bed.run(&spec)).trim(), ours.to_str().unwrap());
    spec.network = Network::Path("/proc/self/ns/net".into());
    assert_eq!(succeeded(bed.run(&spec)).trim(), ours.to_str().unwrap());
}

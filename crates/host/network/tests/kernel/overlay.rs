//! Overlay networks across two machines: who reaches whom, what is repaired, what is left behind.

use std::collections::BTreeSet;

use netlink::route::RouteSocket;
use netplan::OverlayPlan;

use crate::swarm::{Swarm, Wanted, serve};

fn two_machines() -> Swarm {
    let mut swarm = Swarm::new(2);
    swarm.add_network("blue", 4097, &["10.0.1.0/24", "fd00:1::/64"], &[]);
    swarm
}

#[test]
fn containers_reach_each_other_across_machines() {
    let mut swarm = two_machines();
    let here = Wanted { name: "here", networks: &[("blue", &["10.0.1.5", "fd00:1::5"])], ..Wanted::PLAIN };
    let here = swarm.container(&here);
    let near = Wanted { name: "near", networks: &[("blue", &["10.0.1.6", "fd00:1::6"])], ..Wanted::PLAIN };
    let near = swarm.container(&near);
    let far =
        Wanted { on: 1, name: "far", networks: &[("blue", &["10.0.1.7", "fd00:1::7"])], ..Wanted::PLAIN };
    let far = swarm.container(&far);
    serve(&near, 80, "near");
    serve(&far, 80, "far");
    for (ip, name) in [("10.0.1.6", "near"), ("10.0.1.7", "far")] {
        assert!(here.command(&format!("ping -c1 -W2 {ip}")).contains(" 0% packet loss"), "{name}");
        assert_eq!(here.ask(&format!("{ip}:80")), Ok(format!("{name} 10.0.1.5")));
        assert_eq!(here.ask_udp(&here.udp(), &format!("{ip}:80")), Ok(format!("{name} 10.0.1.5")));
    }
    for (ip, name) in [("fd00:1::6", "near"), ("fd00:1::7", "far")] {
        assert_eq!(here.ask(&format!("[{ip}]:80")), Ok(format!("{name} fd00:1::5")));
    }
    // The largest packet passes in one piece.
    assert!(here.command("ping -c1 -W2 -M do -s 1422 10.0.1.7").contains(" 0% packet loss"));
}

#[test]
fn networks_with_equal_subnets_keep_apart() {
    let mut swarm = two_machines();
    swarm.add_network("red", 4098, &["10.0.1.0/24", "fd00:1::/64"], &[]);
    let mut pair = Vec::new();
    for network in ["blue", "red"] {
        let networks: &[(&str, &[&str])] = &[(network, &["10.0.1.5"])];
        let client =
            swarm.container(&Wanted { name: &format!("{network}-client"), networks, ..Wanted::PLAIN });
        let networks: &[(&str, &[&str])] = &[(network, &["10.0.1.7"])];
        let server = Wanted { on: 1, name: &format!("{network}-server"), networks, ..Wanted::PLAIN };
        let server = swarm.container(&server);
        serve(&server, 80, network);
        pair.push((network, client, server));
    }
    for (network, client, _server) in &pair {
        assert_eq!(client.ask("10.0.1.7:80"), Ok(format!("{network} 10.0.1.5")));
    }
    let networks: &[(&str, &[&str])] = &[("red", &["10.0.1.9"])];
    let only_red = swarm.container(&Wanted { on: 1, name: "only-red", networks, ..Wanted::PLAIN });
    serve(&only_red, 80, "only-red");
    assert!(pair[0].1.ask("10.0.1.9:80").is_err());
    assert_eq!(pair[1].1.ask("10.0.1.9:80"), Ok("only-red 10.0.1.5".to_owned()));
}

#[test]
fn a_container_that_moves_is_found_where_it_went() {
    let mut swarm = two_machines();
    let networks: &[(&str, &[&str])] = &[("blue", &["10.0.1.5"])];
    let client = swarm.container(&Wanted { name: "client", networks, ..Wanted::PLAIN });
    let networks: &[(&str, &[&str])] = &[("blue", &["10.0.1.7"])];
    for (on, name) in [(1, "first"), (0, "second"), (1, "third")] {
        let server = swarm.container(&Wanted { on, name, networks, ..Wanted::PLAIN });
        serve(&server, 80, name);
        assert_eq!(client.ask("10.0.1.7:80"), Ok(format!("{name} 10.0.1.5")));
        swarm.change("blue", |view| drop(view.endpoints.remove(name)));
        drop(server);
        // The kernel takes the namespace apart some time later, and the name of its link would be taken until then.
        let machine = &swarm.machines[on];
        machine.command_in("blue", "ip link delete p0a000107");
    }
}

#[test]
fn what_somebody_breaks_is_noticed_and_repaired() {
    let mut swarm = two_machines();
    let networks: &[(&str, &[&str])] = &[("blue", &["10.0.1.5"])];
    let client = swarm.container(&Wanted { name: "client", networks, ..Wanted::PLAIN });
    let networks: &[(&str, &[&str])] = &[("blue", &["10.0.1.7"])];
    let server = swarm.container(&Wanted { on: 1, name: "server", networks, ..Wanted::PLAIN });
    serve(&server, 80, "server");
    let view = swarm.views["blue"].clone();
    let machine = &swarm.machines[0];
    machine.with(|parts| parts.overlays.read_events().map(drop)).unwrap();
    for broken in
        ["ip link delete vx0", "ip link delete br0", "ip link set vx0 down", "ip link set p0a000105 nomaster"]
    {
        assert_eq!(client.ask("10.0.1.7:80"), Ok("server 10.0.1.5".to_owned()));
        machine.command_in("blue", broken);
        let noticed = machine.with(|parts| parts.overlays.read_events()).unwrap();
        assert_eq!(noticed, ["blue"], "{broken}");
        machine.apply(&view);
        assert_eq!(client.ask("10.0.1.7:80"), Ok("server 10.0.1.5".to_owned()), "{broken}");
        let noticed = machine.with(|parts| parts.overlays.read_events()).unwrap();
        assert!(noticed.is_empty(), "our own repair after `{broken}`");
    }
    // Nothing tells of these: a timer has to ask.
    for broken in ["bridge fdb del 02:42:0a:00:01:07 dev vx0 self", "ip neigh del 10.0.1.7 dev vx0"] {
        machine.command_in("blue", broken);
        machine.with(|parts| parts.overlays.doubt_all());
        machine.apply(&view);
        client.command("ip neigh flush all");
        assert_eq!(client.ask("10.0.1.7:80"), Ok("server 10.0.1.5".to_owned()), "{broken}");
    }
}

#[test]
fn another_daemon_takes_over_what_is_there_and_corrects_it() {
    let mut swarm = two_machines();
    let networks: &[(&str, &[&str])] = &[("blue", &["10.0.1.5"])];
    let client = swarm.container(&Wanted { name: "client", networks, ..Wanted::PLAIN });
    let networks: &[(&str, &[&str])] = &[("blue", &["10.0.1.7"])];
    let server = swarm.container(&Wanted { on: 1, name: "server", networks, ..Wanted::PLAIN });
    serve(&server, 80, "server");
    let machine = &swarm.machines[0];
    machine.restart();
    assert_eq!(client.ask("10.0.1.7:80"), Ok("server 10.0.1.5".to_owned()), "no daemon is needed");
    let before = machine.command_in("blue", "bridge fdb show dev vx0");
    machine.command_in("blue", "bridge fdb add 02:42:0a:00:01:63 dev vx0 dst 192.0.2.9 self permanent");
    machine.apply(&swarm.views["blue"]);
    assert_eq!(machine.command_in("blue", "bridge fdb show dev vx0"), before);
    assert_eq!(client.ask("10.0.1.7:80"), Ok("server 10.0.1.5".to_owned()));
}

/// B11 `leak-audit`: 1,000 rounds as 100 networks, each made, half made or found, and removed.
#[test]
fn nothing_is_left_of_networks_that_come_and_go() {
    let mut swarm = two_machines();
    let view = swarm.views.remove("blue").unwrap();
    let machine = &swarm.machines[0];
    let plan = OverlayPlan::of(&view, &machine.id, netplan::Underlay { mtu: 1500 }).unwrap();
    let links = || machine.space.run(|| RouteSocket::open().unwrap().links().unwrap().len());
    machine.with(|parts| parts.overlays.keep_only(&BTreeSet::new())).unwrap();
    let before = (links(), mounts());
    for round in 0..100u32 {
        let plan = OverlayPlan { name: format!("round{}", round % 3), ..plan.clone() };
        if round % 5 == 0 {
            machine.restart();
        }
        machine.with(move |parts| {
            // The same number each time, under another name: the one of before must be gone at once.
            parts.overlays.apply(&plan).unwrap();
            if round % 2 == 0 {
                parts.overlays.remove(&plan.name).unwrap();
            } else {
                parts.overlays.keep_only(&BTreeSet::new()).unwrap();
            }
        });
    }
    assert_eq!((links(), mounts()), before);
    machine.with(|parts| {
        assert!(!parts.overlays.path("").exists(), "the folder goes with the last network");
        parts.overlays.remove("never-there").unwrap();
    });
}

fn mounts() -> usize {
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.lines().filter(|line| line.contains("round")).count()
}

#[test]
fn a_number_that_somebody_else_uses_is_told() {
    let mut swarm = two_machines();
    let machine = &swarm.machines[0];
    machine.space.command("ip link add theirs type vxlan id 5000 dstport 4789 local 192.0.2.1");
    let mut view = swarm.views.remove("blue").unwrap();
    view.vni = 5000;
    view.id = "green".into();
    let plan = OverlayPlan::of(&view, &machine.id, netplan::Underlay { mtu: 1500 }).unwrap();
    let again = plan.clone();
    let refused = machine.with(move |parts| parts.overlays.apply(&plan)).unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.starts_with("add vxlan"), "{cause}");
    machine.space.command("ip link delete theirs");
    machine.with(move |parts| parts.overlays.apply(&again)).unwrap();
}

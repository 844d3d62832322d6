//! Who reaches what: published and unpublished ports, from everywhere, with which address.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use network::{Backend, Protocol};

use crate::world::{MACHINE, OUTSIDE, World, gateway_of, ip_of, on, tcp, udp};

#[test]
fn a_published_port_is_reached_from_everywhere_and_an_unpublished_one_from_the_bridge_alone() {
    let world = World::new();
    let (web, endpoint) = world.container("web", &[tcp(8080, 80)]);
    let (other, other_endpoint) = world.container("other", &[]);
    web.serve_tcp(80, "web");
    web.serve_tcp(81, "unpublished");
    let (ip, gateway) = (ip_of(&endpoint), gateway_of(&endpoint));
    println!("{}", world.machine.command("nft list ruleset"));

    let published = format!("{MACHINE}:8080");
    // The outside client keeps its address.
    assert_eq!(world.outside.ask(&published), Ok(format!("web {OUTSIDE}")));
    // The machine itself, by each of its addresses.
    assert_eq!(world.machine.ask(&published), Ok(format!("web {MACHINE}")));
    assert_eq!(world.machine.ask("127.0.0.1:8080"), Ok(format!("web {gateway}")));
    assert_eq!(world.machine.ask("127.0.0.9:8080"), Ok(format!("web {gateway}")));
    assert_eq!(world.machine.ask(&format!("{gateway}:8080")), Ok(format!("web {gateway}")));
    // Another container, and the container itself, through the machine.
    assert_eq!(other.ask(&published), Ok(format!("web {gateway}")));
    assert_eq!(web.ask(&published), Ok(format!("web {gateway}")));
    assert_eq!(other.ask(&format!("{gateway}:8080")), Ok(format!("web {gateway}")));
    // Directly, on the bridge, with the true address.
    assert_eq!(other.ask(&format!("{ip}:81")), Ok(format!("unpublished {}", ip_of(&other_endpoint))));
    assert_eq!(world.machine.ask(&format!("{ip}:81")), Ok(format!("unpublished {gateway}")));
    // A neighbour that routes straight at the container gets nothing, whether published or not.
    assert_eq!(world.outside.ask(&format!("{ip}:81")), Err(ErrorKind::TimedOut));
    assert_eq!(world.outside.ask(&format!("{ip}:80")), Err(ErrorKind::TimedOut));
    // Ports that nobody published stay the machine's.
    assert_eq!(world.outside.ask(&format!("{MACHINE}:8081")), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn containers_reach_the_outside_with_the_machine_s_address() {
    let world = World::new();
    let (inside, _) = world.container("inside", &[]);
    world.outside.serve_tcp(80, "outside");
    assert_eq!(inside.ask(&format!("{OUTSIDE}:80")), Ok(format!("outside {MACHINE}")));
}

#[test]
fn a_port_published_on_one_address_is_closed_on_the_others() {
    let world = World::new();
    let (web, endpoint) = world.container("web", &[on("127.0.0.1", tcp(8080, 80))]);
    web.serve_tcp(80, "web");
    assert!(world.machine.ask("127.0.0.1:8080").is_ok());
    assert_eq!(world.outside.ask(&format!("{MACHINE}:8080")), Err(ErrorKind::ConnectionRefused));
    assert_eq!(world.outside.ask(&format!("{}:80", ip_of(&endpoint))), Err(ErrorKind::TimedOut));
}

#[test]
fn a_container_does_not_reach_what_listens_on_the_machine_s_loopback() {
    let world = World::new();
    let (inside, endpoint) = world.container("inside", &[]);
    world.machine.serve_tcp(9000, "secret");
    let gateway = gateway_of(&endpoint);
    // What a container with NET_ADMIN could do: send packets for 127.0.0.1 to the bridge.
    println!("{}", inside.command("sysctl -w net.ipv4.conf.all.route_localnet=1"));
    println!("{}", inside.command("ip rule add pref 1 to 127.0.0.2 lookup 100"));
    println!("{}", inside.command("ip rule del pref 0"));
    println!("{}", inside.command("ip rule add pref 2 lookup local"));
    println!(
        "{}",
        inside.command(&format!("ip route add 127.0.0.2 via {gateway} src {} table 100", ip_of(&endpoint)))
    );
    println!("{}", inside.command("ip route get 127.0.0.2"));
    assert!(inside.command("ip route get 127.0.0.2").contains("eth0"));
    assert_eq!(world.machine.ask("127.0.0.2:9000").as_deref(), Ok("secret 127.0.0.1"));
    assert_eq!(inside.ask("127.0.0.2:9000"), Err(ErrorKind::TimedOut));
    // The attack is a real one: without our rules it succeeds.
    world.runtime.block_on(world.network().hold());
    assert_eq!(world.machine.command("nft flush chain inet skep raw"), "");
    assert!(inside.ask("127.0.0.2:9000").is_ok());
}

#[test]
fn connections_to_a_service_are_spread_evenly_and_follow_its_backends() {
    let world = World::new();
    let spaces: Vec<_> = (0..3).map(|n| world.container(&format!("task{n}"), &[])).collect();
    for (n, (space, _)) in spaces.iter().enumerate() {
        space.serve_tcp(80, &n.to_string());
    }
    let all: Vec<_> = spaces.iter().map(|(_, endpoint)| endpoint).collect();
    let count = |times: usize| {
        let mut seen = BTreeMap::new();
        for _ in 0..times {
            let answer = world.outside.ask(&format!("{MACHINE}:8000")).unwrap();
            assert!(answer.ends_with(OUTSIDE));
            *seen.entry(answer[..1].to_owned()).or_insert(0) += 1;
        }
        seen.into_values().collect::<Vec<_>>()
    };
    world.publish("web", (Protocol::Tcp, 8000, 80), &all);
    println!("{}", world.machine.command("nft list ruleset"));
    assert_eq!(count(30), [10, 10, 10]);
    world.publish("web", (Protocol::Tcp, 8000, 80), &all[..2]);
    assert_eq!(count(30), [15, 15]);
    world.publish("web", (Protocol::Tcp, 8000, 80), &all[2..]);
    assert_eq!(count(4), [4]);
    world.publish("web", (Protocol::Tcp, 8000, 80), &[]);
    assert_eq!(world.outside.ask(&format!("{MACHINE}:8000")), Err(ErrorKind::ConnectionRefused));
    assert_eq!(world.machine.ask("127.0.0.1:8000"), Err(ErrorKind::ConnectionRefused));
    world.publish("web", (Protocol::Tcp, 8000, 80), &all);
    assert_eq!(count(30), [10, 10, 10]);
    world.runtime.block_on(world.network().unpublish_service(&"web".into()));
    assert_eq!(world.outside.ask(&format!("{MACHINE}:8000")), Err(ErrorKind::ConnectionRefused));
    let rules = world.machine.command("nft list ruleset");
    assert!(!rules.contains("8000"), "{rules}");
}

#[test]
fn tasks_that_listen_on_different_ports_serve_side_by_side() {
    let world = World::new();
    let (old, old_endpoint) = world.container("old", &[]);
    let (new, new_endpoint) = world.container("new", &[]);
    old.serve_tcp(80, "old");
    new.serve_tcp(81, "new");
    let old_backend = Backend { ip: ip_of(&old_endpoint).into(), port: 80 };
    let new_backend = Backend { ip: ip_of(&new_endpoint).into(), port: 81 };
    world.publish_at("web", Protocol::Tcp, 8000, vec![old_backend, new_backend]);
    let ask = || world.outside.ask(&format!("{MACHINE}:8000"));
    let mut answers = [ask(), ask()];
    answers.sort();
    assert_eq!(answers, [Ok(format!("new {OUTSIDE}")), Ok(format!("old {OUTSIDE}"))]);
    // A stopped service leaves its port, and all services together theirs.
    world.publish_at("other", Protocol::Tcp, 8001, vec![]);
    world.runtime.block_on(world.network().unpublish_all_services());
    assert_eq!(ask(), Err(ErrorKind::ConnectionRefused));
    let rules = world.machine.command("nft list ruleset");
    assert!(!rules.contains("8000") && !rules.contains("8001"), "{rules}");
    world.publish_at("third", Protocol::Tcp, 8001, vec![]);
}

#[test]
fn datagrams_follow_the_backends_at_once() {
    let world = World::new();
    let client = world.outside.udp();
    let to = format!("{MACHINE}:5353");
    // A client that sends before the port is published, and goes on from the same port.
    assert!(world.outside.ask_udp(&client, &to).is_err());
    let (one, one_endpoint) = world.container("one", &[]);
    let (two, two_endpoint) = world.container("two", &[]);
    one.serve_udp(53, "one");
    two.serve_udp(53, "two");
    world.publish("dns", (Protocol::Udp, 5353, 53), &[&one_endpoint]);
    assert_eq!(world.outside.ask_udp(&client, &to), Ok(format!("one {OUTSIDE}")));
    world.publish("dns", (Protocol::Udp, 5353, 53), &[&two_endpoint]);
    assert_eq!(world.outside.ask_udp(&client, &to), Ok(format!("two {OUTSIDE}")));
    let local = world.machine.udp();
    assert!(world.machine.ask_udp(&local, "127.0.0.1:5353").is_ok());
    let (_, three) = world.container("three", &[udp(5354, 53)]);
    assert_eq!(three.ports[0].to_owned().host().to_string(), "0.0.0.0:5354/udp");
}

//! What survives, and what comes back: flushed rules, removed bridges, killed daemons.

use std::time::Duration;

use netplan::table::Version;
use network::{
    AttachError, AttachRequest, Network, NetworkJoin, OpenError, PortError, Protocol, SandboxMode,
};

use crate::world::{Conversation, MACHINE, OUTSIDE, World, bound, gateway_of, interface_of, ip_of, on, tcp};

#[test]
fn flushed_rules_come_back_and_established_connections_survive() {
    let world = World::new();
    let (web, _) = world.container("web", &[tcp(8080, 80)]);
    web.serve_tcp(80, "web");
    let to = format!("{MACHINE}:8080");
    let address = to.parse().unwrap();
    let mut open = world.outside.run(move || Conversation::start(address)).unwrap();
    assert_eq!(open.say(), Ok(format!("web {OUTSIDE}")));
    // A container's own connection to the published number elsewhere is left alone too.
    world.outside.serve_tcp(8080, "outside");
    let elsewhere = format!("{OUTSIDE}:8080").parse().unwrap();
    let mut outgoing = web.run(move || Conversation::start(elsewhere)).unwrap();
    assert_eq!(outgoing.say(), Ok(format!("outside {MACHINE}")));
    for attack in [
        "nft flush ruleset",
        "nft delete table inet skep",
        "nft flush table inet skep",
        "nft flush chain inet skep tcp_8080",
        "nft delete element inet skep published { tcp . 8080 }",
    ] {
        world.machine.command("nft add table ip foreign");
        assert_eq!(world.machine.command(attack), "");
        let took = world.eventually(attack, || world.outside.ask(&to).is_ok());
        println!("{attack}: back after {took:?}");
        // The rebuild itself may still be under way for attacks that leave the port working.
        let full = || world.machine.command("nft list ruleset").contains("masquerade");
        world.eventually("all rules", full);
        assert_eq!(open.say(), Ok(format!("web {OUTSIDE}")), "after {attack}");
        assert_eq!(outgoing.say(), Ok(format!("outside {MACHINE}")), "after {attack}");
        let foreign = world.machine.command("nft list tables").contains("foreign");
        assert_eq!(foreign, attack != "nft flush ruleset", "somebody else's table is left alone");
    }
}

#[test]
fn a_connection_made_while_the_rules_are_away_succeeds_once_they_are_back() {
    let mut world = World::new();
    let (web, endpoint) = world.container("web", &[tcp(8080, 80)]);
    web.serve_tcp(80, "web");
    world.restart();
    world.runtime.block_on(world.network().adopt("web", "web", &endpoint));
    // Held: the rules of the earlier daemon are still there, and a flush stays a flush.
    assert!(world.outside.ask(&format!("{MACHINE}:8080")).is_ok());
    world.machine.command("nft flush ruleset");
    assert_eq!(world.outside.ask(&format!("{MACHINE}:8080")), Err(std::io::ErrorKind::TimedOut));
    let address = format!("{MACHINE}:8080").parse().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let outside = world.outside.run(move || {
        std::thread::spawn(move || {
            tell.send(()).unwrap();
            let stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5));
            stream.map(|_| ())
        })
    });
    told.recv().unwrap();
    world.runtime.block_on(world.network().release_hold()).unwrap();
    outside.join().unwrap().expect("the client's next try comes through");
}

#[test]
fn a_removed_bridge_comes_back_with_its_containers() {
    let world = World::new();
    let (web, _) = world.container("web", &[tcp(8080, 80)]);
    web.serve_tcp(80, "web");
    let to = format!("{MACHINE}:8080");
    assert!(world.outside.ask(&to).is_ok());
    let link =
        world.machine.command("ip -br link").lines().find(|line| line.starts_with("sk-")).unwrap().to_owned();
    let link = link.split('@').next().unwrap();
    for attack in [
        "ip link del skep0".to_owned(),
        "ip link set skep0 down".to_owned(),
        "ip addr flush dev skep0".to_owned(),
        format!("ip link set {link} nomaster"),
    ] {
        assert_eq!(world.machine.command(&attack), "");
        let took = world.eventually(&attack, || {
            world.outside.ask(&to).is_ok() && world.machine.ask("127.0.0.1:8080").is_ok()
        });
        println!("{attack}: back after {took:?}");
    }
}

#[test]
fn a_restart_changes_nothing_before_the_hold_is_released_and_sweeps_then() {
    let mut world = World::new();
    let (web, web_endpoint) = world.container("web", &[tcp(8080, 80)]);
    let (gone, gone_endpoint) = world.container("gone", &[tcp(8081, 80)]);
    web.serve_tcp(80, "web");
    gone.serve_tcp(80, "gone");
    let before = world.machine.command("nft list ruleset");
    world.restart();
    world.runtime.block_on(world.network().adopt("web", "web", &web_endpoint));
    assert_eq!(world.machine.command("nft list ruleset"), before);
    world.runtime.block_on(world.network().release_hold()).unwrap();

    assert!(world.outside.ask(&format!("{MACHINE}:8080")).is_ok());
    assert_eq!(world.outside.ask(&format!("{MACHINE}:8081")), Err(std::io::ErrorKind::ConnectionRefused));
    let links = world.machine.command("ip -br link");
    assert!(links.contains(&interface_of(&web_endpoint).host_name));
    assert!(!links.contains(&interface_of(&gone_endpoint).host_name));
    // Address and port of what was adopted are taken, those of what is gone are free.
    let (_, next) = world.container("next", &[tcp(8081, 80)]);
    assert_ne!(ip_of(&next), ip_of(&web_endpoint));
    let taken = world.runtime.block_on(world.network().attach(request("late", tcp(8080, 80)))).unwrap_err();
    assert!(matches!(taken, AttachError::Port { source: PortError::Allocated(_), .. }), "{taken}");
}

fn request(name: &str, port: network::PortRequest) -> AttachRequest {
    AttachRequest {
        container_id: name.to_owned(),
        container_name: name.to_owned(),
        hostname: String::new(),
        mode: SandboxMode::Own,
        networks: vec![NetworkJoin::plain("bridge")],
        ports: vec![port],
    }
}

#[test]
fn ports_are_refused_in_docker_s_words_and_leave_nothing_behind() {
    let world = World::new();
    let refused = |port| {
        let attach = world.network();
        world.runtime.block_on(attach.attach(request("web", port))).unwrap_err().to_string()
    };
    let (_, holder) = world.container("holder", &[tcp(8080, 80)]);
    let allocated = refused(on("127.0.0.1", tcp(8080, 80)));
    assert!(allocated.ends_with("Bind for 127.0.0.1:8080 failed: port is already allocated"), "{allocated}");
    assert!(
        allocated.starts_with("driver failed programming external connectivity on endpoint web ("),
        "{allocated}"
    );

    let foreign = world.machine.run(|| std::net::TcpListener::bind("127.0.0.1:9090").unwrap());
    let in_use = refused(tcp(9090, 80));
    assert!(
        in_use.ends_with("failed to bind host port 0.0.0.0:9090/tcp: address already in use"),
        "{in_use}"
    );
    let stray = refused(on("10.9.9.9", tcp(9091, 80)));
    assert!(
        stray.ends_with("failed to bind host port 10.9.9.9:9091/tcp: cannot assign requested address"),
        "{stray}"
    );
    drop(foreign);

    // A foreign process cannot have what is published, in whatever way it asks.
    let taken = world.machine.run(|| std::net::TcpListener::bind("127.0.0.1:8080").unwrap_err().kind());
    assert_eq!(taken, std::io::ErrorKind::AddrInUse);
    assert_eq!(bound(&holder)[0].host_port, 8080);
    world.runtime.block_on(world.network().release("holder"));
    world.machine.run(|| std::net::TcpListener::bind("127.0.0.1:8080").map(|_| ())).unwrap();
    let (_, next) = world.container("web", &[tcp(9090, 80), tcp(0, 80), tcp(0, 81)]);
    let ports: Vec<_> = bound(&next).iter().map(|port| port.host_port).collect();
    assert_eq!(ports, [9090, 32768, 32769]);
}

#[test]
fn a_second_daemon_with_the_same_bridge_is_told_so() {
    let world = World::new();
    let config = world.config.clone();
    let refused = world.machine.run(|| Network::open(config)).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
}

#[test]
fn nothing_is_left_when_the_last_container_is_gone() {
    let world = World::new();
    let (_space, _) = world.container("web", &[tcp(8080, 80)]);
    world.publish("s", (Protocol::Tcp, 8000, 80), &[]);
    let network = world.network();
    world.runtime.block_on(async {
        assert!(!network.shutdown_remove().await, "not while a container runs");
        network.release("web").await;
        assert!(network.shutdown_remove().await);
        let late = network.publish_service(&"t".into(), vec![]).await;
        assert!(late.is_err(), "what is closed stays closed");
    });
    assert_eq!(world.machine.command("nft list ruleset"), "");
    let links = world.machine.command("ip -br link");
    assert!(!links.contains("skep0") && !links.contains("sk-"), "{links}");
}

#[test]
fn the_subnet_avoids_what_the_machine_routes_and_stays_over_restarts() {
    let mut world = World::new();
    let (_, first) = world.container("first", &[]);
    assert_eq!(gateway_of(&first).to_string(), "172.17.0.1");
    world.runtime.block_on(async {
        world.network().release("first").await;
        assert!(world.network().shutdown_remove().await);
    });
    world.restart();
    let (_, second) = world.container("second", &[]);
    assert_eq!(gateway_of(&second), gateway_of(&first));
    assert_eq!(second.endpoints[0].network_id, first.endpoints[0].network_id);
    world.runtime.block_on(async {
        world.network().release("second").await;
        world.network().release_hold().await.unwrap();
        assert!(world.network().shutdown_remove().await);
    });
    assert_eq!(world.machine.command("ip route add 172.17.128.0/24 via 192.0.2.2"), "");
    world.restart();
    let (_, third) = world.container("third", &[]);
    assert_eq!(gateway_of(&third).to_string(), "172.18.0.1");
}

#[test]
fn publishing_one_port_among_many_takes_less_than_a_millisecond() {
    let world = World::new();
    let (_, endpoint) = world.container("web", &[]);
    let network = world.network();
    let ip = ip_of(&endpoint);
    let mut times: Vec<Duration> = (0..500u16)
        .map(|n| {
            let backends = vec![network::Backend { ip: ip.into(), port: 80 }];
            let port = network::ServicePort {
                protocol: Protocol::Tcp,
                published: 20000 + n,
                version: Version::V4,
                backends,
            };
            let start = std::time::Instant::now();
            let service = format!("s{n}").into();
            world.runtime.block_on(network.publish_service(&service, vec![port])).unwrap();
            start.elapsed()
        })
        .collect();
    let last = times.split_off(400);
    let median = |times: &[Duration]| {
        let mut sorted = times.to_vec();
        sorted.sort();
        sorted[sorted.len() / 2]
    };
    println!("publish: median of the first 400 {:?}, of the last 100 {:?}", median(&times), median(&last));
    // Twice the promise: the build is unoptimised and the machine may be busy.
    assert!(median(&last) < Duration::from_millis(2));
    let start = std::time::Instant::now();
    world.machine.command("nft flush ruleset");
    world.eventually("the last port", || world.machine.command("nft list ruleset").contains("20499"));
    println!("rebuild of 500 ports: {:?}", start.elapsed());
}

#[test]
fn another_firewall_that_drops_by_default_is_found() {
    let world = World::new();
    world.machine.command("nft add table ip filter");
    world
        .machine
        .command("nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }");
    let chains = world.machine.run(|| netlink::nft::NftSocket::open().unwrap().base_chains()).unwrap();
    let dropping: Vec<_> = chains.iter().filter(|chain| chain.drops_by_default).collect();
    assert_eq!(dropping.len(), 1, "{chains:?}");
    assert_eq!(
        (dropping[0].table.as_str(), dropping[0].name.as_str(), dropping[0].hook),
        ("filter", "FORWARD", 2)
    );
}

#[test]
fn an_ended_container_leaves_no_connection_behind() {
    let world = World::new();
    let (web, endpoint) = world.container("web", &[tcp(8080, 80)]);
    web.serve_tcp(80, "web");
    let address = format!("{MACHINE}:8080").parse().unwrap();
    let mut open = world.outside.run(move || Conversation::start(address)).unwrap();
    assert!(open.say().is_ok());
    let tracked =
        || world.machine.run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap());
    let ip = ip_of(&endpoint).to_string();
    assert!(tracked().contains(&ip), "{}", tracked());
    world.runtime.block_on(world.network().release("web"));
    assert!(!tracked().contains(&format!("src={ip} ")), "{}", tracked());
}

#[test]
fn networks_are_shown_as_docker_shows_them() {
    let world = World::new();
    let (_space, endpoint) = world.container("web", &[]);
    let (listed, by_prefix, missing) = world.runtime.block_on(async {
        world.network().rename("web", "shop").await;
        let network = world.network();
        let prefix = endpoint.endpoints[0].network_id[..12].to_owned();
        (network.list().await, network.inspect(&prefix).await, network.inspect("nosuch").await)
    });
    let shown: Vec<_> =
        listed.iter().map(|n| (n.name.as_str(), n.driver.as_str(), n.scope.as_str())).collect();
    assert_eq!(shown, [("bridge", "bridge", "local"), ("host", "host", "local"), ("none", "null", "local")]);
    let bridge = by_prefix.unwrap();
    assert_eq!(bridge.containers["web"].ipv4_address, "172.17.0.2/16");
    assert_eq!(bridge.containers["web"].name, "shop");
    assert_eq!(bridge.containers["web"].mac_address, "02:42:ac:11:00:02");
    assert!(missing.is_none());
}

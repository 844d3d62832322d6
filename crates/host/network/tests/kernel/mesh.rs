//! The routing mesh across three machines, with the traps of its design.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use objects::PortProtocol;

use crate::swarm::{Swarm, Wanted, counted, serve};
use crate::world::Space;

const CLIENT: &str = "192.0.2.100";

/// A service on 80 and 53 with a container on each of `count` machines.
fn web(count: u8) -> (Swarm, Vec<Space>) {
    let mut swarm = Swarm::new(count);
    swarm.add_ingress();
    swarm.add_network("blue", 4097, &["10.0.1.0/24"], &[]);
    swarm.publish_ports("web", &[(PortProtocol::Tcp, 80, 8080), (PortProtocol::Udp, 53, 8080)]);
    let mut tasks = Vec::new();
    for on in 0..count {
        let addresses = [format!("10.0.0.1{on}"), format!("fd00::1{on}")];
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        let blue = format!("10.0.1.1{on}");
        let networks: &[(&str, &[&str])] = &[("ingress", &addresses), ("blue", &[&blue])];
        let name = format!("task-{on}");
        let space = swarm.container(&Wanted { name: &name, on: on.into(), networks, service: Some("web") });
        serve(&space, 8080, &name);
        tasks.push(space);
    }
    (swarm, tasks)
}

fn machine(number: usize) -> String {
    format!("192.0.2.{}", number + 1)
}

#[test]
fn every_machine_leads_to_every_task_and_tasks_see_the_client() {
    let (swarm, _tasks) = web(3);
    for number in 0..3 {
        let tcp = format!("{}:80", machine(number));
        let answers: Vec<_> = (0..30).map(|_| swarm.outside.ask(&tcp).unwrap()).collect();
        let even = ["task-0", "task-1", "task-2"].map(|name| (name.to_owned(), 10));
        assert_eq!(counted(&answers), BTreeMap::from(even));
        assert!(answers.iter().all(|answer| answer.ends_with(&format!(" {CLIENT}"))), "{answers:?}");
        let udp = format!("{}:53", machine(number));
        let answers: Vec<_> =
            (0..9).map(|_| swarm.outside.ask_udp(&swarm.outside.udp(), &udp).unwrap()).collect();
        assert_eq!(counted(&answers).len(), 3, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.ends_with(&format!(" {CLIENT}"))), "{answers:?}");
    }
}

#[test]
fn it_answers_the_machine_itself_its_loopback_and_containers() {
    let (swarm, tasks) = web(2);
    let here = &swarm.machines[0].space;
    for (to, from) in [("192.0.2.1", "192.0.2.1"), ("127.0.0.1", "10.0.0.201"), ("192.0.2.2", "192.0.2.1")] {
        let answers: Vec<_> = (0..4).map(|_| here.ask(&format!("{to}:80")).unwrap()).collect();
        assert_eq!(counted(&answers).len(), 2, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.ends_with(&format!(" {from}"))), "{to}: {answers:?}");
        let answers: Vec<_> =
            (0..4).map(|_| here.ask_udp(&here.udp(), &format!("{to}:53")).unwrap()).collect();
        assert!(answers.iter().all(|answer| answer.ends_with(&format!(" {from}"))), "{to}: {answers:?}");
    }
    for (to, from) in [("192.0.2.1", "10.0.0.201"), ("192.0.2.2", "192.0.2.1")] {
        let answers: Vec<_> = (0..4).map(|_| tasks[0].ask(&format!("{to}:80")).unwrap()).collect();
        assert_eq!(counted(&answers).len(), 2, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.ends_with(&format!(" {from}"))), "{to}: {answers:?}");
        assert!(tasks[0].ask_udp(&tasks[0].udp(), &format!("{to}:53")).is_ok());
    }
}

/// Connects from a given port.
fn from_port(space: &Space, port: u16, to: String) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
    space.run(move || {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(Duration::from_secs(2)))?;
        bind(&socket, &SocketAddr::from(([0, 0, 0, 0], port)))?;
        connect(&socket, &to.parse::<SocketAddr>().expect("an address"))?;
        let stream = TcpStream::from(socket);
        // What is lost while rules are away is sent again, each time after twice the wait.
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    })
}

fn say(mut stream: &TcpStream) -> String {
    stream.write_all(b"x\n").expect("the other side hears");
    let mut buffer = [0; 64];
    let length = stream.read(&mut buffer).expect("an answer");
    String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
}

#[test]
fn one_port_of_the_client_through_all_machines_at_once_to_one_task() {
    let (mut swarm, _tasks) = web(3);
    for other in ["task-1", "task-2"] {
        swarm.set_serving("ingress", other, false);
    }
    let open: Vec<_> =
        (0..3).map(|n| from_port(&swarm.outside, 5555, format!("{}:80", machine(n))).unwrap()).collect();
    for _ in 0..2 {
        for stream in &open {
            assert_eq!(say(stream), format!("task-0 {CLIENT}"));
        }
    }
    let socket = swarm.outside.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:5555").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        std::sync::Arc::new(socket)
    });
    for number in [0, 1, 2, 0, 1, 2] {
        let to = format!("{}:53", machine(number));
        assert_eq!(swarm.outside.ask_udp(&socket, &to), Ok(format!("task-0 {CLIENT}")), "{to}");
    }
}

#[test]
fn tasks_do_not_reach_each_other_by_the_ingress_network() {
    let (swarm, tasks) = web(2);
    let mut swarm = swarm;
    let networks: &[(&str, &[&str])] = &[("ingress", &["10.0.0.50"])];
    let beside = swarm.container(&Wanted { name: "beside", networks, ..Wanted::PLAIN });
    serve(&beside, 8080, "beside");
    for other in ["10.0.0.11", "10.0.0.50"] {
        assert!(tasks[0].ask(&format!("{other}:8080")).is_err(), "{other}");
        tasks[0].command(&format!("ip route add {other}/32 via 10.0.0.201 dev eth0"));
        assert!(tasks[0].ask(&format!("{other}:8080")).is_err(), "{other} through the node");
    }
    // As the node says who is where, a container could say so itself.
    tasks[0].command("ip neigh replace 10.0.0.50 lladdr 02:42:0a:00:00:32 dev eth0");
    tasks[0].command("ip route del 10.0.0.50/32");
    assert!(tasks[0].ask("10.0.0.50:8080").is_err());
}

#[test]
fn a_frame_with_a_forged_sender_is_dropped_at_its_port() {
    let (mut swarm, tasks) = web(2);
    let networks: &[(&str, &[&str])] = &[("ingress", &["10.0.0.50"])];
    let beside = swarm.container(&Wanted { name: "beside", networks, ..Wanted::PLAIN });
    serve(&beside, 8080, "beside");
    assert!(tasks[0].command("ping -c1 -W1 10.0.0.201").contains(" 0% packet loss"), "its node answers");
    // In the name of another task.
    tasks[0].command("ip address add 10.0.0.50/24 dev eth0");
    assert!(tasks[0].command("ping -c1 -W1 -I 10.0.0.50 10.0.0.201").contains("100% packet loss"));
    tasks[0].command("ip address del 10.0.0.50/24 dev eth0");
    // In the name of the other node, which may open connections to tasks.
    tasks[0].command("ip link set eth0 address 02:42:0a:00:00:ca");
    tasks[0].command("ip neigh replace 10.0.0.201 lladdr 02:42:0a:00:00:c9 dev eth0");
    tasks[0].command("ip route add 10.0.0.50/32 via 10.0.0.201 dev eth0");
    assert!(tasks[0].ask("10.0.0.50:8080").is_err());
}

#[test]
fn a_download_goes_on_while_the_rules_are_rebuilt() {
    const BYTES: usize = 8 << 20;
    let (mut swarm, tasks) = web(2);
    swarm.publish_ports("big", &[(PortProtocol::Tcp, 90, 9090)]);
    let networks: &[(&str, &[&str])] = &[("ingress", &["10.0.0.60"])];
    let big = swarm.container(&Wanted { name: "big", on: 1, networks, service: Some("big") });
    big.run(|| {
        let listener = TcpListener::bind("0.0.0.0:9090").unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(&vec![7; BYTES]);
            }
        });
    });
    let view = swarm.views["ingress"].clone();
    let mut stream = swarm.outside.run(|| TcpStream::connect("192.0.2.1:90")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut received, mut rounds, mut buffer) = (0, 0, vec![0; 256 << 10]);
    while received < BYTES {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "ended after {received} bytes");
        received += length;
        if received >> 20 > rounds {
            rounds += 1;
            for machine in &swarm.machines {
                machine.command_in("ingress", "nft flush ruleset");
                assert!(machine.with(|parts| parts.mesh.read_events()).unwrap(), "it is noticed");
                machine.apply(&view);
            }
        }
    }
    drop(tasks);
    assert!(rounds > 2, "{rounds}");
}

#[test]
fn what_somebody_breaks_is_noticed_and_repaired() {
    let (swarm, _tasks) = web(2);
    let view = swarm.views["ingress"].clone();
    let machine = &swarm.machines[0];
    let settle = || {
        machine.with(|parts| {
            parts.overlays.read_events().unwrap();
            parts.mesh.read_events().unwrap();
        });
    };
    let all = || {
        // Links that were made anew carry nothing for some milliseconds; a client that is lost then tries again.
        let start = Instant::now();
        while swarm.outside.ask("192.0.2.1:80").is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "never back");
        }
        let answers: Vec<_> = (0..4).map(|_| swarm.outside.ask("192.0.2.1:80").unwrap()).collect();
        counted(&answers).len()
    };
    assert_eq!(all(), 2);
    settle();
    for broken in [
        "ip link delete up0",
        "ip link delete br0",
        "ip link delete vx0",
        "ip link set up0 down",
        "nft delete table inet skep-mesh",
        "nft delete table bridge skep-mesh",
        "ip address flush dev br0",
    ] {
        machine.command_in("ingress", broken);
        let noticed = machine.with(|parts| {
            let overlays = !parts.overlays.read_events().unwrap().is_empty();
            parts.mesh.read_events().unwrap() || overlays
        });
        assert!(noticed, "{broken}");
        machine.apply(&view);
        // The repair of one is an event for the other.
        settle();
        machine.apply(&view);
        assert_eq!(all(), 2, "{broken}");
    }
    // Nothing tells of these: a timer has to ask.
    for broken in [
        "ip rule del fwmark 0xca",
        "ip route del default",
        "ip route del 10.0.0.11",
        "ip route flush table 0x1000ca",
    ] {
        machine.command_in("ingress", broken);
        machine.with(|parts| {
            parts.overlays.doubt_all();
            parts.mesh.doubt();
        });
        machine.apply(&view);
        assert_eq!(all(), 2, "{broken}");
        assert!(machine.command_in("ingress", "ip rule").contains("fwmark 0xca lookup"), "{broken}");
        assert!(
            machine.command_in("ingress", "ip route show table 0x1000ca").contains("via 10.0.0.202"),
            "{broken}"
        );
    }
}

#[test]
fn a_task_that_stops_drains_and_datagrams_go_elsewhere() {
    let (mut swarm, _tasks) = web(2);
    let open: Vec<_> =
        (0..2).map(|_| from_port(&swarm.outside, 0, "192.0.2.1:80".to_owned()).unwrap()).collect();
    let said: BTreeSet<_> = open.iter().map(say).collect();
    assert_eq!(said.len(), 2);
    let sockets = [swarm.outside.udp(), swarm.outside.udp()];
    let datagrams = sockets.each_ref().map(|socket| swarm.outside.ask_udp(socket, "192.0.2.1:53").unwrap());
    assert_ne!(datagrams[0], datagrams[1]);
    swarm.set_serving("ingress", "task-1", false);
    assert_eq!(open.iter().map(say).collect::<BTreeSet<_>>(), said, "connections under way stay");
    for socket in &sockets {
        assert_eq!(swarm.outside.ask_udp(socket, "192.0.2.1:53"), Ok(format!("task-0 {CLIENT}")));
    }
    let answers: Vec<_> = (0..4).map(|_| swarm.outside.ask("192.0.2.1:80").unwrap()).collect();
    assert_eq!(counted(&answers).len(), 1);
    swarm.set_serving("ingress", "task-0", false);
    assert_eq!(swarm.outside.ask("192.0.2.1:80"), Err(ErrorKind::ConnectionRefused));
}

/// Without the machine's own rules, which `published6` is about: what comes by the link is asked for.
#[test]
fn the_ingress_namespace_forwards_ipv6_with_the_client_s_address() {
    let (swarm, _tasks) = web(2);
    for machine in &swarm.machines {
        for line in [
            "nft add table ip6 link",
            "nft add chain ip6 link pre { type nat hook prerouting priority -100; policy accept; }",
            "nft add rule ip6 link pre fib daddr type local meta l4proto tcp th dport 80 dnat to fd73:6b65:7000::2",
            "nft add rule ip6 link pre fib daddr type local meta l4proto udp th dport 53 dnat to fd73:6b65:7000::2",
        ] {
            machine.space.command(line);
        }
    }
    for number in 1..=2 {
        let answers: Vec<_> =
            (0..4).map(|_| swarm.outside.ask(&format!("[2001:db8::{number}]:80")).unwrap()).collect();
        assert_eq!(counted(&answers).len(), 2, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.ends_with(" 2001:db8::100")), "{answers:?}");
    }
}

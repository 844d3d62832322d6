//! Virtual addresses: spread, changes, what is under way, and what a change costs.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use network::Vips;
use wire::network::{EndpointView, NetworkNews, NetworkView, ServiceView};

use crate::swarm::{Swarm, Wanted, counted, serve};
use crate::world::{Conversation, Space};

/// A service `web` with the VIP 10.0.1.2 (fd00:1::2) and a container on each of two machines; `web-0` is the client's machine.
fn web() -> (Swarm, Vec<Space>) {
    let mut swarm = Swarm::new(2);
    swarm.add_network("blue", 4097, &["10.0.1.0/24", "fd00:1::/64"], &[]);
    swarm.add_service("blue", "web", &["10.0.1.2", "fd00:1::2"]);
    let mut backends = Vec::new();
    for on in 0..2 {
        let addresses = [format!("10.0.1.1{on}"), format!("fd00:1::1{on}")];
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        let name = format!("web-{on}");
        let networks: &[(&str, &[&str])] = &[("blue", &addresses)];
        let space = swarm.container(&Wanted { name: &name, on, networks, service: Some("web") });
        serve(&space, 80, &name);
        backends.push(space);
    }
    (swarm, backends)
}

fn client(swarm: &mut Swarm) -> Space {
    let networks: &[(&str, &[&str])] = &[("blue", &["10.0.1.5", "fd00:1::5"])];
    swarm.container(&Wanted { name: "client", networks, ..Wanted::PLAIN })
}

#[test]
fn connections_are_spread_evenly_and_clients_keep_their_address() {
    let (mut swarm, _backends) = web();
    let client = client(&mut swarm);
    for (vip, from) in [("10.0.1.2:80", "10.0.1.5"), ("[fd00:1::2]:80", "fd00:1::5")] {
        let answers: Vec<_> = (0..20).map(|_| client.ask(vip).unwrap()).collect();
        assert_eq!(counted(&answers), BTreeMap::from([("web-0".to_owned(), 10), ("web-1".to_owned(), 10)]));
        assert!(answers.iter().all(|answer| answer.ends_with(from)), "{answers:?}");
    }
    let answers: Vec<_> = (0..10).map(|_| client.ask_udp(&client.udp(), "10.0.1.2:80").unwrap()).collect();
    assert_eq!(counted(&answers), BTreeMap::from([("web-0".to_owned(), 5), ("web-1".to_owned(), 5)]));
    assert!(client.command("ping -c1 -W2 10.0.1.2").contains(" 0% packet loss"));
    assert_eq!(client.ask("10.0.1.2:81"), Err(ErrorKind::ConnectionRefused), "every port is translated");
}

#[test]
fn a_service_reaches_itself() {
    let (_swarm, backends) = web();
    for space in &backends {
        let answers: Vec<_> = (0..10).map(|_| space.ask("10.0.1.2:80").unwrap()).collect();
        assert_eq!(counted(&answers).len(), 2, "{answers:?}");
        assert!(space.ask_udp(&space.udp(), "10.0.1.2:80").is_ok());
    }
}

#[test]
fn a_backend_that_leaves_keeps_its_connections_and_loses_its_datagrams() {
    let (mut swarm, _backends) = web();
    let client = client(&mut swarm);
    let mut open: Vec<_> =
        (0..2).map(|_| client.run(|| Conversation::start("10.0.1.2:80".parse().unwrap())).unwrap()).collect();
    let said: Vec<_> = open.iter_mut().map(|open| open.say().unwrap()).collect();
    let sockets = [client.udp(), client.udp()];
    let datagrams = sockets.each_ref().map(|socket| client.ask_udp(socket, "10.0.1.2:80").unwrap());
    assert_ne!(datagrams[0], datagrams[1]);

    swarm.set_serving("blue", "web-0", false);
    let still: Vec<_> = open.iter_mut().map(|open| open.say().unwrap()).collect();
    assert_eq!(still, said);
    for socket in &sockets {
        assert_eq!(client.ask_udp(socket, "10.0.1.2:80"), Ok("web-1 10.0.1.5".to_owned()));
    }
    let answers: Vec<_> = (0..4).map(|_| client.ask("10.0.1.2:80").unwrap()).collect();
    assert_eq!(counted(&answers), BTreeMap::from([("web-1".to_owned(), 4)]));

    swarm.set_serving("blue", "web-1", false);
    assert_eq!(client.ask("10.0.1.2:80"), Err(ErrorKind::ConnectionRefused), "refused at once");
    swarm.set_serving("blue", "web-0", true);
    assert_eq!(client.ask("10.0.1.2:80"), Ok("web-0 10.0.1.5".to_owned()));
    swarm.change("blue", |view| drop(view.services.remove("web")));
    assert!(client.ask("10.0.1.2:80").is_err());
}

#[test]
fn a_container_has_the_vips_of_its_own_networks_alone_and_heals_what_it_broke() {
    let (mut swarm, _backends) = web();
    swarm.add_network("red", 4098, &["10.0.2.0/24"], &[]);
    let networks: &[(&str, &[&str])] = &[("red", &["10.0.2.5"])];
    let stranger = swarm.container(&Wanted { name: "stranger", networks, ..Wanted::PLAIN });
    assert!(!stranger.command("nft list ruleset").contains("10.0.1.2"));
    let client = client(&mut swarm);
    client.command("nft delete table inet skep-vip");
    swarm.set_serving("blue", "web-0", false);
    assert_eq!(client.ask("10.0.1.2:80"), Ok("web-1 10.0.1.5".to_owned()));
}

const LIMIT: Duration = Duration::from_millis(2);

/// Row 28 of the goals: 2 ms, whatever is there. The median, because this machine has other work.
#[test]
fn a_change_costs_the_same_among_ten_and_among_ten_thousand_services() {
    let measured = [10u16, 1_000, 10_000].map(|count| (count, cost_of_a_change(count)));
    for (count, (start, change)) in measured {
        println!("{count} services: start {start:?}, a change {change:?}");
    }
    // chosen: what a machine with other work, and a build without optimisation, take more.
    const ALLOWANCE: u32 = 3;
    assert!(measured.iter().all(|(_, (_, change))| *change < LIMIT * ALLOWANCE), "{measured:?}");
}

fn cost_of_a_change(count: u16) -> (Duration, Duration) {
    const ROUNDS: u16 = 51;
    let ip = |net: u8, n: u16| [10, net, (n >> 8) as u8, n as u8].into();
    let id = |n: u16| format!("s{n}");
    let endpoint = |n: u16, is_serving| EndpointView {
        addresses: vec![ip(2, n)],
        service: Some(id(n).as_str().into()),
        is_serving,
        ports: Vec::new(),
        ..EndpointView::default()
    };
    let service = |n: u16| ServiceView { vips: vec![ip(1, n)], ..ServiceView::default() };
    let view = NetworkView {
        id: "blue".into(),
        services: (0..count).map(|n| (id(n).as_str().into(), service(n))).collect(),
        endpoints: (0..count).map(|n| (id(n), endpoint(n, true))).collect(),
        ..NetworkView::default()
    };
    let space = Space::new();
    let mut vips = Vips::new();
    vips.put_network(&view);
    let begin = Instant::now();
    vips.plug("client", space.fd.as_fd(), vec!["blue".into()]).unwrap();
    let start = begin.elapsed();
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let mut news = NetworkNews::of("blue".into());
        let more = EndpointView { addresses: vec![ip(3, round)], ..endpoint(round % count, true) };
        news.endpoints.insert(format!("more{round}"), Some(more));
        let begin = Instant::now();
        vips.take_in(&news);
        took.push(begin.elapsed());
    }
    took.sort();
    (start, took[took.len() / 2])
}

//! Ports that a swarm publishes, over IPv6: who reaches them on the machine, and whom the task sees.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use netlink::namespace;
use network::{AskedSubnet, AttachRequest, Attachment, NetworkJoin, SandboxMode};
use objects::{NodeId, PortConfig, PortProtocol};
use wire::network::{EndpointView, NetworkView, PeerView, ServiceView};
use wire::session::{Assigned, Assignments};

use crate::swarm::serve;
use crate::world::{Conversation, MACHINE, OUTSIDE, Space, World};

const MACHINE6: &str = "2001:db8::1";
const OUTSIDE6: &str = "2001:db8::2";
const LOCALHOST: &str = "::1";
/// The node's own on the ingress network.
const NODE6: &str = "fd00::c9";
const TASK: &str = "task-1";

/// A machine, alone in its swarm, with a task that serves TCP 80 and UDP 53, and an outside client.
fn web() -> (World, Space, Attachment) {
    let world = World::new();
    world.machine.command(&format!("ip -6 address add {MACHINE6}/64 dev up0 nodad"));
    world.outside.command(&format!("ip -6 address add {OUTSIDE6}/64 dev eth0 nodad"));
    tell(&world, true);
    let (task, attachment) = task(&world);
    serve(&task, 8080, "web");
    (world, task, attachment)
}

fn view(is_serving: bool) -> NetworkView {
    let port = |protocol, published_port| PortConfig {
        protocol,
        published_port,
        target_port: 8080,
        ..PortConfig::default()
    };
    let ports = vec![port(PortProtocol::Tcp, 80), port(PortProtocol::Udp, 53)];
    let own = PeerView {
        data_path: MACHINE.parse().unwrap(),
        addresses: vec!["10.0.0.201".parse().unwrap(), NODE6.parse().unwrap()],
        encryption_generation: 0,
    };
    let endpoint = EndpointView {
        node: node(),
        addresses: vec!["10.0.0.10".parse().unwrap(), "fd00::10".parse().unwrap()],
        service: Some("web".into()),
        is_serving,
        ..EndpointView::default()
    };
    NetworkView {
        id: "ingress".into(),
        name: "ingress".to_owned(),
        vni: 4097,
        data_path_port: 4789,
        ingress: true,
        subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        gateways: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        peers: [(node(), own)].into(),
        endpoints: [(TASK.to_owned(), endpoint)].into(),
        services: [("web".into(), ServiceView { ports, ..ServiceView::default() })].into(),
        ..NetworkView::default()
    }
}

fn node() -> NodeId {
    "node1".into()
}

fn tell(world: &World, is_serving: bool) {
    tell_view(world, view(is_serving));
}

fn tell_view(world: &World, view: NetworkView) {
    let assigned = Assigned { networks: vec![view], ..Assigned::default() };
    world.runtime.block_on(world.network().tell(&node(), Assignments::Complete(assigned))).unwrap();
}

/// The task's container, as engine and runtime make it.
fn task(world: &World) -> (Space, Attachment) {
    let join = NetworkJoin {
        ip: Some([10, 0, 0, 10].into()),
        ip6: Some("fd00::10".parse().unwrap()),
        ..NetworkJoin::plain("ingress")
    };
    let request = AttachRequest {
        container_id: TASK.to_owned(),
        container_name: TASK.to_owned(),
        hostname: TASK.to_owned(),
        mode: SandboxMode::Own,
        networks: vec![join],
        ports: Vec::new(),
    };
    let attachment = world.runtime.block_on(world.network().attach(request)).unwrap();
    let space = Space::new();
    plug(world, &space, &attachment);
    let thread = space.run(|| rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    world.runtime.block_on(world.network().plug(TASK, thread)).unwrap();
    (space, attachment)
}

/// Interfaces whose outer ends lie in a network's namespace lie there; the others on the machine.
fn plug(world: &World, space: &Space, attachment: &Attachment) {
    for interface in attachment.interfaces() {
        match interface.namespace.clone() {
            Some(path) => world.plug_in(&Space::of(namespace::open(&path).unwrap()), space, interface),
            None => world.plug_in(&world.machine, space, interface),
        }
    }
}

/// A socket for datagrams of IPv6.
fn udp(space: &Space) -> Arc<UdpSocket> {
    space.run(|| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        Arc::new(socket)
    })
}

fn check(space: &Space, to: &str, seen: &str) {
    assert_eq!(space.ask(&format!("[{to}]:80")), Ok(format!("web {seen}")), "TCP to {to}");
    assert_eq!(space.ask_udp(&udp(space), &format!("[{to}]:53")), Ok(format!("web {seen}")), "UDP to {to}");
}

#[test]
fn a_port_of_the_mesh_is_reached_over_ipv6_from_everywhere_and_the_task_sees_the_client() {
    let (world, _task, _) = web();
    println!("{}", world.machine.command("nft list ruleset"));
    check(&world.outside, MACHINE6, OUTSIDE6);
    // The machine itself: by its address, and by its loopback, which is nobody's address elsewhere.
    check(&world.machine, MACHINE6, MACHINE6);
    check(&world.machine, LOCALHOST, NODE6);
    world.create("six", |spec| {
        let subnet = |subnet: &str| AskedSubnet { subnet: subnet.into(), ..AskedSubnet::default() };
        spec.has_ipv6 = true;
        spec.subnets = vec![subnet("10.6.0.0/24"), subnet("fd06::/64")];
    });
    let (other, _) = world.container_on("other", &["six"], &[]);
    // The bridge was made just now, and neighbours on it are asked for once a second.
    world.eventually("the bridge leads on", || other.ask(&format!("[{MACHINE6}]:80")).is_ok());
    check(&other, MACHINE6, NODE6);
    check(&other, "fd06::1", NODE6);
    // IPv4 is as it was.
    assert_eq!(world.outside.ask(&format!("{MACHINE}:80")), Ok(format!("web {OUTSIDE}")));
    assert_eq!(world.machine.ask("127.0.0.1:80"), Ok(format!("web {MACHINE}")));
    // What is not published stays the machine's.
    let refused = Err(std::io::ErrorKind::ConnectionRefused);
    assert_eq!(world.outside.ask(&format!("[{MACHINE6}]:81")), refused);
    assert_eq!(world.machine.ask("[::1]:81"), refused);
    tell(&world, false);
    assert_eq!(world.outside.ask(&format!("[{MACHINE6}]:80")), refused, "nobody serves it any more");
    assert_eq!(world.machine.ask("[::1]:80"), refused);
}

#[test]
fn connections_to_loopback_go_on_without_a_daemon_and_large_answers_arrive() {
    const BYTES: usize = 4 << 20;
    let (mut world, task, attachment) = web();
    task.run(|| {
        let listener = TcpListener::bind("[::]:8081").unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::io::Write::write_all(&mut stream, &vec![7; BYTES]).unwrap();
            }
        });
    });
    let to: SocketAddr = "[::1]:80".parse().unwrap();
    let mut open = world.machine.run(move || Conversation::start(to)).unwrap();
    assert_eq!(open.say(), Ok(format!("web {NODE6}")));
    world.network = None;
    assert_eq!(open.say(), Ok(format!("web {NODE6}")));
    check(&world.machine, LOCALHOST, NODE6);
    // A daemon that comes back finds everything as it is.
    world.restart();
    world.runtime.block_on(world.network().adopt(TASK, TASK, &attachment));
    tell(&world, true);
    world.runtime.block_on(world.network().release_hold()).unwrap();
    assert_eq!(open.say(), Ok(format!("web {NODE6}")));
    let mut big = view(true);
    big.services.get_mut("web").unwrap().ports[0].target_port = 8081;
    tell_view(&world, big);
    let received = world.machine.run(move || {
        let mut stream = std::net::TcpStream::connect(to).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    });
    assert_eq!(received, BYTES as u64);
    assert_eq!(open.say(), Ok(format!("web {NODE6}")), "what was under way stays with its port");
}

#[test]
fn what_somebody_takes_away_of_the_link_comes_back() {
    let (world, _task, _) = web();
    for broken in [
        "ip -6 address flush dev skmesh scope global",
        "ip link set skmesh down",
        "ip link delete skmesh",
        "nft flush ruleset",
    ] {
        println!("{broken}{}", world.machine.command(broken));
        world.eventually(broken, || {
            world.outside.ask(&format!("[{MACHINE6}]:80")) == Ok(format!("web {OUTSIDE6}"))
                && world.machine.ask("[::1]:80") == Ok(format!("web {NODE6}"))
        });
    }
}

#[test]
fn a_machine_without_ipv6_serves_ipv4_as_before() {
    let world = World::new();
    world.machine.command("sysctl -w net.ipv6.conf.all.disable_ipv6=1");
    tell(&world, true);
    let (task, _) = task(&world);
    serve(&task, 8080, "web");
    assert_eq!(world.outside.ask(&format!("{MACHINE}:80")), Ok(format!("web {OUTSIDE}")));
    assert_eq!(world.machine.ask("127.0.0.1:80"), Ok(format!("web {MACHINE}")));
    assert_eq!(world.machine.command("ip -6 address show dev skmesh"), "");
    assert!(!world.machine.command("nft list map inet skep published6").contains("80"));
}

#[test]
fn packets_too_small_for_ipv6_leave_ipv4_as_before() {
    let world = World::new();
    world.machine.command("ip link set up0 mtu 1300");
    tell(&world, true);
    let (task, attachment) = task(&world);
    serve(&task, 8080, "web");
    assert_eq!(world.outside.ask(&format!("{MACHINE}:80")), Ok(format!("web {OUTSIDE}")));
    let addresses = &attachment.endpoint("ingress").unwrap().addresses;
    assert!(addresses.iter().all(|address| address.ip.is_ipv4()), "{addresses:?}");
    assert!(!world.machine.command("ip -6 address show dev skmesh").contains("fd73:"));
    // As soon as there is room, there is IPv6.
    world.machine.command("ip link set up0 mtu 1500");
    tell(&world, true);
    world.eventually("the node has its address", || {
        world.machine.command("ip -6 address show dev skmesh").contains("fd73:")
    });
}

#[test]
fn datagrams_that_came_before_the_port_was_published_are_led_on_afterwards() {
    let world = World::new();
    world.machine.command(&format!("ip -6 address add {MACHINE6}/64 dev up0 nodad"));
    world.outside.command(&format!("ip -6 address add {OUTSIDE6}/64 dev eth0 nodad"));
    let mut before = view(true);
    before.services.clear();
    tell_view(&world, before);
    let (task, _) = task(&world);
    serve(&task, 8080, "web");
    let socket = udp(&world.outside);
    let ask = || world.outside.ask_udp(&socket, &format!("[{MACHINE6}]:53"));
    assert!(ask().is_err(), "nobody publishes it yet");
    tell(&world, true);
    assert_eq!(ask(), Ok(format!("web {OUTSIDE6}")));
}

#[test]
fn links_that_follow_routers_go_on_with_that() {
    let world = World::new();
    world.machine.command("sysctl -w net.ipv6.conf.up0.accept_ra=1 net.ipv6.conf.up0.forwarding=0");
    world.machine.command("ip link add quiet type bridge");
    world.machine.command("sysctl -w net.ipv6.conf.quiet.accept_ra=0");
    tell(&world, true);
    let value =
        |name: &str| world.machine.command(&format!("sysctl -n net.ipv6.conf.{name}")).trim().to_owned();
    assert_eq!(value("all.forwarding"), "1");
    assert_eq!((value("up0.accept_ra"), value("quiet.accept_ra")), ("2".to_owned(), "0".to_owned()));
    assert_eq!(value("skmesh.accept_ra"), "0");
}

#[test]
fn a_program_that_has_the_port_of_ipv6_keeps_it_and_ipv4_is_published() {
    let world = World::new();
    world.machine.command(&format!("ip -6 address add {MACHINE6}/64 dev up0 nodad"));
    world.outside.command(&format!("ip -6 address add {OUTSIDE6}/64 dev eth0 nodad"));
    serve_ipv6_alone(&world.machine, 80, "own");
    tell(&world, true);
    let (task, _) = task(&world);
    serve(&task, 8080, "web");
    assert_eq!(world.outside.ask(&format!("{MACHINE}:80")), Ok(format!("web {OUTSIDE}")));
    assert_eq!(world.outside.ask(&format!("[{MACHINE6}]:80")), Ok(format!("own {OUTSIDE6}")));
}

fn serve_ipv6_alone(space: &Space, port: u16, name: &str) {
    let name = name.to_owned();
    space.run(move || {
        let listener = crate::swarm::only_ipv6_tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                crate::world::echo(&stream.unwrap(), &name);
            }
        });
    });
}

//! A small swarm of network namespaces: machines on one wire, an outside client on it, containers on networks across them.
//!
//! Machines are 192.0.2.1, .2, … and 2001:db8::1, …; the client is 192.0.2.100 and 2001:db8::100. Needs root.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use ipnet::IpNet;
use netlink::namespace;
use netlink::route::{BridgePort, Mac, Namespace, RouteSocket, VethPair};
use netplan::overlay::{namespace_name, port_name};
use netplan::{LinkSubnet, MacAddress, MeshPlan, OverlayPlan, TaskSide, Underlay};
use network::{AttachRequest, Mesh, Network, NetworkConfig, NetworkJoin, Overlays, SandboxMode, Vips};
use objects::{NetworkId, NodeId, PortConfig, PortProtocol, ServiceId};
use wire::network::{EndpointView, NetworkNews, NetworkView, PeerView, ServiceView};

use crate::world::{Space, unpin_all};

const UNDERLAY: Underlay = Underlay { mtu: 1500 };
const MESH_LINK: &str = "sk-mesh";

/// What the daemon of a machine has.
pub(crate) struct Parts {
    pub(crate) overlays: Overlays,
    pub(crate) mesh: Mesh,
    pub(crate) vips: Vips,
}

pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) space: Space,
    pub(crate) parts: Arc<Mutex<Parts>>,
    network: Network,
    dir: tempfile::TempDir,
}

pub(crate) struct Swarm {
    pub(crate) outside: Space,
    pub(crate) machines: Vec<Machine>,
    pub(crate) views: BTreeMap<NetworkId, NetworkView>,
    runtime: tokio::runtime::Runtime,
    _wire: Space,
}

/// A container that a test wants.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    /// Number of its machine.
    pub(crate) on: usize,
    /// Networks with its addresses there, in the order of its interfaces.
    pub(crate) networks: &'a [(&'a str, &'a [&'a str])],
    pub(crate) service: Option<&'a str>,
}

impl Wanted<'_> {
    pub(crate) const PLAIN: Self = Self { name: "", on: 0, networks: &[], service: None };
}

impl Machine {
    /// Runs a closure in the machine's namespace with what its daemon has.
    pub(crate) fn with<T: Send + 'static>(&self, job: impl FnOnce(&mut Parts) -> T + Send + 'static) -> T {
        let parts = self.parts.clone();
        self.space.run(move || job(&mut parts.lock().unwrap()))
    }

    /// Runs a command in the namespace of a network.
    pub(crate) fn command_in(&self, network: &str, line: &str) -> String {
        let name = namespace_name(&network.into());
        let path = self.dir.path().join("netns").join(name);
        Space::of(namespace::open(&path).unwrap()).command(line)
    }

    fn new(number: u8, wire: &Space) -> Self {
        let space = Space::new();
        connect(wire, &space, number);
        let dir = tempfile::tempdir().unwrap();
        let (pins, config) =
            (dir.path().join("netns"), NetworkConfig::new(dir.path(), &dir.path().join("exec")));
        let (parts, network) = space.run(|| {
            let overlays = Overlays::open(pins).unwrap();
            let mesh = Mesh::open(MESH_LINK).unwrap();
            (Parts { overlays, mesh, vips: Vips::new() }, Network::open(config).unwrap())
        });
        let id = format!("node{number}").as_str().into();
        Self { id, space, parts: Arc::new(Mutex::new(parts)), network, dir }
    }

    /// Another daemon takes the place of the one there.
    pub(crate) fn restart(&self) {
        let pins = self.dir.path().join("netns");
        self.with(|parts| {
            parts.overlays = Overlays::open(pins).unwrap();
            parts.mesh = Mesh::open(MESH_LINK).unwrap();
        });
    }

    /// Brings the machine to this view.
    pub(crate) fn apply(&self, view: &NetworkView) {
        let (id, view) = (self.id.clone(), view.clone());
        let plan = OverlayPlan::of(&view, &id, UNDERLAY).unwrap();
        let has_ipv6 = plan.own.iter().any(|own| own.addr().is_ipv6());
        let mesh = MeshPlan::of(&view, &id, plan.mtu, &LinkSubnet::usual(has_ipv6));
        self.with(move |parts| {
            parts.overlays.apply(&plan).unwrap();
            if let Some(mesh) = mesh {
                let ingress = parts.overlays.namespace(&plan.name).unwrap();
                parts.mesh.apply(ingress, &mesh).unwrap();
            }
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        unpin_all(&self.dir.path().join("netns"));
    }
}

pub(crate) fn connect(wire: &Space, space: &Space, number: u8) {
    let peer = space.fd.try_clone().unwrap();
    wire.run(move || {
        let mut route = RouteSocket::open().unwrap();
        let master = Some(route.index("wire").unwrap());
        let pair = VethPair {
            name: &format!("port{number}"),
            master,
            mtu: 1500,
            up: true,
            peer_name: "eth0",
            peer_mac: None,
            peer_namespace: Some(Namespace::Fd(peer.as_fd())),
        };
        route.add_veth(&pair).unwrap();
    });
    space.run(move || {
        let mut route = RouteSocket::open().unwrap();
        let index = route.index("eth0").unwrap();
        route.add_address(index, [192, 0, 2, number].into(), 24).unwrap();
        let ip6: Ipv6Addr = format!("2001:db8::{number}").parse().unwrap();
        route.add_address(index, ip6.into(), 64).unwrap();
        route.set_up(index).unwrap();
    });
}

impl Swarm {
    pub(crate) fn new(machines: u8) -> Self {
        let wire = Space::new();
        wire.run(|| {
            let mut route = RouteSocket::open().unwrap();
            route.add_bridge("wire", Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
            let index = route.index("wire").unwrap();
            route.set_up(index).unwrap();
        });
        let outside = Space::new();
        connect(&wire, &outside, 100);
        let machines: Vec<_> = (1..=machines).map(|number| Machine::new(number, &wire)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let swarm = Self { outside, machines, views: BTreeMap::new(), runtime, _wire: wire };
        for machine in &swarm.machines {
            swarm.runtime.block_on(machine.network.release_hold()).unwrap();
            machine.space.command("nft add table ip link");
            for chain in [
                "pre { type nat hook prerouting",
                "out { type nat hook output",
                "post { type nat hook postrouting",
            ] {
                machine
                    .space
                    .command(&format!("nft add chain ip link {chain} priority 0; policy accept; }}"));
            }
            // As the machine's rules have it for bridges.
            machine
                .space
                .command("nft add rule ip link post ip saddr 127.0.0.0/8 oifname sk-mesh masquerade");
        }
        swarm
    }

    /// A network that every machine is on.
    pub(crate) fn add_network(&mut self, id: &str, vni: u32, subnets: &[&str], own: &[fn(u8) -> IpAddr]) {
        let peer = |number: u8| PeerView {
            data_path: [192, 0, 2, number].into(),
            addresses: own.iter().map(|own| own(number)).collect(),
            encryption_generation: number.into(),
        };
        let peers = (1..).zip(&self.machines).map(|(number, machine)| (machine.id.clone(), peer(number)));
        let view = NetworkView {
            id: id.into(),
            name: id.to_owned(),
            vni,
            data_path_port: 4789,
            ingress: !own.is_empty(),
            subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
            peers: peers.collect(),
            ..NetworkView::default()
        };
        self.views.insert(id.into(), view);
        self.change(id, |_| ());
    }

    /// The ingress network, 10.0.0.0/24 and fd00::/64; nodes have .201, .202, ….
    pub(crate) fn add_ingress(&mut self) {
        let v4 = |number| [10, 0, 0, 200 + number].into();
        let v6 = |number| format!("fd00::{}", 200 + number).parse().unwrap();
        self.add_network("ingress", 4096, &["10.0.0.0/24", "fd00::/64"], &[v4, v6]);
    }

    /// Changes a network on every machine.
    pub(crate) fn change(&mut self, network: &str, change: impl FnOnce(&mut NetworkView)) {
        let view = self.views.get_mut(network).unwrap();
        let before = view.clone();
        change(view);
        let view = view.clone();
        let news = NetworkNews::between(&before, &view);
        for machine in &self.machines {
            machine.apply(&view);
            let (view, news) = (view.clone(), news.clone());
            let is_new = news.is_empty();
            machine.with(move |parts| match is_new {
                true => parts.vips.put_network(&view),
                false => parts.vips.take_in(&news),
            });
        }
        if view.ingress {
            self.publish(&view);
        }
    }

    /// What the machine does with published ports: they lead to the link's inner address.
    fn publish(&self, view: &NetworkView) {
        let ports: Vec<_> = view.services.values().flat_map(|service| &service.ports).collect();
        for machine in &self.machines {
            for chain in ["pre", "out"] {
                machine.space.command(&format!("nft flush chain ip link {chain}"));
                for port in &ports {
                    let (protocol, number) = (port.protocol.as_str(), port.published_port);
                    machine.space.command(&format!(
                        "nft add rule ip link {chain} fib daddr type local {protocol} dport {number} dnat to 169.254.73.2"
                    ));
                }
            }
        }
    }

    pub(crate) fn add_service(&mut self, network: &str, id: &str, vips: &[&str]) {
        let vips = vips.iter().map(|vip| vip.parse().unwrap()).collect();
        let service = ServiceView { name: id.to_owned(), vips, ..ServiceView::default() };
        self.change(network, |view| drop(view.services.insert(id.into(), service)));
    }

    pub(crate) fn publish_ports(&mut self, id: &str, ports: &[(PortProtocol, u32, u32)]) {
        let config = |(protocol, published_port, target_port): &(PortProtocol, u32, u32)| PortConfig {
            protocol: *protocol,
            published_port: *published_port,
            target_port: *target_port,
            ..PortConfig::default()
        };
        let ports = ports.iter().map(config).collect();
        let service = ServiceView { name: id.to_owned(), ports, ..ServiceView::default() };
        self.change("ingress", |view| drop(view.services.insert(id.into(), service)));
    }

    pub(crate) fn set_serving(&mut self, network: &str, container: &str, is_serving: bool) {
        self.change(network, |view| view.endpoints.get_mut(container).unwrap().is_serving = is_serving);
    }

    /// A container as managers tell of it and as engine and runtime make it. Who is on the ingress network also gets a way
    /// out by its machine's own bridge.
    pub(crate) fn container(&mut self, wanted: &Wanted<'_>) -> Space {
        for (network, addresses) in wanted.networks {
            let endpoint = EndpointView {
                node: self.machines[wanted.on].id.clone(),
                addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
                service: wanted.service.map(ServiceId::from),
                is_serving: true,
                ports: Vec::new(),
                ..EndpointView::default()
            };
            self.change(network, |view| drop(view.endpoints.insert(wanted.name.to_owned(), endpoint)));
        }
        let space = Space::new();
        let machine = &self.machines[wanted.on];
        for (number, (network, addresses)) in wanted.networks.iter().enumerate() {
            let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
            self.plug(machine, &space, &self.views[*network], number, &addresses);
        }
        let is_published = wanted.networks.iter().any(|(network, _)| *network == "ingress");
        if is_published {
            let (way_out, prefix) = self.plug_way_out(machine, wanted, &space);
            self.plug_task(machine, wanted, &space, IpNet::new(way_out, prefix).unwrap());
        }
        let networks = wanted.networks.iter().map(|(network, _)| NetworkId::from(*network)).collect();
        let (name, fd) = (wanted.name.to_owned(), space.fd.try_clone().unwrap());
        machine.with(move |parts| parts.vips.plug(&name, fd.as_fd(), networks)).unwrap();
        space
    }

    fn plug(
        &self,
        machine: &Machine,
        space: &Space,
        view: &NetworkView,
        number: usize,
        addresses: &[IpAddr],
    ) {
        let inner = format!("eth{number}");
        let of_port = addresses.to_vec();
        let outer = port_name(addresses).unwrap();
        let mac = Mac(MacAddress::of_all(addresses).unwrap().0);
        let network = namespace_name(&view.id);
        let (fd, peer_name, is_ingress) = (space.fd.try_clone().unwrap(), inner.clone(), view.ingress);
        machine.with(move |parts| {
            namespace::within(parts.overlays.namespace(&network).unwrap(), || {
                let mut route = RouteSocket::open().unwrap();
                let pair = VethPair {
                    name: &outer,
                    master: Some(route.index("br0").unwrap()),
                    mtu: 1450,
                    up: true,
                    peer_name: &peer_name,
                    peer_mac: Some(mac),
                    peer_namespace: Some(Namespace::Fd(fd.as_fd())),
                };
                route.add_veth(&pair).unwrap();
                let index = route.index(&outer).unwrap();
                let port = BridgePort { isolated: Some(is_ingress), ..BridgePort::default() };
                route.set_bridge_port(index, &port).unwrap();
            })
            .unwrap();
        });
        let addresses: Vec<_> =
            addresses.iter().zip(&view.subnets).map(|(ip, s)| (*ip, s.prefix_len())).collect();
        let interface = inner.clone();
        space.run(move || {
            let mut route = RouteSocket::open().unwrap();
            let index = route.index(&interface).unwrap();
            for (ip, prefix) in addresses {
                route.add_address(index, ip, prefix).unwrap();
            }
            route.set_up(index).unwrap();
        });
        self.wait_for(space, &inner);
        let (outer, network) = (port_name(&of_port).unwrap(), namespace_name(&view.id));
        machine.with(move |parts| {
            let namespace = parts.overlays.namespace(&network).unwrap();
            namespace::within(namespace, || wait_for(&[&outer, "br0"])).unwrap();
        });
    }

    fn plug_way_out(&self, machine: &Machine, wanted: &Wanted<'_>, space: &Space) -> (IpAddr, u8) {
        let request = AttachRequest {
            container_id: wanted.name.to_owned(),
            container_name: wanted.name.to_owned(),
            hostname: wanted.name.to_owned(),
            mode: SandboxMode::Own,
            networks: vec![NetworkJoin::plain("bridge")],
            ports: Vec::new(),
        };
        let attachment = self.runtime.block_on(machine.network.attach(request)).unwrap();
        let interface = attachment.interfaces().next().unwrap().clone();
        let way_out = interface.addresses[0];
        let outer_name = interface.host_name.clone();
        let name = format!("eth{}", wanted.networks.len());
        let (outer, fd, peer_name) = (interface.clone(), space.fd.try_clone().unwrap(), name.clone());
        machine.space.run(move || {
            let mut route = RouteSocket::open().unwrap();
            let pair = VethPair {
                name: &outer.host_name,
                master: Some(route.index(&outer.bridge).unwrap()),
                mtu: 1500,
                up: true,
                peer_name: &peer_name,
                peer_mac: Some(outer.mac.parse().unwrap()),
                peer_namespace: Some(Namespace::Fd(fd.as_fd())),
            };
            route.add_veth(&pair).unwrap();
        });
        let inner = name.clone();
        space.run(move || {
            let mut route = RouteSocket::open().unwrap();
            let index = route.index(&inner).unwrap();
            route.add_address(index, way_out.0, way_out.1).unwrap();
            route.set_up(index).unwrap();
            route.add_default_route(interface.gateways[0], Some(index)).unwrap();
        });
        self.wait_for(space, &name);
        machine.space.run(move || wait_for(&[&outer_name, "skep0"]));
        way_out
    }

    fn plug_task(&self, machine: &Machine, wanted: &Wanted<'_>, space: &Space, way_out: IpNet) {
        let with_prefix = |network: &str, ip: &str| {
            let ip: IpAddr = ip.parse().unwrap();
            let subnets = &self.views[network].subnets;
            IpNet::new(ip, subnets.iter().find(|subnet| subnet.contains(&ip)).unwrap().prefix_len()).unwrap()
        };
        let of = |is_ingress: bool| -> Vec<IpNet> {
            let networks =
                wanted.networks.iter().filter(|(network, _)| (*network == "ingress") == is_ingress);
            networks.flat_map(|(network, all)| all.iter().map(|ip| with_prefix(network, ip))).collect()
        };
        let side = TaskSide {
            link: "eth0".to_owned(),
            own: of(true),
            node: self.views["ingress"].peers[&machine.id].addresses.clone(),
            others: of(false).into_iter().chain([way_out]).collect(),
            outward: vec![way_out.addr()],
        };
        network::plug_task(space.fd.as_fd(), &side).unwrap();
        network::plug_task(space.fd.as_fd(), &side).expect("it may be repeated");
    }

    fn wait_for(&self, space: &Space, interface: &str) {
        let name = interface.to_owned();
        space.run(move || wait_for(&[&name]));
    }
}

/// A bridge learns a little later that a port is usable; what is sent before is lost. To ask makes the kernel tell it.
pub(crate) fn wait_for(links: &[&str]) {
    let start = std::time::Instant::now();
    let mut route = RouteSocket::open().unwrap();
    for name in links {
        while !route.link(name).unwrap().unwrap().has_carrier {
            assert!(start.elapsed() < std::time::Duration::from_secs(30), "{name} never came up");
        }
    }
}

/// Answers TCP and datagrams of both versions with `name` and the address it came from; the datagram's socket is bound to no
/// address.
pub(crate) fn serve(space: &Space, port: u16, name: &str) {
    space.serve_tcp(port, name);
    space.serve_udp(port, name);
    let name = name.to_owned();
    space.run(move || {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let (tcp, udp) = (only_ipv6_tcp(any), only_ipv6_udp(any));
        let of_datagrams = name.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{of_datagrams} {}", from.ip()).as_bytes(), from);
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let (Ok(stream), name) = (stream, name.clone()) else { return };
                std::thread::spawn(move || crate::world::echo(&stream, &name));
            }
        });
    });
}

fn only_ipv6_udp(any: SocketAddr) -> UdpSocket {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET6, rustix::net::SocketType::DGRAM, None);
    let socket = socket.unwrap();
    rustix::net::sockopt::set_ipv6_v6only(&socket, true).unwrap();
    rustix::net::bind(&socket, &any).unwrap();
    UdpSocket::from(socket)
}

pub(crate) fn only_ipv6_tcp(any: SocketAddr) -> TcpListener {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET6, rustix::net::SocketType::STREAM, None);
    let socket = socket.unwrap();
    rustix::net::sockopt::set_ipv6_v6only(&socket, true).unwrap();
    rustix::net::bind(&socket, &any).unwrap();
    rustix::net::listen(&socket, 64).unwrap();
    TcpListener::from(socket)
}

/// How often each answer came, by the first word of the answers.
pub(crate) fn counted(answers: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

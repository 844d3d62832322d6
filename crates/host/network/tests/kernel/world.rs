//! A small world of network namespaces: the machine, an outside client, containers.
//!
//! Each namespace belongs to a thread of this process and vanishes with it; the machine's own namespace is never
//! touched. Needs root.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use netlink::route::{Mac, Namespace, RouteSocket, VethPair};
use netplan::table::Version;
use network::{
    AttachRequest, Attachment, Backend, BoundPort, Interface, Namespaces, Network, NetworkConfig,
    NetworkJoin, NetworkSpec, PortRequest, Protocol, SandboxMode,
};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace and the thread that lives in it.
pub(crate) struct Space {
    jobs: mpsc::Sender<Job>,
    pub(crate) fd: OwnedFd,
}

impl Space {
    pub(crate) fn new() -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            // SAFETY: only this thread, which owns nothing yet, gets another network namespace.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("root");
            let fd: OwnedFd = std::fs::File::open("/proc/thread-self/ns/net").unwrap().into();
            tell.send(fd).unwrap();
            inbox.iter().for_each(|job| job());
        });
        let space = Self { jobs, fd: told.recv().expect("a namespace; these tests need root") };
        space.run(|| {
            let mut route = RouteSocket::open().unwrap();
            let lo = route.index("lo").unwrap();
            route.set_up(lo).unwrap();
        });
        space
    }

    /// A thread in a namespace that is there.
    pub(crate) fn of(fd: OwnedFd) -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let inside = fd.try_clone().unwrap();
        std::thread::spawn(move || {
            rustix::thread::move_into_link_name_space(inside.as_fd(), None).expect("root");
            inbox.iter().for_each(|job| job());
        });
        Self { jobs, fd }
    }

    /// Runs a closure in the namespace and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.jobs.send(Box::new(move || tell.send(job()).unwrap())).unwrap();
        told.recv().expect("the closure did not panic")
    }

    /// Output of a command run in the namespace.
    pub(crate) fn command(&self, line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        self.run(move || {
            let output = std::process::Command::new(&words[0]).args(&words[1..]).output().unwrap();
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        })
    }

    /// Answers each TCP connection on `port` with `name` and the address it came from.
    pub(crate) fn serve_tcp(&self, port: u16, name: &str) {
        let name = name.to_owned();
        self.run(move || {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let (Ok(stream), name) = (stream, name.clone()) else { return };
                    std::thread::spawn(move || echo(&stream, &name));
                }
            });
        });
    }

    /// Answers each datagram on `port` with `name` and the address it came from.
    pub(crate) fn serve_udp(&self, port: u16, name: &str) {
        let name = name.to_owned();
        self.run(move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(format!("{name} {}", from.ip()).as_bytes(), from);
                }
            });
        });
    }

    /// What answers a TCP connection, as `name address`; or the kind of error.
    pub(crate) fn ask(&self, to: &str) -> Result<String, std::io::ErrorKind> {
        let to: SocketAddr = to.parse().unwrap();
        self.run(move || Conversation::start(to)?.say())
    }

    /// What answers a datagram.
    pub(crate) fn ask_udp(
        &self,
        socket: &std::sync::Arc<UdpSocket>,
        to: &str,
    ) -> Result<String, std::io::ErrorKind> {
        let (socket, to): (_, SocketAddr) = (socket.clone(), to.parse().unwrap());
        self.run(move || {
            socket.send_to(b"x", to).map_err(|e| e.kind())?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).map_err(|e| e.kind())?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
    }

    pub(crate) fn udp(&self) -> std::sync::Arc<UdpSocket> {
        self.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            std::sync::Arc::new(socket)
        })
    }
}

/// How long a packet may take before it counts as dropped.
const PATIENCE: Duration = Duration::from_millis(700);

pub(crate) fn echo(stream: &TcpStream, name: &str) {
    let Ok(from) = stream.peer_addr() else { return };
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
        let mut out = stream;
        if out.write_all(format!("{name} {}\n", from.ip()).as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}

/// A TCP connection that stays open.
pub(crate) struct Conversation(BufReader<TcpStream>);

impl Conversation {
    pub(crate) fn start(to: SocketAddr) -> Result<Self, std::io::ErrorKind> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|e| e.kind())?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) fn say(&mut self) -> Result<String, std::io::ErrorKind> {
        self.0.get_mut().write_all(b"hello\n").map_err(|e| e.kind())?;
        let mut line = String::new();
        self.0.read_line(&mut line).map_err(|e| e.kind())?;
        Ok(line.trim_end().to_owned())
    }
}

/// The machine, an outside client at 192.0.2.2, and the network under test.
pub(crate) struct World {
    pub(crate) machine: Space,
    pub(crate) outside: Space,
    pub(crate) network: Option<Network>,
    pub(crate) config: NetworkConfig,
    pub(crate) runtime: tokio::runtime::Runtime,
    containers: std::cell::Cell<u32>,
    _dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.network = None;
        unpin_all(&self.config.exec_root.join("netns"));
    }
}

/// Removes the namespaces that are pinned in a folder: mounts outlive the process.
pub(crate) fn unpin_all(folder: &Path) {
    let namespaces = Namespaces::new(folder.to_owned());
    for name in namespaces.names().unwrap() {
        namespaces.remove(&name).unwrap();
    }
}

/// The machine's address towards the outside.
pub(crate) const MACHINE: &str = "192.0.2.1";
pub(crate) const OUTSIDE: &str = "192.0.2.2";

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = NetworkConfig::new(dir.path(), &dir.path().join("exec"));
        let (machine, outside) = (Space::new(), Space::new());
        let peer = outside.fd.try_clone().unwrap();
        machine.run(move || {
            let mut route = RouteSocket::open().unwrap();
            let pair = VethPair {
                name: "up0",
                master: None,
                mtu: 1500,
                up: true,
                peer_name: "eth0",
                peer_mac: None,
                peer_namespace: Some(Namespace::Fd(peer.as_fd())),
            };
            route.add_veth(&pair).unwrap();
            let index = route.index("up0").unwrap();
            route.add_address(index, MACHINE.parse().unwrap(), 24).unwrap();
        });
        outside.run(|| {
            let mut route = RouteSocket::open().unwrap();
            let index = route.index("eth0").unwrap();
            route.add_address(index, OUTSIDE.parse().unwrap(), 24).unwrap();
            route.set_up(index).unwrap();
            // Routes straight at the containers, as a neighbour on the same wire could have them.
            let route_to = netlink::route::Route {
                destination: "172.17.0.0".parse().unwrap(),
                prefix: 16,
                gateway: Some(MACHINE.parse().unwrap()),
                index: Some(index),
                table: 254,
            };
            route.add_route(&route_to).unwrap();
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut world =
            Self { machine, outside, network: None, config, runtime, containers: 0.into(), _dir: dir };
        world.restart();
        world.runtime.block_on(world.network().release_hold()).unwrap();
        world
    }

    /// Ends the network's thread as a killed daemon would, and opens it anew, held.
    pub(crate) fn restart(&mut self) {
        self.network = None;
        let config = self.config.clone();
        self.network = Some(self.machine.run(move || Network::open(config)).unwrap());
    }

    pub(crate) fn network(&self) -> Network {
        self.network.clone().unwrap()
    }

    /// Attaches a container and makes its interface as the runtime does.
    pub(crate) fn container(&self, name: &str, ports: &[PortRequest]) -> (Space, Attachment) {
        self.container_on(name, &["bridge"], ports)
    }

    /// The same on these networks.
    pub(crate) fn container_on(
        &self,
        name: &str,
        networks: &[&str],
        ports: &[PortRequest],
    ) -> (Space, Attachment) {
        self.containers.set(self.containers.get() + 1);
        let request = AttachRequest {
            container_id: name.to_owned(),
            container_name: name.to_owned(),
            hostname: name.to_owned(),
            mode: SandboxMode::Own,
            networks: networks.iter().map(|network| NetworkJoin::plain(network)).collect(),
            ports: ports.to_vec(),
        };
        let attachment = self.runtime.block_on(self.network().attach(request)).unwrap();
        let space = Space::new();
        self.plug(&space, &attachment);
        (space, attachment)
    }

    /// Makes a network.
    pub(crate) fn create(&self, name: &str, change: impl FnOnce(&mut NetworkSpec)) -> String {
        let mut spec = NetworkSpec { name: name.to_owned(), ..NetworkSpec::default() };
        change(&mut spec);
        self.runtime.block_on(self.network().create(spec)).unwrap()
    }

    pub(crate) fn plug(&self, space: &Space, attachment: &Attachment) {
        attachment.interfaces().for_each(|interface| self.plug_in(&self.machine, space, interface));
    }

    /// Makes one interface, whose outer end lies in `outer`.
    pub(crate) fn plug_in(&self, outer: &Space, space: &Space, interface: &Interface) {
        let interface = interface.clone();
        let links = [interface.host_name.clone(), interface.bridge.clone()];
        let peer = space.fd.try_clone().unwrap();
        let inner = interface.clone();
        outer.run(move || {
            let mut route = RouteSocket::open().unwrap();
            let bridge = route.index(&interface.bridge).unwrap();
            let pair = VethPair {
                name: &interface.host_name,
                master: Some(bridge),
                mtu: interface.mtu,
                up: true,
                peer_name: &interface.name,
                peer_mac: Some(interface.mac.parse::<Mac>().unwrap()),
                peer_namespace: Some(Namespace::Fd(peer.as_fd())),
            };
            route.add_veth(&pair).unwrap();
            if interface.isolated {
                let index = route.index(&interface.host_name).unwrap();
                route.set_isolated(index).unwrap();
            }
        });
        space.run(move || {
            let mut route = RouteSocket::open().unwrap();
            let index = route.index(&inner.name).unwrap();
            for (ip, prefix) in &inner.addresses {
                route.add_address(index, *ip, *prefix).unwrap();
            }
            route.set_up(index).unwrap();
            for gateway in &inner.gateways {
                route.add_default_route(*gateway, Some(index)).unwrap();
            }
        });
        // The bridge learns a little later that its port is usable; what is sent before is lost, and asked for again only
        // after a second.
        self.eventually("the links are usable", || {
            let links = links.clone();
            outer.run(move || {
                let mut route = RouteSocket::open().unwrap();
                links.iter().all(|name| route.link(name).unwrap().is_some_and(|link| link.has_carrier))
            })
        });
    }

    pub(crate) fn publish(&self, service: &str, port: (Protocol, u16, u16), backends: &[&Attachment]) {
        let backends = backends
            .iter()
            .map(|attachment| Backend { ip: ip_of(attachment).into(), port: port.2 })
            .collect();
        self.publish_at(service, port.0, port.1, backends);
    }

    pub(crate) fn publish_at(
        &self,
        service: &str,
        protocol: Protocol,
        published: u16,
        backends: Vec<Backend>,
    ) {
        let port = network::ServicePort { protocol, published, version: Version::V4, backends };
        self.runtime.block_on(self.network().publish_service(&service.into(), vec![port])).unwrap();
    }

    /// Waits until `is_true` and tells how long that took. Self-healing has two seconds on a machine that has time; the limit
    /// here is for what never comes.
    pub(crate) fn eventually(&self, what: &str, is_true: impl Fn() -> bool) -> Duration {
        let start = std::time::Instant::now();
        while !is_true() {
            assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
            std::thread::yield_now();
        }
        start.elapsed()
    }
}

/// Its address on its first network.
pub(crate) fn ip_of(attachment: &Attachment) -> Ipv4Addr {
    match attachment.endpoints[0].addresses[0].ip {
        IpAddr::V4(ip) => ip,
        other => panic!("{other:?} is no IPv4 address"),
    }
}

pub(crate) fn gateway_of(attachment: &Attachment) -> IpAddr {
    attachment.endpoints[0].addresses[0].gateway.unwrap()
}

pub(crate) fn interface_of(attachment: &Attachment) -> &Interface {
    attachment.interfaces().next().unwrap()
}

pub(crate) fn tcp(host_port: u16, container_port: u16) -> PortRequest {
    PortRequest {
        protocol: Protocol::Tcp,
        container_port,
        host_ip: None,
        host_port,
        host_port_last: host_port,
    }
}

pub(crate) fn on(ip: &str, request: PortRequest) -> PortRequest {
    PortRequest { host_ip: Some(ip.parse().unwrap()), ..request }
}

pub(crate) fn udp(host_port: u16, container_port: u16) -> PortRequest {
    PortRequest { protocol: Protocol::Udp, ..tcp(host_port, container_port) }
}

pub(crate) fn bound(attachment: &Attachment) -> Vec<BoundPort> {
    attachment.ports.clone()
}

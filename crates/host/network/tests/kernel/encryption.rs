//! Encrypted networks between two machines, with an ear on the wire: what is heard there, while keys change, without keys, and
//! what plain packets come to.
//!
//! Where the kernel has no ESP, as in many small ones, only the refusal is tested, and that is said; `testkit/vm` runs this file
//! on a Debian kernel.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netlink::namespace;
use netlink::route::{Mac, Namespace, RouteSocket, VethPair};
use netlink::xfrm::XfrmSocket;
use netplan::MacAddress;
use netplan::overlay::{namespace_name, port_name};
use network::{Namespaces, Network, NetworkConfig};
use objects::NodeId;
use wire::network::{EndpointView, NetworkKey, NetworkView, PeerView};
use wire::session::{Assigned, Assignments};

use crate::swarm::{connect, wait_for};
use crate::world::{Conversation, Space, unpin_all};

/// In every answer: what must not be heard.
const MARKER: &str = "plain-as-day";
const SECRET: &str = "secret";
const PLAIN: &str = "plain";
const FAR: &str = "10.0.1.7";
const FAR_PLAIN: &str = "10.0.2.7";
/// Protocol of ESP in a header of IPv4, and of UDP. Source: IANA.
const ESP: u8 = 50;
const UDP: u8 = 17;

/// One of two machines, with one container that is on both networks.
struct Host {
    id: NodeId,
    space: Space,
    container: Space,
    network: Option<Network>,
    dir: tempfile::TempDir,
}

struct World {
    hosts: Vec<Host>,
    outside: Space,
    ear: Arc<Mutex<Vec<Vec<u8>>>>,
    runtime: tokio::runtime::Runtime,
    _wire: Space,
}

impl Host {
    fn new(number: u8, wire: &Space) -> Self {
        let space = Space::new();
        connect(wire, &space, number);
        let id = format!("node{number}").as_str().into();
        let dir = tempfile::tempdir().unwrap();
        let mut host = Self { id, space, container: Space::new(), network: None, dir };
        host.start();
        host
    }

    fn start(&mut self) {
        let config = NetworkConfig::new(self.dir.path(), &self.dir.path().join("exec"));
        self.network = Some(self.space.run(move || Network::open(config)).unwrap());
    }

    fn network(&self) -> Network {
        self.network.clone().unwrap()
    }

    fn pins(&self) -> Namespaces {
        Namespaces::new(self.dir.path().join("exec/netns"))
    }

    fn generation(&self) -> u64 {
        *self.network().encryption_generation().borrow()
    }

    /// Connects the container to a network, as the runtime does.
    fn plug(&self, network: &str, ip: Ipv4Addr, mtu: u32) {
        let inside = namespace::open(&self.pins().path(&namespace_name(&network.into()))).unwrap();
        let (fd, outer) = (self.container.fd.try_clone().unwrap(), port_name(&[ip.into()]).unwrap());
        let name = network.to_owned();
        namespace::within(inside.as_fd(), || {
            let mut route = RouteSocket::open().unwrap();
            let pair = VethPair {
                name: &outer,
                master: Some(route.index("br0").unwrap()),
                mtu,
                up: true,
                peer_name: &name,
                peer_mac: Some(Mac(MacAddress::of(ip).0)),
                peer_namespace: Some(Namespace::Fd(fd.as_fd())),
            };
            route.add_veth(&pair).unwrap();
        })
        .unwrap();
        self.container.run(move || {
            let mut route = RouteSocket::open().unwrap();
            let index = route.index(&name).unwrap();
            route.add_address(index, ip.into(), 24).unwrap();
            route.set_up(index).unwrap();
            wait_for(&[&name]);
        });
        namespace::within(inside.as_fd(), || wait_for(&[&outer, "br0"])).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.network = None;
        unpin_all(&self.dir.path().join("exec/netns"));
    }
}

fn view(id: &str, vni: u32, hosts: &[Host]) -> NetworkView {
    let subnet = vni - 4096;
    let peer = |(number, host): (u8, &Host)| {
        let view = PeerView {
            data_path: [192, 0, 2, number].into(),
            addresses: Vec::new(),
            encryption_generation: host.generation(),
        };
        (host.id.clone(), view)
    };
    let endpoint = |(host, last): (&Host, u8)| {
        let addresses = vec![format!("10.0.{subnet}.{last}").parse().unwrap()];
        (format!("task{last}"), EndpointView { node: host.id.clone(), addresses, ..EndpointView::default() })
    };
    NetworkView {
        id: id.into(),
        name: id.to_owned(),
        encrypted: id == SECRET,
        vni,
        data_path_port: 4789,
        subnets: vec![format!("10.0.{subnet}.0/24").parse().unwrap()],
        peers: (1..).zip(hosts).map(peer).collect(),
        endpoints: hosts.iter().zip([5, 7]).map(endpoint).collect(),
        ..NetworkView::default()
    }
}

fn keys(oldest: u64) -> Vec<NetworkKey> {
    (oldest..oldest + 3).map(|number| NetworkKey { number, key: format!("key {number}").into() }).collect()
}

impl World {
    /// Two machines that know each other, and no key yet; `None` where the kernel has no ESP.
    fn new() -> Option<Self> {
        let wire = Space::new();
        wire.run(|| {
            let mut route = RouteSocket::open().unwrap();
            route.add_bridge("wire", Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
            let index = route.index("wire").unwrap();
            route.set_up(index).unwrap();
        });
        let outside = Space::new();
        connect(&wire, &outside, 100);
        let hosts: Vec<_> = [1, 2].map(|number| Host::new(number, &wire)).into();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let world = Self { hosts, outside, ear: wire.run(listen), runtime, _wire: wire };
        for host in &world.hosts {
            world.runtime.block_on(host.network().release_hold()).unwrap();
        }
        if world.hosts[0].generation() == 0 {
            world.is_refused();
            eprintln!("NOT RUN: encryption between machines, because this kernel has no ESP with AES-GCM");
            return None;
        }
        world.tell();
        for (host, last) in world.hosts.iter().zip([5, 7]) {
            host.plug(SECRET, [10, 0, 1, last].into(), 1416);
            host.plug(PLAIN, [10, 0, 2, last].into(), 1450);
        }
        world.hosts[1].container.serve_tcp(80, MARKER);
        world.hosts[1].container.serve_udp(80, MARKER);
        Some(world)
    }

    fn tell(&self) {
        for host in &self.hosts {
            self.tell_one(host, vec![view(SECRET, 4097, &self.hosts), view(PLAIN, 4098, &self.hosts)]);
        }
    }

    fn tell_one(&self, host: &Host, networks: Vec<NetworkView>) {
        let told = Assignments::Complete(Assigned { networks, ..Assigned::default() });
        self.runtime.block_on(host.network().tell(&host.id, told)).unwrap();
    }

    fn tell_keys(&self, host: usize, oldest: u64) {
        self.runtime.block_on(self.hosts[host].network().tell_keys(keys(oldest)));
    }

    /// On a kernel without ESP.
    fn is_refused(&self) {
        self.tell();
        for host in &self.hosts {
            let refused = self.runtime.block_on(host.network().check_encryption(SECRET)).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "network secret is encrypted, and the kernel of this node has no ESP with AES-GCM"
            );
            assert_eq!(self.runtime.block_on(host.network().check_encryption(PLAIN)).ok(), Some(()));
            let made: Vec<_> = host.pins().names().unwrap().into_iter().collect();
            assert_eq!(made, [PLAIN], "what is to be encrypted is not there at all");
        }
    }

    fn near(&self) -> &Space {
        &self.hosts[0].container
    }

    /// Whether a datagram is answered.
    fn asks(&self, far: &str) -> bool {
        self.near().ask_udp(&self.near().udp(), &format!("{far}:80")).is_ok()
    }

    /// What was heard on the wire since the last time: everything that was sent before this call.
    fn heard(&self) -> Vec<Vec<u8>> {
        let token = format!("until here {:?}", Instant::now());
        let sent = token.clone();
        self.outside.run(move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.send_to(sent.as_bytes(), "192.0.2.1:9").unwrap();
        });
        let start = Instant::now();
        loop {
            let mut heard = self.ear.lock().unwrap();
            if heard.iter().any(|frame| has(frame, &token)) {
                return std::mem::take(&mut *heard);
            }
            drop(heard);
            assert!(start.elapsed() < Duration::from_secs(30), "the wire is silent");
            std::thread::yield_now();
        }
    }

    /// Asserts that what was heard was encrypted, and that something was.
    fn heard_nothing_plain(&self, when: &str) {
        let heard = self.heard();
        assert!(heard.iter().any(|frame| protocol(frame) == Some(ESP)), "{when}: nothing is encrypted");
        assert_eq!(plain(&heard), 0, "{when}");
    }
}

/// Frames that show what they carry, or carry it in a way that anybody could read.
fn plain(heard: &[Vec<u8>]) -> usize {
    heard.iter().filter(|frame| has(frame, MARKER) || vxlan_port(frame) == Some(4790)).count()
}

fn has(frame: &[u8], text: &str) -> bool {
    frame.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Of a frame with IPv4.
fn protocol(frame: &[u8]) -> Option<u8> {
    (frame.get(12..14)? == [8, 0]).then(|| frame.get(23).copied())?
}

/// Where a datagram goes.
fn vxlan_port(frame: &[u8]) -> Option<u16> {
    (protocol(frame)? == UDP).then(|| Some(u16::from_be_bytes([*frame.get(36)?, *frame.get(37)?])))?
}

/// Hears every frame of every link in the calling thread's namespace.
fn listen() -> Arc<Mutex<Vec<Vec<u8>>>> {
    const EVERYTHING: u16 = 0x0003;
    // SAFETY: no pointer is passed; the descriptor is checked and then owned by this function's thread.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, EVERYTHING.to_be().into()) };
    assert!(socket >= 0, "root");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    std::thread::spawn(move || {
        let mut frame = vec![0u8; 65536];
        loop {
            // SAFETY: the buffer lives through the call and is as long as is said.
            let length = unsafe { libc::recv(socket, frame.as_mut_ptr().cast(), frame.len(), 0) };
            let Ok(length) = usize::try_from(length) else { return };
            told.lock().unwrap().push(frame[..length].to_vec());
        }
    });
    heard
}

/// A datagram from 10.0.x.99 for the far container, as a VXLAN carries it and anybody could make it.
fn forged(vni: u32, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let from = Ipv4Addr::new(to.octets()[0], to.octets()[1], to.octets()[2], 99);
    let mut packet = vec![0x08, 0, 0, 0];
    packet.extend_from_slice(&(vni << 8).to_be_bytes());
    packet.extend_from_slice(&MacAddress::of(to).0);
    packet.extend_from_slice(&MacAddress::of(from).0);
    packet.extend_from_slice(&[8, 0]);
    let mut header = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, UDP, 0, 0];
    header.extend_from_slice(&from.octets());
    header.extend_from_slice(&to.octets());
    let words = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&header);
    // From port 9; a datagram of 4 bytes, without a check value.
    packet.extend_from_slice(&[0, 9]);
    packet.extend_from_slice(&port.to_be_bytes());
    packet.extend_from_slice(&[0, 12, 0, 0, b'e', b'v', b'i', b'l']);
    packet
}

#[test]
fn nothing_of_an_encrypted_network_is_heard_on_the_wire_while_keys_change_either() {
    let Some(world) = World::new() else { return };
    world.tell_keys(0, 1);
    world.tell_keys(1, 1);
    let far: SocketAddr = format!("{FAR}:80").parse().unwrap();
    let talk = Arc::new(Mutex::new(world.near().run(move || Conversation::start(far)).unwrap()));
    let socket = world.near().udp();
    let exchange = |when: &str| {
        for _ in 0..20 {
            let talk = talk.clone();
            let said = world.near().run(move || talk.lock().unwrap().say());
            assert_eq!(said, Ok(format!("{MARKER} 10.0.1.5")), "{when}");
            let told = world.near().ask_udp(&socket, &format!("{FAR}:80"));
            assert_eq!(told, Ok(format!("{MARKER} 10.0.1.5")), "{when}: a datagram is lost");
        }
        world.heard_nothing_plain(when);
    };
    exchange("with the first keys");
    for oldest in 2..8 {
        // One hears of new keys before the other, in turn.
        let first = usize::from(oldest % 2 == 0);
        world.tell_keys(first, oldest);
        exchange("between the two");
        world.tell_keys(1 - first, oldest);
        exchange("after both");
    }
    // The largest packet that a container sends is just one on the wire.
    let (to, large) = (far, vec![b'x'; 1416 - 28]);
    world.near().run(move || UdpSocket::bind(("0.0.0.0", 0)).unwrap().send_to(&large, to).unwrap());
    assert!(world.asks(FAR));
    let heard = world.heard();
    let encrypted = || heard.iter().filter(|frame| protocol(frame) == Some(ESP));
    assert!(encrypted().all(|frame| frame[20] & 0x3f == 0 && frame[21] == 0), "nothing is in pieces");
    assert_eq!(encrypted().map(Vec::len).max(), Some(14 + 1500));

    let mut kernel = world.hosts[0].space.run(|| XfrmSocket::open().unwrap());
    let known = kernel.associations().unwrap().len();
    assert_eq!(known, 5, "three that arrive, the one sent with, and the one before it");
    // A plain network is heard: the ear works.
    assert!(world.asks(FAR_PLAIN));
    assert!(plain(&world.heard()) > 0);
}

#[test]
fn keys_change_in_the_midst_of_a_stream_without_a_loss() {
    let Some(world) = World::new() else { return };
    world.tell_keys(0, 1);
    world.tell_keys(1, 1);
    let far: SocketAddr = format!("{FAR}:81").parse().unwrap();
    let received = world.hosts[1].container.run(move || {
        let socket = UdpSocket::bind(("0.0.0.0", 81)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        std::thread::spawn(move || {
            let (mut seen, mut buffer, mut expected) = (BTreeSet::new(), [0; 64], usize::MAX);
            while seen.len() < expected {
                match socket.recv_from(&mut buffer) {
                    Ok((4, _)) => {
                        let is_new = seen.insert(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
                        assert!(is_new, "a datagram came twice");
                    }
                    Ok(_) => expected = usize::from_be_bytes(buffer[..8].try_into().unwrap()),
                    // Nothing comes any more.
                    Err(_) => break,
                }
            }
            seen.len()
        })
    });
    let (stop, stopped) = mpsc::channel::<()>();
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let sending = world.near().run(move || {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        std::thread::spawn(move || {
            let mut number = 0u32;
            // A datagram every millisecond, so that no queue on the way runs over.
            while stopped.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
                socket.send_to(&number.to_be_bytes(), far).unwrap();
                number += 1;
                counted.store(number, Ordering::Relaxed);
            }
            let sent = number as usize;
            socket.send_to(&sent.to_be_bytes(), far).unwrap();
            sent
        })
    });
    for oldest in 2..30 {
        let first = usize::from(oldest % 2 == 0);
        for host in [first, 1 - first] {
            world.tell_keys(host, oldest);
            let enough = count.load(Ordering::Relaxed) + 5;
            while count.load(Ordering::Relaxed) < enough {
                std::thread::yield_now();
            }
        }
    }
    drop(stop);
    assert_eq!(received.join().unwrap(), sending.join().unwrap());
    world.heard_nothing_plain("while datagrams flow and keys change");
}

#[test]
fn what_is_plain_is_dropped_on_both_sides() {
    let Some(world) = World::new() else { return };
    // Nobody has told keys: nothing leaves.
    assert!(!world.asks(FAR));
    assert_eq!(plain(&world.heard()), 0, "without a key");
    // One side alone has keys: what it sends is encrypted, and not understood.
    world.tell_keys(0, 1);
    assert!(!world.asks(FAR));
    world.heard_nothing_plain("to one without a key");
    world.tell_keys(1, 1);
    assert!(world.asks(FAR));
    world.heard_nothing_plain("with keys");
    // Forged packets: the plain network takes them, the encrypted one does not, whichever port they come to.
    let listen = |ip: &str| {
        let at: SocketAddr = format!("{ip}:7000").parse().unwrap();
        world.hosts[1].container.run(move || {
            let socket = UdpSocket::bind(at).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket
        })
    };
    let (secret, plain_one) = (listen(FAR), listen(FAR_PLAIN));
    let forge = |sender: &Space, to: &'static str, vni, ip: &str, port: u16| {
        let packet = forged(vni, ip.parse().unwrap(), 7000);
        sender.run(move || {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            // A machine that may not send plain to that port may say so at once.
            drop(socket.send_to(&packet, (to, port)));
        });
    };
    for (vni, ip, port) in
        [(4097, FAR, 4790), (4097, FAR, 4789), (4098, FAR_PLAIN, 4790), (4098, FAR_PLAIN, 4789)]
    {
        forge(&world.outside, "192.0.2.2", vni, ip, port);
    }
    let mut buffer = [0; 16];
    let mut count = |socket: &UdpSocket| std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count();
    assert_eq!((count(&secret), count(&plain_one)), (0, 1));
    assert!(plain(&world.heard()) > 0, "they were sent");
    // A machine sends nothing of it to one that is no peer.
    forge(&world.hosts[0].space, "192.0.2.100", 4097, FAR, 4790);
    assert_eq!(plain(&world.heard()), 0);
}

#[test]
fn a_daemon_that_is_started_again_interrupts_nothing_and_one_that_lost_its_kernel_begins_anew() {
    let Some(mut world) = World::new() else { return };
    world.tell_keys(0, 1);
    world.tell_keys(1, 1);
    assert!(world.asks(FAR));
    let before = world.hosts[0].generation();
    world.hosts[0].network = None;
    assert!(world.asks(FAR), "no daemon is needed");
    world.hosts[0].start();
    world.runtime.block_on(world.hosts[0].network().release_hold()).unwrap();
    assert_eq!(world.hosts[0].generation(), before);
    assert!(world.asks(FAR), "no key is known, and none is needed");
    world.tell();
    world.tell_keys(0, 1);
    assert!(world.asks(FAR));

    // Somebody removes everything: packets are counted from one again, under other keys.
    world.hosts[0].network = None;
    world.hosts[0].space.run(|| {
        let mut kernel = XfrmSocket::open().unwrap();
        for found in kernel.associations().unwrap() {
            kernel.delete_association(&found).unwrap();
        }
    });
    world.heard();
    assert!(!world.asks(FAR));
    assert_eq!(plain(&world.heard()), 0);
    world.hosts[0].start();
    world.runtime.block_on(world.hosts[0].network().release_hold()).unwrap();
    assert_ne!(world.hosts[0].generation(), before);
    world.tell();
    world.tell_keys(0, 1);
    assert!(world.asks(FAR));
    world.heard_nothing_plain("under other keys");
}

#[test]
fn a_network_that_goes_sends_nothing_plain_on_its_way() {
    let Some(world) = World::new() else { return };
    world.tell_keys(0, 1);
    world.tell_keys(1, 1);
    // Told as changed, or it would not be looked at.
    let plain_one = || NetworkView { attachable: true, ..view(PLAIN, 4098, &world.hosts) };
    let (stop, stopped) = mpsc::channel::<()>();
    let far: SocketAddr = format!("{FAR}:80").parse().unwrap();
    let sending = world.near().run(move || {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_micros(100)) == Err(RecvTimeoutError::Timeout) {
                // The way may be gone.
                drop(socket.send_to(MARKER.as_bytes(), far));
            }
        })
    });
    world.heard();
    assert!(world.asks(FAR));
    world.heard_nothing_plain("before");
    // The network that stays is looked at before it.
    world.tell_one(&world.hosts[0], vec![plain_one()]);
    assert_eq!(plain(&world.heard()), 0, "on its way");
    drop(stop);
    sending.join().unwrap();
    assert!(world.asks(FAR_PLAIN));
    assert!(plain(&world.heard()) > 0, "the other one is there");
    let mut kernel = world.hosts[0].space.run(|| XfrmSocket::open().unwrap());
    assert_eq!(kernel.policies().unwrap(), []);
    // It comes back, and the count of packets goes on.
    let counted = kernel.associations().unwrap();
    world.tell();
    assert_eq!(kernel.associations().unwrap(), counted);
    assert_eq!(kernel.policies().unwrap().len(), 3);
}

#[test]
fn nothing_is_left_of_an_encrypted_network_and_nobody_elses_is_touched() {
    let Some(world) = World::new() else { return };
    let theirs = netlink::xfrm::Policy {
        way: netlink::xfrm::Way::Out,
        source: IpAddr::from([192, 0, 2, 1]),
        destination: IpAddr::from([192, 0, 2, 200]),
        port: 4791,
        request_id: 1,
        spi: None,
    };
    let mut kernel = world.hosts[0].space.run(|| XfrmSocket::open().unwrap());
    let mut batch = netlink::xfrm::XfrmBatch::new();
    batch.put_policy(&theirs);
    kernel.commit(batch).unwrap();
    world.tell_keys(0, 1);
    assert_eq!((kernel.policies().unwrap().len(), kernel.associations().unwrap().len()), (4, 4));
    world.runtime.block_on(world.hosts[0].network().leave_swarm());
    assert_eq!(kernel.policies().unwrap(), [theirs]);
    assert_eq!(kernel.associations().unwrap(), []);
}

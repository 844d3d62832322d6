//! Clients and upstream resolvers for the tests of the resolver.
//!
//! In: names. Out: what came back. Clients have their sockets in a container's network namespace; upstreams answer on
//! addresses of the machine's loopback that depend on this process's id, so that tests of two checkouts don't meet.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use names::Rows;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use shim::{NetworkNames, ResolverConfig, Upstream};

/// Where every container finds its resolver.
pub(crate) const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

static NEXT: AtomicU8 = AtomicU8::new(2);

/// Runs `job` in the network namespace of a process.
pub(crate) fn inside<T: Send + 'static>(pid: i32, job: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        job()
    });
    thread.join().unwrap()
}

pub(crate) fn query(name: &str, kind: u16, id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// What a reply says: its code, whether it was cut, its IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) code: u8,
    pub(crate) is_cut: bool,
    pub(crate) addresses: BTreeSet<IpAddr>,
}

impl Said {
    pub(crate) fn is(addresses: &[&str]) -> Self {
        Self {
            code: 0,
            is_cut: false,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    pub(crate) fn code(code: u8) -> Self {
        Self { code, is_cut: false, addresses: BTreeSet::new() }
    }

    /// Records as the resolver and [`Server`] write them: a pointer for a name, sixteen bytes for an address.
    fn read(query: &[u8], reply: &[u8]) -> Self {
        assert_eq!(reply[..2], query[..2], "the reply to another query");
        assert!(reply[2] & 0x80 != 0);
        let addresses = reply[query.len()..].chunks_exact(16);
        Self {
            code: reply[3] & 0xf,
            is_cut: reply[2] & 2 != 0,
            addresses: addresses.map(|record| IpAddr::from(*record.last_chunk::<4>().unwrap())).collect(),
        }
    }
}

/// A program of the container.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    pid: i32,
    id: u16,
}

impl Client {
    pub(crate) fn of(pid: i32) -> Self {
        let socket = inside(pid, || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.connect(RESOLVER).unwrap();
        Self { socket, pid, id: 0 }
    }

    /// The IPv4 addresses of a name.
    pub(crate) fn ask(&mut self, name: &str) -> Said {
        self.id = self.id.wrapping_add(1);
        let query = query(name, 1, self.id);
        self.socket.send(&query).unwrap();
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap();
        Said::read(&query, &buffer[..length])
    }

    pub(crate) fn stream(&self) -> TcpStream {
        let stream = inside(self.pid, || TcpStream::connect(RESOLVER).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

pub(crate) fn ask_by_tcp(stream: &mut TcpStream, name: &str) -> Said {
    let query = query(name, 1, 77);
    stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).unwrap();
    Said::read(&query, &reply)
}

/// A file of names, replaced as the daemon does.
pub(crate) struct Names {
    pub(crate) path: PathBuf,
    network: &'static str,
}

impl Names {
    pub(crate) fn new(dir: &Path, network: &'static str) -> Self {
        Self { path: dir.join(network), network }
    }

    pub(crate) fn write(&self, rows: &[(&str, &str)]) {
        let mut table = Rows::new(self.network);
        for (name, address) in rows {
            table.add(name, address.parse().unwrap());
        }
        self.write_bytes(&table.to_table());
    }

    pub(crate) fn write_bytes(&self, bytes: &[u8]) {
        let temporary = self.path.with_extension("new");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(temporary, &self.path).unwrap();
    }
}

pub(crate) fn config(names: &[&Names], upstreams: &[IpAddr]) -> ResolverConfig {
    let of = |names: &&Names| NetworkNames { id: names.network.to_owned(), path: names.path.clone() };
    ResolverConfig {
        networks: names.iter().map(of).collect(),
        upstreams: upstreams.iter().map(|address| Upstream { address: *address, inside: false }).collect(),
        internal: false,
    }
}

/// An address of the machine's loopback that nobody else uses.
pub(crate) fn address() -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    IpAddr::from([127, 64 | high, low, NEXT.fetch_add(1, Ordering::Relaxed)])
}

/// How an upstream resolver behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers every name with 192.0.2.1.
    Answers,
    /// As [`Manner::Answers`], after this time.
    IsSlow(Duration),
    /// Says nothing.
    IsSilent,
    /// SERVFAIL.
    Fails,
    /// Says by datagram that the answer is too long, and gives it by TCP.
    NeedsTcp,
}

/// An upstream resolver, in a thread that ends with the test program.
pub(crate) struct Server {
    pub(crate) address: IpAddr,
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn start(manner: Manner) -> Self {
        let address = address();
        let sockets = (UdpSocket::bind((address, 53)).unwrap(), TcpListener::bind((address, 53)).unwrap());
        Self::serve(address, manner, sockets)
    }

    /// One that only programs of the container reach.
    pub(crate) fn start_inside(pid: i32, manner: Manner) -> Self {
        let address = address();
        let open =
            move || (UdpSocket::bind((address, 53)).unwrap(), TcpListener::bind((address, 53)).unwrap());
        Self::serve(address, manner, inside(pid, open))
    }

    fn serve(address: IpAddr, manner: Manner, (datagrams, streams): (UdpSocket, TcpListener)) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
                counter.fetch_add(1, Ordering::Relaxed);
                let reply = reply(&buffer[..length], manner, false);
                let answer = datagrams.try_clone().unwrap();
                match manner {
                    Manner::IsSilent => {}
                    Manner::IsSlow(time) => drop(std::thread::spawn(move || {
                        std::thread::sleep(time);
                        answer.send_to(&reply, from)
                    })),
                    _ => drop(answer.send_to(&reply, from)),
                }
            }
        });
        std::thread::spawn(move || {
            for stream in streams.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || answer_stream(&mut stream, manner));
            }
        });
        Self { address, asked }
    }
}

fn answer_stream(stream: &mut TcpStream, manner: Manner) -> std::io::Result<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut query = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut query)?;
    let reply = reply(&query, manner, true);
    stream.write_all(&(reply.len() as u16).to_be_bytes())?;
    // In two pieces, as it may come.
    let (first, second) = reply.split_at(reply.len() / 2);
    stream.write_all(first)?;
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(second)
}

fn reply(query: &[u8], manner: Manner, by_tcp: bool) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply[3] = 0x80;
    match manner {
        Manner::Fails => reply[3] |= 2,
        Manner::NeedsTcp if !by_tcp => reply[2] |= 2,
        _ => {
            reply[7] = 1;
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        }
    }
    reply
}

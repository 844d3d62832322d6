//! Where a container's queries come in: two sockets and the redirect that leads to them.
//!
//! In: the container's namespaces. Out: a datagram socket and a listener at ports of the kernel's choice on 127.0.0.11, and a
//! table `skep-dns` there that sends port 53 to them. So port 53 itself stays free for the container's own programs.

use std::io;
use std::net::{TcpListener, UdpSocket};

use netlink::NetlinkError;
use netlink::nft::{
    BaseChain, Batch, ChainKind, Family, Hook, IpField, MapKey, MapValue, NftSocket, Rule, Verdict,
};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::places::Places;
use crate::RESOLVER_ADDRESS;

/// The port that queries go to.
pub(super) const DNS_PORT: u16 = 53;

/// Where our rules are in the container's namespace.
const TABLE: &str = "skep-dns";
/// Source: linux/in.h.
const PROTOCOLS: [(&str, u8); 2] = [("tcp", 6), ("udp", 17)];
/// Where destinations are translated. Source: linux/netfilter_ipv4.h, `NF_IP_PRI_NAT_DST`.
const PRIORITY_DNAT: i32 = -100;

/// Room for queries that wait, in bytes as the kernel counts them. Chosen: three thousand, what comes at 20,000 a second
/// while the shim has no processor for 150 ms. It is used only while they wait.
const RECEIVE_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Doors {
    pub(super) datagrams: UdpSocket,
    pub(super) streams: TcpListener,
}

impl Doors {
    /// `is_new`: nobody opened doors in this namespace before.
    pub(super) fn open(places: &Places, is_new: bool) -> io::Result<Self> {
        places.inside(|| {
            let datagrams = UdpSocket::bind((RESOLVER_ADDRESS, 0))?;
            let streams = TcpListener::bind((RESOLVER_ADDRESS, 0))?;
            datagrams.set_nonblocking(true)?;
            streams.set_nonblocking(true)?;
            // Refused, there is the usual room.
            let _ = set_socket_recv_buffer_size_force(&datagrams, RECEIVE_BYTES);
            let ports = [streams.local_addr()?.port(), datagrams.local_addr()?.port()];
            redirect(ports, is_new).map_err(io::Error::other)?;
            Ok(Self { datagrams, streams })
        })
    }
}

/// Leads port 53 to these ports, in the order of [`PROTOCOLS`].
fn redirect(ports: [u16; 2], is_new: bool) -> Result<(), NetlinkError> {
    let mut batch = Batch::new(Family::Ip, TABLE);
    // A new namespace has no such table. Replacing one means deleting it, and for that the kernel makes us wait some
    // milliseconds for all processors; a start must not.
    if is_new {
        batch.add_table()
    } else {
        batch.replace_table()
    };
    let base = BaseChain { kind: ChainKind::Nat, hook: Hook::Output, priority: PRIORITY_DNAT };
    batch.add_base_chain("output", base);
    let mut elements = Vec::new();
    for ((chain, protocol), port) in PROTOCOLS.into_iter().zip(ports) {
        batch.add_chain(chain);
        batch.add_rule(chain, &Rule::new().dnat(RESOLVER_ADDRESS, port));
        let key = MapKey::Port { protocol, port: DNS_PORT };
        elements.push((key, MapValue::Verdict(Verdict::Goto(chain.to_owned()))));
    }
    let (key, value) = &elements[0];
    batch.add_map("ports", *key, value);
    batch.add_elements("ports", &elements);
    let to_resolver = Rule::new().ipv4().address(IpField::Destination, RESOLVER_ADDRESS, 32);
    batch.add_rule("output", &to_resolver.port_verdict("ports"));
    NftSocket::open()?.commit(batch)
}

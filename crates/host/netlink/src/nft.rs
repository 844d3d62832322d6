//! nf_tables: sends batches as one transaction and lists base chains.
//!
//! In: a [`Batch`]. Out: all of it in the kernel, or none of it and the kernel's reason. Never decides about rules.

mod batch;
mod element;
mod rule;

use rustix::net::RecvFlags;
use rustix::net::netlink;

pub use batch::{BaseChain, Batch, ChainKind, Hook};
pub use element::{MapKey, MapValue};
pub use rule::{CtDirection, CtState, Direction, IpField, Rule, StationField, Verdict};

use crate::NetlinkError;
use crate::socket::{self, Socket};
use crate::wire::{self, Encoder, Message};

/// `NFNL_SUBSYS_NFTABLES << 8`. Source: linux/netfilter/nfnetlink.h.
const SUBSYSTEM: u16 = 10 << 8;
/// Message numbers below are from linux/netfilter/nf_tables.h.
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;

/// The kernel charges a sent batch against the send buffer, whose default of 208 KiB is good for some 300 ports.
const SEND_BUFFER_SPARE: usize = 64 * 1024;

/// Address families of tables. Source: linux/netfilter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// Both IP versions.
    Inet = 1,
    /// IPv4 only.
    Ip = 2,
    /// IPv6 only.
    Ip6 = 10,
    /// Frames that pass a bridge.
    Bridge = 7,
}

/// A base chain as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    /// Number of the table's family; 1, 2 and 10 see IP packets.
    pub family: u8,
    /// Table.
    pub table: String,
    /// Chain.
    pub name: String,
    /// Hook number, see [`Hook`].
    pub hook: u32,
    /// True when packets that no rule decides about are dropped.
    pub drops_by_default: bool,
}

/// A socket for nf_tables transactions in the namespace it was opened in.
#[derive(Debug)]
pub struct NftSocket {
    socket: Socket,
    send_buffer: usize,
}

impl NftSocket {
    /// Opens the socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Some(netlink::NETFILTER), 0)?, send_buffer: 0 })
    }

    /// The kernel's name of this socket; notifications about its own transactions carry it.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Applies the batch as one transaction: everything or nothing.
    pub fn commit(&mut self, batch: Batch) -> Result<(), NetlinkError> {
        const OPERATION: &str = "change nf_tables";
        let Some(sent) = batch.seal(self.socket.next_sequence()) else { return Ok(()) };
        self.socket.skip_sequences(sent.messages);
        self.make_room(sent.encoder.len());
        self.socket.send(OPERATION, sent.encoder.bytes())?;
        let mut failure = None;
        loop {
            let datagram = self.socket.receive(RecvFlags::empty());
            let datagram =
                datagram.map_err(|e| NetlinkError::Receive { operation: OPERATION, source: e.into() })?;
            for message in wire::messages(datagram).filter(socket::is_acknowledgement) {
                let outcome = socket::outcome(OPERATION, &message);
                // The kernel answers the opening message only to refuse the batch as a whole.
                if message.sequence == sent.first && outcome.is_err() {
                    return Err(failure.unwrap_or_else(|| outcome.expect_err("checked above")));
                }
                if message.sequence > sent.first && message.sequence <= sent.last {
                    failure = failure.or(outcome.err());
                    if message.sequence == sent.last {
                        return failure.map_or(Ok(()), Err);
                    }
                }
            }
        }
    }

    /// Gives memory back until the next use, for sockets that are kept and rarely used.
    pub fn rest(&mut self) {
        self.socket.rest();
    }

    /// Every base chain of every table of every family.
    pub fn base_chains(&mut self) -> Result<Vec<ChainInfo>, NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut encoder = Encoder::new();
        let mark = encoder.start(GET_CHAIN, socket::REQUEST | socket::DUMP, sequence);
        encoder.raw(&[0; 4]);
        encoder.finish(mark);
        let mut found = Vec::new();
        self.socket.exchange("list chains", sequence, encoder.bytes(), |message| {
            found.extend(read_chain(&message))
        })?;
        Ok(found)
    }

    fn make_room(&mut self, length: usize) {
        let wanted = length + SEND_BUFFER_SPARE;
        if wanted <= self.send_buffer {
            return;
        }
        let value = i32::try_from(wanted).unwrap_or(i32::MAX);
        // When this is refused, sending tells: the kernel then says that the message is too long.
        let _ = self.socket.set_option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, value);
        self.send_buffer = wanted;
    }
}

fn read_chain(message: &Message<'_>) -> Option<ChainInfo> {
    if message.kind != NEW_CHAIN {
        return None;
    }
    let mut info = ChainInfo {
        family: *message.payload.first()?,
        table: String::new(),
        name: String::new(),
        hook: 0,
        drops_by_default: false,
    };
    let mut is_base = false;
    for (kind, value) in wire::attributes_after(message.payload, 4) {
        match kind {
            batch::CHAIN_TABLE => info.table = wire::read_text(value),
            batch::CHAIN_NAME => info.name = wire::read_text(value),
            batch::CHAIN_POLICY => info.drops_by_default = wire::read_u32_be(value)? == 0,
            batch::CHAIN_HOOK => {
                let hook = wire::attributes(value).find(|(kind, _)| *kind == batch::HOOK_NUMBER);
                info.hook = wire::read_u32_be(hook?.1)?;
                is_base = true;
            }
            _ => {}
        }
    }
    is_base.then_some(info)
}

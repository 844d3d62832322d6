//! Listens to what changes in the kernel's rules, links and addresses.
//!
//! In: multicast messages of one network namespace. Out: events, and a descriptor that becomes readable with them.
//! Never blocks, and never judges whether an event matters.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::netlink;

use crate::NetlinkError;
use crate::filter;
use crate::route::{Address, Link, read_address, read_link};
use crate::socket::Socket;
use crate::wire::{self, Message};

/// Group 7. Source: linux/netfilter/nfnetlink.h, `NFNLGRP_NFTABLES`.
const GROUP_RULES: u32 = 1 << 6;
/// Group 1. Source: linux/rtnetlink.h, `RTNLGRP_LINK`.
const GROUP_LINKS: u32 = 1;
/// Groups 5 and 9. Source: linux/rtnetlink.h, `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR`.
const GROUP_ADDRESSES: u32 = 1 << 4 | 1 << 8;
/// chosen: some thousand events wait while a big change is being made; memory is used only while they do.
const QUEUE_BYTES: i32 = 4 * 1024 * 1024;
const RULES_SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_GENERATION: u16 = 15;

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An object of a table was made or deleted.
    Rules {
        /// Number of the table's family.
        family: u8,
        /// The table.
        table: String,
        /// True when the object is a table or a chain.
        is_structure: bool,
        /// Port of the socket that did it.
        by: u32,
    },
    /// A link was made or changed.
    Link(Link),
    /// A link is gone.
    LinkGone(Link),
    /// An address is gone.
    AddressGone(Address),
    /// Events were lost because they came faster than they were read: anything of what is watched may have changed.
    Lost(Subject),
}

/// What a [`Watch`] listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Tables and all that is in them.
    Rules,
    /// Links and addresses.
    Links,
}

/// A subscription to one kind of events.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    subject: Subject,
}

impl Watch {
    /// Subscribes to changes of rules, except those made by the socket with port `own`.
    pub fn rules(own: u32) -> Result<Self, NetlinkError> {
        let socket = Socket::open(Some(netlink::NETFILTER), GROUP_RULES)?;
        // Before anything is written: a big change of our own would otherwise fill the queue and hide others.
        filter::drop_caused_by(socket.fd(), own).map_err(NetlinkError::Open)?;
        Ok(Self::new(socket, Subject::Rules))
    }

    /// Subscribes to changes of links and IPv4 addresses.
    pub fn links() -> Result<Self, NetlinkError> {
        Ok(Self::new(Socket::open(None, GROUP_LINKS | GROUP_ADDRESSES)?, Subject::Links))
    }

    fn new(socket: Socket, subject: Subject) -> Self {
        // A smaller queue only means that events are lost sooner, which is told.
        let _ = socket.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, QUEUE_BYTES);
        Self { socket, subject }
    }

    /// Reads at most `limit` datagrams that are there; true when there may be more.
    pub fn read(&mut self, limit: usize, mut each: impl FnMut(Event)) -> Result<bool, NetlinkError> {
        for _ in 0..limit {
            match self.socket.receive(RecvFlags::DONTWAIT) {
                Ok(datagram) => {
                    wire::messages(datagram).filter_map(|message| read_event(&message)).for_each(&mut each)
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::NOBUFS) => each(Event::Lost(self.subject)),
                Err(errno) => {
                    return Err(NetlinkError::Receive {
                        operation: "watch the kernel",
                        source: errno.into(),
                    });
                }
            }
        }
        Ok(true)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }
}

fn read_event(message: &Message<'_>) -> Option<Event> {
    if message.kind >> 8 == RULES_SUBSYSTEM {
        return read_rules_event(message);
    }
    match message.kind {
        libc::RTM_NEWLINK => read_link(message).map(Event::Link),
        libc::RTM_DELLINK => read_link(message).map(Event::LinkGone),
        libc::RTM_DELADDR => read_address(message).map(Event::AddressGone),
        _ => None,
    }
}

fn read_rules_event(message: &Message<'_>) -> Option<Event> {
    let what = message.kind & 0xff;
    if what == NEW_GENERATION {
        return None;
    }
    // The first attribute of every kind of object is the name of its table.
    let (_, table) = wire::attributes_after(message.payload, 4).find(|(kind, _)| *kind == 1)?;
    Some(Event::Rules {
        family: *message.payload.first()?,
        table: wire::read_text(table),
        is_structure: matches!(what, NEW_TABLE | DELETE_TABLE | NEW_CHAIN | DELETE_CHAIN),
        by: message.port,
    })
}

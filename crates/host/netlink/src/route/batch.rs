//! Many changes of neighbours, forwarding entries, routes and rules with few system calls.
//!
//! In: changes in the order in which they shall happen. Out: all of them tried, and the first refusal that matters. Unlike
//! nf_tables, the kernel applies each on its own: what is refused does not stop what follows.

use rustix::net::RecvFlags;

use super::address::put_route;
use super::neighbour::{self, ForwardingEntry, Neighbour};
use super::policy::{self, PolicyRule};
use super::{Route, RouteSocket};
use crate::NetlinkError;
use crate::socket;
use crate::wire::{self, Encoder};

/// chosen: a refusal takes about a kilobyte of the receive queue (208 KiB), and every message of a piece may be refused.
const MESSAGES_AT_ONCE: usize = 100;

/// Changes to be sent together.
#[derive(Debug, Default)]
pub struct RouteBatch {
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    operation: &'static str,
    message: Encoder,
    /// What is to go may be gone, what is to be added may be there.
    is_done_when: fn(&NetlinkError) -> bool,
}

impl RouteBatch {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Makes the neighbour permanent and have this Ethernet address, whatever was known of it.
    pub fn put_neighbour(&mut self, neighbour: &Neighbour) {
        let flags = socket::CREATE | socket::REPLACE;
        self.push("put neighbour", libc::RTM_NEWNEIGH, flags, never, |encoder| {
            neighbour::put_neighbour(encoder, neighbour);
        });
    }

    /// Forgets the neighbour; the Ethernet address does not matter.
    pub fn delete_neighbour(&mut self, neighbour: &Neighbour) {
        self.push("delete neighbour", libc::RTM_DELNEIGH, 0, NetlinkError::is_missing, |encoder| {
            neighbour::put_neighbour(encoder, neighbour);
        });
    }

    /// Makes frames to this Ethernet address go where the entry says, whatever was known of it.
    pub fn put_forwarding(&mut self, entry: &ForwardingEntry) {
        let flags = socket::CREATE | socket::REPLACE;
        self.push("put forwarding entry", libc::RTM_NEWNEIGH, flags, never, |encoder| {
            neighbour::put_forwarding(encoder, entry);
        });
    }

    /// Forgets where frames to this Ethernet address go, whichever machine that is.
    pub fn delete_forwarding(&mut self, entry: &ForwardingEntry) {
        self.push("delete forwarding entry", libc::RTM_DELNEIGH, 0, NetlinkError::is_missing, |encoder| {
            neighbour::put_forwarding_anywhere(encoder, entry);
        });
    }

    /// Adds a route, or puts it in the place of the one to the same destination in its table.
    pub fn put_route(&mut self, route: &Route) {
        let flags = socket::CREATE | socket::REPLACE;
        self.push("put route", libc::RTM_NEWROUTE, flags, never, |encoder| put_route(encoder, route));
    }

    /// Deletes a route.
    pub fn delete_route(&mut self, route: &Route) {
        self.push("delete route", libc::RTM_DELROUTE, 0, NetlinkError::is_missing, |encoder| {
            put_route(encoder, route);
        });
    }

    /// Adds a rule that leads packets to a routing table.
    pub fn add_rule(&mut self, rule: &PolicyRule) {
        let flags = socket::CREATE | socket::EXCLUSIVE;
        self.push("add routing rule", policy::NEW_RULE, flags, NetlinkError::is_exists, |encoder| {
            policy::put_rule(encoder, rule);
        });
    }

    /// Deletes such a rule.
    pub fn delete_rule(&mut self, rule: &PolicyRule) {
        self.push("delete routing rule", policy::DELETE_RULE, 0, NetlinkError::is_missing, |encoder| {
            policy::put_rule(encoder, rule);
        });
    }

    fn push(
        &mut self,
        operation: &'static str,
        kind: u16,
        flags: u16,
        is_done_when: fn(&NetlinkError) -> bool,
        build: impl FnOnce(&mut Encoder),
    ) {
        let mut message = Encoder::new();
        let mark = message.start(kind, flags | socket::REQUEST, 0);
        build(&mut message);
        message.finish(mark);
        self.changes.push(Change { operation, message, is_done_when });
    }
}

fn never(_: &NetlinkError) -> bool {
    false
}

impl RouteSocket {
    /// Applies all changes. All are tried; the first refusal that matters is told: not that something to be deleted is gone,
    /// nor that something to be added is there.
    pub fn commit(&mut self, batch: RouteBatch) -> Result<(), NetlinkError> {
        let mut changes = batch.changes;
        let mut result = Ok(());
        for piece in changes.chunks_mut(MESSAGES_AT_ONCE) {
            result = result.and(self.commit_piece(piece)?);
        }
        result
    }

    /// The outer error: nobody knows what was done.
    fn commit_piece(&mut self, piece: &mut [Change]) -> Result<Result<(), NetlinkError>, NetlinkError> {
        const OPERATION: &str = "change neighbours and routes";
        let Some(last) = piece.len().checked_sub(1) else { return Ok(Ok(())) };
        let mut first = 0;
        let mut bytes = Encoder::new();
        for (position, change) in piece.iter_mut().enumerate() {
            let sequence = self.socket.next_sequence();
            first = if position == 0 { sequence } else { first };
            // Only the last one is answered in any case; before it, only refusals are.
            change.message.number(sequence, if position == last { socket::ACK } else { 0 });
            bytes.raw(change.message.bytes());
        }
        self.socket.send(OPERATION, bytes.bytes())?;
        let mut result = Ok(());
        loop {
            let datagram = self.socket.receive(RecvFlags::empty());
            let datagram =
                datagram.map_err(|e| NetlinkError::Receive { operation: OPERATION, source: e.into() })?;
            for message in wire::messages(datagram).filter(socket::is_acknowledgement) {
                let position = message.sequence.wrapping_sub(first) as usize;
                let Some(change) = piece.get(position) else { continue };
                let outcome = socket::outcome(change.operation, &message);
                result =
                    result.and(outcome.or_else(|e| if (change.is_done_when)(&e) { Ok(()) } else { Err(e) }));
                if position == last {
                    return Ok(result);
                }
            }
        }
    }
}

//! Many changes of neighbours, forwarding entries, routes and rules with few system calls.
//!
//! In: changes in the order in which they shall happen. Out: all of them tried, and the first refusal that matters. Unlike
//! nf_tables, the kernel applies each on its own: what is refused does not stop what follows.

use super::address::put_route;
use super::neighbour::{self, ForwardingEntry, Neighbour};
use super::policy::{self, PolicyRule};
use super::{Route, RouteSocket};
use crate::NetlinkError;
use crate::batch::{Batch, never};
use crate::socket;
use crate::wire::Encoder;

/// Changes to be sent together.
#[derive(Debug, Default)]
pub struct RouteBatch {
    changes: Batch,
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
        self.changes.push(operation, kind, flags, is_done_when, build);
    }
}

impl RouteSocket {
    /// Applies all changes. All are tried; the first refusal that matters is told: not that something to be deleted is gone,
    /// nor that something to be added is there.
    pub fn commit(&mut self, batch: RouteBatch) -> Result<(), NetlinkError> {
        self.socket.commit("change neighbours and routes", batch.changes)
    }
}

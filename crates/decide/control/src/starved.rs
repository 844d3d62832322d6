//! Who waits for an address, by the network that has none.
//!
//! In: who was left without one; the networks on which one became free. Out: whom to try, in a fixed order. It can be made
//! anew by trying everybody.

use std::collections::{BTreeMap, BTreeSet};

use objects::{NetworkId, NodeId, ServiceId, TaskId};

/// Who waits for an address. Nodes come first: without theirs the routing mesh does not reach them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Waiter {
    Node(NodeId),
    Service(ServiceId),
    Task(TaskId),
}

/// Those who wait for an address, each for one network at a time.
#[derive(Debug, Default)]
pub(crate) struct Starved {
    waiters: BTreeMap<NetworkId, BTreeSet<Waiter>>,
    of: BTreeMap<Waiter, NetworkId>,
}

impl Starved {
    pub(crate) fn insert(&mut self, waiter: Waiter, network: NetworkId) {
        self.remove(&waiter);
        self.waiters.entry(network.clone()).or_default().insert(waiter.clone());
        self.of.insert(waiter, network);
    }

    pub(crate) fn remove(&mut self, waiter: &Waiter) {
        let Some(network) = self.of.remove(waiter) else { return };
        if let Some(waiters) = self.waiters.get_mut(&network) {
            waiters.remove(waiter);
            if waiters.is_empty() {
                self.waiters.remove(&network);
            }
        }
    }

    /// Those who wait for an address on a network.
    pub(crate) fn on(&self, network: &NetworkId) -> Vec<Waiter> {
        self.waiters.get(network).into_iter().flatten().cloned().collect()
    }
}

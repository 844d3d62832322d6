//! Keeps the manager status of the nodes true to what raft sees.
//!
//! In: the store and raft's view. Out: one write for each node whose status is another. Only the leader writes them.

use objects::{ManagerStatus, Node, Reachability};
use store::{Store, Write};

use crate::{ManagerPeer, Managers};

/// The writes that make `manager_status` of every node what `view` says; none when all is said.
///
/// Only a node that has a vote in raft has a status. Its number in raft is not touched: it is noted before raft has it, and
/// goes with the role.
pub fn writes(store: &Store, view: &Managers) -> Vec<Write> {
    let changed = store.nodes().filter_map(|node| {
        let peer = view.of_node(&node.id).filter(|peer| peer.votes);
        let status = peer.map(status);
        let is_said = node.manager_status == status;
        (!is_said).then(|| Write::update(Node { manager_status: status, ..(**node).clone() }))
    });
    changed.collect()
}

fn status(peer: &ManagerPeer) -> ManagerStatus {
    let reachability = if peer.is_reachable { Reachability::Reachable } else { Reachability::Unreachable };
    ManagerStatus { leader: peer.is_leader, addr: peer.address.clone(), reachability }
}

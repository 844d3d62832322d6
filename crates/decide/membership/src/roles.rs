//! Brings the members of raft, and the roles in certificates, to what users asked for (reference, 4.4).
//!
//! In: the store and raft's view. Out: the steps for the leader, in order; it takes them one at a time and asks again.
//! A manager first leaves raft, then loses its role; a worker first gets the role, then joins raft by itself.

use objects::{Node, NodeId, NodeRole, NodeSpec};
use store::{Store, Write};

use crate::{ManagerPeer, Managers};

/// What the leader does next about roles.
#[derive(Debug, Clone, PartialEq)]
pub enum RoleStep {
    /// Commit these writes: certified roles change, manager status goes.
    Write(Vec<Write>),
    /// Hand leadership over to this voter, then stop: the next leader goes on.
    Transfer {
        /// Its number in raft.
        to: u64,
    },
    /// Remove a member of raft whose node shall not manage, or is gone.
    Remove {
        /// Its number in raft.
        raft_id: u64,
        /// Its node; may be empty.
        node: NodeId,
    },
    /// Give a learner its vote: it joined, but the leader of that time did not get to it.
    Promote {
        /// Its number in raft.
        raft_id: u64,
    },
    /// Somebody cannot be demoted now: ask again when the members change, or after [`RETRY_AFTER`].
    Wait {
        /// The node that has to stay.
        node: NodeId,
        /// Why.
        because: RoleError,
    },
}

/// How long the leader waits before it asks again when nothing changes.
///
/// Source: moby/swarmkit, `manager/role_manager.go` (`roleReconcileInterval`).
pub const RETRY_AFTER: objects::Nanos = objects::Nanos::from_secs(5);

/// Why a role cannot change. The API answers 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// Somebody must manage.
    #[error("attempting to demote the last manager of the swarm")]
    LastManager,
    /// The managers that are left could not decide anything.
    #[error("can't remove member from the raft: this would result in a loss of quorum")]
    LossOfQuorum,
}

/// Whether a user may give `node` this spec, as far as its role goes.
pub fn may_change(store: &Store, view: &Managers, node: &Node, spec: &NodeSpec) -> Result<(), RoleError> {
    if node.spec.role != NodeRole::Manager || spec.role != NodeRole::Worker {
        return Ok(());
    }
    if !store.nodes().any(|other| other.id != node.id && other.spec.role == NodeRole::Manager) {
        return Err(RoleError::LastManager);
    }
    match view.of_node(&node.id) {
        Some(peer) if !view.can_lose(peer.raft_id) => Err(RoleError::LossOfQuorum),
        _ => Ok(()),
    }
}

/// The steps that are due now; empty when every member of raft is what was asked for.
///
/// First the writes, then at most one step about raft, then who has to wait. The view must be of the leader that asks.
pub fn reconcile(store: &Store, view: &Managers) -> Vec<RoleStep> {
    let mut steps = Vec::new();
    let writes: Vec<Write> = store.nodes().filter_map(|node| certify(node, view)).collect();
    if !writes.is_empty() {
        steps.push(RoleStep::Write(writes));
    }
    let mut waits = Vec::new();
    let mut members = Vec::new();
    for peer in &view.peers {
        match member(store, view, peer) {
            Some(wait @ RoleStep::Wait { .. }) => waits.push(wait),
            Some(step) => members.push(step),
            None => {}
        }
    }
    // Removals make the quorum smaller, so they come first; the leader itself goes last.
    members.sort_by_key(|step| match step {
        RoleStep::Remove { .. } => 0,
        RoleStep::Promote { .. } => 1,
        _ => 2,
    });
    steps.extend(members.into_iter().next());
    steps.extend(waits);
    steps
}

/// The roles after a forced new cluster: `own` manages, whatever it was about to become, and no other.
pub fn alone<'a>(store: &'a Store, own: &'a NodeId) -> impl Iterator<Item = Write> + 'a {
    store.nodes().filter_map(move |node| {
        let role = if node.id == *own { NodeRole::Manager } else { NodeRole::Worker };
        let mut next = Node::clone(node);
        next.spec.role = role;
        (node.spec.role != role).then(|| Write::update(next))
    })
}

/// The write of a role that may be in the node's certificate from now on.
fn certify(node: &Node, view: &Managers) -> Option<Write> {
    let is_member = view.of_node(&node.id).is_some();
    let role = match node.spec.role {
        // A certificate of a manager lasts as long as the node is a member of raft.
        NodeRole::Worker if is_member => return None,
        role => role,
    };
    if node.internal.certified_role == role {
        return None;
    }
    let mut next = node.clone();
    next.internal.certified_role = role;
    if role == NodeRole::Worker {
        next.manager_status = None;
        next.internal.raft_id = 0;
    }
    Some(Write::update(next))
}

/// What is due about one member of raft.
fn member(store: &Store, view: &Managers, peer: &ManagerPeer) -> Option<RoleStep> {
    let is_wanted = store.node(&peer.node).is_some_and(|node| node.spec.role == NodeRole::Manager);
    if is_wanted {
        let is_due = !peer.votes && peer.is_reachable;
        return is_due.then_some(RoleStep::Promote { raft_id: peer.raft_id });
    }
    let wait = |because| RoleStep::Wait { node: peer.node.clone(), because };
    if view.votes().0 == 1 && peer.votes {
        return Some(wait(RoleError::LastManager));
    }
    if !view.can_lose(peer.raft_id) {
        return Some(wait(RoleError::LossOfQuorum));
    }
    if !peer.is_leader {
        return Some(RoleStep::Remove { raft_id: peer.raft_id, node: peer.node.clone() });
    }
    let successor = view.peers.iter().filter(|other| other.votes && other.is_reachable && !other.is_leader);
    let best = successor.min_by_key(|other| {
        let stays = store.node(&other.node).is_some_and(|node| node.spec.role == NodeRole::Manager);
        (!stays, other.raft_id)
    });
    Some(best.map_or_else(|| wait(RoleError::LossOfQuorum), |best| RoleStep::Transfer { to: best.raft_id }))
}

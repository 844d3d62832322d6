//! The managers of a swarm as raft sees them, and what their number allows.
//!
//! In: raft's members. Out: whether one may go. Never changes anything.

use objects::{NodeId, Reachability};
use store::Store;

/// One manager, as raft sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerPeer {
    /// Its number in raft.
    pub raft_id: u64,
    /// Its node; empty when nobody knows it any more.
    pub node: NodeId,
    /// Where the other managers reach it, `ip:port`.
    pub address: String,
    /// Whether its vote counts; a learner's does not yet.
    pub votes: bool,
    /// Whether whoever made this view hears from it; itself included.
    pub is_reachable: bool,
    /// Whether it leads.
    pub is_leader: bool,
}

/// The managers of a swarm, as raft sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managers {
    /// Voters and learners, in any order.
    pub peers: Vec<ManagerPeer>,
}

impl Managers {
    /// The view that the node objects hold: what the leader last wrote there.
    pub fn of_store(store: &Store) -> Self {
        let peers = store.nodes().filter_map(|node| {
            let status = node.manager_status.as_ref()?;
            Some(ManagerPeer {
                raft_id: node.internal.raft_id,
                node: node.id.clone(),
                address: status.addr.clone(),
                votes: true,
                is_reachable: status.reachability == Reachability::Reachable,
                is_leader: status.leader,
            })
        });
        Self { peers: peers.collect() }
    }

    /// The manager of a node.
    pub fn of_node(&self, node: &NodeId) -> Option<&ManagerPeer> {
        self.peers.iter().find(|peer| peer.node == *node)
    }

    /// The leader, when there is one.
    pub fn leader(&self) -> Option<&ManagerPeer> {
        self.peers.iter().find(|peer| peer.is_leader)
    }

    /// How many votes there are, and how many of them are reachable.
    pub fn votes(&self) -> (usize, usize) {
        let voters = self.peers.iter().filter(|peer| peer.votes);
        (voters.clone().count(), voters.filter(|peer| peer.is_reachable).count())
    }

    /// Whether the others are a quorum of their own once a member is gone; true when it has no vote.
    ///
    /// Source: moby/swarmkit, `manager/state/raft/raft.go` (`CanRemoveMember`).
    pub fn can_lose(&self, raft_id: u64) -> bool {
        let has_vote = self.peers.iter().any(|peer| peer.votes && peer.raft_id == raft_id);
        let rest = self.peers.iter().filter(|peer| peer.votes && peer.raft_id != raft_id);
        let reachable = rest.clone().filter(|peer| peer.is_reachable).count();
        !has_vote || reachable > rest.count() / 2
    }
}

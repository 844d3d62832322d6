//! What this node says about its own part in a swarm, without waiting for anybody.
//!
//! In: the parts as they are. Out: the `Swarm` fields of `GET /info` that are about this node, its manager, or Docker's
//! words why there is none.

use manager::Manager;
use objects::NodeRole;

use crate::node::{Part, SwarmNode};
use crate::requests::{self, LocalNodeState, Peer, SwarmError};
use crate::ties::Ties;

/// The `Swarm` part of `GET /info` that is about this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalState {
    /// `inactive`, `pending`, `active`, `error` or `locked`.
    pub state: LocalNodeState,
    /// Empty when in no swarm.
    pub node_id: String,
    /// Advertised address without port; empty when in no swarm.
    pub node_addr: String,
    /// Whether a manager runs here and answers.
    pub control_available: bool,
    /// Why the state is `error`, or why no manager takes this node; else empty.
    pub error: String,
    /// Managers of the swarm.
    pub remote_managers: Vec<Peer>,
}

impl SwarmNode {
    /// What `GET /info` and the `Swarm` header of `/_ping` say about this node; never waits.
    #[must_use]
    pub fn local_state(&self) -> LocalState {
        let part = self.part();
        let has_manager = self.own_manager().is_some();
        let (state, error) = part.state(has_manager);
        let Some(membership) = part.membership.as_ref().map(|file| file.get()) else {
            return LocalState { state, error, ..LocalState::default() };
        };
        let managers = match &part.ties {
            Some(ties) => ties.managers.list(),
            None => membership.managers,
        };
        let peer =
            |manager: crate::state_file::KnownManager| Peer { node_id: manager.node_id, addr: manager.addr };
        LocalState {
            state,
            node_id: membership.node_id,
            node_addr: membership.node_addr,
            control_available: has_manager,
            error,
            remote_managers: managers.into_iter().map(peer).collect(),
        }
    }

    /// The manager on this node, or Docker's words why there is none (503).
    pub fn manager(&self) -> Result<Manager, SwarmError> {
        let part = self.part();
        self.own_manager().ok_or_else(|| part.why_no_manager())
    }
}

impl Part {
    /// The state, and why it is not as it should be.
    fn state(&self, has_manager: bool) -> (LocalNodeState, String) {
        if !self.error.is_empty() {
            return (LocalNodeState::Error, self.error.clone());
        }
        if self.locked.is_some() {
            return (LocalNodeState::Locked, String::new());
        }
        if let Some(joining) = self.joining.as_ref().filter(|_| self.membership.is_none()) {
            return (LocalNodeState::Pending, joining.trouble.clone());
        }
        if self.membership.is_none() {
            return (LocalNodeState::Inactive, String::new());
        }
        if !has_manager && self.is_expired() {
            return (LocalNodeState::Error, SwarmError::CertificatesExpired.to_string());
        }
        let trouble = self.ties.as_ref().map(|ties| ties.trouble.borrow().clone()).unwrap_or_default();
        if has_manager || self.was_taken {
            (LocalNodeState::Active, trouble)
        } else {
            (LocalNodeState::Pending, trouble)
        }
    }

    /// Whether this node's certificate has run out and nobody has renewed it yet.
    fn is_expired(&self) -> bool {
        let is_expired = |ties: &Ties| ties.credentials.certified().is_expired(requests::now());
        self.ties.as_ref().is_some_and(is_expired)
    }

    /// Source: moby, `daemon/cluster/cluster.go` `errNoManager`.
    fn why_no_manager(&self) -> SwarmError {
        if self.locked.is_some() {
            return SwarmError::Locked;
        }
        if self.is_expired() {
            return SwarmError::CertificatesExpired;
        }
        match (&self.membership, &self.ties) {
            (Some(_), Some(ties)) if ties.credentials.role() == NodeRole::Worker => SwarmError::IsWorker,
            (None, _) if self.error.is_empty() => SwarmError::NotInSwarm,
            _ => SwarmError::ManagerNotReady,
        }
    }
}

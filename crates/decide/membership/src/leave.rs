//! Decides whether a node may leave without force, and what it is warned of (reference, 4.4).
//!
//! In: what the node is. Out: nothing, or the warning. Never lets it leave itself.

use objects::{NodeId, Reachability};
use store::Store;

/// Source of all texts: moby, `daemon/cluster/swarm.go` (`Leave`).
const MANAGER: &str = "You are attempting to leave the swarm on a node that is participating as a manager. ";
const LAST: &str =
    "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ";
const INACTIVE: &str = "Doing so may lose the consensus of your cluster. ";
const RESTORE: &str = "The only way to restore a swarm that has lost consensus is to reinitialize it with \
                       `--force-new-cluster`. Use `--force` to suppress this message.";

/// What a node that wants to leave is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaver {
    /// A worker may always go.
    Worker,
    /// A manager that takes no part in deciding now: it starts, or has lost the others.
    InactiveManager,
    /// A manager that does.
    Manager {
        /// Managers that are reachable, itself included.
        reachable: usize,
        /// Managers that are not.
        unreachable: usize,
        /// Whether it is one of the reachable ones.
        is_active: bool,
    },
}

/// Why a node must be forced to leave; the API answers 503 with this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct LeaveWarning {
    text: String,
}

impl Leaver {
    /// The manager on `node`, as its replica describes the managers.
    ///
    /// Source: moby, `daemon/cluster/swarm.go` (`managerStats`).
    pub fn manager_of(store: &Store, node: &NodeId) -> Self {
        let (mut reachable, mut unreachable, mut is_active) = (0, 0, false);
        for known in store.nodes() {
            match known.manager_status.as_ref().map(|status| status.reachability) {
                Some(Reachability::Reachable) => {
                    reachable += 1;
                    is_active |= known.id == *node;
                }
                Some(Reachability::Unreachable) => unreachable += 1,
                Some(Reachability::Unknown) | None => {}
            }
        }
        Self::Manager { reachable, unreachable, is_active }
    }

    /// Whether the node may leave without force. A manager may not, even where the quorum would be safe.
    pub fn may_leave(self) -> Result<(), LeaveWarning> {
        let text = match self {
            Self::Worker => return Ok(()),
            Self::InactiveManager => format!("{MANAGER}{INACTIVE}{RESTORE}"),
            Self::Manager { reachable: 1, unreachable: 0, is_active: true } => format!("{MANAGER}{LAST}"),
            Self::Manager { reachable, unreachable, is_active }
                if is_active && reachable <= unreachable + 2 =>
            {
                format!(
                    "{MANAGER}Removing this node leaves {} managers out of {}. Without a Raft quorum your swarm \
                     will be inaccessible. {RESTORE}",
                    reachable - 1,
                    reachable + unreachable
                )
            }
            Self::Manager { .. } => format!("{MANAGER}{RESTORE}"),
        };
        Err(LeaveWarning { text })
    }
}

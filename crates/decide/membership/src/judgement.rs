//! What the failure detector wants written about a node.
//!
//! In: the judgement and the store. Out: one write, or none when the store says so already.

use objects::{Node, NodeId, NodeState, NodeStatus, Timestamp};
use store::{Store, Write};

/// Source of this and the next two: moby/swarmkit, `manager/dispatcher/dispatcher.go`.
pub(crate) const DOWN_MESSAGE: &str = "heartbeat failure";
pub(crate) const LOST_UNKNOWN_MESSAGE: &str = "heartbeat failure for node in \"unknown\" state";
pub(crate) const UNKNOWN_MESSAGE: &str =
    "Node moved to \"unknown\" state due to leadership change in cluster";
/// Source: moby/swarmkit, `manager/dispatcher/dispatcher.go` (a graceful drop).
pub(crate) const DISCONNECTED_MESSAGE: &str = "node is currently trying to find new manager";
/// chosen: swarmkit learns of a node that left by its silence alone.
pub(crate) const LEFT_MESSAGE: &str = "node left the swarm";

/// What is to be written about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub state: NodeState,
    /// Why, as `docker node inspect` shows it.
    pub message: &'static str,
    /// With DOWN: when its tasks may move.
    pub tasks_move_at: Timestamp,
}

impl Judgement {
    /// The write of the judgement at `now`; `None` when the store says so already, or the node is gone.
    pub fn write(&self, store: &Store, now: Timestamp) -> Option<Write> {
        let known = store.node(&self.node)?;
        let is_new = known.status.state != self.state;
        if !is_new && known.internal.tasks_move_at == self.tasks_move_at {
            return None;
        }
        let status =
            NodeStatus { state: self.state, message: self.message.to_owned(), ..known.status.clone() };
        let mut next = Node { status, ..(**known).clone() };
        next.internal.tasks_move_at = self.tasks_move_at;
        if is_new {
            next.internal.status_since = now;
        }
        Some(Write::update(next))
    }
}

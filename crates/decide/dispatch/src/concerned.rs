//! Decides which nodes have to be told about a change, and whom a node may turn to.
//!
//! In: a change of a commit; the store. Out: ids of nodes; the managers with their weights. Never sends anything.

use objects::{NodeId, Reachability};
use store::{Change, Object, Store};
use wire::session::ManagerPeer;

/// How much each manager is chosen. Source: moby/swarmkit, `manager/dispatcher/dispatcher.go` (10 each).
const WEIGHT: u32 = 10;

/// How much one that is unreachable is. chosen: the least there is.
const WEIGHT_AWAY: u32 = 1;

/// The nodes whose assignments may be different after a change: those that the task is, or was, assigned to.
///
/// A change of anything but a task concerns nobody by itself: what a task was granted never changes under its id.
pub fn concerned(change: &Change) -> impl Iterator<Item = &NodeId> {
    let before = change.before.as_ref().and_then(Object::as_task).map(|task| &task.node_id);
    let after = change.after.as_ref().and_then(Object::as_task).map(|task| &task.node_id);
    before.into_iter().chain(after.filter(|after| before != Some(after))).filter(|node| !node.is_empty())
}

/// The managers that a node may turn to, one that is known to be unreachable last.
///
/// It must not be forgotten: it may be the only one that is there when the node asks next.
pub fn managers(store: &Store) -> Vec<ManagerPeer> {
    let known = store.nodes().filter_map(|node| {
        let status = node.manager_status.as_ref()?;
        let is_there = status.reachability != Reachability::Unreachable;
        let weight = if is_there { WEIGHT } else { WEIGHT_AWAY };
        Some(ManagerPeer { node: node.id.clone(), address: status.addr.clone(), weight })
    });
    known.collect()
}

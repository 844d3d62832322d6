//! A container that runs is only stopped when a commit has said so.

use objects::{NodeId, TaskId};
use store::Store;

pub(crate) fn check(committed: &Store, node: &NodeId, task: &TaskId) -> Result<(), String> {
    let known = committed.task(task);
    if known.is_some_and(|task| task.is_wanted() && task.node_id == *node && !task.is_terminal()) {
        return Err(format!("node {node} stopped task {task}, which is wanted there"));
    }
    Ok(())
}

//! Observed and desired states of a task only ever grow.

use store::Change;

use crate::world::task_changes;

pub(super) fn check(changes: &[Change]) -> Result<(), String> {
    for (before, after) in task_changes(changes) {
        let (Some(before), Some(after)) = (before, after) else { continue };
        if after.status.state < before.status.state || after.desired_state < before.desired_state {
            return Err(format!("a state went back: {before:?} -> {after:?}"));
        }
    }
    Ok(())
}

//! A task is only given to a node that takes tasks, satisfies its constraints and has room for it.

use objects::{Constraint, Task};
use store::{Change, Store};

use crate::world::task_changes;

pub(super) fn check(before: &Store, changes: &[Change]) -> Result<(), String> {
    for (old, new) in task_changes(changes) {
        let Some(task) = new.filter(|task| task.is_active()) else { continue };
        if old.is_some_and(|old| old.is_active()) {
            if old.is_some_and(|old| old.node_id != task.node_id) {
                return Err(format!("task {} moved to another node", task.id));
            }
            continue;
        }
        allowed(before, task, changes)?;
    }
    Ok(())
}

fn allowed(before: &Store, task: &Task, changes: &[Change]) -> Result<(), String> {
    let node = before.node(&task.node_id).ok_or_else(|| format!("task {} is on no node", task.id))?;
    if !node.is_available() {
        return Err(format!("task {} was given to node {}, which takes none", task.id, node.id));
    }
    let constraints = Constraint::parse_all(task.spec.constraints()).map_err(|error| error.to_string())?;
    if !constraints.iter().all(|constraint| constraint.is_satisfied_by(node)) {
        return Err(format!("task {} does not match node {}", task.id, node.id));
    }
    let mut used = 0;
    for other in before.tasks_on_node(&node.id).filter(|other| other.is_active()) {
        let ended = task_changes(changes).any(|(old, new)| {
            old.is_some_and(|old| old.id == other.id) && !new.is_some_and(|new| new.is_active())
        });
        used += if ended { 0 } else { other.spec.reservations().map_or(0, |reserved| reserved.nano_cpus) };
    }
    for (_, new) in task_changes(changes).filter(|(old, _)| !old.is_some_and(|old| old.is_active())) {
        let here = new.filter(|new| new.is_active() && new.node_id == node.id);
        used += here.and_then(|task| task.spec.reservations()).map_or(0, |reserved| reserved.nano_cpus);
    }
    let reserves = task.spec.reservations().is_some_and(|reserved| reserved.nano_cpus > 0);
    if reserves && used > node.description.resources.nano_cpus {
        return Err(format!("node {} is overbooked by task {}", node.id, task.id));
    }
    Ok(())
}

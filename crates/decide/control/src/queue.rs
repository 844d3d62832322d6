//! Tasks that no node takes, by what they ask for.
//!
//! In: what a placement left over. Out: whom to try when something changed: the first of each group, since where it finds
//! no node no other one does, and the next ones only once it found one. So an event costs the number of groups, not that
//! of waiting tasks. Never chooses a node.

use std::collections::BTreeMap;

use objects::{NodeId, ServiceId, Task, TaskId};

/// Tasks that ask for the same: of one service and spec version, and of one node if they are made for it.
pub(crate) type Group = (ServiceId, u64, NodeId);

/// The waiting tasks.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// With each task, whether the end of another one may help it.
    groups: BTreeMap<Group, BTreeMap<TaskId, bool>>,
    of: BTreeMap<TaskId, Group>,
}

/// The group of a task.
pub(crate) fn group(task: &Task) -> Group {
    (task.service_id.clone(), task.internal.spec_version, task.node_id.clone())
}

impl Queue {
    pub(crate) fn contains(&self, task: &TaskId) -> bool {
        self.of.contains_key(task)
    }

    pub(crate) fn insert(&mut self, task: TaskId, group: Group, needs_room: bool) {
        self.groups.entry(group.clone()).or_default().insert(task.clone(), needs_room);
        self.of.insert(task, group);
    }

    /// The group it waited in, if it did.
    pub(crate) fn remove(&mut self, task: &TaskId) -> Option<Group> {
        let group = self.of.remove(task)?;
        if let Some(tasks) = self.groups.get_mut(&group) {
            tasks.remove(task);
            if tasks.is_empty() {
                self.groups.remove(&group);
            }
        }
        Some(group)
    }

    /// The first task of each group.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = &TaskId> {
        self.groups.values().filter_map(|tasks| tasks.keys().next())
    }

    /// The first task of each group that the end of another task may help.
    pub(crate) fn firsts_for_room(&self) -> impl Iterator<Item = &TaskId> {
        let first = |tasks: &'_ BTreeMap<TaskId, bool>| tasks.iter().position(|(_, needs_room)| *needs_room);
        self.groups.values().filter_map(move |tasks| tasks.keys().nth(first(tasks)?))
    }

    /// The tasks of a group.
    pub(crate) fn of_group(&self, group: &Group) -> impl Iterator<Item = &TaskId> {
        self.groups.get(group).into_iter().flat_map(BTreeMap::keys)
    }
}

//! What each node carries: number of tasks, reservations, ports.
//!
//! In: every change of a node or task, in order. Out: the load of a node, and the nodes from the least loaded one. A step
//! may assume changes of its own draft; they are taken back at its end, as their commit may be refused.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use objects::{Node, NodeId, PortProtocol, PublishMode, ServiceId, Task};
use store::Store;

/// Where a known node stands in the order of loads: its ranked tasks, and its id.
pub(crate) type Place = (u64, NodeId);

/// A port of a node.
pub(crate) type HostPort = (PortProtocol, u32);

/// What one task adds to its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) service: ServiceId,
    pub(crate) nano_cpus: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) ports: Vec<HostPort>,
    /// Whether it counts in rankings; a task that is about to stop does not.
    pub(crate) is_ranked: bool,
}

impl Weight {
    /// What `task` adds to its node while it is active.
    pub(crate) fn of(task: &Task) -> Self {
        let reserved = task.spec.reservations();
        let is_fixed =
            |port: &&objects::PortConfig| port.publish_mode == PublishMode::Host && port.published_port != 0;
        Self {
            service: task.service_id.clone(),
            nano_cpus: reserved.map_or(0, |reserved| reserved.nano_cpus),
            memory_bytes: reserved.map_or(0, |reserved| reserved.memory_bytes),
            ports: task
                .internal
                .ports
                .iter()
                .filter(is_fixed)
                .map(|port| (port.protocol, port.published_port))
                .collect(),
            is_ranked: task.is_wanted() && !task.is_attachment(),
        }
    }
}

/// What one node carries.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Load {
    /// The node, unless only its tasks are known.
    pub(crate) node: Option<Arc<Node>>,
    /// Ranked tasks.
    pub(crate) tasks: u64,
    /// Ranked tasks per service.
    pub(crate) services: BTreeMap<ServiceId, u64>,
    pub(crate) nano_cpus: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) ports: BTreeMap<HostPort, u64>,
}

impl Load {
    /// Ranked tasks of `service`.
    pub(crate) fn of_service(&self, service: &ServiceId) -> u64 {
        self.services.get(service).copied().unwrap_or(0)
    }

    fn is_empty(&self) -> bool {
        self.node.is_none()
            && self.tasks == 0
            && self.ports.is_empty()
            && (self.nano_cpus, self.memory_bytes) == (0, 0)
    }

    fn add(&mut self, weight: &Weight) {
        self.nano_cpus += weight.nano_cpus;
        self.memory_bytes += weight.memory_bytes;
        for port in &weight.ports {
            *self.ports.entry(*port).or_default() += 1;
        }
        if weight.is_ranked {
            self.tasks += 1;
            match self.services.get_mut(&weight.service) {
                Some(count) => *count += 1,
                None => drop(self.services.insert(weight.service.clone(), 1)),
            }
        }
    }

    fn subtract(&mut self, weight: &Weight) {
        self.nano_cpus -= weight.nano_cpus;
        self.memory_bytes -= weight.memory_bytes;
        for port in &weight.ports {
            take_one(&mut self.ports, port);
        }
        if weight.is_ranked {
            debug_assert!(self.tasks > 0, "a task is added before it is taken away");
            self.tasks = self.tasks.saturating_sub(1);
            take_one(&mut self.services, &weight.service);
        }
    }
}

/// Counts one down, and forgets what counts zero.
fn take_one<K: Ord>(counts: &mut BTreeMap<K, u64>, key: &K) {
    let Some(count) = counts.get_mut(key) else {
        debug_assert!(false, "what is taken away was added before");
        return;
    };
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
    }
}

/// What every node carries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loads {
    nodes: BTreeMap<NodeId, Load>,
    /// Known nodes from the one with the fewest tasks.
    order: BTreeSet<Place>,
    /// What the current step assumes: added (`true`) or taken away.
    assumed: Vec<(NodeId, Weight, bool)>,
}

impl Loads {
    /// Loads of a swarm without nodes and tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of a node that was made, changed or removed.
    pub fn note_node(&mut self, id: &NodeId, after: Option<&Arc<Node>>) {
        self.change(id, |load| load.node = after.cloned());
    }

    /// Takes note of a task that was made, changed or removed.
    pub fn note_task(&mut self, before: Option<&Task>, after: Option<&Task>) {
        debug_assert!(self.assumed.is_empty(), "nothing is assumed between steps");
        self.swap(before, after);
        self.assumed.clear();
    }

    /// Assumes a change of a task until [`Loads::forget_assumed`].
    pub fn assume_task(&mut self, before: Option<&Task>, after: Option<&Task>) {
        self.swap(before, after);
    }

    /// Assumes that one more task of this weight is on a node.
    pub(crate) fn assume(&mut self, node: &NodeId, weight: &Weight) {
        self.change(node, |load| load.add(weight));
        self.assumed.push((node.clone(), weight.clone(), true));
    }

    /// Takes back what was assumed.
    pub fn forget_assumed(&mut self) {
        for (node, weight, was_added) in std::mem::take(&mut self.assumed).into_iter().rev() {
            self.change(&node, |load| if was_added { load.subtract(&weight) } else { load.add(&weight) });
        }
    }

    /// What a node carries.
    pub(crate) fn get(&self, node: &NodeId) -> Option<&Load> {
        self.nodes.get(node).filter(|load| load.node.is_some())
    }

    /// The known nodes from the one with the fewest tasks; ties by id.
    pub(crate) fn by_tasks(&self) -> impl Iterator<Item = (&NodeId, &Load)> {
        self.order.iter().map(|(_, id)| (id, &self.nodes[id]))
    }

    /// The known node that comes after `place` in the order of [`Loads::by_tasks`], with its place.
    pub(crate) fn next(&self, place: Option<&Place>) -> Option<(&Place, &Load)> {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        let place = self.order.range((from, Bound::Unbounded)).next()?;
        Some((place, &self.nodes[&place.1]))
    }

    /// What the nodes and tasks of a store add up to.
    pub fn of(store: &Store) -> Self {
        let mut sum = Self::new();
        for node in store.nodes() {
            sum.nodes.insert(node.id.clone(), Load { node: Some(Arc::clone(node)), ..Load::default() });
        }
        for (node, tasks) in store.tasks_by_node() {
            let mut load = sum.nodes.remove(node).unwrap_or_default();
            tasks.filter(|task| task.is_active()).for_each(|task| load.add(&Weight::of(task)));
            if !load.is_empty() {
                sum.nodes.insert(node.clone(), load);
            }
        }
        let known = sum.nodes.iter().filter(|(_, load)| load.node.is_some());
        sum.order = known.map(|(id, load)| (load.tasks, id.clone())).collect();
        sum
    }

    fn swap(&mut self, before: Option<&Task>, after: Option<&Task>) {
        let before = before.filter(|task| task.is_active()).map(|task| (&task.node_id, Weight::of(task)));
        let after = after.filter(|task| task.is_active()).map(|task| (&task.node_id, Weight::of(task)));
        if before == after {
            return;
        }
        if let Some((node, weight)) = before {
            self.change(node, |load| load.subtract(&weight));
            self.assumed.push((node.clone(), weight, false));
        }
        if let Some((node, weight)) = after {
            self.change(node, |load| load.add(&weight));
            self.assumed.push((node.clone(), weight, true));
        }
    }

    /// Changes the load of one node and keeps the order true.
    fn change(&mut self, id: &NodeId, change: impl FnOnce(&mut Load)) {
        if !self.nodes.contains_key(id) {
            self.nodes.insert(id.clone(), Load::default());
        }
        let load = self.nodes.get_mut(id).expect("it was just put there");
        let (tasks, was_known) = (load.tasks, load.node.is_some());
        change(load);
        if (tasks, was_known) != (load.tasks, load.node.is_some()) {
            self.order.remove(&(tasks, id.clone()));
            if load.node.is_some() {
                self.order.insert((load.tasks, id.clone()));
            }
        }
        if load.is_empty() {
            self.nodes.remove(id);
        }
    }
}

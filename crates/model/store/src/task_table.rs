//! Tasks with their indexes: by service and slot, by node, and by the networks that they have addresses on.
//!
//! In: tasks as they are put and taken. Out: lookups whose cost follows what is found. Every index holds the tasks
//! themselves, so that a walk looks nothing up; copies share what nobody changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use objects::{NetworkId, NodeId, ServiceId, SlotKey, Task, TaskId};

use crate::shelves::Shelves;

type OfService = BTreeMap<(SlotKey, TaskId), Arc<Task>>;
type OnNode = BTreeMap<TaskId, Arc<Task>>;
/// Node by node; tasks without one come first.
type OnNetwork = BTreeMap<(NodeId, TaskId), Arc<Task>>;

/// Sorts after every id: they are of digits and letters.
const AFTER_IDS: &str = "\u{10FFFF}";

/// Tasks with their indexes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TaskTable {
    all: Shelves<TaskId, Arc<Task>>,
    by_service: BTreeMap<ServiceId, Arc<OfService>>,
    by_node: BTreeMap<NodeId, Arc<OnNode>>,
    /// Only tasks that hold addresses.
    by_network: BTreeMap<NetworkId, Arc<OnNetwork>>,
}

impl TaskTable {
    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Task>> {
        self.all.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<Task>> + Clone {
        self.all.values()
    }

    pub(crate) fn of_service<'a>(
        &'a self,
        service: &ServiceId,
    ) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        self.by_service.get(service).into_iter().flat_map(|tasks| tasks.values())
    }

    pub(crate) fn in_slot<'a>(
        &'a self,
        service: &ServiceId,
        slot: &SlotKey,
    ) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        let first = (slot.clone(), TaskId::default());
        let from = self.by_service.get(service).map(|tasks| tasks.range(first..));
        let slot = slot.clone();
        from.into_iter().flatten().take_while(move |(key, _)| key.0 == slot).map(|(_, task)| task)
    }

    pub(crate) fn on_node<'a>(&'a self, node: &NodeId) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        self.by_node.get(node).into_iter().flat_map(|tasks| tasks.values())
    }

    pub(crate) fn by_node(&self) -> impl Iterator<Item = (&NodeId, impl Iterator<Item = &Arc<Task>>)> {
        self.by_node.iter().map(|(node, tasks)| (node, tasks.values()))
    }

    pub(crate) fn by_service(&self) -> impl Iterator<Item = (&ServiceId, impl Iterator<Item = &Arc<Task>>)> {
        self.by_service.iter().map(|(service, tasks)| (service, tasks.values()))
    }

    pub(crate) fn on_network<'a>(
        &'a self,
        network: &NetworkId,
    ) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        self.by_network.get(network).into_iter().flat_map(|tasks| tasks.values())
    }

    /// Tasks of one node on a network.
    pub(crate) fn of_node_on_network<'a>(
        &'a self,
        network: &NetworkId,
        node: &NodeId,
    ) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        let first = (node.clone(), TaskId::default());
        let from = self.by_network.get(network).map(|tasks| tasks.range(first..));
        let node = node.clone();
        from.into_iter().flatten().take_while(move |(key, _)| key.0 == node).map(|(_, task)| task)
    }

    /// The nodes that tasks with addresses on a network are on, each once.
    pub(crate) fn nodes_on_network<'a>(
        &'a self,
        network: &NetworkId,
    ) -> impl Iterator<Item = &'a NodeId> + use<'a> {
        let tasks = self.by_network.get(network);
        let mut last: Option<NodeId> = Some(NodeId::default());
        std::iter::from_fn(move || {
            let after = (last.take()?, TaskId::from(AFTER_IDS));
            let ((node, _), _) = tasks?.range(after..).next()?;
            last = Some(node.clone());
            Some(node)
        })
    }

    fn join_networks(&mut self, task: &Arc<Task>) {
        for attachment in task.networks_attachments.iter().filter(|_| task.holds_addresses()) {
            let on_network = entry(&mut self.by_network, &attachment.network);
            Arc::make_mut(on_network).insert((task.node_id.clone(), task.id.clone()), Arc::clone(task));
        }
    }

    fn leave_networks(&mut self, task: &Task) {
        for attachment in task.networks_attachments.iter().filter(|_| task.holds_addresses()) {
            let Some(tasks) = self.by_network.get_mut(&attachment.network) else { continue };
            let tasks = Arc::make_mut(tasks);
            tasks.remove(&(task.node_id.clone(), task.id.clone()));
            if tasks.is_empty() {
                self.by_network.remove(&attachment.network);
            }
        }
    }

    /// Puts a task in the place of the one with its id.
    pub(crate) fn put(&mut self, task: Arc<Task>) {
        if let Some(old) = self.all.get(task.id.as_str()).cloned() {
            let place = |task: &Task| (task.node_id.clone(), task.holds_addresses());
            if place(&old) != place(&task) || old.networks_attachments != task.networks_attachments {
                self.leave_networks(&old);
            }
            if (&old.service_id, old.slot_key()) != (&task.service_id, task.slot_key()) {
                self.leave_service(&old);
            }
            if old.node_id != task.node_id {
                self.leave_node(&old);
            }
        }
        let of_service = entry(&mut self.by_service, &task.service_id);
        Arc::make_mut(of_service).insert((task.slot_key(), task.id.clone()), Arc::clone(&task));
        if !task.node_id.is_empty() {
            let on_node = entry(&mut self.by_node, &task.node_id);
            Arc::make_mut(on_node).insert(task.id.clone(), Arc::clone(&task));
        }
        self.join_networks(&task);
        self.all.insert(task.id.clone(), task);
    }

    pub(crate) fn take(&mut self, task: &Task) {
        self.leave_service(task);
        self.leave_node(task);
        self.leave_networks(task);
        self.all.remove(task.id.as_str());
    }

    fn leave_service(&mut self, task: &Task) {
        let Some(tasks) = self.by_service.get_mut(&task.service_id) else { return };
        let tasks = Arc::make_mut(tasks);
        tasks.remove(&(task.slot_key(), task.id.clone()));
        if tasks.is_empty() {
            self.by_service.remove(&task.service_id);
        }
    }

    fn leave_node(&mut self, task: &Task) {
        let Some(tasks) = self.by_node.get_mut(&task.node_id) else { return };
        let tasks = Arc::make_mut(tasks);
        tasks.remove(&task.id);
        if tasks.is_empty() {
            self.by_node.remove(&task.node_id);
        }
    }
}

/// The entry of a key; clones the key only when it is new.
fn entry<'a, K: Ord + Clone, V: Default>(map: &'a mut BTreeMap<K, V>, key: &K) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.clone(), V::default());
    }
    map.get_mut(key).expect("it was put there if it was missing")
}

//! The tables and their indexes.
//!
//! In: single objects from `apply`. Out: objects by id, and tasks by service, slot and node. Never judges a write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use objects::{
    Cluster, ClusterId, Network, NetworkId, Node, NodeId, Service, ServiceId, SlotKey, Task, TaskId,
};

use crate::{Draft, Kind, Object};

/// The swarm's state. Cloning it shares the objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Store {
    pub(crate) applied: u64,
    pub(crate) clusters: BTreeMap<ClusterId, Arc<Cluster>>,
    pub(crate) nodes: BTreeMap<NodeId, Arc<Node>>,
    pub(crate) services: BTreeMap<ServiceId, Arc<Service>>,
    pub(crate) tasks: BTreeMap<TaskId, Arc<Task>>,
    pub(crate) networks: BTreeMap<NetworkId, Arc<Network>>,
    /// Unique names in lower case, per kind.
    pub(crate) names: BTreeMap<(Kind, String), String>,
    pub(crate) tasks_by_slot: BTreeSet<(ServiceId, SlotKey, TaskId)>,
    pub(crate) tasks_by_node: BTreeSet<(NodeId, TaskId)>,
}

impl Store {
    /// An empty store, before the first entry of the log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Index of the newest log entry in it.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The one cluster; `None` before the swarm was made.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.clusters.values().next()
    }

    /// A node by exact id.
    pub fn node(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(id)
    }

    /// A service by exact id.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id)
    }

    /// A task by exact id.
    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(id)
    }

    /// A network by exact id.
    pub fn network(&self, id: &NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(id)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> + Clone {
        self.nodes.values()
    }

    /// All services, by id.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> + Clone {
        self.services.values()
    }

    /// All tasks, by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> + Clone {
        self.tasks.values()
    }

    /// All networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> + Clone {
        self.networks.values()
    }

    /// How many tasks there are.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// All tasks of a service, by slot, then id.
    pub fn tasks_of_service<'a>(
        &'a self,
        service: &ServiceId,
    ) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        let first = (service.clone(), SlotKey::Slot(0), TaskId::default());
        let service = service.clone();
        self.tasks_by_slot
            .range(first..)
            .take_while(move |entry| entry.0 == service)
            .map(|entry| self.indexed(&entry.2))
    }

    /// All tasks of one slot of a service, by id.
    pub fn tasks_in_slot<'a>(
        &'a self,
        service: &ServiceId,
        slot: &SlotKey,
    ) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        let first = (service.clone(), slot.clone(), TaskId::default());
        let (service, slot) = (service.clone(), slot.clone());
        self.tasks_by_slot
            .range(first..)
            .take_while(move |entry| entry.0 == service && entry.1 == slot)
            .map(|entry| self.indexed(&entry.2))
    }

    /// All tasks of a node, by id.
    pub fn tasks_on_node<'a>(&'a self, node: &NodeId) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        let first = (node.clone(), TaskId::default());
        let node = node.clone();
        self.tasks_by_node
            .range(first..)
            .take_while(move |entry| entry.0 == node)
            .map(|entry| self.indexed(&entry.1))
    }

    /// A set of writes to be, over this store.
    pub fn draft(&self) -> Draft<'_> {
        Draft::new(self)
    }

    fn indexed(&self, id: &TaskId) -> &Arc<Task> {
        self.tasks.get(id).expect("an index only names tasks of the table")
    }

    /// An object by kind and exact id.
    pub fn get(&self, kind: Kind, id: &str) -> Option<Object> {
        match kind {
            Kind::Cluster => self.clusters.get(id).cloned().map(Object::Cluster),
            Kind::Node => self.nodes.get(id).cloned().map(Object::Node),
            Kind::Service => self.services.get(id).cloned().map(Object::Service),
            Kind::Task => self.tasks.get(id).cloned().map(Object::Task),
            Kind::Network => self.networks.get(id).cloned().map(Object::Network),
        }
    }

    /// Puts an object in the place of the one with its id.
    pub(crate) fn put(&mut self, object: Object) {
        self.take(object.kind(), object.id());
        if let Some(name) = object.unique_name() {
            self.names.insert((object.kind(), name.to_lowercase()), object.id().to_owned());
        }
        match object {
            Object::Cluster(object) => drop(self.clusters.insert(object.id.clone(), object)),
            Object::Node(object) => drop(self.nodes.insert(object.id.clone(), object)),
            Object::Service(object) => drop(self.services.insert(object.id.clone(), object)),
            Object::Network(object) => drop(self.networks.insert(object.id.clone(), object)),
            Object::Task(object) => {
                self.tasks_by_slot.insert((object.service_id.clone(), object.slot_key(), object.id.clone()));
                if !object.node_id.is_empty() {
                    self.tasks_by_node.insert((object.node_id.clone(), object.id.clone()));
                }
                self.tasks.insert(object.id.clone(), object);
            }
        }
    }

    /// Takes an object out of its table and of all indexes.
    pub(crate) fn take(&mut self, kind: Kind, id: &str) -> Option<Object> {
        let object = self.get(kind, id)?;
        if let Some(name) = object.unique_name() {
            self.names.remove(&(kind, name.to_lowercase()));
        }
        match &object {
            Object::Cluster(object) => drop(self.clusters.remove(&object.id)),
            Object::Node(object) => drop(self.nodes.remove(&object.id)),
            Object::Service(object) => drop(self.services.remove(&object.id)),
            Object::Network(object) => drop(self.networks.remove(&object.id)),
            Object::Task(object) => {
                self.tasks_by_slot.remove(&(object.service_id.clone(), object.slot_key(), object.id.clone()));
                self.tasks_by_node.remove(&(object.node_id.clone(), object.id.clone()));
                self.tasks.remove(&object.id);
            }
        }
        Some(object)
    }
}

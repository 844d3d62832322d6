//! The tables and their indexes.
//!
//! In: single objects from `apply`. Out: objects by id, tasks by service, slot, node and network, services by network. Never
//! judges a write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use objects::{
    Cluster, ClusterId, Config, ConfigId, Network, NetworkId, Node, NodeId, Secret, SecretId, Service,
    ServiceId, SlotKey, Task, TaskId,
};

use crate::task_table::TaskTable;
use crate::{Draft, Kind, Object};

/// The swarm's state. Cloning it shares the objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Store {
    pub(crate) applied: u64,
    pub(crate) clusters: BTreeMap<ClusterId, Arc<Cluster>>,
    pub(crate) nodes: BTreeMap<NodeId, Arc<Node>>,
    pub(crate) services: BTreeMap<ServiceId, Arc<Service>>,
    pub(crate) tasks: TaskTable,
    pub(crate) networks: BTreeMap<NetworkId, Arc<Network>>,
    pub(crate) secrets: BTreeMap<SecretId, Arc<Secret>>,
    pub(crate) configs: BTreeMap<ConfigId, Arc<Config>>,
    /// Unique names in lower case, per kind.
    pub(crate) names: BTreeMap<(Kind, String), String>,
    /// Services by the networks that they ask for or have an address on.
    pub(crate) services_by_network: BTreeSet<(NetworkId, ServiceId)>,
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

    /// The service of a name; case makes no difference, and no two services share one.
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(self.names.get(&(Kind::Service, name.to_lowercase()))?.as_str())
    }

    /// A task by exact id.
    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(id.as_str())
    }

    /// A network by exact id.
    pub fn network(&self, id: &NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(id)
    }

    /// A secret by exact id.
    pub fn secret(&self, id: &SecretId) -> Option<&Arc<Secret>> {
        self.secrets.get(id)
    }

    /// A config by exact id.
    pub fn config(&self, id: &ConfigId) -> Option<&Arc<Config>> {
        self.configs.get(id)
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

    /// All secrets, by id.
    pub fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> + Clone {
        self.secrets.values()
    }

    /// All configs, by id.
    pub fn configs(&self) -> impl Iterator<Item = &Arc<Config>> + Clone {
        self.configs.values()
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
        self.tasks.of_service(service)
    }

    /// All tasks of one slot of a service, by id.
    pub fn tasks_in_slot<'a>(
        &'a self,
        service: &ServiceId,
        slot: &SlotKey,
    ) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        self.tasks.in_slot(service, slot)
    }

    /// All tasks of a node, by id.
    pub fn tasks_on_node<'a>(&'a self, node: &NodeId) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        self.tasks.on_node(node)
    }

    /// Tasks that hold addresses on a network, node by node; those without a node come first.
    pub fn tasks_on_network<'a>(
        &'a self,
        network: &NetworkId,
    ) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        self.tasks.on_network(network)
    }

    /// Tasks of one node that hold addresses on a network, by id.
    pub fn tasks_of_node_on_network<'a>(
        &'a self,
        network: &NetworkId,
        node: &NodeId,
    ) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        self.tasks.of_node_on_network(network, node)
    }

    /// The nodes that tasks with addresses on a network are on, each once. Cost follows their number.
    pub fn nodes_on_network<'a>(&'a self, network: &NetworkId) -> impl Iterator<Item = &'a NodeId> + use<'a> {
        self.tasks.nodes_on_network(network)
    }

    /// Services that ask for a network, or have an address on it, by id.
    pub fn services_on_network(&self, network: &NetworkId) -> impl Iterator<Item = &Arc<Service>> {
        let first = (network.clone(), ServiceId::default());
        let network = network.clone();
        let ids = self.services_by_network.range(first..).take_while(move |(of, _)| *of == network);
        ids.filter_map(|(_, service)| self.services.get(service))
    }

    /// The network of a name; case makes no difference, and no two networks share one.
    pub fn network_named(&self, name: &str) -> Option<&Arc<Network>> {
        self.networks.get(self.names.get(&(Kind::Network, name.to_lowercase()))?.as_str())
    }

    /// The routing mesh's network, while there is one.
    pub fn ingress(&self) -> Option<&Arc<Network>> {
        self.networks.values().find(|network| network.spec.ingress)
    }

    /// All tasks that are on a node, node by node.
    pub fn tasks_by_node(&self) -> impl Iterator<Item = (&NodeId, impl Iterator<Item = &Arc<Task>>)> {
        self.tasks.by_node()
    }

    /// All tasks, service by service.
    pub fn tasks_by_service(&self) -> impl Iterator<Item = (&ServiceId, impl Iterator<Item = &Arc<Task>>)> {
        self.tasks.by_service()
    }

    /// A set of writes to be, over this store.
    pub fn draft(&self) -> Draft<'_> {
        Draft::new(self)
    }

    /// An object by kind and exact id.
    pub fn get(&self, kind: Kind, id: &str) -> Option<Object> {
        match kind {
            Kind::Cluster => self.clusters.get(id).cloned().map(Object::Cluster),
            Kind::Node => self.nodes.get(id).cloned().map(Object::Node),
            Kind::Service => self.services.get(id).cloned().map(Object::Service),
            Kind::Task => self.tasks.get(id).cloned().map(Object::Task),
            Kind::Network => self.networks.get(id).cloned().map(Object::Network),
            Kind::Secret => self.secrets.get(id).cloned().map(Object::Secret),
            Kind::Config => self.configs.get(id).cloned().map(Object::Config),
        }
    }

    /// Puts an object in the place of the one with its id.
    pub(crate) fn put(&mut self, object: Object) {
        if let Some(name) = object.unique_name() {
            self.forget_name(object.kind(), object.id());
            self.names.insert((object.kind(), name.to_lowercase()), object.id().to_owned());
        }
        match object {
            Object::Cluster(object) => drop(self.clusters.insert(object.id.clone(), object)),
            Object::Node(object) => drop(self.nodes.insert(object.id.clone(), object)),
            Object::Service(object) => self.put_service(object),
            Object::Network(object) => drop(self.networks.insert(object.id.clone(), object)),
            Object::Secret(object) => drop(self.secrets.insert(object.id.clone(), object)),
            Object::Config(object) => drop(self.configs.insert(object.id.clone(), object)),
            Object::Task(object) => self.tasks.put(object),
        }
    }

    /// Takes an object out of its table and of all indexes.
    pub(crate) fn take(&mut self, kind: Kind, id: &str) {
        self.forget_name(kind, id);
        match kind {
            Kind::Cluster => drop(self.clusters.remove(id)),
            Kind::Node => drop(self.nodes.remove(id)),
            Kind::Service => {
                if let Some(service) = self.services.remove(id) {
                    self.leave_networks(&service);
                }
            }
            Kind::Network => drop(self.networks.remove(id)),
            Kind::Secret => drop(self.secrets.remove(id)),
            Kind::Config => drop(self.configs.remove(id)),
            Kind::Task => {
                if let Some(task) = self.tasks.get(id).cloned() {
                    self.tasks.take(&task);
                }
            }
        }
    }

    fn put_service(&mut self, service: Arc<Service>) {
        if let Some(old) = self.services.get(service.id.as_str()).cloned() {
            self.leave_networks(&old);
        }
        for network in networks(&service) {
            self.services_by_network.insert((network, service.id.clone()));
        }
        self.services.insert(service.id.clone(), service);
    }

    fn leave_networks(&mut self, service: &Service) {
        for network in networks(service) {
            self.services_by_network.remove(&(network, service.id.clone()));
        }
    }

    /// Frees the unique name of an object, if it has one.
    fn forget_name(&mut self, kind: Kind, id: &str) {
        if kind == Kind::Task {
            return;
        }
        if let Some(name) = self.get(kind, id).and_then(|object| object.unique_name().map(str::to_lowercase))
        {
            self.names.remove(&(kind, name));
        }
    }
}

/// The networks that a service asks for or has an address on.
fn networks(service: &Service) -> impl Iterator<Item = NetworkId> {
    let asked = service.spec.networks().iter().map(|network| network.target.as_str().into());
    asked.chain(service.endpoint.virtual_ips.iter().map(|vip| vip.network_id.clone()))
}

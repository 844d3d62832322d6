//! What a node is told of a network, and which parts of it a change touches.
//!
//! ```text
//!   changes of a commit ──► Marks ──► of the sessions that told of these networks ──► Told::news looks them up
//! ```
//!
//! In: the store; a change. Out: views, whole or by key. The cost of a change follows what it touches and who is to be told of
//! it, never the size of a network. A mark says where to look, not what is there: one too many does no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use objects::{
    Network, NetworkId, Node, NodeId, PortConfig, PublishMode, ResolutionMode, Service, ServiceId, Task,
    TaskId, TaskState,
};
use store::{Change, Object, Store};
use wire::network::{EndpointView, NetworkNews, NetworkView, PeerView, ServiceView};

/// UDP port of the VXLAN when the cluster says none. Source: RFC 7348.
const DATA_PATH_PORT: u16 = 4789;
/// Digits of a container's id that are a name of it. Source: moby, `daemon/container_operations.go`.
const SHORT_ID: usize = 12;

/// What may be different about networks since they were told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Anything about any network.
    pub all: bool,
    /// By network.
    pub networks: BTreeMap<NetworkId, Touched>,
}

/// What may be different about one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Anything about it.
    pub all: bool,
    peers: BTreeSet<NodeId>,
    endpoints: BTreeSet<TaskId>,
    services: BTreeSet<ServiceId>,
}

impl Marks {
    /// Takes note of what a change touches.
    pub fn note(&mut self, store: &Store, change: &Change) {
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        match before.or(after) {
            Some(Object::Task(_)) => {
                self.note_task(before.and_then(Object::as_task), after.and_then(Object::as_task));
            }
            Some(Object::Service(_)) => {
                self.note_service(
                    store,
                    before.and_then(Object::as_service),
                    after.and_then(Object::as_service),
                );
            }
            Some(Object::Node(_)) => {
                self.note_node(store, before.and_then(Object::as_node), after.and_then(Object::as_node));
            }
            Some(Object::Network(network)) => self.of(&network.id).all = true,
            _ => {}
        }
    }

    /// Whether nothing is marked.
    pub fn is_empty(&self) -> bool {
        !self.all && self.networks.is_empty()
    }

    /// Adds the marks of one network.
    pub fn merge(&mut self, network: &NetworkId, touched: &Touched) {
        let own = self.of(network);
        own.all |= touched.all;
        own.peers.extend(touched.peers.iter().cloned());
        own.endpoints.extend(touched.endpoints.iter().cloned());
        own.services.extend(touched.services.iter().cloned());
    }

    fn of(&mut self, network: &NetworkId) -> &mut Touched {
        self.networks.entry(network.clone()).or_default()
    }

    fn note_task(&mut self, before: Option<&Arc<Task>>, after: Option<&Arc<Task>>) {
        let attachments = |task: Option<&Arc<Task>>| -> Vec<NetworkId> {
            task.into_iter()
                .flat_map(|task| &task.networks_attachments)
                .map(|it| it.network.clone())
                .collect()
        };
        let networks: BTreeSet<NetworkId> =
            attachments(before).into_iter().chain(attachments(after)).collect();
        for network in networks {
            let view = |task: Option<&Arc<Task>>| task.and_then(|task| endpoint(&network, true, task));
            let (old, new) = (view(before), view(after));
            if old == new {
                continue;
            }
            let touched = self.of(&network);
            touched.endpoints.extend(before.or(after).map(|task| task.id.clone()));
            let node = |view: Option<EndpointView>| view.map(|view| view.node);
            let (old, new) = (node(old), node(new));
            if old != new {
                touched.peers.extend([old, new].into_iter().flatten());
            }
        }
    }

    fn note_service(&mut self, store: &Store, before: Option<&Arc<Service>>, after: Option<&Arc<Service>>) {
        let networks = |it: Option<&Arc<Service>>| it.map(|it| networks_of_service(it)).unwrap_or_default();
        for id in networks(before).union(&networks(after)) {
            let Some(network) = store.network(id) else { continue };
            let view = |it: Option<&Arc<Service>>| it.and_then(|it| service(network, it));
            if view(before) != view(after) {
                self.of(id).services.extend(before.or(after).map(|service| service.id.clone()));
            }
        }
    }

    fn note_node(&mut self, store: &Store, before: Option<&Arc<Node>>, after: Option<&Arc<Node>>) {
        let facts = |node: &Arc<Node>| {
            (data_path(node), node.internal.ingress.clone(), node.internal.encryption_generation)
        };
        let Some(node) = before.or(after).filter(|_| before.map(facts) != after.map(facts)) else { return };
        for network in networks_of_node(store, &node.id) {
            self.of(&network).peers.insert(node.id.clone());
        }
    }
}

/// Where a node's VXLAN traffic arrives; `None` while its address is not known.
pub fn data_path(node: &Node) -> Option<IpAddr> {
    let own = node.internal.data_path_addr.as_str();
    let text = if own.is_empty() { node.status.addr.as_str() } else { own };
    text.parse().ok()
}

/// The networks that a node uses.
pub(crate) fn networks_of_node(store: &Store, node: &NodeId) -> BTreeSet<NetworkId> {
    let tasks = store.tasks_on_node(node).filter(|task| is_shown(task));
    let attached = tasks.flat_map(|task| &task.networks_attachments).map(|it| it.network.clone());
    let ingress = store.ingress().map(|network| network.id.clone());
    attached.chain(ingress).filter(|id| store.network(id).is_some()).collect()
}

/// The nodes that use a network, and so are told of it.
fn users(store: &Store, network: &NetworkId) -> Vec<NodeId> {
    if store.network(network).is_some_and(|network| network.spec.ingress) {
        return store.nodes().map(|node| node.id.clone()).collect();
    }
    store.nodes_on_network(network).filter(|node| has_task(store, network, node)).cloned().collect()
}

/// The nodes that use a network and can be reached.
pub fn peers(store: &Store, network: &Network) -> BTreeMap<NodeId, PeerView> {
    let users = users(store, &network.id).into_iter();
    users.filter_map(|node| Some((node.clone(), peer(store, network, &node)?))).collect()
}

/// Everything about a network.
pub(crate) fn view(store: &Store, network: &Network) -> NetworkView {
    let subnets = network.subnets();
    let port = store.cluster().and_then(|cluster| u16::try_from(cluster.data_path_port).ok());
    let endpoints = store.tasks_on_network(&network.id);
    let services = store.services_on_network(&network.id);
    NetworkView {
        id: network.id.clone(),
        name: network.spec.name.clone(),
        internal: network.spec.internal,
        attachable: network.spec.attachable,
        ingress: network.spec.ingress,
        encrypted: network.is_encrypted(),
        mtu: network.mtu(),
        vni: network.vni().unwrap_or_default(),
        data_path_port: port.filter(|port| *port != 0).unwrap_or(DATA_PATH_PORT),
        subnets: subnets.iter().map(|subnet| subnet.net).collect(),
        gateways: subnets.iter().map(|subnet| subnet.gateway).collect(),
        peers: peers(store, network),
        endpoints: endpoints
            .filter_map(|task| {
                Some((task.id.to_string(), endpoint(&network.id, network.spec.ingress, task)?))
            })
            .collect(),
        services: services.filter_map(|it| Some((it.id.clone(), service(network, it)?))).collect(),
    }
}

/// What the store says now of what was touched.
pub(crate) fn news(store: &Store, network: &Network, touched: &Touched) -> NetworkNews {
    let found_peer = |node: &NodeId| {
        let is_user = network.spec.ingress || has_task(store, &network.id, node);
        peer(store, network, node).filter(|_| is_user)
    };
    let found_endpoint =
        |id: &TaskId| store.task(id).and_then(|task| endpoint(&network.id, network.spec.ingress, task));
    let found_service = |id: &ServiceId| store.service(id).and_then(|it| service(network, it));
    NetworkNews {
        id: network.id.clone(),
        peers: touched.peers.iter().map(|id| (id.clone(), found_peer(id))).collect(),
        endpoints: touched.endpoints.iter().map(|id| (id.to_string(), found_endpoint(id))).collect(),
        services: touched.services.iter().map(|id| (id.clone(), found_service(id))).collect(),
    }
}

fn has_task(store: &Store, network: &NetworkId, node: &NodeId) -> bool {
    store.tasks_of_node_on_network(network, node).any(|task| is_shown(task))
}

/// Whether nodes are told of a task: it is on one for good, and has not ended.
fn is_shown(task: &Task) -> bool {
    task.holds_addresses() && !task.node_id.is_empty() && task.status.state >= TaskState::Assigned
}

fn peer(store: &Store, network: &Network, id: &NodeId) -> Option<PeerView> {
    let node = store.node(id)?;
    let own = node.internal.ingress.as_ref().filter(|own| own.network == network.id);
    let addresses = own.map(|own| parsed(&own.addresses)).unwrap_or_default();
    let encryption_generation = node.internal.encryption_generation;
    Some(PeerView { data_path: data_path(node)?, addresses, encryption_generation })
}

fn endpoint(network: &NetworkId, is_ingress: bool, task: &Task) -> Option<EndpointView> {
    let attachment = task.networks_attachments.iter().find(|attachment| attachment.network == *network);
    let attachment = attachment.filter(|_| is_shown(task))?;
    Some(EndpointView {
        node: task.node_id.clone(),
        addresses: parsed(&attachment.addresses),
        names: names(task),
        service: (!task.service_id.is_empty()).then(|| task.service_id.clone()),
        is_serving: task.status.state == TaskState::Running && task.is_wanted(),
        ports: if is_ingress { ingress_ports(task) } else { Vec::new() },
    })
}

fn ingress_ports(task: &Task) -> Vec<PortConfig> {
    let ports = task.internal.ports.iter().filter(|port| port.publish_mode == PublishMode::Ingress);
    ports.cloned().collect()
}

/// The names that mean the task's container alone. A host name that its node makes up is known there only.
fn names(task: &Task) -> Vec<String> {
    if task.is_attachment() {
        return task.spec.networks.iter().flat_map(|asked| asked.aliases.iter().cloned()).collect();
    }
    let container = task.status.container_status.as_ref().map(|it| it.container_id.as_str());
    let short = container.filter(|id| !id.is_empty()).map(|id| id.chars().take(SHORT_ID).collect());
    let hostname = task.spec.container_spec.as_ref().map(|spec| spec.hostname.clone());
    let hostname = hostname.filter(|name| !name.is_empty() && !name.contains("{{"));
    [Some(task.name()), short, hostname].into_iter().flatten().collect()
}

fn service(network: &Network, service: &Service) -> Option<ServiceView> {
    let asked = service.spec.networks().iter().find(|asked| asked.target == network.id.as_str());
    let vips = service.endpoint.virtual_ips.iter().filter(|vip| vip.network_id == network.id);
    let vips = parsed(vips.map(|vip| &vip.addr));
    if asked.is_none() && vips.is_empty() {
        return None;
    }
    let is_dnsrr = service.spec.resolution() == ResolutionMode::Dnsrr;
    let ports = service.endpoint.ports.iter();
    let is_meshed = |port: &&PortConfig| network.spec.ingress && port.publish_mode == PublishMode::Ingress;
    Some(ServiceView {
        name: service.spec.name.clone(),
        aliases: asked.map(|asked| asked.aliases.clone()).unwrap_or_default(),
        vips: if is_dnsrr { Vec::new() } else { vips },
        ports: ports.filter(is_meshed).cloned().collect(),
    })
}

fn networks_of_service(service: &Service) -> BTreeSet<NetworkId> {
    let asked = service.spec.networks().iter().map(|asked| NetworkId::from(asked.target.as_str()));
    asked.chain(service.endpoint.virtual_ips.iter().map(|vip| vip.network_id.clone())).collect()
}

/// The addresses of texts such as `10.0.0.9/24`.
fn parsed<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|text| text.split('/').next()?.parse().ok()).collect()
}

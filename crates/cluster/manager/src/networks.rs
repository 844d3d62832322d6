//! Networks of the swarm: create, remove, prune, look up and list.
//!
//! In: specs as the API received them. Out: committed changes, or why not, in Docker's words; networks as the API shows
//! them. What a network means for a machine is the machine's.

use std::collections::BTreeMap;

use control::networks;
use docker::filters::Filters;
use docker::{Ipam, IpamConfig, NetworkInspect};
use objects::{Network, NetworkId, NetworkSpec, Service, Task, TaskState};
use serde_json::{Value, json};
use store::{FindError, Store};
use wire::forward::{Operation, Outcome};

use crate::error::ManagerError;
use crate::manager::Manager;
use crate::propose::{Beside, Decided};

impl Manager {
    /// Creates a network; returns when it is committed, with its subnets.
    pub async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkId, ManagerError> {
        let id: NetworkId = self.new_id();
        let operation = Operation::CreateNetwork { id: id.clone(), spec: Box::new(spec) };
        self.perform(operation).await.map(|_| id)
    }

    /// Removes a network that nobody uses.
    pub async fn remove_network(&self, reference: &str) -> Result<(), ManagerError> {
        self.perform(Operation::RemoveNetwork { reference: reference.to_owned() }).await.map(drop)
    }

    /// Removes the networks that nobody uses and that `is_meant` means; their names. One that somebody began to use just
    /// now stays.
    pub async fn prune_networks(
        &self,
        is_meant: impl Fn(&NetworkInspect) -> bool,
    ) -> Result<Vec<String>, ManagerError> {
        let unused: Vec<NetworkInspect> = {
            let store = self.view()?;
            let unused = store.networks().filter(|network| networks::is_unused(&store, network));
            unused.map(|network| shown(&store, network, false)).filter(|it| is_meant(it)).collect()
        };
        let mut removed = Vec::new();
        for network in unused {
            match self.remove_network(&network.id).await {
                Ok(()) => removed.push(network.name),
                Err(error) => tracing::info!(
                    network.id = network.id,
                    error = &error as &dyn std::error::Error,
                    "a network was not pruned"
                ),
            }
        }
        Ok(removed)
    }

    /// At the leader: makes a network with this id. Once it is there, nothing is made.
    pub(crate) async fn do_create_network(
        &self,
        id: &NetworkId,
        spec: &NetworkSpec,
    ) -> Result<Decided<Outcome>, ManagerError> {
        self.change(Beside::Nobody, |store, _| {
            if store.network(id).is_some() {
                return Ok((Outcome::Done, Vec::new()));
            }
            Ok((Outcome::Done, networks::create(store, id.clone(), spec.clone())?))
        })
        .await
    }

    /// At the leader: removes a network. With `again` one that is gone already is as wanted.
    pub(crate) async fn do_remove_network(
        &self,
        reference: &str,
        again: bool,
    ) -> Result<Decided<Outcome>, ManagerError> {
        self.change(Beside::Nobody, |store, _| match store.find_network(reference) {
            Err(FindError::NotFound { .. }) if again => Ok((Outcome::Done, Vec::new())),
            found => Ok((Outcome::Done, networks::remove(store, &found?.id)?)),
        })
        .await
    }

    /// One network by id, name or id prefix; `verbose` adds its services.
    pub fn network(&self, reference: &str, verbose: bool) -> Result<NetworkInspect, ManagerError> {
        let store = self.view()?;
        let network = store.find_network(reference)?;
        Ok(shown(&store, network, verbose))
    }

    /// All networks of the swarm, without who is on them.
    pub fn networks(&self) -> Result<Vec<NetworkInspect>, ManagerError> {
        let store = self.view()?;
        let bare = |network: &std::sync::Arc<Network>| NetworkInspect {
            peers: None,
            ..shown(&store, network, false)
        };
        Ok(store.networks().map(bare).collect())
    }

    /// Whether a network passes the filters that networks of the swarm and of a machine have in common: id, label and
    /// driver.
    #[must_use]
    pub fn is_network_meant(filters: &Filters, network: &NetworkInspect) -> bool {
        filters.matches_prefix("id", &network.id)
            && filters.matches_exactly("driver", &network.driver)
            && filters.matches_labels("label", &network.labels)
    }
}

/// A network as the API shows it. Source: moby, `daemon/cluster/convert/network.go` (`BasicNetworkFromGRPC`).
fn shown(store: &Store, network: &Network, verbose: bool) -> NetworkInspect {
    let configs = network.ipam_options.iter().flat_map(|options| &options.configs);
    let config = configs.map(|config| IpamConfig {
        subnet: config.subnet.clone(),
        ip_range: config.range.clone(),
        gateway: config.gateway.clone(),
        ..IpamConfig::default()
    });
    let peers = peers(store, network);
    NetworkInspect {
        name: network.spec.name.clone(),
        id: network.id.to_string(),
        created: network.meta.created_at,
        scope: "swarm".to_owned(),
        driver: network.driver_state.name.clone(),
        enable_ipv4: true,
        enable_ipv6: network.subnets().iter().any(|subnet| subnet.net.addr().is_ipv6()),
        ipam: Ipam { driver: "default".to_owned(), options: None, config: Some(config.collect()) },
        internal: network.spec.internal,
        attachable: network.spec.attachable,
        ingress: network.spec.ingress,
        options: network.driver_state.options.clone(),
        labels: network.spec.labels.clone(),
        peers: (!peers.is_empty()).then_some(peers),
        services: verbose.then(|| services(store, network)),
        ..NetworkInspect::default()
    }
}

/// The nodes that use a network. Source: moby, `api/types/network` (`PeerInfo`).
fn peers(store: &Store, network: &Network) -> Vec<Value> {
    dispatch::peers(store, network)
        .into_iter()
        .map(|(node, peer)| {
            let hostname = store.node(&node).map(|node| node.description.hostname.clone());
            json!({ "Name": hostname.unwrap_or_default(), "IP": peer.data_path.to_string() })
        })
        .collect()
}

/// The services on a network with their tasks that run. Source: moby, `api/types/network` (`ServiceInfo`).
fn services(store: &Store, network: &Network) -> BTreeMap<String, Value> {
    let mut tasks: BTreeMap<&objects::ServiceId, Vec<Value>> = BTreeMap::new();
    for task in store.tasks_on_network(&network.id).filter(|task| task.status.state == TaskState::Running) {
        tasks.entry(&task.service_id).or_default().push(task_info(store, network, task));
    }
    let services = store.services_on_network(&network.id);
    services
        .map(|service| {
            let of_service = tasks.remove(&service.id).unwrap_or_default();
            let info = json!({
                "VIP": vip(network, service),
                "Ports": ports(service),
                "LocalLBIndex": 0,
                "Tasks": of_service,
            });
            (service.spec.name.clone(), info)
        })
        .collect()
}

fn task_info(store: &Store, network: &Network, task: &Task) -> Value {
    let mut attachments = task.networks_attachments.iter();
    let own = attachments.find(|attachment| attachment.network == network.id);
    let address = own.and_then(|own| own.addresses.first()).map_or("", |text| bare(text));
    let host = store.node(&task.node_id).and_then(|node| dispatch::data_path(node));
    let host = host.map(|ip| ip.to_string()).unwrap_or_default();
    json!({
        "Name": task.name(),
        "EndpointID": task.id,
        "EndpointIP": address,
        "Info": { "Host IP": host },
    })
}

fn vip<'s>(network: &Network, service: &'s Service) -> &'s str {
    let vips = &service.endpoint.virtual_ips;
    vips.iter().find(|vip| vip.network_id == network.id).map_or("", |vip| bare(&vip.addr))
}

fn ports(service: &Service) -> Vec<String> {
    let shown = |port: &objects::PortConfig| {
        format!("Target: {}, Publish: {}", port.target_port, port.published_port)
    };
    service.endpoint.ports.iter().map(shown).collect()
}

/// The address of a text such as `10.0.0.9/24`.
fn bare(text: &str) -> &str {
    text.split('/').next().unwrap_or_default()
}

//! Decides on which networks of the swarm a service, its tasks and the nodes have addresses, and which.
//!
//! In: what was asked for, what is taken. Out: VIPs, attachments, or why there are none. What somebody has stays while it
//! asks for it. Never touches the store.

use std::net::IpAddr;
use std::sync::Arc;

use objects::{
    EndpointVirtualIp, NODE_NETWORKS, Network, NetworkAttachment, NetworkAttachmentConfig, NetworkId, Node,
    PublishMode, ResolutionMode, Service, Task,
};
use store::Store;

use crate::{Addresses, NoAddress};

/// Why somebody has no address on a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The network is gone.
    #[error("network {0} not found")]
    NoNetwork(String),
    /// It is full.
    #[error(transparent)]
    NoAddress(#[from] NoAddress),
    /// A container asks for an address that it cannot have.
    #[error("address {address} of network {network} cannot be given: {why}")]
    NotFree {
        /// The address.
        address: IpAddr,
        /// Name of the network.
        network: String,
        /// Why not.
        why: &'static str,
    },
    /// The service has no virtual address there: it is full.
    #[error("service {service} has no virtual address on network {network}")]
    NoVip {
        /// Its name.
        service: String,
        /// The network.
        id: NetworkId,
        /// Its name.
        network: String,
    },
}

impl AttachError {
    /// The network whose free addresses would help.
    pub fn network(&self) -> Option<&NetworkId> {
        match self {
            Self::NoNetwork(_) | Self::NotFree { .. } => None,
            Self::NoAddress(full) => Some(&full.id),
            Self::NoVip { id, .. } => Some(id),
        }
    }
}

/// The networks of the swarm that are meant, in the order of interfaces: ingress first, then as they were asked for.
///
/// Networks that every node has of its own are no networks of the swarm. A task in the namespace of its node, or without a
/// network, has no place on ingress either.
pub fn networks<'s>(
    store: &'s Store,
    asked: &[NetworkAttachmentConfig],
    needs_ingress: bool,
) -> Result<Vec<&'s Arc<Network>>, AttachError> {
    let is_apart = asked.iter().any(|network| matches!(network.target.as_str(), "host" | "none"));
    let ingress = store.ingress().filter(|_| needs_ingress && !is_apart);
    let mut found: Vec<&Arc<Network>> = ingress.into_iter().collect();
    for target in asked.iter().map(|network| network.target.as_str()) {
        if NODE_NETWORKS.contains(&target) {
            continue;
        }
        let network = store.network(&target.into());
        let network = network.ok_or_else(|| AttachError::NoNetwork(target.to_owned()))?;
        if found.iter().all(|known| known.id != network.id) {
            found.push(network);
        }
    }
    Ok(found)
}

/// The virtual addresses that a service should have, and why one is missing, if one is.
pub fn virtual_ips(
    addresses: &mut Addresses,
    store: &Store,
    service: &Service,
) -> (Vec<EndpointVirtualIp>, Option<AttachError>) {
    if service.spec.resolution() == ResolutionMode::Dnsrr {
        return (Vec::new(), None);
    }
    let wanted = match networks(store, service.spec.networks(), service.spec.needs_ingress()) {
        Ok(wanted) => wanted,
        Err(error) => return (service.endpoint.virtual_ips.clone(), Some(error)),
    };
    let (mut vips, mut missing) = (Vec::new(), None);
    for network in wanted {
        let had = service.endpoint.virtual_ips.iter().filter(|vip| vip.network_id == network.id);
        let before = vips.len();
        vips.extend(had.cloned());
        if vips.len() > before {
            continue;
        }
        if missing.is_some() {
            // One after the other: whoever waits, waits for one network.
            continue;
        }
        match addresses.take(network) {
            Ok(taken) => vips.extend(
                taken.into_iter().map(|addr| EndpointVirtualIp { network_id: network.id.clone(), addr }),
            ),
            Err(error) => missing = Some(error.into()),
        }
    }
    (vips, missing)
}

/// The attachments of a task that has none yet. Empty when it needs none.
///
/// It gets all of them or none, and none while its service lacks a virtual address that it should have.
pub fn attachments(
    addresses: &mut Addresses,
    store: &Store,
    service: Option<&Service>,
    task: &Task,
) -> Result<Vec<NetworkAttachment>, AttachError> {
    let asked = match (task.spec.networks.as_slice(), service) {
        ([], Some(service)) => &service.spec.networks,
        (asked, _) => asked,
    };
    let needs_ingress = task.internal.ports.iter().any(|port| port.publish_mode == PublishMode::Ingress);
    let wanted = networks(store, asked, needs_ingress)?;
    if let Some(service) = service {
        wanted.iter().try_for_each(|network| must_have_vip(service, task, network))?;
    }
    let before = addresses.assumed();
    let mut found = Vec::with_capacity(wanted.len());
    for network in wanted {
        match take(addresses, network, &task.internal.asked_addresses) {
            Ok(taken) => found.push(NetworkAttachment { network: network.id.clone(), addresses: taken }),
            Err(error) => {
                addresses.give_back(before);
                return Err(error);
            }
        }
    }
    Ok(found)
}

/// Addresses on a network: those that are asked for, and of the other families any.
fn take(addresses: &mut Addresses, network: &Network, asked: &[IpAddr]) -> Result<Vec<String>, AttachError> {
    let subnets = network.subnets();
    let choose = |address: &IpAddr| {
        let refuse =
            |why| AttachError::NotFree { address: *address, network: network.spec.name.clone(), why };
        let subnet = subnets.iter().find(|subnet| subnet.net.contains(address));
        let subnet = subnet.ok_or_else(|| refuse("it is in no subnet of the network"))?;
        let is_bound = *address == subnet.net.network() || *address == subnet.net.broadcast();
        if is_bound || subnets.iter().any(|subnet| subnet.gateway == *address) {
            return Err(refuse("it is the network's own"));
        }
        match addresses.is_taken(&network.id, *address) {
            true => Err(refuse("it is in use")),
            false => Ok((*address, subnet.net.prefix_len())),
        }
    };
    let chosen: Vec<_> = asked.iter().map(choose).collect::<Result<_, _>>()?;
    Ok(addresses.take_with(network, &chosen)?)
}

fn must_have_vip(service: &Service, task: &Task, network: &Network) -> Result<(), AttachError> {
    let is_of_spec = task.internal.spec_version == service.internal.spec_version;
    let has_vip = service.endpoint.virtual_ips.iter().any(|vip| vip.network_id == network.id);
    if !is_of_spec || has_vip || service.spec.resolution() == ResolutionMode::Dnsrr {
        return Ok(());
    }
    Err(AttachError::NoVip {
        service: service.spec.name.clone(),
        id: network.id.clone(),
        network: network.spec.name.clone(),
    })
}

/// The node's own address on the ingress network, when it has none there yet; `None` when nothing is to be changed.
pub fn node_address(
    addresses: &mut Addresses,
    store: &Store,
    node: &Node,
) -> Result<Option<NetworkAttachment>, NoAddress> {
    let Some(ingress) = store.ingress() else { return Ok(None) };
    if node.internal.ingress.as_ref().is_some_and(|own| own.network == ingress.id) {
        return Ok(None);
    }
    let taken = addresses.take(ingress)?;
    Ok(Some(NetworkAttachment { network: ingress.id.clone(), addresses: taken }))
}

//! Under which names containers find each other on a network.
//!
//! In: what is wanted. Out: rows of names and addresses, from which resolvers answer. Never answers itself.

use std::net::IpAddr;

use crate::wanted::{Attached, Wanted};
use crate::{Attachment, Endpoint};

/// The names of one container on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerNames {
    /// 64 hex digits.
    pub container_id: String,
    /// Its name, what it is called besides, its short id, its own name for itself; each once. The first one is what its
    /// address means.
    pub names: Vec<String>,
    /// Its addresses there, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// The rows of a network, by container id. None for a network on which nobody is found by name: those that every machine
/// has, and the way out of swarm networks.
pub(crate) fn of_network(wanted: &Wanted, name_or_id: &str) -> Vec<ContainerNames> {
    let Ok(entry) = wanted.networks.find(name_or_id) else { return Vec::new() };
    if entry.is_predefined() {
        return Vec::new();
    }
    let rows = wanted.containers().filter_map(|(container_id, attached)| {
        let endpoint = attached.attachment.endpoint(&entry.record.id)?;
        (!endpoint.is_for_way_out).then(|| row(container_id, attached, endpoint))
    });
    rows.collect()
}

fn row(container_id: &str, attached: &Attached, endpoint: &Endpoint) -> ContainerNames {
    ContainerNames {
        container_id: container_id.to_owned(),
        names: of_endpoint(&attached.name, container_id, &attached.attachment, endpoint),
        addresses: endpoint.addresses.iter().map(|address| address.ip).collect(),
    }
}

/// The names of an endpoint, each once. Source of the order: moby, `daemon/container_operations.go`, `buildEndpointDNSNames`.
pub fn of_endpoint(
    container_name: &str,
    container_id: &str,
    attachment: &Attachment,
    endpoint: &Endpoint,
) -> Vec<String> {
    let short_id = container_id.get(..12).unwrap_or(container_id);
    let mut names = Vec::new();
    let aliases = endpoint.aliases.iter().map(String::as_str);
    for name in [container_name].into_iter().chain(aliases).chain([short_id, &attachment.hostname]) {
        if !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

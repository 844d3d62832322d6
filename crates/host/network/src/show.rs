//! The networks as the API shows them.
//!
//! In: what is wanted. Out: Docker's shapes. Never changes anything.

use std::collections::BTreeMap;

use docker::{ConfigReference, Ipam, IpamConfig, NetworkContainer, NetworkInspect};
use ipnet::IpNet;
use netplan::ipam::Subnet;

use crate::Endpoint;
use crate::registry::Entry;
use crate::wanted::{Attached, Wanted};

/// All networks, those that every machine has first.
pub(crate) fn list(wanted: &Wanted) -> Vec<NetworkInspect> {
    let mut entries: Vec<&Entry> = wanted.networks.iter().collect();
    entries.sort_by_key(|entry| (!entry.is_predefined(), entry.record.created, &entry.record.name));
    entries.into_iter().map(|entry| network(wanted, entry)).collect()
}

/// One network by name, id, or id prefix that fits only one.
pub(crate) fn find(networks: Vec<NetworkInspect>, name_or_id: &str) -> Option<NetworkInspect> {
    if name_or_id.is_empty() {
        return None;
    }
    if let Some(exact) =
        networks.iter().find(|network| network.id == name_or_id || network.name == name_or_id)
    {
        return Some(exact.clone());
    }
    let mut fitting = networks.into_iter().filter(|network| network.id.starts_with(name_or_id));
    fitting.next().filter(|_| fitting.next().is_none())
}

fn network(wanted: &Wanted, entry: &Entry) -> NetworkInspect {
    let record = &entry.record;
    let members = wanted.containers().filter_map(|(id, attached)| {
        let endpoint = attached.attachment.endpoints.iter().find(|found| found.network_id == record.id)?;
        Some((id.clone(), member(attached, endpoint)))
    });
    let containers: BTreeMap<_, _> = members.collect();
    let subnets = record.subnets.iter().map(subnet).collect::<Vec<_>>();
    NetworkInspect {
        name: record.name.clone(),
        id: record.id.clone(),
        created: record.created,
        scope: if record.driver == "overlay" { "swarm" } else { "local" }.to_owned(),
        driver: record.driver.clone(),
        enable_ipv4: true,
        enable_ipv6: record.has_ipv6,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: record.ipam_options.clone(),
            config: (!subnets.is_empty()).then_some(subnets),
        },
        internal: record.is_internal,
        attachable: record.is_attachable,
        ingress: record.is_ingress,
        config_from: ConfigReference::default(),
        config_only: false,
        containers,
        options: record.options.clone(),
        labels: record.labels.clone(),
        peers: None,
        services: None,
    }
}

fn subnet(subnet: &Subnet) -> IpamConfig {
    let reserved = subnet.reserved.iter().map(|(name, ip)| (name.clone(), ip.to_string()));
    IpamConfig {
        subnet: subnet.subnet.to_string(),
        ip_range: subnet.range.as_ref().map(IpNet::to_string).unwrap_or_default(),
        gateway: subnet.gateway.to_string(),
        auxiliary_addresses: reserved.collect(),
    }
}

fn member(attached: &Attached, endpoint: &Endpoint) -> NetworkContainer {
    let show = |address: Option<&crate::EndpointAddress>| {
        address.map(|address| format!("{}/{}", address.ip, address.prefix)).unwrap_or_default()
    };
    // Source: moby, `daemon/container_operations.go`, names of the endpoints on docker_gwbridge.
    let name = match endpoint.is_for_way_out {
        true => format!("gateway_{}", &endpoint.endpoint_id[..12]),
        false => attached.name.clone(),
    };
    NetworkContainer {
        name,
        endpoint_id: endpoint.endpoint_id.clone(),
        mac_address: endpoint.mac.clone().unwrap_or_default(),
        ipv4_address: show(endpoint.ipv4()),
        ipv6_address: show(endpoint.ipv6()),
    }
}

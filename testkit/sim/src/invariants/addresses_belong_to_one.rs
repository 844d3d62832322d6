//! An address of a network belongs to one live task, service or node; it lies in the network's subnet and is not its gateway.

use std::collections::BTreeMap;
use std::net::IpAddr;

use objects::{Network, NetworkId};
use store::Store;

pub(super) fn check(store: &Store) -> Result<(), String> {
    let mut owners: BTreeMap<(&NetworkId, &str), String> = BTreeMap::new();
    for (network, address, owner) in held(store) {
        if let Some(network) = store.network(network).filter(|network| !is_of(network, address)) {
            return Err(format!("{owner} has {address}, which is none of network {}", network.spec.name));
        }
        if let Some(other) = owners.insert((network, address), owner.clone()) {
            return Err(format!("{owner} and {other} have {address} of network {network}"));
        }
    }
    Ok(())
}

/// Every address that somebody has, with its network and a name of whoever has it.
fn held(store: &Store) -> impl Iterator<Item = (&NetworkId, &str, String)> {
    let live = store.tasks().filter(|task| !task.is_terminal());
    let of_tasks = live.flat_map(|task| task.networks_attachments.iter().map(move |it| (it, &task.id)));
    let of_tasks = of_tasks.flat_map(|(it, id)| {
        it.addresses.iter().map(move |ip| (&it.network, ip.as_str(), format!("task {id}")))
    });
    let of_services = store.services().flat_map(|service| {
        let vips = service.endpoint.virtual_ips.iter();
        vips.map(move |vip| (&vip.network_id, vip.addr.as_str(), format!("service {}", service.id)))
    });
    let of_nodes = store.nodes().flat_map(|node| {
        let own = node.internal.ingress.iter();
        own.flat_map(move |own| {
            own.addresses.iter().map(move |ip| (&own.network, ip.as_str(), format!("node {}", node.id)))
        })
    });
    of_tasks.chain(of_services).chain(of_nodes)
}

fn is_of(network: &Network, address: &str) -> bool {
    let ip: Option<IpAddr> = address.split('/').next().and_then(|text| text.parse().ok());
    let Some(ip) = ip else { return false };
    network.subnets().iter().any(|subnet| subnet.net.contains(&ip) && subnet.gateway != ip)
}

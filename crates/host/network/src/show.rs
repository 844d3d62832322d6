//! The networks as the API shows them.
//!
//! In: what is wanted. Out: Docker's shapes. Never changes anything.

use std::collections::BTreeMap;

use docker::{Ipam, IpamConfig, NetworkContainer, NetworkInspect};

use crate::NetworkMode;
use crate::wanted::{Attached, Wanted};

/// All networks.
pub(crate) fn list(wanted: &Wanted, bridge: &str) -> Vec<NetworkInspect> {
    vec![
        bridge_network(wanted, bridge),
        bare_network(wanted, NetworkMode::Host, &wanted.state.host_id, "host"),
        bare_network(wanted, NetworkMode::None, &wanted.state.none_id, "null"),
    ]
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

fn bridge_network(wanted: &Wanted, bridge: &str) -> NetworkInspect {
    let mut network = bare_network(wanted, NetworkMode::Bridge, &wanted.state.bridge_id, "bridge");
    network.ipam.config = Some(vec![IpamConfig {
        subnet: wanted.addresses().subnet().to_string(),
        gateway: wanted.addresses().gateway().to_string(),
        ..IpamConfig::default()
    }]);
    // Source: docker 28.1, observed; tools read these to learn the name of the link.
    let options = [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", "true".to_owned()),
        ("com.docker.network.bridge.enable_ip_masquerade", "true".to_owned()),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0".to_owned()),
        ("com.docker.network.bridge.name", bridge.to_owned()),
        ("com.docker.network.driver.mtu", wanted.mtu().to_string()),
    ];
    network.options = options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    network
}

fn bare_network(wanted: &Wanted, mode: NetworkMode, id: &str, driver: &str) -> NetworkInspect {
    let members = wanted.endpoints().filter(|(_, attached)| attached.endpoint.mode == mode);
    let containers: BTreeMap<_, _> = members.map(|(id, attached)| (id.clone(), member(attached))).collect();
    NetworkInspect {
        name: mode.name().to_owned(),
        id: id.to_owned(),
        created: wanted.state.created,
        scope: "local".to_owned(),
        driver: driver.to_owned(),
        enable_ipv4: true,
        ipam: Ipam { driver: "default".to_owned(), options: None, config: None },
        containers,
        ..NetworkInspect::default()
    }
}

fn member(attached: &Attached) -> NetworkContainer {
    let endpoint = &attached.endpoint;
    NetworkContainer {
        name: attached.name.clone(),
        endpoint_id: endpoint.endpoint_id.clone(),
        mac_address: endpoint.mac.clone().unwrap_or_default(),
        ipv4_address: endpoint.ip.map(|ip| format!("{ip}/{}", endpoint.prefix)).unwrap_or_default(),
        ipv6_address: String::new(),
    }
}

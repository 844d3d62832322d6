//! The three networks that every machine has: `bridge`, `host` and `none`.
//!
//! In: their ids, the default bridge and its subnet. Out: the first entries of the registry.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};
use netplan::bridge_options;
use netplan::ipam::Subnet;

use crate::record::NetworkRecord;
use crate::registry::{Entry, Kind, Networks};
use crate::state_file::State;

/// A registry with the three networks. `address` is the bridge's own.
pub(crate) fn networks(state: &State, bridge: &str, address: Ipv4Net, mtu: u32) -> Networks {
    let record =
        |id: &str, name: &str, driver: &str| NetworkRecord::built_in(id, name, driver, state.created);
    let mut networks = Networks::default();
    networks.insert(Entry { record: record(&state.host_id, "host", "host"), kind: Kind::Host });
    networks.insert(Entry { record: record(&state.none_id, "none", "null"), kind: Kind::None });
    let mut record = record(&state.bridge_id, "bridge", "bridge");
    // Source: docker 28.1, observed; tools read these to learn the name of the link.
    let options = [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", "true".to_owned()),
        ("com.docker.network.bridge.enable_ip_masquerade", "true".to_owned()),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0".to_owned()),
        ("com.docker.network.bridge.name", bridge.to_owned()),
        ("com.docker.network.driver.mtu", mtu.to_string()),
    ];
    record.options = options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    record.subnets = vec![Subnet {
        subnet: IpNet::V4(address.trunc()),
        gateway: address.addr().into(),
        range: None,
        reserved: BTreeMap::new(),
        is_asked: false,
    }];
    bridge.clone_into(&mut record.link);
    record.is_link_ours = state.is_bridge_ours;
    let options = bridge_options::read(&record.options).expect("these options are ours");
    networks.insert(Entry::bridge(record, options, mtu));
    networks
}

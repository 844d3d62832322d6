//! Turns a request to found a swarm into everything it is founded with.
//!
//! In: the request. Out: ids, addresses, keys, the first objects. Writes nothing.

use std::net::IpAddr;

use manager::{Founding, Manager};
use objects::{ClusterId, ClusterSpec, IdSource, NodeId, NodeRole, Timestamp};
use pki::{Authority, KeyFile, NodeFiles, UnlockKey};

use crate::address;
use crate::describe::describe;
use crate::node::SwarmNodeConfig;
use crate::own_networks;
use crate::requests::{self, InitRequest, SwarmError};
use crate::state_file::{KnownManager, Membership, Requested};

/// Where overlays are cut from by default. Source: reference 6.1.
const DEFAULT_POOL: &str = "10.0.0.0/8";
/// Prefix length of an overlay by default. Source: reference 6.1.
const DEFAULT_SUBNET_SIZE: u32 = 24;
/// The smallest overlay. Source: reference 6.1.
const SMALLEST_SUBNET: u32 = 29;
/// VXLAN port by default, and the bounds of another. Source: reference 6.1.
const DEFAULT_DATA_PATH_PORT: u32 = 4789;
const DATA_PATH_PORTS: std::ops::RangeInclusive<u32> = 1024..=49151;

/// A swarm about to be founded.
pub(crate) struct Draft {
    pub(crate) membership: Membership,
    pub(crate) founding: Founding,
    pub(crate) key: KeyFile,
    /// Seals the key file, when the swarm locks its managers.
    pub(crate) lock: Option<UnlockKey>,
    pub(crate) files: NodeFiles,
}

pub(crate) fn draft(request: &InitRequest, config: &SwarmNodeConfig) -> Result<Draft, SwarmError> {
    check(request)?;
    let machine = address::of_this_machine().map_err(requests::invalid)?;
    let requested = Requested {
        listen_addr: request.listen_addr.clone(),
        advertise_addr: request.advertise_addr.clone(),
        data_path_addr: request.data_path_addr.clone(),
        link: String::new(),
    };
    let addresses = address::choose(&requested, config.default_advertise_addr.as_deref(), &machine, None)
        .map_err(requests::invalid)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| requests::failed("read random bytes", pki::PkiError::Random(error)))?;
    let mut ids = IdSource::from_seed(seed);
    let (node, cluster): (NodeId, ClusterId) = (ids.next(), ids.next());
    let mut spec = request.spec.clone().with_defaults();
    spec.encryption_config.auto_lock_managers |= request.auto_lock_managers;
    let now = requests::now();
    let authority = authority(&spec, now)?;
    let identity = pki::Identity { node: node.clone(), role: NodeRole::Manager, cluster: cluster.clone() };
    let issued = authority
        .issue(&identity, now, spec.ca_config.node_cert_expiry)
        .map_err(|error| requests::failed("make this node's certificate", error))?;
    let mut membership = Membership {
        version: Membership::VERSION,
        node_id: node.to_string(),
        cluster_id: cluster.to_string(),
        raft_id: ids.next_u64().max(1),
        is_voter: true,
        requested,
        ..Membership::default()
    };
    addresses.apply(&mut membership);
    membership.managers =
        vec![KnownManager { node_id: node.to_string(), addr: membership.control_addr.clone(), weight: 1 }];
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let pools = if request.default_addr_pool.is_empty() {
        vec![DEFAULT_POOL.to_owned()]
    } else {
        request.default_addr_pool.clone()
    };
    let lock = spec.encryption_config.auto_lock_managers.then(UnlockKey::generate).transpose();
    let lock = lock.map_err(|error| requests::failed("make the swarm's unlock key", error))?;
    let founding = Founding {
        unlock_key: lock.as_ref().map(ToString::to_string).unwrap_or_default(),
        cluster,
        spec,
        certificate: issued.certificate.clone(),
        description: describe(config, &config.engine_labels),
        availability: request.availability,
        node_address: membership.node_addr.clone(),
        own_networks: own_networks::of_this_machine(),
        encryption_generation: *config.engine.network().encryption_generation().borrow(),
        address_pools: pools,
        subnet_size: or(request.subnet_size, DEFAULT_SUBNET_SIZE),
        data_path_port: or(request.data_path_port, DEFAULT_DATA_PATH_PORT),
        authority: authority.clone(),
    };
    let files = NodeFiles { chain: issued.certificate, roots: authority.certificate };
    let key = KeyFile { lock_version: u64::from(lock.is_some()), ..KeyFile::new(issued.key) };
    Ok(Draft { membership, founding, key, lock, files })
}

/// The one that was brought, or a new one.
fn authority(spec: &ClusterSpec, now: Timestamp) -> Result<Authority, SwarmError> {
    let given = &spec.ca_config;
    if given.signing_ca_cert.is_empty() {
        return Authority::create(now).map_err(|error| requests::failed("make the swarm's authority", error));
    }
    Authority::given(&given.signing_ca_cert, &given.signing_ca_key).map_err(requests::invalid)
}

fn check(request: &InitRequest) -> Result<(), SwarmError> {
    let invalid = |reason: &str| Err(SwarmError::InvalidRequest { reason: reason.to_owned() });
    Manager::check_cluster(&request.spec).map_err(requests::refused)?;
    if request.data_path_port != 0 && !DATA_PATH_PORTS.contains(&request.data_path_port) {
        let port = request.data_path_port;
        return invalid(&format!("Datapath port number is not in valid range (1024-49151) : {port}"));
    }
    check_pools(&request.default_addr_pool, request.subnet_size).or_else(|reason| invalid(&reason))
}

/// Source: moby, `daemon/cluster/swarm.go` `validateDefaultAddrPool`.
fn check_pools(pools: &[String], subnet_size: u32) -> Result<(), String> {
    if subnet_size > SMALLEST_SUBNET {
        return Err(format!("subnet size is out of range: {subnet_size}"));
    }
    let size = if subnet_size == 0 { DEFAULT_SUBNET_SIZE } else { subnet_size };
    for pool in pools {
        let Some(length) = prefix_length(pool) else {
            return Err(format!("invalid base pool {pool}: invalid CIDR address: {pool}"));
        };
        if length > size {
            return Err(format!("invalid CIDR: {pool:?}. Subnet size is too small for pool: {size}"));
        }
    }
    Ok(())
}

/// Of a network in `ip/length`.
fn prefix_length(text: &str) -> Option<u32> {
    let (ip, length) = text.split_once('/')?;
    let bits = if ip.parse::<IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
    length.parse().ok().filter(|length| *length <= bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_that_overlays_cannot_be_cut_from_are_refused_in_dockers_words() {
        let check = |pool: &str, size: u32, expect: &str| {
            let refused = check_pools(&[pool.to_owned()], size).err().unwrap_or_default();
            assert_eq!(refused, expect, "{pool} {size}");
        };
        check("10.0.0.0/16", 0, "");
        check("10.0.0.0/24", 24, "");
        check("x", 0, "invalid base pool x: invalid CIDR address: x");
        check("10.0.0.0/33", 0, "invalid base pool 10.0.0.0/33: invalid CIDR address: 10.0.0.0/33");
        check("10.0.0.0/8", 40, "subnet size is out of range: 40");
        check("10.0.0.0/16", 12, "invalid CIDR: \"10.0.0.0/16\". Subnet size is too small for pool: 12");
    }
}

//! Turns a request to found a swarm into everything it is founded with.
//!
//! In: the request. Out: ids, addresses, keys, the first objects. Writes nothing.

use std::net::IpAddr;

use manager::{Founding, Manager};
use objects::{ClusterId, IdSource, NodeId};
use pki::{Authority, NodeFiles, Role};

use crate::address::{self, joined};
use crate::describe::describe;
use crate::node::SwarmNodeConfig;
use crate::requests::{self, InitRequest, SwarmError};
use crate::state_file::Membership;

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
    pub(crate) files: NodeFiles,
}

pub(crate) fn draft(request: &InitRequest, config: &SwarmNodeConfig) -> Result<Draft, SwarmError> {
    check(request)?;
    let machine = address::of_this_machine().map_err(requests::invalid)?;
    let addresses = address::choose(
        &request.listen_addr,
        &request.advertise_addr,
        &request.data_path_addr,
        config.default_advertise_addr.as_deref(),
        &machine,
    )
    .map_err(requests::invalid)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| requests::failed("read random bytes", pki::PkiError::Random(error)))?;
    let mut ids = IdSource::from_seed(seed);
    let (node, cluster): (NodeId, ClusterId) = (ids.next(), ids.next());
    let spec = request.spec.clone().with_defaults();
    let now = now();
    let authority =
        Authority::create(now).map_err(|error| requests::failed("make the swarm's authority", error))?;
    let validity = spec.ca_config.node_cert_expiry.0 / 1_000_000_000;
    let issued = authority
        .issue(&node, Role::Manager, cluster.as_str(), now, validity)
        .map_err(|error| requests::failed("make this node's certificate", error))?;
    let membership = Membership {
        version: Membership::VERSION,
        node_id: node.to_string(),
        cluster_id: cluster.to_string(),
        raft_id: ids.next_u64().max(1),
        listen_addr: addresses.listen,
        node_addr: addresses.advertise.to_string(),
        control_addr: joined(addresses.advertise, addresses.port),
        data_path_addr: addresses.data_path.to_string(),
    };
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let pools = if request.default_addr_pool.is_empty() {
        vec![DEFAULT_POOL.to_owned()]
    } else {
        request.default_addr_pool.clone()
    };
    let founding = Founding {
        cluster,
        spec,
        certificate: issued.certificate.clone(),
        description: describe(config),
        availability: request.availability,
        node_address: membership.node_addr.clone(),
        address_pools: pools,
        subnet_size: or(request.subnet_size, DEFAULT_SUBNET_SIZE),
        data_path_port: or(request.data_path_port, DEFAULT_DATA_PATH_PORT),
        authority: authority.clone(),
    };
    Ok(Draft { membership, founding, files: NodeFiles::new(issued, authority.certificate) })
}

fn check(request: &InitRequest) -> Result<(), SwarmError> {
    let invalid = |reason: &str| Err(SwarmError::InvalidRequest { reason: reason.to_owned() });
    if request.force_new_cluster {
        return Err(requests::unsupported("--force-new-cluster is not supported by this version"));
    }
    if request.auto_lock_managers || request.spec.encryption_config.auto_lock_managers {
        return Err(requests::unsupported("locking managers is not supported by this version"));
    }
    Manager::check_cluster(&request.spec).map_err(requests::refused)?;
    if request.data_path_port != 0 && !DATA_PATH_PORTS.contains(&request.data_path_port) {
        return invalid("Datapath port number must be in range 1024-49151");
    }
    if request.subnet_size > SMALLEST_SUBNET {
        return invalid("subnet size is out of range: must be at most 29");
    }
    if let Some(pool) = request.default_addr_pool.iter().find(|pool| !is_network(pool)) {
        return invalid(&format!("invalid CIDR address: {pool}"));
    }
    Ok(())
}

fn is_network(text: &str) -> bool {
    let Some((ip, prefix)) = text.split_once('/') else { return false };
    let bits = match ip.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    prefix.parse::<u8>().is_ok_and(|prefix| prefix <= bits)
}

fn now() -> objects::Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    objects::Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

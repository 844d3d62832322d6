//! Decides the subnets, gateways and the VXLAN number of a network of the swarm.
//!
//! In: the spec; the pools of the cluster; what other networks have and what the nodes' machines use by themselves. Out: the
//! network as it is to be stored, or who is in the way. A user's own subnet is never replaced. Never looks at a machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use objects::{
    Cluster, Driver, IpamConfig, IpamOptions, Network, NetworkId, NetworkSpec, OVERLAY, SHORT_VXLAN_OPTION,
    VXLAN_OPTION,
};
use store::Store;

/// Pool when the cluster has none. Source: moby, `daemon/cluster/swarm.go`.
const DEFAULT_POOL: &str = "10.0.0.0/8";
/// Where networks go when machines use all of the default pool themselves. chosen: the other private ranges (RFC 1918), then
/// the shared one (RFC 6598).
const FURTHER_POOLS: [&str; 3] = ["172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];
/// Prefix length when the cluster has none. Source: moby, `daemon/cluster/swarm.go`.
const DEFAULT_SIZE: u8 = 24;
/// Prefix length of an IPv6 subnet that nobody asked for. Source: RFC 4193.
const SIZE_V6: u8 = 64;
/// The first number. Source: moby, `libnetwork/drivers/overlay/overlayutils` counts from 4096, which no network gets.
const FIRST_VNI: u32 = 4097;
/// The last number: 24 bits.
const LAST_VNI: u32 = (1 << 24) - 1;

/// Why a network cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Another network has some of its addresses.
    ///
    /// Source: moby, `daemon/libnetwork/ipamapi/contract.go`.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space (network {name} has {net})"
    )]
    Overlap {
        /// The other network.
        name: String,
        /// Its subnet.
        net: IpNet,
    },
    /// A machine uses some of its addresses for something else.
    #[error("invalid pool request: {asked} overlaps {net}, which node {node} uses")]
    OverlapOfNode {
        /// What was asked for.
        asked: IpNet,
        /// Host name of the node, or its id.
        node: String,
        /// What it uses.
        net: IpNet,
    },
    /// The pools of the cluster have no subnet left that nobody uses.
    ///
    /// Source: moby, `daemon/libnetwork/ipamutils`.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    Exhausted,
    /// Another network has the number.
    #[error("requested vxlan id {vni} is already in use by network {name}")]
    VniTaken {
        /// The number.
        vni: u32,
        /// The other network.
        name: String,
    },
    /// There is no number left.
    #[error("no vxlan id is left")]
    NoVni,
}

/// The network that `spec`, which was validated, asks for.
pub fn network(store: &Store, id: NetworkId, spec: NetworkSpec) -> Result<Network, NetworkError> {
    let others: Vec<(&Network, IpNet)> = store
        .networks()
        .filter(|other| other.id != id)
        .flat_map(|other| other.subnets().into_iter().map(move |subnet| (&**other, subnet.net)))
        .collect();
    let vni = choose_vni(store, &id, &spec)?;
    let asked = spec.ipam_options.iter().flat_map(|options| &options.configs);
    let mut configs = Vec::new();
    for config in asked.filter(|config| !config.subnet.is_empty()) {
        let Ok(net) = config.subnet.parse::<IpNet>() else { continue };
        refuse_overlap(store, &others, &configs, net.trunc())?;
        configs.push(filled(config, net.trunc()));
    }
    let has = |configs: &[IpamConfig], is_v6: bool| configs.iter().any(|it| it.subnet.contains(':') == is_v6);
    if !has(&configs, false) {
        let net = choose_subnet(store, &others)?;
        configs.insert(0, filled(&IpamConfig::default(), net));
    }
    if spec.ipv6_enabled && !has(&configs, true) {
        let net = IpNet::V6(own_v6(store.cluster().map(AsRef::as_ref), vni));
        refuse_overlap(store, &others, &configs, net)?;
        configs.push(filled(&IpamConfig::default(), net));
    }
    let mut options = spec.driver_configuration.as_ref().map(|it| it.options.clone()).unwrap_or_default();
    options.remove(SHORT_VXLAN_OPTION);
    options.entry(VXLAN_OPTION.to_owned()).or_insert_with(|| vni.to_string());
    let driver = Driver { name: "default".to_owned(), ..Driver::default() };
    Ok(Network {
        id,
        spec,
        driver_state: Driver { name: OVERLAY.to_owned(), options },
        ipam_options: Some(IpamOptions { driver, configs }),
        ..Network::default()
    })
}

/// A subnet with its gateway: the one that was asked for, else its first address.
fn filled(asked: &IpamConfig, net: IpNet) -> IpamConfig {
    let first = match net.network() {
        IpAddr::V4(network) => IpAddr::from((network.to_bits() + 1).to_be_bytes()),
        IpAddr::V6(network) => IpAddr::from((network.to_bits() + 1).to_be_bytes()),
    };
    let gateway = asked.gateway.parse().unwrap_or(first);
    IpamConfig { subnet: net.to_string(), range: asked.range.clone(), gateway: gateway.to_string() }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// What nodes use by themselves. A route to everywhere says nothing.
fn of_nodes(store: &Store) -> impl Iterator<Item = (&str, &IpNet)> {
    store.nodes().flat_map(|node| {
        let hostname = node.description.hostname.as_str();
        let name = if hostname.is_empty() { node.id.as_str() } else { hostname };
        node.internal.own_networks.iter().filter(|net| net.prefix_len() > 0).map(move |net| (name, net))
    })
}

fn refuse_overlap(
    store: &Store,
    others: &[(&Network, IpNet)],
    own: &[IpamConfig],
    asked: IpNet,
) -> Result<(), NetworkError> {
    if let Some((other, net)) = others.iter().find(|(_, net)| overlap(net, &asked)) {
        return Err(NetworkError::Overlap { name: other.spec.name.clone(), net: *net });
    }
    let mut own = own.iter().filter_map(|config| config.subnet.parse::<IpNet>().ok());
    if let Some(net) = own.find(|net| overlap(net, &asked)) {
        return Err(NetworkError::Overlap { name: "itself".to_owned(), net });
    }
    match of_nodes(store).find(|(_, net)| overlap(net, &asked)) {
        Some((node, net)) => Err(NetworkError::OverlapOfNode { asked, node: node.to_owned(), net: *net }),
        None => Ok(()),
    }
}

/// The first subnet of the cluster's pools that overlaps nothing.
fn choose_subnet(store: &Store, others: &[(&Network, IpNet)]) -> Result<IpNet, NetworkError> {
    let cluster = store.cluster();
    let mut pools: Vec<IpNet> = cluster
        .iter()
        .flat_map(|cluster| &cluster.default_addr_pool)
        .filter_map(|pool| pool.parse().ok())
        .collect();
    let default: IpNet = DEFAULT_POOL.parse().expect("it is a subnet");
    if pools.is_empty() || pools == [default] {
        pools = vec![default];
        pools.extend(FURTHER_POOLS.iter().filter_map(|pool| pool.parse::<IpNet>().ok()));
    }
    let size = cluster.and_then(|cluster| u8::try_from(cluster.subnet_size).ok()).unwrap_or(0);
    let size = if size == 0 { DEFAULT_SIZE } else { size };
    let in_use: Vec<IpNet> =
        others.iter().map(|(_, net)| *net).chain(of_nodes(store).map(|(_, net)| *net)).collect();
    let v4 = pools.iter().filter(|pool| pool.addr().is_ipv4());
    let mut subnets = v4.filter_map(|pool| pool.trunc().subnets(size).ok()).flatten();
    let is_free = |subnet: &IpNet| in_use.iter().all(|used| !overlap(subnet, used));
    subnets.find(is_free).ok_or(NetworkError::Exhausted)
}

/// A subnet of the swarm's own among the unique local addresses: 40 bits of the cluster, 16 of the network.
///
/// Source: RFC 4193, 3.2.
fn own_v6(cluster: Option<&Cluster>, vni: u32) -> Ipv6Net {
    let id = cluster.map_or("", |cluster| cluster.id.as_str());
    // FNV-1a: the same on every leader.
    let global = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let prefix = (0xfd_u64 << 56) | ((global & 0xff_ffff_ffff) << 16) | u64::from(vni & 0xffff);
    let net = Ipv6Net::new(Ipv6Addr::from_bits(u128::from(prefix) << 64), SIZE_V6);
    net.expect("64 is a prefix length of IPv6")
}

/// The number that was asked for, else the one after the highest that is taken.
fn choose_vni(store: &Store, id: &NetworkId, spec: &NetworkSpec) -> Result<u32, NetworkError> {
    let others = || store.networks().filter(|other| other.id != *id);
    let asked = spec.driver_option(VXLAN_OPTION).or_else(|| spec.driver_option(SHORT_VXLAN_OPTION));
    if let Some(vni) = asked.and_then(|list| list.split(',').next()?.trim().parse().ok()) {
        return match others().find(|other| other.vni() == Some(vni)) {
            Some(other) => Err(NetworkError::VniTaken { vni, name: other.spec.name.clone() }),
            None => Ok(vni),
        };
    }
    let taken: BTreeSet<u32> = others().filter_map(|other| other.vni()).collect();
    let next = taken.last().map_or(FIRST_VNI, |last| (last + 1).max(FIRST_VNI));
    let mut lowest = (FIRST_VNI..=LAST_VNI).filter(|vni| !taken.contains(vni));
    if next <= LAST_VNI { Ok(next) } else { lowest.next().ok_or(NetworkError::NoVni) }
}

#[cfg(test)]
#[path = "subnets_tests.rs"]
mod tests;

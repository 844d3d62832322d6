//! The first objects of a swarm: the cluster with its authority and tokens, and the node that founds it.
//!
//! In: what the user asked for. Out: one transaction. Never writes a file: the caller saves the node's certificate.

use ipnet::IpNet;
use membership::network_keys;
use objects::{
    Availability, Cluster, ClusterId, ClusterInternal, ClusterSpec, ManagerStatus, NetworkSpec, Node,
    NodeDescription, NodeId, NodeInternal, NodeRole, NodeSpec, NodeState, NodeStatus, Reachability,
    Timestamp,
};
use pki::{Authority, JoinToken, encode_base64};
use store::{Store, Write};

use crate::error::ManagerError;
use crate::manager::Manager;
use crate::propose::Beside;

/// Length of the secret that nodes' keys for proofs of life are made from. chosen: as HMAC-SHA256's own.
const SECRET_BYTES: usize = 32;

/// Name of the network of the routing mesh. Source: moby, `daemon/cluster/swarm.go`.
const INGRESS: &str = "ingress";

/// What a swarm is founded with.
#[derive(Clone)]
pub struct Founding {
    /// Its id.
    pub cluster: ClusterId,
    /// Its settings, with defaults filled in.
    pub spec: ClusterSpec,
    /// Its certificate authority; the key lives in the cluster object from now on.
    pub authority: Authority,
    /// The founding node's certificate, PEM.
    pub certificate: String,
    /// What the founding node says of itself.
    pub description: NodeDescription,
    /// Whether the founding node gets tasks.
    pub availability: Availability,
    /// The founding node's address, without a port.
    pub node_address: String,
    /// Networks that the founding node's machine has by itself.
    pub own_networks: Vec<IpNet>,
    /// Names what the founding node's kernel holds of encrypted networks; zero: it cannot encrypt.
    pub encryption_generation: u64,
    /// Networks to cut overlays from.
    pub address_pools: Vec<String>,
    /// Prefix length of an overlay's network.
    pub subnet_size: u32,
    /// VXLAN port.
    pub data_path_port: u32,
    /// Key that unlocks its managers (`SWMKEY-1-…`), when the spec says that they lock; else empty.
    pub unlock_key: String,
}

pub(crate) fn writes(
    founding: Founding,
    node: &NodeId,
    raft_id: u64,
    address: &str,
    epoch: u64,
    now: Timestamp,
) -> Result<Vec<Write>, ManagerError> {
    let root = founding.authority.certificate;
    let tls_info = pki::tls_info(&root, &root).map_err(pki::PkiError::from)?;
    let token = |secret: String| JoinToken::new(&root, &secret).to_string();
    let certificate = pki::facts(&founding.certificate).map_err(pki::PkiError::from)?;
    let internal = ClusterInternal {
        worker_token: token(pki::new_secret()?),
        manager_token: token(pki::new_secret()?),
        ca_certificate: root.clone(),
        ca_key: founding.authority.key,
        unlock_key_version: u64::from(!founding.unlock_key.is_empty()),
        unlock_key: founding.unlock_key,
        pulse_secret: new_secret()?,
        epoch,
        ..ClusterInternal::default()
    };
    let cluster = Cluster {
        id: founding.cluster,
        spec: founding.spec,
        tls_info: tls_info.clone(),
        default_addr_pool: founding.address_pools,
        subnet_size: founding.subnet_size,
        data_path_port: founding.data_path_port,
        internal,
        ..Cluster::default()
    };
    // From the start, so that nobody who changes settings right then is told that somebody else did.
    let cluster = network_keys::replaced(&cluster, new_secrets()?, now);
    let node = Node {
        id: node.clone(),
        spec: NodeSpec {
            role: NodeRole::Manager,
            availability: founding.availability,
            ..NodeSpec::default()
        },
        description: NodeDescription { tls_info, ..founding.description },
        status: NodeStatus { state: NodeState::Ready, addr: founding.node_address, ..NodeStatus::default() },
        manager_status: Some(ManagerStatus {
            leader: true,
            addr: address.to_owned(),
            reachability: Reachability::Reachable,
        }),
        internal: NodeInternal {
            raft_id,
            certificate: founding.certificate,
            certified_role: NodeRole::Manager,
            certified_at: now,
            certified_until: certificate.valid_until,
            status_since: now,
            own_networks: founding.own_networks,
            encryption_generation: founding.encryption_generation,
            ..NodeInternal::default()
        },
        ..Node::default()
    };
    Ok(vec![Write::Create(cluster.into()), Write::Create(node.into())])
}

/// 32 random bytes in base 64.
pub(crate) fn new_secret() -> Result<String, ManagerError> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(pki::PkiError::Random)?;
    Ok(encode_base64(&secret))
}

/// As many as the keys of encrypted networks need.
pub(crate) fn new_secrets() -> Result<[String; network_keys::KEPT], ManagerError> {
    let mut secrets: [String; network_keys::KEPT] = Default::default();
    for secret in &mut secrets {
        *secret = new_secret()?;
    }
    Ok(secrets)
}

/// Gives a swarm what it lacks: what an older version did not found it with, and in a log that a forced new cluster began,
/// roles to go with it. `is_new` says that this log is such a one; later it shows from the swarm itself.
pub(crate) async fn complete(manager: &Manager, is_new: bool) -> Result<(), ManagerError> {
    let secret = new_secret()?;
    let epoch = manager.inner.consensus.epoch();
    let decide = |store: &Store, ids: &mut objects::IdSource| {
        // A swarm that is being founded has no cluster yet.
        let Some(cluster) = store.cluster() else { return Ok(((), Vec::new())) };
        let internal = &cluster.internal;
        if internal.epoch == epoch && !internal.pulse_secret.is_empty() && internal.had_ingress {
            return Ok(((), Vec::new()));
        }
        let mut next = Cluster::clone(cluster);
        if internal.epoch != 0 && internal.epoch != epoch {
            next.internal.former_epochs.push(internal.epoch);
        }
        next.internal.epoch = epoch;
        if internal.pulse_secret.is_empty() {
            next.internal.pulse_secret.clone_from(&secret);
        }
        let ingress = if internal.had_ingress { Vec::new() } else { ingress(store, ids) };
        next.internal.had_ingress = true;
        let is_new = is_new || (internal.epoch != 0 && internal.epoch != epoch);
        let roles =
            is_new.then(|| membership::roles::alone(store, &manager.inner.node)).into_iter().flatten();
        Ok(((), roles.chain(ingress).chain([Write::update(next)]).collect()))
    };
    manager.change(Beside::Nobody, decide).await.map(drop)
}

/// The network of the routing mesh, if there is none, of both versions of IP: nodes without IPv6 leave that out. Where its addresses would be in the way of a machine, somebody has to
/// choose others: services with published ports are refused until then.
fn ingress(store: &Store, ids: &mut objects::IdSource) -> Vec<Write> {
    if store.ingress().is_some() {
        return Vec::new();
    }
    let spec =
        NetworkSpec { name: INGRESS.to_owned(), ingress: true, ipv6_enabled: true, ..NetworkSpec::default() };
    control::networks::create(store, ids.next(), spec).unwrap_or_else(|error| {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the swarm has no ingress network: create one with `network create --ingress --subnet`"
        );
        Vec::new()
    })
}

#[cfg(test)]
#[path = "found_tests.rs"]
mod tests;

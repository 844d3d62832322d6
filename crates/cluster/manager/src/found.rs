//! The first objects of a swarm: the cluster with its authority and tokens, and the node that founds it.
//!
//! In: what the user asked for. Out: one transaction. Never writes a file: the caller saves the node's certificate.

use objects::{
    Availability, Cluster, ClusterId, ClusterInternal, ClusterSpec, ManagerStatus, Node, NodeDescription,
    NodeId, NodeInternal, NodeRole, NodeSpec, NodeState, NodeStatus, Reachability, Timestamp, TlsInfo,
};
use pki::{Authority, JoinToken, encode_base64};
use store::Write;

use crate::error::ManagerError;

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
    /// Networks to cut overlays from.
    pub address_pools: Vec<String>,
    /// Prefix length of an overlay's network.
    pub subnet_size: u32,
    /// VXLAN port.
    pub data_path_port: u32,
}

/// What the API shows of a root certificate.
pub(crate) fn tls_info(root: &str) -> TlsInfo {
    let facts = pki::facts(root).ok();
    let field = |pick: fn(&pki::CertificateFacts) -> &[u8]| {
        facts.as_ref().map_or_else(String::new, |facts| encode_base64(pick(facts)))
    };
    TlsInfo {
        trust_root: root.to_owned(),
        cert_issuer_subject: field(|facts| &facts.subject),
        cert_issuer_public_key: field(|facts| &facts.public_key),
    }
}

pub(crate) fn writes(
    founding: Founding,
    node: &NodeId,
    raft_id: u64,
    address: &str,
    now: Timestamp,
) -> Result<Vec<Write>, ManagerError> {
    let root = founding.authority.certificate;
    let tls_info = tls_info(&root);
    let token = |secret: String| JoinToken::new(&root, &secret).to_string();
    let internal = ClusterInternal {
        worker_token: token(pki::new_secret()?),
        manager_token: token(pki::new_secret()?),
        ca_certificate: root.clone(),
        ca_key: founding.authority.key,
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
            status_since: now,
        },
        ..Node::default()
    };
    Ok(vec![Write::Create(cluster.into()), Write::Create(node.into())])
}

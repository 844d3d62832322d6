//! Decides about trust: which root the swarm has, who must renew, who is refused, what join tokens and locks are worth.
//!
//! ```text
//!   swarm update ─► root::plan ─► RootChange ─► (shell: make, cross-sign) ─► settings::updated ─► cluster
//!   every 3 s    ─► rotation::advance ─► nodes to ask ─► … ─► is_finished ─► (shell: tokens) ─► rotation::finished
//! ```
//!
//! In: the cluster and its nodes, the time, keys and certificates that the shell made. Out: objects to write. Never reads
//! a certificate or makes a key: the shell gives what they say.

mod root;
mod rotation;
mod settings;

#[cfg(test)]
mod tests;

pub use root::{CrossSigner, ExternalRoot, KnownRoot, NewRoot, RootChange, RootPlan, TrustError, plan};
pub use rotation::{Advance, BATCH, PAUSE, advance, finished};
pub use settings::{FreshSecrets, MadeRoot, Settings, updated};

use objects::{Cluster, Nanos, Node, NodeId, NodeRole, Timestamp};

/// How much longer than its certificate a removed node is remembered.
/// Source: swarmkit, `manager/controlapi/node.go` (`expiredCertGrace` 7 days).
const REMEMBERED_LONGER: Nanos = Nanos::from_secs(7 * 86_400);

/// A node that was given a certificate.
///
/// `chain` is PEM. The transaction should check that the cluster is the one whose root signed.
#[must_use]
pub fn certified(node: &Node, chain: String, role: NodeRole, now: Timestamp, until: Timestamp) -> Node {
    let mut node = node.clone();
    node.internal.certificate = chain;
    node.internal.certified_role = role;
    node.internal.certified_at = now;
    node.internal.certified_until = until;
    node.internal.must_renew = false;
    node
}

/// The cluster when a node is removed from it: its certificate is refused for as long as it may seem valid.
///
/// Nodes whose time has come are forgotten on this occasion.
#[must_use]
pub fn removed(cluster: &Cluster, node: &Node, now: Timestamp) -> Cluster {
    let mut cluster = cluster.clone();
    // What was certified by a version that kept no record lasts at most a whole life from now on.
    let latest = now + cluster.spec.ca_config.node_cert_expiry;
    let until = match node.internal.certified_until {
        Timestamp(0) => latest,
        known => known.max(now),
    };
    let removed = &mut cluster.internal.removed_nodes;
    removed.retain(|_, until| *until > now);
    removed.insert(node.id.clone(), until + REMEMBERED_LONGER);
    cluster
}

/// Whether a node was removed and may still hold a certificate that seems valid.
///
/// Later its certificate has run out, and a renewal is refused because the swarm has no such node.
#[must_use]
pub fn is_removed(cluster: &Cluster, node: &NodeId) -> bool {
    cluster.internal.removed_nodes.contains_key(node)
}

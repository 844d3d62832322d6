//! Decides which nodes are asked for a new certificate while the swarm changes its root, and when the change is done.
//!
//! In: the store and the time. Out: writes, and when to look again. A change is done when every node, also one that is
//! down, has said that its certificate comes from the new root: until then nobody forgets the old one.

use std::sync::Arc;

use objects::{Cluster, Nanos, Node, Timestamp, TlsInfo};
use store::{Store, Write};

/// Nodes that are asked at once. Source: swarmkit, `ca/reconciler.go` (`IssuanceStateRotateMaxBatchSize`).
pub const BATCH: usize = 30;

/// Time between two batches. Source: swarmkit, `ca/reconciler.go` (`defaultReconciliationRetryInterval`).
pub const PAUSE: Nanos = Nanos::from_secs(3);

/// How long a node that was given a certificate may take to say so. chosen: its description comes with a new session or
/// after 20 s.
const UNTIL_REPORTED: Nanos = Nanos::from_secs(30);

/// What to do about a change of root now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Advance {
    /// Nodes that are asked for a new certificate.
    pub writes: Vec<Write>,
    /// Whether every node has one: [`finished`] is due.
    pub is_finished: bool,
    /// Nodes that have one.
    pub done: usize,
    /// Nodes in all.
    pub nodes: usize,
    /// When to look again; `None`: when the store changes.
    pub wake_at: Option<Timestamp>,
}

/// What to do now; `last_batch` is when this leader last asked nodes.
#[must_use]
pub fn advance(store: &Store, last_batch: Option<Timestamp>, now: Timestamp) -> Advance {
    let Some(cluster) = store.cluster() else { return Advance::default() };
    let nodes = store.nodes().count();
    let behind: Vec<_> = store.nodes().filter(|node| !is_issued_by(&cluster.tls_info, node)).collect();
    let done = nodes - behind.len();
    let wait = Advance { done, nodes, ..Advance::default() };
    if behind.is_empty() {
        return Advance { is_finished: cluster.internal.root_rotation.is_some(), ..wait };
    }
    if !asks(cluster) {
        return wait;
    }
    let next_batch = last_batch.map_or(now, |last| last + PAUSE);
    // A clock that was put back must not hold the batches up.
    if next_batch > now && last_batch.is_some_and(|last| last <= now) {
        return Advance { wake_at: Some(next_batch), ..wait };
    }
    let writes =
        behind.into_iter().filter(|node| is_to_ask(cluster, node, now)).take(BATCH).map(ask).collect();
    Advance { writes, wake_at: Some(now + PAUSE), ..wait }
}

/// The cluster when a change of root is done: the new root alone is trusted, and old join tokens are worth nothing.
///
/// The tokens were made for the new root. Nothing when no change is under way.
#[must_use]
pub fn finished(cluster: &Cluster, worker_token: String, manager_token: String) -> Option<Cluster> {
    let mut next = cluster.clone();
    let root = next.internal.root_rotation.take()?;
    next.tls_info.trust_root.clone_from(&root.ca_certificate);
    next.internal.ca_certificate = root.ca_certificate;
    next.internal.ca_key = root.ca_key;
    next.internal.worker_token = worker_token;
    next.internal.manager_token = manager_token;
    next.root_rotation_in_progress = false;
    Some(next)
}

/// Whether nodes with certificates of another issuer are asked for new ones.
///
/// Also after a change that was given up, unless an authority outside signs: it may do so with one below its root, and
/// its nodes would be asked forever.
fn asks(cluster: &Cluster) -> bool {
    let internal = &cluster.internal;
    internal.root_rotation.is_some() || (internal.issuer_since != Timestamp(0) && !internal.ca_key.is_empty())
}

fn is_issued_by(issuer: &TlsInfo, node: &Node) -> bool {
    let reported = &node.description.tls_info;
    reported.cert_issuer_subject == issuer.cert_issuer_subject
        && reported.cert_issuer_public_key == issuer.cert_issuer_public_key
}

fn is_to_ask(cluster: &Cluster, node: &Node, now: Timestamp) -> bool {
    let internal = &node.internal;
    let is_older = internal.certified_at < cluster.internal.issuer_since;
    // One that was certified since then has not said so yet, or never got the answer.
    !internal.must_renew && (is_older || now >= internal.certified_at + UNTIL_REPORTED)
}

fn ask(node: &Arc<Node>) -> Write {
    let mut node = Node::clone(node);
    node.internal.must_renew = true;
    Write::update(node)
}

//! The cluster object: its settings and its join tokens.
//!
//! In: specs. Out: committed changes; JSON without any key of the authority.

use objects::{Cluster, ClusterSpec, Nanos, Version};
use pki::JoinToken;
use serde_json::Value;
use store::Write;

use crate::error::ManagerError;
use crate::manager::Manager;

/// Shortest life of a node's certificate. Source: swarmkit, `ca/certificates.go` (`MinNodeCertExpiration`).
const SHORTEST_CERTIFICATE: Nanos = Nanos::from_secs(3600);

/// What `POST /swarm/update` asks for besides the spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterUpdate {
    /// `rotateWorkerToken=1`.
    pub rotate_worker_token: bool,
    /// `rotateManagerToken=1`.
    pub rotate_manager_token: bool,
    /// `rotateManagerUnlockKey=1`.
    pub rotate_manager_unlock_key: bool,
}

impl Manager {
    /// `GET /swarm`: the cluster with its join tokens, as the API's JSON.
    pub fn swarm(&self) -> Result<Value, ManagerError> {
        let store = self.inner.consensus.read();
        let cluster = store.cluster().ok_or(ManagerError::NoCluster)?;
        Ok(shown(cluster).to_api())
    }

    /// The `Cluster` of `GET /info`: as [`Manager::swarm`], without join tokens.
    pub fn cluster_info(&self) -> Result<Value, ManagerError> {
        let mut value = self.swarm()?;
        if let Some(fields) = value.as_object_mut() {
            fields.remove("JoinTokens");
        }
        Ok(value)
    }

    /// How many nodes and how many managers the swarm has, in this order.
    #[must_use]
    pub fn node_counts(&self) -> (usize, usize) {
        let store = self.inner.consensus.read();
        (store.nodes().count(), store.nodes().filter(|node| node.manager_status.is_some()).count())
    }

    /// Replaces the cluster's spec and rotates what is asked for.
    pub async fn update_cluster(
        &self,
        version: u64,
        spec: ClusterSpec,
        update: ClusterUpdate,
    ) -> Result<(), ManagerError> {
        check(&spec)?;
        if update.rotate_manager_unlock_key {
            return Err(ManagerError::Unsupported { what: "rotating the unlock key is" });
        }
        let spec = spec.with_defaults();
        let new_worker = update.rotate_worker_token.then(pki::new_secret).transpose()?;
        let new_manager = update.rotate_manager_token.then(pki::new_secret).transpose()?;
        self.change(|store, _| {
            let cluster = store.cluster().ok_or(ManagerError::NoCluster)?;
            if cluster.meta.version != (Version { index: version }) {
                return Err(ManagerError::OutOfSequence);
            }
            if spec.ca_config.force_rotate != cluster.spec.ca_config.force_rotate {
                return Err(ManagerError::Unsupported { what: "rotating the root certificate is" });
            }
            let mut next = Cluster { spec: spec.clone(), ..(**cluster).clone() };
            let token = |secret: &String| JoinToken::new(&next.internal.ca_certificate, secret).to_string();
            let (worker, manager) = (new_worker.as_ref().map(token), new_manager.as_ref().map(token));
            next.internal.worker_token = worker.unwrap_or(next.internal.worker_token);
            next.internal.manager_token = manager.unwrap_or(next.internal.manager_token);
            Ok(((), vec![Write::update(next)]))
        })
        .await
    }

    /// The key that unlocks this swarm's managers; empty as long as autolock is off.
    pub fn unlock_key(&self) -> Result<String, ManagerError> {
        let store = self.inner.consensus.read();
        let cluster = store.cluster().ok_or(ManagerError::NoCluster)?;
        Ok(cluster.internal.unlock_key.clone())
    }
}

/// The cluster without what nobody may read.
fn shown(cluster: &Cluster) -> Cluster {
    let mut shown = cluster.clone();
    shown.spec.ca_config.signing_ca_cert.clear();
    shown.spec.ca_config.signing_ca_key.clear();
    shown
}

impl Manager {
    /// Refuses a cluster spec that cannot work, or that this version does not do.
    pub fn check_cluster(spec: &ClusterSpec) -> Result<(), ManagerError> {
        check(spec)
    }
}

/// Refuses a cluster spec that cannot work, or that this version does not do.
fn check(spec: &ClusterSpec) -> Result<(), ManagerError> {
    if !spec.name.is_empty() && spec.name != "default" {
        return Err(ManagerError::ClusterName);
    }
    let expiry = spec.ca_config.node_cert_expiry;
    if expiry != Nanos::ZERO && expiry < SHORTEST_CERTIFICATE {
        return Err(ManagerError::InvalidCluster { reason: "minimum certificate expiry time is: 1h0m0s" });
    }
    if spec.dispatcher.heartbeat_period < Nanos::ZERO {
        return Err(ManagerError::InvalidCluster {
            reason: "heartbeat time period cannot be a negative duration",
        });
    }
    // Nothing honours these yet, and a swarm that only seems to be locked or to use another authority is a trap.
    if spec.encryption_config.auto_lock_managers {
        return Err(ManagerError::Unsupported { what: "locking managers is" });
    }
    if !spec.ca_config.external_cas.is_empty() {
        return Err(ManagerError::Unsupported { what: "external certificate authorities are" });
    }
    if !spec.ca_config.signing_ca_cert.is_empty() || !spec.ca_config.signing_ca_key.is_empty() {
        return Err(ManagerError::Unsupported { what: "bringing a root certificate is" });
    }
    Ok(())
}

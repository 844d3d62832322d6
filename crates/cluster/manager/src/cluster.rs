//! The cluster object: its settings and its join tokens.
//!
//! In: specs. Out: committed changes; JSON without any key of the authority.

use std::sync::Arc;

use membership::trust::{
    self, CrossSigner, FreshSecrets, KnownRoot, MadeRoot, NewRoot, RootChange, Settings,
};
use objects::{Cluster, ClusterSpec, Nanos, Version};
use pki::{Authority, ExternalUrls, JoinToken, UnlockKey};
use serde_json::Value;
use store::Write;
use wire::forward::{ClusterUpdate, Operation, Outcome};

use crate::clock;
use crate::error::{Code, ManagerError};
use crate::manager::Manager;
use crate::propose::{Beside, Decided};

/// Shortest life of a node's certificate. Source: swarmkit, `ca/certificates.go` (`MinNodeCertExpiration`).
const SHORTEST_CERTIFICATE: Nanos = Nanos::from_secs(3600);

/// Source: swarmkit, `manager/controlapi/ca_rotation.go`.
const NOT_CROSS_SIGNED: &str = "unable to generate a cross-signed certificate for root rotation";

impl Manager {
    /// `GET /swarm`: the cluster with its join tokens, as the API's JSON.
    pub fn swarm(&self) -> Result<Value, ManagerError> {
        let store = self.view()?;
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
        let operation =
            Operation::UpdateCluster { version, spec: Box::new(spec), update, request: self.new_id() };
        self.perform(operation).await.map(drop)
    }

    /// At the leader: replaces the cluster's spec, once per request: one that is done already is not done again.
    pub(crate) async fn do_update_cluster(
        &self,
        version: u64,
        spec: &ClusterSpec,
        update: ClusterUpdate,
        request: &str,
    ) -> Result<Decided<Outcome>, ManagerError> {
        check(spec)?;
        let spec = spec.clone().with_defaults();
        let (cluster, applied) = {
            let store = self.inner.consensus.read();
            (Arc::clone(store.cluster().ok_or(ManagerError::NoCluster)?), store.applied())
        };
        let is_done = |cluster: &Cluster| !request.is_empty() && cluster.internal.last_request == request;
        if is_done(&cluster) {
            return Ok(Decided { value: Outcome::Done, applied });
        }
        if cluster.meta.version != (Version { index: version }) {
            return Err(ManagerError::OutOfSequence);
        }
        let root = self.made_root(&cluster, &spec).await?;
        let token = |secret: String| JoinToken::new(&cluster.internal.ca_certificate, &secret).to_string();
        let fresh = FreshSecrets {
            worker_token: token(pki::new_secret()?),
            manager_token: token(pki::new_secret()?),
            unlock_key: UnlockKey::generate()?.to_string(),
        };
        let settings = Settings {
            spec,
            rotate_worker_token: update.rotate_worker_token,
            rotate_manager_token: update.rotate_manager_token,
            rotate_unlock_key: update.rotate_manager_unlock_key,
            root,
        };
        let mut next = trust::updated(&cluster, settings, fresh, clock::now());
        request.clone_into(&mut next.internal.last_request);
        self.change(Beside::Nobody, |store, _| {
            let found = store.cluster().ok_or(ManagerError::NoCluster)?;
            if is_done(found) {
                return Ok((Outcome::Done, Vec::new()));
            }
            if found.meta.version != cluster.meta.version {
                return Err(ManagerError::OutOfSequence);
            }
            Ok((Outcome::Done, vec![Write::update(next.clone())]))
        })
        .await
    }

    /// Does what the settings ask for about the root: makes one, has it signed, asks authorities outside.
    async fn made_root(
        &self,
        cluster: &Cluster,
        spec: &ClusterSpec,
    ) -> Result<Option<MadeRoot>, ManagerError> {
        let now = clock::now();
        let wanted = &spec.ca_config;
        let given = match wanted.signing_ca_cert.as_str() {
            "" => None,
            certificate => Some(
                Authority::given(certificate, &wanted.signing_ca_key)
                    .map_err(|error| invalid(&error))
                    .and_then(|root| known(&root))?,
            ),
        };
        let plan = trust::plan(cluster, wanted, given, now).map_err(|error| invalid(&error))?;
        if let Some((which, root)) = &plan.must_answer {
            let wanted = Cluster { spec: spec.clone(), ..cluster.clone() };
            let outside = ExternalUrls::of(&wanted, root);
            if let Err(error) = self.external()?.check_reachable(&outside).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "no authority outside answers");
                return Err(invalid(&trust::TrustError::NoExternal(*which)));
            }
        }
        Ok(match plan.change {
            RootChange::Keep => None,
            RootChange::Settle(root) => Some(MadeRoot::Settle(root)),
            RootChange::GoOn(root) => Some(MadeRoot::GoOn(root)),
            RootChange::Begin { given, signer } => {
                let root = match given {
                    Some(root) => root,
                    None => known(&Authority::create(now)?)?,
                };
                let wanted = Cluster { spec: spec.clone(), ..cluster.clone() };
                let cross_signed = self.cross_signed(&wanted, &root, signer).await.map_err(|error| {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a new root was not cross-signed"
                    );
                    ManagerError::Trust { code: Code::Internal, reason: NOT_CROSS_SIGNED.to_owned() }
                })?;
                Some(MadeRoot::Begin(NewRoot { root, cross_signed }))
            }
        })
    }

    /// The new root's name and key, signed in the name of the present one; `cluster` has the settings that are wanted.
    async fn cross_signed(
        &self,
        cluster: &Cluster,
        root: &KnownRoot,
        signer: CrossSigner,
    ) -> Result<String, ManagerError> {
        let now = clock::now();
        let internal = &cluster.internal;
        match signer {
            CrossSigner::Swarm => {
                let present =
                    Authority { certificate: internal.ca_certificate.clone(), key: internal.ca_key.clone() };
                Ok(present.cross_sign(&root.certificate, now)?)
            }
            CrossSigner::External => {
                let outside = ExternalUrls::of(cluster, &internal.ca_certificate);
                let new = Authority { certificate: root.certificate.clone(), key: root.key.clone() };
                self.external()?.cross_sign(&outside, &new, now).await.map_err(ManagerError::Signing)
            }
        }
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
    /// Refuses a cluster spec that cannot work, whatever the swarm is.
    pub fn check_cluster(spec: &ClusterSpec) -> Result<(), ManagerError> {
        check(spec)
    }
}

/// A root, and what its certificate says.
fn known(root: &Authority) -> Result<KnownRoot, ManagerError> {
    let facts = pki::facts(&root.certificate).map_err(|error| ManagerError::Authority(error.into()))?;
    let tls_info = pki::tls_info(&root.certificate, &root.certificate)
        .map_err(|error| ManagerError::Authority(error.into()))?;
    Ok(KnownRoot {
        certificate: root.certificate.clone(),
        key: root.key.clone(),
        tls_info,
        valid_until: facts.valid_until,
    })
}

fn invalid(error: &dyn std::error::Error) -> ManagerError {
    ManagerError::InvalidCluster { reason: error.to_string() }
}

/// Refuses a cluster spec that cannot work.
fn check(spec: &ClusterSpec) -> Result<(), ManagerError> {
    if !spec.name.is_empty() && spec.name != "default" {
        return Err(ManagerError::ClusterName);
    }
    let expiry = spec.ca_config.node_cert_expiry;
    let refused = |reason: &str| Err(ManagerError::InvalidCluster { reason: reason.to_owned() });
    if expiry != Nanos::ZERO && expiry < SHORTEST_CERTIFICATE {
        return refused("minimum certificate expiry time is: 1h0m0s");
    }
    if spec.dispatcher.heartbeat_period < Nanos::ZERO {
        return refused("heartbeat time period cannot be a negative duration");
    }
    Ok(())
}

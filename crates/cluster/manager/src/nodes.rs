//! Nodes: look up, list, update and remove.
//!
//! In: references, filters, specs. Out: the API's JSON, or committed changes.

use std::sync::Arc;

use control::request;
use docker::filters::Filters;
use objects::{Node, NodeRole, NodeSpec, Version};
use serde_json::Value;
use store::FindError;
use wire::forward::{Operation, Outcome};

use crate::clock;
use crate::error::ManagerError;
use crate::manager::Manager;
use crate::propose::{Beside, Decided};

impl Manager {
    /// One node by id, host name or id prefix, as the API's JSON.
    pub fn node(&self, reference: &str) -> Result<Value, ManagerError> {
        let store = self.view()?;
        Ok(store.find_node(reference)?.to_api())
    }

    /// Nodes that pass the filters (id, label, node.label, name, membership, role).
    ///
    /// `label` are the engine's labels, `node.label` those of the node's spec.
    pub fn nodes(&self, filters: &Filters) -> Result<Vec<Value>, ManagerError> {
        filters.validate(&["id", "label", "membership", "name", "node.label", "role"])?;
        filters.validate_swarm_values("role", &["manager", "worker"])?;
        filters.validate_swarm_values("membership", &["accepted", "pending"])?;
        let store = self.view()?;
        let passes = |node: &&Arc<Node>| {
            filters.matches_prefix("id", node.id.as_str())
                && filters.matches_prefix("name", &node.description.hostname)
                && filters.matches_labels("label", &node.description.engine.labels)
                && filters.matches_labels("node.label", &node.spec.labels)
                && filters.matches_exactly("role", node.spec.role.as_str())
                && filters.matches_exactly("membership", "accepted")
        };
        Ok(store.nodes().filter(passes).map(|node| node.to_api()).collect())
    }

    /// Replaces a node's spec: name, labels, role, availability.
    pub async fn update_node(
        &self,
        reference: &str,
        version: u64,
        spec: NodeSpec,
    ) -> Result<(), ManagerError> {
        let reference = reference.to_owned();
        self.perform(Operation::UpdateNode { reference, version, spec }).await.map(drop)
    }

    /// Removes a node that is down (or, with `force`, any but a manager).
    pub async fn remove_node(&self, reference: &str, force: bool) -> Result<(), ManagerError> {
        self.perform(Operation::RemoveNode { reference: reference.to_owned(), force }).await.map(drop)
    }

    /// At the leader: replaces a node's spec. With `again` a node that is as wanted already is left as it is.
    pub(crate) async fn do_update_node(
        &self,
        reference: &str,
        version: u64,
        spec: &NodeSpec,
        again: bool,
    ) -> Result<Decided<Outcome>, ManagerError> {
        // Whether a manager may go depends on the others. That it is none is safe to say: the caller has read this version.
        let demotes = {
            let store = self.inner.consensus.read();
            spec.role == NodeRole::Worker && store.find_node(reference)?.spec.role == NodeRole::Manager
        };
        let beside = if demotes { Beside::Nobody } else { Beside::Others };
        self.change(beside, |store, _| {
            let node = store.find_node(reference)?;
            if again && node.meta.version.index > version && node.spec == *spec {
                return Ok((Outcome::Done, Vec::new()));
            }
            let read = Version { index: version };
            Ok((Outcome::Done, request::update_node(store, &node.id, read, spec.clone())?))
        })
        .await
    }

    /// At the leader: removes a node; its certificate is refused from then on. With `again` one that is gone already is
    /// as wanted.
    pub(crate) async fn do_remove_node(
        &self,
        reference: &str,
        force: bool,
        again: bool,
    ) -> Result<Decided<Outcome>, ManagerError> {
        self.change(Beside::Nobody, |store, _| match store.find_node(reference) {
            Err(FindError::NotFound { .. }) if again => Ok((Outcome::Done, Vec::new())),
            found => Ok((Outcome::Done, request::remove_node(store, &found?.id, force, clock::now())?)),
        })
        .await
    }
}

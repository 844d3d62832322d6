//! Nodes: look up, list, update and remove.
//!
//! In: references, filters, specs. Out: the API's JSON, or committed changes.

use std::sync::Arc;

use control::request;
use docker::filters::Filters;
use objects::{Node, NodeSpec, Version};
use serde_json::Value;

use crate::error::ManagerError;
use crate::manager::Manager;

impl Manager {
    /// One node by id, host name or id prefix, as the API's JSON.
    pub fn node(&self, reference: &str) -> Result<Value, ManagerError> {
        let store = self.inner.consensus.read();
        Ok(store.find_node(reference)?.to_api())
    }

    /// Nodes that pass the filters (id, label, node.label, name, membership, role).
    ///
    /// `label` are the engine's labels, `node.label` those of the node's spec.
    pub fn nodes(&self, filters: &Filters) -> Result<Vec<Value>, ManagerError> {
        filters.validate(&["id", "label", "membership", "name", "node.label", "role"])?;
        filters.validate_values("role", &["manager", "worker"])?;
        filters.validate_values("membership", &["accepted", "pending"])?;
        let store = self.inner.consensus.read();
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
        self.change(|store, _| {
            let node = store.find_node(reference)?;
            Ok(((), request::update_node(store, &node.id, Version { index: version }, spec.clone())?))
        })
        .await
    }

    /// Removes a node that is down (or, with `force`, any but a manager).
    pub async fn remove_node(&self, reference: &str, force: bool) -> Result<(), ManagerError> {
        self.change(|store, _| {
            let node = store.find_node(reference)?;
            Ok(((), request::remove_node(store, &node.id, force)?))
        })
        .await
    }
}

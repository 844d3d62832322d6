//! Finds objects by what a person typed: id, name or the start of an id.
//!
//! In: a text. Out: the one object it means, or Docker's error. Order: exact id, exact name, prefix of the id.

use std::sync::Arc;

use objects::{Network, Node, Service, Task};

use crate::{Kind, Store};

/// Why a text means no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Nothing has this id or name.
    #[error("{kind} {text} not found")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// What was typed.
        text: String,
    },
    /// Several objects do.
    #[error("{kind} {text} is ambiguous ({matches} matches found)")]
    Ambiguous {
        /// What was looked for.
        kind: Kind,
        /// What was typed.
        text: String,
        /// How many match.
        matches: usize,
    },
}

impl Store {
    /// The service that `text` means.
    pub fn find_service(&self, text: &str) -> Result<&Arc<Service>, FindError> {
        let known = self.services.get(text);
        if let Some(found) = known.or_else(|| self.service_named(text).filter(|it| it.spec.name == text)) {
            return Ok(found);
        }
        let services = self.services();
        find(Kind::Service, text, services, |service| (service.id.as_str(), service.spec.name.as_str()))
    }

    /// The task that `text` means; tasks have no names but by id.
    pub fn find_task(&self, text: &str) -> Result<&Arc<Task>, FindError> {
        if let Some(task) = self.tasks.get(text) {
            return Ok(task);
        }
        find(Kind::Task, text, self.tasks(), |task| (task.id.as_str(), task.name.as_str()))
    }

    /// The node that `text` means, by id or host name.
    pub fn find_node(&self, text: &str) -> Result<&Arc<Node>, FindError> {
        if let Some(node) = self.nodes.get(text) {
            return Ok(node);
        }
        let nodes = self.nodes();
        find(Kind::Node, text, nodes, |node| (node.id.as_str(), node.description.hostname.as_str()))
    }

    /// The network that `text` means.
    pub fn find_network(&self, text: &str) -> Result<&Arc<Network>, FindError> {
        let known = self.networks.get(text);
        if let Some(found) = known.or_else(|| self.network_named(text).filter(|it| it.spec.name == text)) {
            return Ok(found);
        }
        let networks = self.networks();
        find(Kind::Network, text, networks, |network| (network.id.as_str(), network.spec.name.as_str()))
    }
}

fn find<'a, T>(
    kind: Kind,
    text: &str,
    all: impl Iterator<Item = &'a Arc<T>> + Clone,
    keys: impl Fn(&T) -> (&str, &str),
) -> Result<&'a Arc<T>, FindError> {
    let not_found = || FindError::NotFound { kind, text: text.to_owned() };
    if text.is_empty() {
        return Err(not_found());
    }
    if let Some(object) = all.clone().find(|object| keys(object).0 == text) {
        return Ok(object);
    }
    let named: Vec<_> = all.clone().filter(|object| keys(object).1 == text).collect();
    let matches = if named.is_empty() {
        all.filter(|object| keys(object).0.starts_with(text)).collect()
    } else {
        named
    };
    match matches.as_slice() {
        [] => Err(not_found()),
        [object] => Ok(object),
        several => Err(FindError::Ambiguous { kind, text: text.to_owned(), matches: several.len() }),
    }
}

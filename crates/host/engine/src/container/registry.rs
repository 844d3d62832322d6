//! Finds containers by id, name or id prefix, and keeps names unique.
//!
//! In: containers as they come and go. Out: containers, or Docker's refusals. Never touches the disk.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use super::Container;
use crate::error::EngineError;

#[derive(Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Name without slash to id; also of containers that are just being created.
    names: BTreeMap<String, String>,
}

/// All containers of the engine.
#[derive(Default)]
pub(crate) struct Registry {
    index: RwLock<Index>,
}

const UNPOISONED: &str = "nothing panics while it holds this lock";

impl Registry {
    /// Gives `name` to the container `id`, unless another has it.
    pub(crate) fn claim_name(&self, name: &str, id: &str) -> Result<(), EngineError> {
        let mut index = self.index.write().expect(UNPOISONED);
        if let Some(holder) = index.names.get(name) {
            return Err(EngineError::NameInUse { name: name.to_owned(), holder: holder.clone() });
        }
        index.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    /// Takes `name` back from `id`; the name of another stays.
    pub(crate) fn free_name(&self, name: &str, id: &str) {
        let mut index = self.index.write().expect(UNPOISONED);
        if index.names.get(name).is_some_and(|holder| holder == id) {
            index.names.remove(name);
        }
    }

    /// Makes a container known; its name must have been claimed.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        self.index.write().expect(UNPOISONED).by_id.insert(container.id.clone(), container);
    }

    /// Forgets a container and its name.
    pub(crate) fn remove(&self, id: &str, name: &str) {
        let mut index = self.index.write().expect(UNPOISONED);
        index.by_id.remove(id);
        if index.names.get(name).is_some_and(|holder| holder == id) {
            index.names.remove(name);
        }
    }

    /// The container with this full id.
    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<Container>> {
        self.index.read().expect(UNPOISONED).by_id.get(id).cloned()
    }

    /// The container that `reference` means: full id, then name with or without slash, then id prefix.
    ///
    /// Source of the order: moby, `daemon/container.go`, `GetContainer`.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Container>, EngineError> {
        let index = self.index.read().expect(UNPOISONED);
        let missing = || EngineError::NoSuchContainer(reference.to_owned());
        if let Some(found) = index.by_id.get(reference) {
            return Ok(Arc::clone(found));
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(found) = index.names.get(name).and_then(|id| index.by_id.get(id)) {
            return Ok(Arc::clone(found));
        }
        if reference.is_empty() {
            return Err(missing());
        }
        let mut fitting =
            index.by_id.range(reference.to_owned()..).take_while(|(id, _)| id.starts_with(reference));
        match (fitting.next(), fitting.next()) {
            (Some((_, found)), None) => Ok(Arc::clone(found)),
            (Some(_), Some(_)) => Err(EngineError::AmbiguousPrefix(reference.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    /// Whether there is no container.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.read().expect(UNPOISONED).by_id.is_empty()
    }

    /// Every container, sorted by id.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.index.read().expect(UNPOISONED).by_id.values().cloned().collect()
    }
}

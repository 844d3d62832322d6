//! Applies the writes of one log entry: all of them or none.
//!
//! In: index and time of the entry, and its writes. Out: what changed, or why nothing did. The same on every manager.

use std::sync::Arc;

use objects::{Meta, Task, Timestamp, Version};

use crate::{Change, Kind, Object, Store, Write};

/// Why a transaction was refused; the store is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else wrote the object since it was read.
    ///
    /// Source: moby/swarmkit, `manager/state/store/memory.go`; clients match on this text.
    #[error("update out of sequence")]
    OutOfSequence {
        /// Kind of the object.
        kind: Kind,
        /// Its id.
        id: String,
    },
    /// There is no such object.
    #[error("{kind} {id} not found")]
    NotFound {
        /// Kind of the object.
        kind: Kind,
        /// Its id.
        id: String,
    },
    /// The id is taken.
    #[error("{kind} {id} already exists")]
    Exists {
        /// Kind of the object.
        kind: Kind,
        /// Its id.
        id: String,
    },
    /// The name is taken.
    ///
    /// Source: moby/swarmkit, `manager/state/store/memory.go` and `manager/controlapi/service.go`.
    #[error("name conflicts with an existing object: {kind} {name} already exists")]
    NameConflict {
        /// Kind of the object.
        kind: Kind,
        /// The name, as it was given.
        name: String,
    },
}

impl Store {
    /// Applies one log entry: all writes or, on an error, none.
    ///
    /// `index` becomes the version of every object written; it must grow from entry to entry. A change of an object that
    /// is written twice in one entry is reported twice.
    pub fn apply(&mut self, index: u64, now: Timestamp, writes: &[Write]) -> Result<Vec<Change>, ApplyError> {
        debug_assert!(index > self.applied, "log indexes grow");
        let mut changes = Vec::with_capacity(writes.len());
        let mut refused = None;
        for write in writes {
            match self.apply_one(index, now, write) {
                Ok(change) => changes.extend(change),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        self.applied = index;
        let Some(error) = refused else { return Ok(changes) };
        for change in changes.into_iter().rev() {
            match change.before {
                Some(object) => self.put(object),
                None => self.take(change.kind, &change.id),
            }
        }
        Err(error)
    }

    fn apply_one(&mut self, index: u64, now: Timestamp, write: &Write) -> Result<Option<Change>, ApplyError> {
        let (kind, id) = write.target();
        let before = self.get(kind, id);
        let after = match write {
            Write::Create(object) => {
                if before.is_some() {
                    return Err(ApplyError::Exists { kind, id: id.to_owned() });
                }
                let meta = Meta { version: Version { index }, created_at: now, updated_at: now };
                Some(self.stamped(object, meta))
            }
            Write::Update { object, read_version } => {
                let old = must_be(index, kind, id, before.as_ref(), *read_version)?;
                let meta = Meta { version: Version { index }, updated_at: now, ..old.meta() };
                Some(self.stamped(object, meta))
            }
            Write::Remove { read_version, .. } => {
                must_be(index, kind, id, before.as_ref(), *read_version)?;
                None
            }
            Write::Check { read_version, .. } => {
                must_be(index, kind, id, before.as_ref(), *read_version)?;
                return Ok(None);
            }
        };
        match &after {
            Some(object) => {
                self.must_have_free_name(object)?;
                self.put(object.clone());
            }
            None => self.take(kind, id),
        }
        Ok(Some(Change { kind, id: id.to_owned(), before, after }))
    }

    fn stamped(&self, object: &Object, meta: Meta) -> Object {
        let mut object = object.with_meta(meta);
        self.share_spec(&mut object);
        object
    }

    fn must_have_free_name(&self, object: &Object) -> Result<(), ApplyError> {
        let Some(name) = object.unique_name() else { return Ok(()) };
        match self.names.get(&(object.kind(), name.to_lowercase())) {
            Some(owner) if owner != object.id() => {
                Err(ApplyError::NameConflict { kind: object.kind(), name: name.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Lets a task share the spec of itself as it was, or of one of its siblings: decoding a log entry gives every task
    /// its own copy.
    pub(crate) fn share_spec(&self, object: &mut Object) {
        let Object::Task(task) = object else { return };
        let before = self.tasks.get(task.id.as_str()).into_iter();
        let siblings = self.tasks_of_service(&task.service_id).take(SIBLINGS_ASKED);
        let mut known = before.chain(siblings);
        let is_alike = |other: &&Arc<Task>| {
            other.internal.spec_version == task.internal.spec_version
                && (Arc::ptr_eq(&other.spec, &task.spec) || other.spec == task.spec)
        };
        let Some(sibling) = known.find(is_alike).filter(|other| !Arc::ptr_eq(&other.spec, &task.spec)) else {
            return;
        };
        Arc::make_mut(task).spec = Arc::clone(&sibling.spec);
    }
}

/// Siblings whose spec a task may share. chosen: the tasks that two slots keep, so that one of each spec is among them.
const SIBLINGS_ASKED: usize = 8;

/// The object, when it is of the version that was read or was written earlier in the same entry.
fn must_be<'a>(
    index: u64,
    kind: Kind,
    id: &str,
    found: Option<&'a Object>,
    read: Version,
) -> Result<&'a Object, ApplyError> {
    let found = found.ok_or_else(|| ApplyError::NotFound { kind, id: id.to_owned() })?;
    let version = found.meta().version;
    if version == read || version.index == index {
        Ok(found)
    } else {
        Err(ApplyError::OutOfSequence { kind, id: id.to_owned() })
    }
}

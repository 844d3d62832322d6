//! Remembers which cgroups above the containers' own are ours, and removes them when nothing is in them any more.
//!
//! In: the parents of containers, before their cgroups are made. Out: a list in the exec root, which like the cgroups
//! ends with the boot: after a crash the next engine still knows. Never removes what was there before.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use runtime::cgroup;

use crate::error::EngineError;
use crate::files;

/// The cgroups that only exist for our containers.
pub(crate) struct CgroupParents {
    /// A JSON list of directories.
    file: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Parents first: a path sorts before what is below it.
    ours: BTreeSet<PathBuf>,
    /// Parents that were looked at.
    noted: BTreeSet<String>,
}

impl CgroupParents {
    /// Takes over what the last engine made. A damaged list is none: then the groups stay.
    pub(crate) fn open(file: PathBuf) -> Self {
        let ours = match std::fs::read(&file).map(|text| serde_json::from_slice(&text)) {
            Ok(Ok(ours)) => ours,
            Ok(Err(error)) => {
                tracing::warn!(path = %file.display(), %error, "list of cgroups is damaged");
                BTreeSet::new()
            }
            Err(_) => BTreeSet::new(),
        };
        Self { file, known: Mutex::new(Known { ours, noted: BTreeSet::new() }) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds this lock")
    }

    /// To be called before a container gets a cgroup below `parent`. Looks at the kernel once for each parent.
    pub(crate) fn note(&self, parent: &str) -> Result<(), EngineError> {
        let mut known = self.known();
        if known.noted.contains(parent) {
            return Ok(());
        }
        let missing = cgroup::missing_groups(parent).map_err(|error| EngineError::Cgroup(Box::new(error)))?;
        let before = known.ours.len();
        known.ours.extend(missing);
        // On disk before the first of them is made.
        if known.ours.len() > before {
            self.write(&known.ours)?;
        }
        known.noted.insert(parent.to_owned());
        Ok(())
    }

    fn write(&self, ours: &BTreeSet<PathBuf>) -> Result<(), EngineError> {
        let text = serde_json::to_vec(ours).expect("paths of cgroups are text");
        let draft = self.file.with_extension("new");
        files::write_file(&draft, &text, 0o600)?;
        std::fs::rename(&draft, &self.file).map_err(|source| EngineError::File {
            what: "replace",
            path: self.file.clone(),
            source,
        })
    }

    /// Removes those that are empty, when no container is being started any more.
    pub(crate) fn remove_empty(&self) {
        let mut known = self.known();
        let ours: Vec<PathBuf> = std::mem::take(&mut known.ours).into_iter().collect();
        known.noted.clear();
        if ours.is_empty() {
            return;
        }
        for (path, error) in cgroup::remove_empty(&ours) {
            if let Some(error) = error {
                tracing::warn!(path = %path.display(), %error, "cgroup not removed");
            }
            known.ours.insert(path);
        }
        let noted = if known.ours.is_empty() {
            std::fs::remove_file(&self.file).map_err(|source| EngineError::File {
                what: "remove",
                path: self.file.clone(),
                source,
            })
        } else {
            self.write(&known.ours)
        };
        if let Err(error) = noted {
            tracing::warn!(error = &error as &dyn std::error::Error, "list of cgroups not kept");
        }
    }
}

//! The tasks this node was given, on its disk: what it goes on with when it starts without a manager.
//!
//! In: assignments. Out: one file per task, replaced as a whole, readable by the daemon alone. Registry credentials and
//! other secrets are not in it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use objects::{Task, TaskId};
use serde::{Deserialize, Serialize};

/// What is kept of a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    pub(crate) task: Arc<Task>,
    /// Whether its container was unhealthy when it was asked to stop: its exit code does not tell.
    #[serde(default)]
    pub(crate) was_unhealthy: bool,
}

/// Where the files are: `<swarm directory>/worker`.
#[derive(Clone, Debug)]
pub(crate) struct WorkerFiles {
    directory: PathBuf,
}

impl WorkerFiles {
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory })
    }

    /// All tasks. A file that cannot be read is left out: the manager sends its task again.
    pub(crate) fn load(&self) -> io::Result<Vec<Kept>> {
        let mut tasks = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
                Ok(kept) => tasks.push(kept),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a task's file cannot be used"),
            }
        }
        Ok(tasks)
    }

    /// Keeps a task. Not synced: after a power cut the manager sends what is missing.
    pub(crate) fn save(&self, kept: &Kept) -> io::Result<()> {
        let path = self.path(&kept.task.id);
        let draft = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        fs::rename(&draft, &path)
    }

    /// Forgets a task.
    pub(crate) fn forget(&self, task: &TaskId) -> io::Result<()> {
        match fs::remove_file(self.path(task)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, task: &TaskId) -> PathBuf {
        self.directory.join(format!("{task}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_survive_and_damaged_files_do_not_hide_the_others() {
        let root = tempfile::tempdir().unwrap();
        let files = WorkerFiles::open(root.path().join("worker")).unwrap();
        for (id, was_unhealthy) in [("a", false), ("b", true)] {
            let task = Arc::new(Task { id: id.into(), slot: 1, ..Task::default() });
            files.save(&Kept { task, was_unhealthy }).unwrap();
        }
        fs::write(root.path().join("worker/c.json"), b"{").unwrap();
        fs::write(root.path().join("worker/d.new"), b"{}").unwrap();
        assert_eq!(files.load().unwrap().len(), 2);
        files.forget(&"a".into()).unwrap();
        files.forget(&"a".into()).unwrap();
        let kept = files.load().unwrap();
        assert_eq!((kept[0].task.id.as_str(), kept[0].was_unhealthy), ("b", true));
        // What an older version wrote.
        let bare = Task { id: "e".into(), slot: 1, ..Task::default() };
        files.forget(&"b".into()).unwrap();
        fs::write(root.path().join("worker/e.json"), serde_json::to_vec(&bare).unwrap()).unwrap();
        assert!(!files.load().unwrap()[0].was_unhealthy);
    }
}

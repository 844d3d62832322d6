//! The engine's directories and files, and small file work with errors that say what was tried.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::EngineError;

/// How long a look at a file of somebody else's may take. Chosen: a client that waits for it gets an answer that says why.
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// Where everything of one engine lies.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    data: PathBuf,
    exec: PathBuf,
}

impl Roots {
    pub(crate) fn new(data: PathBuf, exec: PathBuf) -> Self {
        Roots { data, exec }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data.join("engine.redb")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    pub(crate) fn overlay(&self, id: &str) -> PathBuf {
        self.container(id).join("overlay")
    }

    pub(crate) fn log(&self, id: &str) -> PathBuf {
        self.container(id).join(format!("{id}-json.log"))
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }

    pub(crate) fn volume_data(&self, name: &str) -> PathBuf {
        self.volume(name).join("_data")
    }

    /// The cgroups that were made for containers' cgroups.
    pub(crate) fn cgroup_parents(&self) -> PathBuf {
        self.exec.join("cgroups.json")
    }

    /// The directories of containers' shims.
    pub(crate) fn shims(&self) -> PathBuf {
        self.exec.join("containers")
    }

    pub(crate) fn shim(&self, id: &str) -> PathBuf {
        self.shims().join(id)
    }

    /// The names of a network, for the resolvers of its containers.
    pub(crate) fn names(&self, network_id: &str) -> PathBuf {
        network::NamesDir::file_in(&self.exec, network_id)
    }

    /// The directories of execs' shims.
    pub(crate) fn execs(&self) -> PathBuf {
        self.exec.join("execs")
    }

    pub(crate) fn exec(&self, id: &str) -> PathBuf {
        self.execs().join(id)
    }

    /// What runs keeps its directory; the next engine makes the others again.
    pub(crate) fn remove_empty_exec_dirs(&self) {
        for dir in [self.shims(), self.execs()] {
            // Refused as long as something is in it.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Makes a directory and its parents with this mode; one that is there is fine.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), EngineError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|source| EngineError::File {
        what: "create directory",
        path: path.to_owned(),
        source,
    })
}

/// Writes a whole file with this mode, in place: a bind mount of it shows the new content.
pub(crate) fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), EngineError> {
    let write = || -> io::Result<()> {
        let mut file =
            fs::OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(path)?;
        file.write_all(content)
    };
    write().map_err(|source| EngineError::File { what: "write", path: path.to_owned(), source })
}

/// Removes a directory with all below it; none there is fine.
pub(crate) fn remove_dir(path: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(EngineError::File { what: "remove directory", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// The names in a directory; a missing directory has none.
pub(crate) fn names_in(path: &Path) -> Result<Vec<String>, EngineError> {
    let failed = |source| EngineError::File { what: "list directory", path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is no UTF-8 is none of ours.
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Runs file work that may take a while away from the async threads.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, EngineError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, EngineError> + Send + 'static,
{
    // The join fails only when the work panicked or the runtime is going down.
    tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::ShuttingDown)?
}

/// As [`blocking`], for a path that may be on a machine that doesn't answer. The thread goes on waiting for it.
pub(crate) async fn look_at<T, F>(path: &Path, work: F) -> Result<T, EngineError>
where
    T: Send + 'static,
    F: FnOnce(&Path) -> Result<T, EngineError> + Send + 'static,
{
    let owned = path.to_owned();
    let looked = tokio::time::timeout(LONGEST_LOOK, blocking(move || work(&owned))).await;
    looked.unwrap_or_else(|_| {
        let source = io::ErrorKind::TimedOut.into();
        Err(EngineError::File { what: "look at", path: path.to_owned(), source })
    })
}

/// Bytes of all files below `path`, without following links; what can't be read counts nothing.
pub(crate) fn tree_size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok().map(|metadata| (entry, metadata)))
        .map(|(entry, metadata)| if metadata.is_dir() { tree_size(&entry.path()) } else { metadata.len() })
        .sum()
}

//! A container whose shim left no record.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use runtime::cgroup::{Cgroup, CgroupError};

use crate::Exit;
use crate::protocol::Processes;
use crate::spec::{EXIT_FILE, Launch, SOCKET_FILE, SPEC_FILE, STATE_FILE, ShimSpec};

/// A container whose shim ended without a record: it was killed, or the machine restarted.
///
/// The kernel kills the first process together with its shim, but others may live on: see [`Lost::clean_up`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The directory of the shim.
    pub dir: PathBuf,
    /// The container's first process, if it was created and still is the same process; it may be dying.
    pub pid: Option<i32>,
    /// Parent and name of the container's cgroup; `None` for an exec, or when even the orders are unreadable.
    pub cgroup: Option<(String, String)>,
}

/// Why something of a lost container may be left.
#[derive(Debug, thiserror::Error)]
pub enum CleanUpError {
    /// Its processes could not be killed, or their cgroup not removed.
    #[error("remove the cgroup of a lost container")]
    Cgroup(#[from] CgroupError),
    /// The thread for it was stopped, because the daemon ends.
    #[error("clean up after a lost container")]
    Stopped(#[source] io::Error),
}

impl Lost {
    /// What the files in `dir` still tell.
    pub(super) fn find(dir: &Path) -> Self {
        let processes: Option<Processes> = read_json(&dir.join(STATE_FILE));
        let is_same = |processes: &Processes| {
            let start_time = runtime::start_time(processes.pid);
            start_time.is_some() && start_time == processes.pid_start_time
        };
        let pid = processes.filter(is_same).map(|processes| processes.pid);
        let cgroup = match read_json::<ShimSpec>(&dir.join(SPEC_FILE)).map(|spec| spec.launch) {
            Some(Launch::Container(spec)) => Some((spec.cgroup.parent, spec.cgroup.name)),
            Some(Launch::Exec(_)) | None => None,
        };
        Self { dir: dir.to_owned(), pid, cgroup }
    }

    /// Kills whatever is left of the container, removes its cgroup and the shim's own files (the directory too, if that
    /// leaves it empty). May be repeated. Takes up to two seconds.
    pub async fn clean_up(&self) -> Result<(), CleanUpError> {
        let lost = self.clone();
        let cleaning = tokio::task::spawn_blocking(move || {
            if let Some((parent, name)) = &lost.cgroup {
                Cgroup::open(parent, name)?.remove()?;
            }
            remove_files(&lost.dir);
            Ok(())
        });
        cleaning.await.map_err(|error| CleanUpError::Stopped(error.into()))?
    }
}

/// How the container ended, if that is on record. A damaged record is none.
///
/// # Errors
/// When it can't be known, for example for lack of descriptors.
pub(super) fn read_exit(dir: &Path) -> io::Result<Option<Exit>> {
    match fs::read(dir.join(EXIT_FILE)) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes what a shim and its client put into a directory, and the directory if nothing else is there.
pub(super) fn remove_files(dir: &Path) {
    for name in [SOCKET_FILE, STATE_FILE, SPEC_FILE] {
        // Most are usually gone already.
        let _ = fs::remove_file(dir.join(name));
        let _ = fs::remove_file(dir.join(format!(".{name}.new")));
    }
    let _ = fs::remove_file(dir.join(format!(".{EXIT_FILE}.new")));
    let _ = fs::remove_dir(dir);
}

/// Removes the record of an earlier run.
pub(super) fn remove_record(dir: &Path) {
    // Usually there is none.
    let _ = fs::remove_file(dir.join(EXIT_FILE));
}

/// These files are small and in memory; reading them never blocks for long.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

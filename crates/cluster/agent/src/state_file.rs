//! `swarm/state.json`: which swarm this node is in, where it listens, and which managers it knows.
//!
//! Written last when a swarm was founded or joined and removed first when it is left: a directory without it is
//! leftovers. What this node may do in the swarm is not in it: that says its certificate.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::unfinished;

/// The newest format. 2 added workers, the addresses that were asked for, and the managers of the swarm.
const VERSION: u32 = 2;

/// What a member remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub(crate) version: u32,
    pub(crate) node_id: String,
    pub(crate) cluster_id: String,
    /// Number in the replicated log; zero when this node has no part in it.
    pub(crate) raft_id: u64,
    /// Whether the swarm has taken it in under that number: until then it asks to be.
    #[serde(default = "yes")]
    pub(crate) is_voter: bool,
    /// `host:port`.
    pub(crate) listen_addr: String,
    /// Without a port.
    pub(crate) node_addr: String,
    /// `host:port` that other managers are told.
    pub(crate) control_addr: String,
    pub(crate) data_path_addr: String,
    /// What the user asked for; the addresses above are chosen from it at every start.
    #[serde(default)]
    pub(crate) requested: Requested,
    /// Managers of the swarm, as the last session told.
    #[serde(default)]
    pub(crate) managers: Vec<KnownManager>,
}

/// The first format knew only managers that had founded their swarm.
fn yes() -> bool {
    true
}

/// The addresses of a request to found or join, as they were written; empty ones were left to the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requested {
    pub(crate) listen_addr: String,
    pub(crate) advertise_addr: String,
    pub(crate) data_path_addr: String,
    /// Not asked for, but found: the link that has the address that is advertised.
    #[serde(default)]
    pub(crate) link: String,
}

/// A manager this node can turn to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownManager {
    /// Its node id; empty for the address that a join was given.
    pub(crate) node_id: String,
    /// `host:port` of its control port.
    pub(crate) addr: String,
    /// How likely it is chosen, beside the others' weights.
    pub(crate) weight: u32,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateFileError {
    #[error("read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("parse `{path}`; restore it from a backup, or leave the swarm with `--force`")]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{path}` has format {found}, newest known is {VERSION}")]
    TooNew { path: PathBuf, found: u32 },
}

impl Membership {
    pub(crate) const VERSION: u32 = VERSION;

    /// The membership; `None` when this node is in no swarm.
    pub(crate) fn load(directory: &Path) -> Result<Option<Self>, StateFileError> {
        let path = path(directory);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateFileError::Read { path, source }),
        };
        let found: Self = match serde_json::from_slice(&bytes) {
            Ok(found) => found,
            Err(source) => return Err(StateFileError::Parse { path, source }),
        };
        if found.version > VERSION {
            return Err(StateFileError::TooNew { path, found: found.version });
        }
        Ok(Some(found))
    }

    /// Makes this node a member; it is on disk when this returns.
    pub(crate) fn save(&self, directory: &Path) -> io::Result<()> {
        replace(&path(directory), &serde_json::to_vec_pretty(self)?)
    }

    /// Forgets the membership and an attempt to get one, then everything else in the directory.
    pub(crate) fn wipe(directory: &Path) -> io::Result<()> {
        unfinished::forget(directory)?;
        ignore_missing(fs::remove_file(path(directory)))?;
        ignore_missing(fs::remove_dir_all(directory))
    }
}

/// The file of a member. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(crate) struct MembershipFile {
    directory: Arc<Path>,
    now: Arc<Mutex<Membership>>,
}

impl MembershipFile {
    /// Of a membership that is on disk in `directory`.
    pub(crate) fn new(directory: &Path, membership: Membership) -> Self {
        Self { directory: directory.into(), now: Arc::new(Mutex::new(membership)) }
    }

    fn now(&self) -> MutexGuard<'_, Membership> {
        self.now.lock().expect("nothing panics while it holds this lock")
    }

    /// As it is at this moment.
    pub(crate) fn get(&self) -> Membership {
        self.now().clone()
    }

    /// Changes it; on disk when this returns. When this fails, nothing has changed.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Membership)) -> io::Result<()> {
        let mut now = self.now();
        let mut next = now.clone();
        change(&mut next);
        next.version = VERSION;
        if next != *now {
            next.save(&self.directory)?;
            *now = next;
        }
        Ok(())
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("state.json")
}

/// Replaces a file as a whole; nobody but its owner may read it, and it is on disk when this returns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_is_kept_and_wiped() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Membership::load(root.path()).unwrap(), None);
        let first = r#"{"version":1,"node_id":"n","cluster_id":"c","raft_id":7,"listen_addr":"0.0.0.0:2377",
            "node_addr":"10.0.0.1","control_addr":"10.0.0.1:2377","data_path_addr":"10.0.0.1"}"#;
        fs::write(root.path().join("state.json"), first).unwrap();
        let mut membership = Membership::load(root.path()).unwrap().expect("the first format is still read");
        membership.version = VERSION;
        membership.managers =
            vec![KnownManager { node_id: "m".into(), addr: "10.0.0.2:2377".into(), weight: 10 }];
        membership.save(root.path()).unwrap();
        assert_eq!(Membership::load(root.path()).unwrap(), Some(membership.clone()));
        let newer = Membership { version: VERSION + 1, ..membership };
        newer.save(root.path()).unwrap();
        assert!(matches!(Membership::load(root.path()), Err(StateFileError::TooNew { .. })));
        fs::write(root.path().join("state.json"), b"{").unwrap();
        assert!(matches!(Membership::load(root.path()), Err(StateFileError::Parse { .. })));
        Membership::wipe(root.path()).unwrap();
        Membership::wipe(root.path()).unwrap();
    }
}

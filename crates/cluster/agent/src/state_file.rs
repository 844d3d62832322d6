//! `swarm/state.json`: which swarm this node is in, and as what.
//!
//! Written last when a swarm was founded and removed first when it is left: a directory without it is leftovers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The newest format.
const VERSION: u32 = 1;

/// What a member remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub(crate) version: u32,
    pub(crate) node_id: String,
    pub(crate) cluster_id: String,
    /// Number in the replicated log.
    pub(crate) raft_id: u64,
    /// `host:port`.
    pub(crate) listen_addr: String,
    /// Without a port.
    pub(crate) node_addr: String,
    /// `host:port` that other managers are told.
    pub(crate) control_addr: String,
    pub(crate) data_path_addr: String,
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
        let path = path(directory);
        let draft = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        File::open(directory)?.sync_all()
    }

    /// Forgets the membership, then everything else in the directory.
    pub(crate) fn wipe(directory: &Path) -> io::Result<()> {
        ignore_missing(fs::remove_file(path(directory)))?;
        ignore_missing(fs::remove_dir_all(directory))
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("state.json")
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
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
        let membership = Membership {
            version: VERSION,
            node_id: "n".into(),
            cluster_id: "c".into(),
            raft_id: 7,
            listen_addr: "0.0.0.0:2377".into(),
            node_addr: "10.0.0.1".into(),
            control_addr: "10.0.0.1:2377".into(),
            data_path_addr: "10.0.0.1".into(),
        };
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

//! `swarm/joining.json`: a request to join that goes on in the background, so that it goes on after a restart, too.
//!
//! Written when the one who asked has gone with Docker's word that it will go on; removed when the machine is a node, or
//! cannot be one. It holds the join token: nobody else may read it, and it stays no longer than it is needed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::requests::JoinRequest;
use crate::state_file::{ignore_missing, replace};

const NAME: &str = "joining.json";

/// Keeps a request; on disk when this returns.
pub(crate) fn keep(directory: &Path, request: &JoinRequest) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    replace(&path(directory), &serde_json::to_vec_pretty(request)?)
}

/// The request that was kept; `None` when no join is under way.
pub(crate) fn load(directory: &Path) -> io::Result<Option<JoinRequest>> {
    match fs::read(path(directory)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Forgets it.
pub(crate) fn forget(directory: &Path) -> io::Result<()> {
    ignore_missing(fs::remove_file(path(directory)))
}

/// Removes everything else from the directory: what a founding or joining that was cut short left behind.
pub(crate) fn clear_beside(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return ignore_missing(Err(error)),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == NAME {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_request_is_kept_for_its_owner_alone_and_nothing_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("swarm");
        clear_beside(&directory).unwrap();
        assert!(load(&directory).unwrap().is_none());
        let request = JoinRequest {
            remote_addrs: vec!["10.0.0.1:2377".to_owned()],
            join_token: "SWMTKN-1-secret".into(),
            availability: objects::Availability::Drain,
            ..JoinRequest::default()
        };
        assert!(!format!("{request:?}").contains("secret"));
        keep(&directory, &request).unwrap();
        let mode = fs::metadata(path(&directory)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::create_dir(directory.join("certificates")).unwrap();
        fs::write(directory.join("state.new"), b"").unwrap();
        clear_beside(&directory).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        let kept = load(&directory).unwrap().expect("it was kept");
        assert_eq!(kept.join_token, request.join_token);
        assert_eq!((kept.remote_addrs, kept.availability), (request.remote_addrs, request.availability));
        forget(&directory).unwrap();
        forget(&directory).unwrap();
        assert!(load(&directory).unwrap().is_none());
    }
}

//! Tells which groups above containers are not there yet, and takes those away again that nothing is in.
//!
//! In: a parent such as `/skep`, before its first container. Out: directories, parents first. Never removes a group with
//! a process or a group in it: the kernel refuses that.

use std::io;
use std::path::PathBuf;

use super::tree::{self, below};
use super::{CgroupError, check_parent};

/// The directories that making a group below `parent` would make besides its own, in every tree, parents first.
///
/// # Errors
/// When the parent leads elsewhere, or no cgroup file system is mounted.
pub fn missing_groups(parent: &str) -> Result<Vec<PathBuf>, CgroupError> {
    check_parent(parent)?;
    let mut missing = Vec::new();
    for tree in tree::detect()? {
        let mut path = below(&tree.mount, "");
        for name in parent.split('/').filter(|name| !name.is_empty()) {
            path.push(name);
            if !path.exists() {
                missing.push(path.clone());
            }
        }
    }
    Ok(missing)
}

/// Removes the groups that nothing is in, last first; returns those that stay, with the reason if it is not that they
/// are in use.
#[must_use]
pub fn remove_empty(groups: &[PathBuf]) -> Vec<(PathBuf, Option<io::Error>)> {
    let mut left = Vec::new();
    for group in groups.iter().rev() {
        match std::fs::remove_dir(group) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => {
                left.push((group.clone(), None));
            }
            Err(error) => left.push((group.clone(), Some(error))),
        }
    }
    left.reverse();
    left
}

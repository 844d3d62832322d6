//! Network namespaces that outlive the daemon: each is mounted on a file.
//!
//! In: names. Out: open namespaces, made or found. Containers have an end of a link in there, so a namespace must be there
//! while they are, whether a daemon runs or not (`docs/decisions/0010-pinned-network-namespaces.md`). Never decides which are
//! wanted.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use netlink::namespace;

use crate::NetworkError;

/// A directory of pinned namespaces.
#[derive(Debug, Clone)]
pub struct Namespaces {
    dir: PathBuf,
}

impl Namespaces {
    /// Namespaces in `dir`, which is made with the first of them and goes with the last.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The file of a namespace.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Names of what is there, also of files that nothing is mounted on (any more).
    pub fn names(&self) -> Result<BTreeSet<String>, NetworkError> {
        let failed = |source| NetworkError::namespace("list", "*", source);
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            names.extend(entry.map_err(failed)?.file_name().into_string().ok());
        }
        Ok(names)
    }

    /// Opens a namespace, if it is there.
    pub fn open(&self, name: &str) -> Option<OwnedFd> {
        namespace::open(&self.path(name)).ok()
    }

    /// Opens the namespace that an earlier daemon left, or makes it.
    pub fn open_or_make(&self, name: &str) -> Result<OwnedFd, NetworkError> {
        if let Some(found) = self.open(name) {
            return Ok(found);
        }
        let failed = |source| NetworkError::namespace("make", name, source);
        let path = self.path(name);
        fs::create_dir_all(&self.dir).map_err(failed)?;
        fs::File::create(&path).map_err(failed)?;
        namespace::make_pinned(&path).inspect_err(|_| drop(fs::remove_file(&path))).map_err(failed)
    }

    /// Removes a namespace; the kernel takes it apart with its last user. It need not be there.
    pub fn remove(&self, name: &str) -> Result<(), NetworkError> {
        let failed = |source| NetworkError::namespace("remove", name, source);
        let path = self.path(name);
        // It may have been mounted on more than once by daemons that did not see each other's mounts.
        while namespace::open(&path).is_ok() {
            namespace::unpin(&path).map_err(failed)?;
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        // Refused while others are there.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }
}

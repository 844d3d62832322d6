//! A node's key and certificates on its disk, with the names Docker gives them.
//!
//! Keys are readable by the daemon's user alone, and every file is replaced as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::authority::Issued;

const CERTIFICATE: &str = "swarm-node.crt";
const KEY: &str = "swarm-node.key";
const ROOT: &str = "swarm-root-ca.crt";

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
#[error("write `{path}`")]
pub struct SaveError {
    /// Which.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// What is in `<swarm directory>/certificates`.
#[derive(Clone)]
pub struct NodeFiles {
    /// PEM of the node's certificate.
    pub certificate: String,
    /// PEM of its key.
    pub key: String,
    /// PEM of the root it trusts.
    pub root: String,
}

impl NodeFiles {
    /// Of a certificate just issued.
    #[must_use]
    pub fn new(issued: Issued, root: String) -> Self {
        Self { certificate: issued.certificate, key: issued.key, root }
    }

    /// Writes all three; they are on disk when this returns.
    pub fn save(&self, directory: &Path) -> Result<(), SaveError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SaveError { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
        for (name, content, mode) in
            [(ROOT, &self.root, 0o644), (KEY, &self.key, 0o600), (CERTIFICATE, &self.certificate, 0o644)]
        {
            let path = directory.join(name);
            replace(&path, content.as_bytes(), mode).map_err(failed(&path))?;
        }
        File::open(directory).and_then(|opened| opened.sync_all()).map_err(failed(directory))
    }

    /// Reads them back; `None` when one is missing.
    pub fn load(directory: &Path) -> io::Result<Option<Self>> {
        let read = |name| match fs::read_to_string(directory.join(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let (Some(certificate), Some(key), Some(root)) = (read(CERTIFICATE)?, read(KEY)?, read(ROOT)?) else {
            return Ok(None);
        };
        Ok(Some(Self { certificate, key, root }))
    }
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let draft = path.with_extension("new");
    // A draft left by a crash may have other permissions: it is made anew.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

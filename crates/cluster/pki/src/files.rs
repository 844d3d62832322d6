//! A node's certificate and the roots it trusts, on its disk with the names Docker gives them.
//!
//! In: PEM. Out: files, each replaced as a whole. The node's key is beside them ([`crate::KeyFile`]) and does not
//! change when its certificate does: a crash between two files leaves a key, a certificate and roots that fit.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::authority::PkiError;

const CERTIFICATE: &str = "swarm-node.crt";
const ROOTS: &str = "swarm-root-ca.crt";
/// Mode of a file that everybody may read.
const PUBLIC: u32 = 0o644;
/// Mode of a file for the daemon's user alone.
pub(crate) const SECRET: u32 = 0o600;

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The file system refused.
    #[error("write `{path}`")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It could not be sealed.
    #[error("lock `{path}`")]
    Seal {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: PkiError,
    },
}

/// What is public in `<swarm directory>/certificates`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFiles {
    /// PEM of the node's certificate, then of what stands between it and a root.
    pub chain: String,
    /// PEM of the root it trusts; while the swarm changes its root, of both.
    pub roots: String,
}

impl NodeFiles {
    /// Writes both; they are on disk when this returns.
    ///
    /// The roots come first: new roots trust old certificates, old roots need not trust a new one.
    pub fn save(&self, directory: &Path) -> Result<(), SaveError> {
        save(
            directory,
            &[(ROOTS, self.roots.as_bytes(), PUBLIC), (CERTIFICATE, self.chain.as_bytes(), PUBLIC)],
        )
    }

    /// Reads them back; `None` when one is missing.
    pub fn load(directory: &Path) -> io::Result<Option<Self>> {
        let read = |name| match fs::read_to_string(directory.join(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let (Some(chain), Some(roots)) = (read(CERTIFICATE)?, read(ROOTS)?) else { return Ok(None) };
        Ok(Some(Self { chain, roots }))
    }
}

/// Replaces files of a directory (made when missing, for the daemon's user alone) in the order given, each with its
/// mode.
pub(crate) fn save(directory: &Path, files: &[(&str, &[u8], u32)]) -> Result<(), SaveError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SaveError::Write { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
    for (name, content, mode) in files {
        let path = directory.join(name);
        replace(&path, content, *mode).map_err(failed(&path))?;
        // Without this a crash may keep a later file and lose this one.
        File::open(directory).and_then(|opened| opened.sync_all()).map_err(failed(directory))?;
    }
    Ok(())
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
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

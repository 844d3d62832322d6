//! The files in a shim's directory.
//!
//! In: the directory named by the daemon. Out: orders read; socket, `shim.json` and `exit.json` written. A file is there
//! completely or not at all. The record of the end has its room from the beginning, so that a full `/run` can't prevent it.
//! Never looks outside the directory.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::protocol::Processes;
use crate::spec::{EXIT_FILE, SOCKET_FILE, SPEC_FILE, STATE_FILE, ShimSpec};
use crate::{Exit, RESOLVER_FILE};

/// Room for the record of the end. Chosen: several times its length.
const EXIT_ROOM: usize = 512;

#[derive(Debug)]
pub(crate) struct ShimDir {
    path: PathBuf,
    /// The record of the end before it has its name.
    exit: Option<File>,
}

/// Why orders can't be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadSpecError {
    #[error("read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("parse `{}`: {source}", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("`{}` has format {found}, newest known is {known}", path.display())]
    TooNew { path: PathBuf, found: u32, known: u32 },
}

impl ShimDir {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, exit: None }
    }

    pub(crate) fn read_spec(&self) -> Result<ShimSpec, ReadSpecError> {
        let path = self.path.join(SPEC_FILE);
        let text = fs::read(&path).map_err(|source| ReadSpecError::Read { path: path.clone(), source })?;
        let spec: ShimSpec = serde_json::from_slice(&text)
            .map_err(|source| ReadSpecError::Parse { path: path.clone(), source })?;
        let known = crate::spec::SPEC_VERSION;
        if spec.version > known {
            return Err(ReadSpecError::TooNew { path, found: spec.version, known });
        }
        Ok(spec)
    }

    /// Listens on the socket, which only this user may use.
    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        // By its name alone: the whole path may be longer than a socket's address can be.
        rustix::process::chdir(&self.path)?;
        let bound = UnixListener::bind(SOCKET_FILE);
        let permitted = fs::set_permissions(SOCKET_FILE, Permissions::from_mode(0o600));
        rustix::process::chdir("/")?;
        let listener = bound?;
        permitted?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Writes which processes these are, and keeps room for the record of the end.
    pub(crate) fn write_state(&mut self, processes: &Processes) -> io::Result<()> {
        let exit = create(&self.temporary(EXIT_FILE))?;
        exit.write_all_at(&[b' '; EXIT_ROOM], 0)?;
        self.exit = Some(exit);
        let temporary = self.temporary(STATE_FILE);
        let text = serde_json::to_vec(processes).expect("two numbers and a number are JSON");
        create(&temporary)?.write_all(&text)?;
        fs::rename(&temporary, self.path.join(STATE_FILE))
    }

    /// Puts the record of the end in place. Without its directory there is nobody left to read it: that is no error.
    pub(crate) fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        let mut text = serde_json::to_vec(exit).expect("plain data with text keys is JSON");
        // Spaces after a value are JSON too, and need no change of the file's length.
        text.resize(text.len().max(EXIT_ROOM), b' ');
        let file = self.exit.as_ref().ok_or(io::ErrorKind::NotFound)?;
        file.write_all_at(&text, 0)?;
        match fs::rename(self.temporary(EXIT_FILE), self.path.join(EXIT_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Takes the socket away: no new daemon can ask any more, and needn't, since the record is there.
    pub(crate) fn remove_socket(&self) {
        // It may be gone with the whole directory.
        let _ = fs::remove_file(self.path.join(SOCKET_FILE));
    }

    /// Leaves nothing, when there was nothing worth a record. What the daemon put beside our files stays.
    pub(crate) fn remove_all(&self) {
        for path in [SOCKET_FILE, STATE_FILE, SPEC_FILE].map(|name| self.path.join(name)) {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_file(self.temporary(EXIT_FILE));
        let _ = fs::remove_file(self.temporary(STATE_FILE));
        let _ = fs::remove_dir(&self.path);
    }

    /// Where the resolver is told where names come from.
    pub(crate) fn resolver_file(&self) -> PathBuf {
        self.path.join(RESOLVER_FILE)
    }

    /// Where the text of a panic goes.
    pub(crate) fn panic_file(&self) -> PathBuf {
        self.path.join("panic.txt")
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.path.join(format!(".{name}.new"))
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

//! Starts a shim and waits until its process is ready to run.
//!
//! In: orders and a directory for them. Out: a [`Handle`], or an error and nothing left behind. Never starts the program.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::connection::Handle;
use super::lost::{Lost, remove_files, remove_record};
use super::wire::{self, FrameReader};
use super::{EXIT_CODE_OTHER, StartFailure};
use crate::ShimSpec;
use crate::protocol::{Failure, Hello, Kind};
use crate::spec::SPEC_FILE;

/// The running program itself, also after its file was replaced by a newer one.
const OWN_EXE: &str = "/proc/self/exe";

/// Why no shim with a process ready to run came to be. Nothing of it is left but an empty directory at most.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The directory or the orders in it could not be written.
    #[error("write shim orders `{}`", path.display())]
    Orders {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The shim's own program could not be executed.
    #[error("execute shim `{}`", exe.display())]
    Execute {
        /// The program.
        exe: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The process could not be created. Shown to users as it is.
    #[error(transparent)]
    Create(#[from] StartFailure),
    /// The shim ended before it reported anything.
    #[error("shim ended before its process was created")]
    Died,
    /// The shim speaks differently than it should.
    #[error("talk to shim")]
    Protocol(#[source] io::Error),
}

/// Starts `exe shim <dir>` and waits until its process stands just before `execve`.
///
/// Makes `dir` (mode 0700) if it is missing; files of an earlier run in it are replaced. `exe` is `/proc/self/exe` when `None`,
/// and should be that of a [`super::Program`], so that what runs in the container can't write to it.
/// When the returned handle and its clones are dropped before [`Handle::go`], the process is killed and nothing is left;
/// the same happens when this future is dropped or the daemon dies.
pub async fn spawn(dir: &Path, spec: &ShimSpec, exe: Option<&Path>) -> Result<Handle, SpawnError> {
    let orders = |source| SpawnError::Orders { path: dir.to_owned(), source };
    let dir = std::path::absolute(dir).map_err(orders)?;
    if wire::connect(&dir).await.is_ok() {
        return Err(orders(io::Error::new(io::ErrorKind::AlreadyExists, "a shim is running there")));
    }
    let text = serde_json::to_vec(spec).map_err(|error| orders(error.into()))?;
    let exe = exe.unwrap_or(Path::new(OWN_EXE)).to_owned();
    let (connection, mut child) = {
        let dir = dir.clone();
        let executing = tokio::task::spawn_blocking(move || execute(&dir, &text, exe));
        executing.await.map_err(|error| SpawnError::Protocol(error.into()))??
    };
    let connection = UnixStream::from_std(connection).map_err(SpawnError::Protocol)?;
    let mut frames = FrameReader::new(Arc::new(connection));
    let error = match frames.next().await {
        Ok(Some(frame)) if frame.kind == Some(Kind::Hello) => match frame.json::<Hello>() {
            Ok(hello) => return Ok(Handle::new(dir, frames, &hello, Some(child))),
            Err(error) => SpawnError::Protocol(error),
        },
        Ok(Some(frame)) if frame.kind == Some(Kind::Failed) => match frame.json::<Failure>() {
            Ok(Failure { message, exit_code }) => {
                let exit_code = exit_code.unwrap_or(EXIT_CODE_OTHER);
                SpawnError::Create(StartFailure { message, exit_code })
            }
            Err(error) => SpawnError::Protocol(error),
        },
        Ok(_) => SpawnError::Died,
        Err(error) => SpawnError::Protocol(error),
    };
    // Whatever it was, the shim ends once nobody is connected any more.
    drop(frames);
    if let Err(error) = child.wait().await {
        tracing::warn!(shim.dir = %dir.display(), %error, "shim could not be collected");
    }
    if let Err(error) = Lost::find(&dir).clean_up().await {
        tracing::warn!(shim.dir = %dir.display(), %error, "a failed start may have left something");
    }
    Err(error)
}

/// Writes the orders and starts the shim. Blocks for about a millisecond.
fn execute(dir: &Path, orders: &[u8], exe: PathBuf) -> Result<(StdUnixStream, Child), SpawnError> {
    write_orders(dir, orders).map_err(|source| SpawnError::Orders { path: dir.to_owned(), source })?;
    let executed = || {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // Without anything that has to run between fork and exec, the standard library uses posix_spawn: its time doesn't
        // grow with the daemon.
        let child = Command::new(&exe)
            // The path may be a descriptor's: this is what `ps` shows.
            .arg0("skep")
            .arg("shim")
            .arg(dir)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok((ours, child))
    };
    executed().map_err(|source| {
        remove_files(dir);
        SpawnError::Execute { exe: exe.clone(), source }
    })
}

/// Into a directory that only this user may enter, and in which nothing is left of an earlier run.
fn write_orders(dir: &Path, orders: &[u8]) -> io::Result<()> {
    // An earlier run's record would be taken for this one's.
    remove_record(dir);
    remove_files(dir);
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let path = dir.join(SPEC_FILE);
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(orders)
}

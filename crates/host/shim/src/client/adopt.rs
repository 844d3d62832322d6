//! Finds out what became of a shim after the daemon was restarted.
//!
//! In: its directory. Out: a connection, the record of the end, or what is known without either. A process id is never
//! trusted alone: the socket answers for the shim, and the start time for the container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Handle;
use super::lost::{Lost, read_exit};
use super::wire::{self, FrameReader};
use crate::Exit;
use crate::protocol::{Hello, Kind, OLDEST_PROTOCOL};

/// How long a shim may take that is just ending, or that is busy. Chosen: longer than its own deadlines for removing a
/// cgroup and for one slow client.
const PATIENCE: Duration = Duration::from_secs(5);

/// How soon is looked again. Chosen.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What was found in a shim's directory.
#[derive(Debug)]
pub enum Adopted {
    /// It runs.
    Running(Handle),
    /// It ended, and how is on record.
    Exited(Exit),
    /// It ended without a record. Also: it had been created but not started when the daemon died.
    Lost(Lost),
}

/// Why a shim's state could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is no such directory, or it can't be read.
    #[error("read shim directory `{}`", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The shim that answers is too old.
    #[error("shim in `{}` speaks protocol {found}, oldest understood is {oldest}", dir.display())]
    Protocol {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        found: u32,
        /// Oldest version understood here.
        oldest: u32,
    },
    /// The shim runs, but could not be talked to in five seconds.
    #[error("talk to shim in `{}`", dir.display())]
    Silent {
        /// The directory.
        dir: PathBuf,
        /// What came of the last attempt.
        #[source]
        source: io::Error,
    },
}

/// Connects to the shim in `dir`, or says how its container ended.
///
/// Takes at most a few milliseconds for a running shim, and up to five seconds for one that is just ending.
pub async fn adopt(dir: &Path) -> Result<Adopted, AdoptError> {
    let dir =
        std::path::absolute(dir).map_err(|source| AdoptError::Directory { dir: dir.to_owned(), source })?;
    fs::metadata(&dir).map_err(|source| AdoptError::Directory { dir: dir.clone(), source })?;
    Ok(match find(&dir).await? {
        Found::Running(connection, hello) => Adopted::Running(Handle::new(dir, connection, &hello, None)),
        Found::Exited(exit) => Adopted::Exited(exit),
        Found::Lost(lost) => Adopted::Lost(lost),
    })
}

/// As [`Adopted`], before anybody looks after the connection.
pub(super) enum Found {
    Running(FrameReader, Hello),
    Exited(Exit),
    Lost(Lost),
}

pub(super) async fn find(dir: &Path) -> Result<Found, AdoptError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let greeting = match read_exit(dir) {
            Ok(Some(exit)) => return Ok(Found::Exited(exit)),
            Ok(None) => greet(dir, deadline).await,
            Err(error) => Err(error),
        };
        let error = match greeting {
            Ok(Greeting::Hello(connection, hello)) if hello.protocol >= OLDEST_PROTOCOL => {
                return Ok(Found::Running(connection, hello));
            }
            Ok(Greeting::Hello(_, hello)) => {
                let (found, oldest) = (hello.protocol, OLDEST_PROTOCOL);
                return Err(AdoptError::Protocol { dir: dir.to_owned(), found, oldest });
            }
            Ok(Greeting::Over) => io::ErrorKind::UnexpectedEof.into(),
            // Nobody listens. The record is written before the socket goes away, so it is there now or never.
            Err(error) if is_nobody(&error) => match read_exit(dir) {
                Ok(exit) => return Ok(exit.map_or_else(|| Found::Lost(Lost::find(dir)), Found::Exited)),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(AdoptError::Silent { dir: dir.to_owned(), source: error });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether an attempt to connect says that there is no shim.
pub(super) fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

enum Greeting {
    Hello(FrameReader, Hello),
    /// The shim is ending.
    Over,
}

async fn greet(dir: &Path, deadline: Instant) -> io::Result<Greeting> {
    let greeting = async {
        let mut connection = FrameReader::new(wire::connect(dir).await?);
        let Some(frame) = connection.next().await? else { return Ok(Greeting::Over) };
        if frame.kind != Some(Kind::Hello) {
            return Ok(Greeting::Over);
        }
        let hello: Hello = frame.json()?;
        if hello.started_at.is_none() {
            // Its daemon died before it said go: it is about to remove everything. What comes next is the end.
            while connection.next().await?.is_some() {}
            return Ok(Greeting::Over);
        }
        Ok(Greeting::Hello(connection, hello))
    };
    let in_time = tokio::time::timeout_at(deadline, greeting).await;
    in_time.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

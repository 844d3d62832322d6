//! The daemon's hold on one shim: requests, answers, and the news of its end.
//!
//! In: a connection that has seen Hello. Out: requests, each over a connection of its own, so that a cancelled one leaves no
//! trace; and the end, watched over the lasting one. Never keeps the container alive or ends it by itself.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use objects::Timestamp;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::adopt::{Found, find, is_nobody};
use super::attach::{AttachOptions, Attached};
use super::lost::Lost;
use super::wire::{self, Frame, FrameReader, FrameWriter};
use super::{Ended, SignalTarget, StartFailure};
use crate::protocol::{Failure, Hello, Kind, Processes, SIGNAL_ALL, Started, frame};

/// How soon a shim that did not answer for five seconds is asked again. Chosen.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A shim and its process. Clones share one connection; when the last is dropped, the connection closes, and a process
/// that was started lives on alone.
#[derive(Debug, Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    processes: Processes,
    started_at: OnceLock<Timestamp>,
    ended: watch::Receiver<Option<Ended>>,
    /// Owns the lasting connection.
    watcher: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// Why a request to a shim failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The process could not be started ([`Handle::go`] only). The shim has cleaned up and ended.
    #[error(transparent)]
    Start(StartFailure),
    /// The process has ended, or is not in a state for this. The text is the shim's.
    #[error("{message}")]
    Refused {
        /// The shim's words.
        message: String,
    },
    /// The shim has ended; [`Handle::wait`] tells how.
    #[error("container has ended")]
    Ended,
    /// The connection to the shim failed.
    #[error("talk to shim")]
    Io(#[source] io::Error),
}

impl Handle {
    pub(super) fn new(dir: PathBuf, connection: FrameReader, hello: &Hello, child: Option<Child>) -> Self {
        let (sender, ended) = watch::channel(None);
        let watcher = tokio::spawn(watch_end(dir.clone(), connection, sender, child));
        let started_at = hello.started_at.map_or_else(OnceLock::new, OnceLock::from);
        Self { inner: Arc::new(Inner { dir, processes: hello.processes, started_at, ended, watcher }) }
    }

    /// Process id of the container's first process (or of the exec), as the host sees it.
    pub fn pid(&self) -> i32 {
        self.inner.processes.pid
    }

    /// Start time of [`Handle::pid`] as `runtime::start_time` gives it; with the id it names the process for good.
    pub fn pid_start_time(&self) -> Option<u64> {
        self.inner.processes.pid_start_time
    }

    /// Process id of the shim itself.
    pub fn shim_pid(&self) -> i32 {
        self.inner.processes.shim_pid
    }

    /// The shim's directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// When the program was executed; `None` before [`Handle::go`].
    pub fn started_at(&self) -> Option<Timestamp> {
        self.inner.started_at.get().copied()
    }

    /// Lets the process execute its program, and returns when it did so.
    pub async fn go(&self) -> Result<Timestamp, RequestError> {
        let answer = self.request(Kind::Go, 0, &[]).await?;
        let started: Started = answer.json().map_err(RequestError::Io)?;
        Ok(*self.inner.started_at.get_or_init(|| started.started_at))
    }

    /// Connects to the process's streams; possible before [`Handle::go`], so that nothing is missed.
    pub async fn attach(&self, options: AttachOptions) -> Result<Attached, RequestError> {
        let (stream, mut frames) = self.connect().await?;
        let answer = ask(&stream, &mut frames, &frame(Kind::Attach, options.flags(), &[])).await;
        self.explain(answer).await?;
        Ok(Attached::new(stream, frames))
    }

    /// Sets the size of the terminal. Refused without a terminal.
    pub async fn resize(&self, rows: u16, cols: u16) -> Result<(), RequestError> {
        let ([r0, r1], [c0, c1]) = (rows.to_le_bytes(), cols.to_le_bytes());
        self.request(Kind::Resize, 0, &[r0, r1, c0, c1]).await.map(drop)
    }

    /// Sends a signal (by number). Refused before [`Handle::go`] except SIGKILL.
    pub async fn signal(&self, signal: i32, target: SignalTarget) -> Result<(), RequestError> {
        let flags = match target {
            SignalTarget::Init => 0,
            SignalTarget::All => SIGNAL_ALL,
        };
        self.request(Kind::Signal, flags, &signal.to_le_bytes()).await.map(drop)
    }

    /// Makes the shim the resolver of a container that was started without one; no change when it is already. Refused by
    /// shims of before there were resolvers.
    pub async fn open_resolver(&self) -> Result<(), RequestError> {
        self.request(Kind::OpenResolver, 0, &[]).await.map(drop)
    }

    /// Waits for the end. May be called any number of times, at any time, by any clone.
    pub async fn wait(&self) -> Ended {
        let mut ended = self.inner.ended.clone();
        let seen = ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        // The watcher is gone only when the whole daemon is ending.
        seen.unwrap_or_else(|| Ended::Lost(Lost::find(&self.inner.dir)))
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        self.inner.ended.borrow().clone()
    }

    async fn request(&self, kind: Kind, flags: u8, payload: &[u8]) -> Result<Frame, RequestError> {
        let (stream, mut frames) = self.connect().await?;
        self.explain(ask(&stream, &mut frames, &frame(kind, flags, payload)).await).await
    }

    /// A shim that closes a connection without an answer may have ended, or have too many of them.
    async fn explain(&self, answer: Result<Frame, RequestError>) -> Result<Frame, RequestError> {
        if !matches!(answer, Err(RequestError::Ended)) {
            return answer;
        }
        match find(&self.inner.dir).await {
            Ok(Found::Exited(_) | Found::Lost(_)) => answer,
            Ok(Found::Running(..)) => Err(RequestError::Io(io::ErrorKind::ConnectionAborted.into())),
            Err(error) => Err(RequestError::Io(io::Error::other(error))),
        }
    }

    async fn connect(&self) -> Result<(Arc<UnixStream>, FrameReader), RequestError> {
        if self.inner.ended.borrow().is_some() {
            return Err(RequestError::Ended);
        }
        match wire::connect(&self.inner.dir).await {
            Ok(stream) => Ok((Arc::clone(&stream), FrameReader::new(stream))),
            Err(error) if is_nobody(&error) => Err(RequestError::Ended),
            Err(error) => Err(RequestError::Io(error)),
        }
    }
}

/// Sends a request and waits for its answer.
async fn ask(
    stream: &Arc<UnixStream>,
    frames: &mut FrameReader,
    request: &[u8],
) -> Result<Frame, RequestError> {
    let sent = FrameWriter::new(Arc::clone(stream)).send(request).await;
    // A shim that has just ended may still have left its answer.
    if let Err(error) = sent
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(RequestError::Io(error));
    }
    while let Some(frame) = frames.next().await.map_err(RequestError::Io)? {
        match frame.kind {
            Some(Kind::Done) => return Ok(frame),
            Some(Kind::Failed) => return Err(refused(frame.json().map_err(RequestError::Io)?)),
            Some(Kind::Exited) => return Err(RequestError::Ended),
            _ => {}
        }
    }
    Err(RequestError::Ended)
}

fn refused(failure: Failure) -> RequestError {
    let Failure { message, exit_code } = failure;
    match exit_code {
        Some(exit_code) => RequestError::Start(StartFailure { message, exit_code }),
        None => RequestError::Refused { message },
    }
}

/// Reads the lasting connection until the end, and collects the shim if it is our child.
async fn watch_end(
    dir: PathBuf,
    connection: FrameReader,
    sender: watch::Sender<Option<Ended>>,
    child: Option<Child>,
) {
    let ended = read_end(&dir, connection).await;
    sender.send_replace(Some(ended));
    if let Some(mut child) = child
        && let Err(error) = child.wait().await
    {
        tracing::warn!(shim.dir = %dir.display(), %error, "shim could not be collected");
    }
}

async fn read_end(dir: &Path, mut connection: FrameReader) -> Ended {
    loop {
        match next_end(&mut connection).await {
            Ok(Some(ended)) => return ended,
            Ok(None) => {}
            Err(error) => tracing::warn!(shim.dir = %dir.display(), %error, "connection to shim failed"),
        }
        connection = match find_for_sure(dir).await {
            Found::Running(next, _) => next,
            Found::Exited(exit) => return Ended::Exited(exit),
            Found::Lost(lost) => return Ended::Lost(lost),
        };
    }
}

/// Silence is not the end: the shim may be stopped or slow, or this process out of descriptors.
async fn find_for_sure(dir: &Path) -> Found {
    loop {
        match find(dir).await {
            Ok(found) => return found,
            Err(error) => {
                tracing::error!(shim.dir = %dir.display(), error = &error as &dyn std::error::Error, "shim does not answer");
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The end as this connection tells it; `None` when it doesn't.
async fn next_end(connection: &mut FrameReader) -> io::Result<Option<Ended>> {
    while let Some(frame) = connection.next().await? {
        // The news of a failed start needs nothing here: the files tell that nothing is left.
        if frame.kind == Some(Kind::Exited) {
            return Ok(Some(Ended::Exited(frame.json()?)));
        }
    }
    Ok(None)
}

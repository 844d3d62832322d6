//! Joins the user's terminal or pipes with a container over a hijacked connection.
//!
//! In: a connection after the upgrade. Out: the container's output on stdout and stderr until it ends. Bytes of a
//! terminal pass as they are; without one, output comes in frames of 8 + n bytes (stream, three zeros, length).

use crate::CliError;
use crate::client::{Client, Hijacked};
use crate::detach::{Keys, Passed};
use crate::terminal;
use bytes::{Buf as _, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Largest frame the daemon may announce. chosen: far above the 16 KiB lines and 64 KiB reads it sends.
const FRAME_MAX: usize = 16 * 1024 * 1024;

/// How a joined stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The container's side closed.
    ByContainer,
    /// The user typed the detach keys; the container goes on.
    Detached,
}

/// How to join.
pub struct Join {
    /// The container has a terminal: bytes are not framed.
    pub terminal: bool,
    /// Send what is typed.
    pub stdin: bool,
    /// Leave when these keys are typed on a terminal.
    pub keys: Keys,
}

impl Ended {
    /// Leaving is an error where a command's end was waited for. Source: moby `term.EscapeError`.
    pub fn unless_detached(self) -> Result<(), CliError> {
        match self {
            Ended::ByContainer => Ok(()),
            Ended::Detached => Err(CliError::new("read escape sequence")),
        }
    }
}

/// Copies both ways until the container's side ends.
///
/// # Errors
/// When the connection breaks.
pub async fn join(connection: Hijacked, how: &Join) -> Result<Ended, CliError> {
    let (reader, writer) = tokio::io::split(connection);
    let keys = how.terminal.then(|| how.keys.clone());
    let input = async {
        if !how.stdin {
            return std::future::pending().await;
        }
        match send_stdin(writer, keys).await {
            Ok(Ended::Detached) => Ended::Detached,
            // The container decides when it ends, also when it no longer reads.
            Ok(Ended::ByContainer) | Err(_) => std::future::pending().await,
        }
    };
    let output = async { if how.terminal { copy_raw(reader).await } else { copy_framed(reader).await } };
    tokio::select! {
        copied = output => {
            copied.map_err(|error| CliError::new(format!("read container output: {error}")))?;
            Ok(Ended::ByContainer)
        }
        ended = input => Ok(ended),
    }
}

/// Copies what is typed until its end or the detach keys.
async fn send_stdin(mut writer: impl AsyncWrite + Unpin, mut keys: Option<Keys>) -> io::Result<Ended> {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; 32 * 1024];
    let copied = loop {
        let read = match input.read(&mut buffer).await {
            Ok(0) => break Ok(Ended::ByContainer),
            Ok(read) => &buffer[..read],
            Err(error) => break Err(error),
        };
        let passed = match &mut keys {
            Some(keys) => keys.pass(read),
            None => Passed { on: read.to_vec(), is_end: false },
        };
        if let Err(error) = writer.write_all(&passed.on).await {
            break Err(error);
        }
        writer.flush().await?;
        if passed.is_end {
            return Ok(Ended::Detached);
        }
    };
    // The end of the input is told by closing our half, also after a failed copy.
    writer.shutdown().await?;
    copied
}

async fn copy_raw(mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut out = tokio::io::stdout();
    let mut buffer = BytesMut::with_capacity(32 * 1024);
    while reader.read_buf(&mut buffer).await? > 0 {
        out.write_all(&buffer).await?;
        out.flush().await?;
        buffer.clear();
    }
    Ok(())
}

/// Splits framed output into stdout and stderr.
///
/// # Errors
/// When the stream breaks inside a frame or announces an impossible one.
pub async fn copy_framed(reader: impl AsyncRead + Unpin) -> io::Result<()> {
    copy_framed_as(reader, async |payload| payload).await
}

/// Splits framed output into stdout and stderr, each frame as `shown` says.
///
/// # Errors
/// As [`copy_framed`].
pub async fn copy_framed_as(
    mut reader: impl AsyncRead + Unpin,
    mut shown: impl AsyncFnMut(BytesMut) -> BytesMut,
) -> io::Result<()> {
    let mut out = tokio::io::stdout();
    let mut err = tokio::io::stderr();
    let mut buffer = BytesMut::with_capacity(32 * 1024);
    loop {
        while buffer.len() >= 8 {
            let length = u32::from_be_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]) as usize;
            if length > FRAME_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the daemon sent a frame that is too large",
                ));
            }
            if buffer.len() < 8 + length {
                break;
            }
            let stream = buffer[0];
            buffer.advance(8);
            let payload = buffer.split_to(length);
            let payload = if stream <= 2 { shown(payload).await } else { payload };
            match stream {
                0 | 1 => {
                    out.write_all(&payload).await?;
                    out.flush().await?;
                }
                2 => {
                    err.write_all(&payload).await?;
                    err.flush().await?;
                }
                _ => return Err(io::Error::other(String::from_utf8_lossy(&payload).into_owned())),
            }
        }
        if reader.read_buf(&mut buffer).await? == 0 {
            return if buffer.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// Tells the container at `path` (which ends in `/resize`) the terminal's size until the result is dropped.
pub fn sizes(client: &Client, path: String) -> JoinSet<()> {
    let mut follower = JoinSet::new();
    follower.spawn(follow_size(client.clone(), path));
    follower
}

/// Passes the signals that end programs on to a container, as `docker run --sig-proxy` does, until the result is
/// dropped. From this call on they no longer end this program.
pub fn signals(client: &Client, id: &str) -> JoinSet<()> {
    let kinds = [
        (SignalKind::interrupt(), "SIGINT"),
        (SignalKind::terminate(), "SIGTERM"),
        (SignalKind::hangup(), "SIGHUP"),
        (SignalKind::quit(), "SIGQUIT"),
        (SignalKind::user_defined1(), "SIGUSR1"),
        (SignalKind::user_defined2(), "SIGUSR2"),
    ];
    let mut open = JoinSet::new();
    for (kind, name) in kinds {
        // A signal that can't be caught keeps its usual effect.
        let Ok(mut arrivals) = signal(kind) else { continue };
        let (client, id) = (client.clone(), id.to_owned());
        open.spawn(async move {
            while arrivals.recv().await.is_some() {
                // The container may be gone already; then there is nobody to signal.
                let _ = client.post(format!("/containers/{id}/kill")).query("signal", name).send().await;
            }
        });
    }
    open
}

/// Tells the container the terminal's size now and at each change.
async fn follow_size(client: Client, path: String) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Some((rows, columns)) = terminal::size() {
            // A container that ended meanwhile has no size; the next change may find another one.
            let _ = client.post(path.clone()).query("h", rows).query("w", columns).send().await;
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

//! The raw conversation of attach and exec: a client's bytes to a process, a process's output to the client.
//!
//! In: a connection out of HTTP and an attached process. Out: nothing; returns when the process has ended, the client is
//! gone, or the detach keys were typed. One piece each way is held at a time, so back-pressure goes through: a client
//! that does not read slows the process down, and a process that does not read slows the client down.

use std::io;

use engine::{AttachInput, AttachOutput, Attached};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::detach::DetachKeys;
use crate::takeover::Raw;

/// Bytes read at once from a client. chosen: what a pipe takes in one write of good size.
const PIECE: usize = 32 * 1024;

/// How the two sides talk.
pub(crate) struct Conversation {
    pub(crate) attached: Attached,
    /// Only a terminal has detach keys.
    pub(crate) keys: Option<DetachKeys>,
    /// Sent before anything the process says (`logs=1`).
    pub(crate) before: Vec<u8>,
    /// Whether output goes on after `before`.
    pub(crate) is_live: bool,
}

/// Runs it to its end.
pub(crate) async fn converse(raw: Raw, conversation: Conversation) {
    let Conversation { attached, keys, before, is_live } = conversation;
    let client_gone = raw.client_gone();
    let (reader, mut writer) = tokio::io::split(raw);
    if writer.write_all(&before).await.is_err() || !is_live {
        return;
    }
    let framed = !attached.tty;
    let speaking = speak(attached.output, writer, framed);
    let listening = listen(reader, attached.input, keys);
    tokio::pin!(speaking, listening);
    let ended = tokio::select! {
        ended = &mut speaking => ended,
        heard = &mut listening => match heard {
            Ok(Heard::Detached) => Ok(()),
            // The client has said all it will, or the process closed its input: what the process says still goes out,
            // as long as somebody is there. A process that says nothing would never find out.
            Ok(Heard::All) | Err(_) => tokio::select! {
                ended = &mut speaking => ended,
                () = client_gone => Ok(()),
            },
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "client left an attached stream");
    }
}

/// Output until its end.
async fn speak(mut output: AttachOutput, mut to: impl AsyncWrite + Unpin, framed: bool) -> io::Result<()> {
    while let Some((stream, bytes)) = output.next().await {
        if framed {
            to.write_all(&logs::frame(stream, &bytes)).await?;
        } else {
            to.write_all(&bytes).await?;
        }
        to.flush().await?;
    }
    to.shutdown().await
}

/// Why a client's side ended.
enum Heard {
    /// Half-close.
    All,
    /// Detach keys.
    Detached,
}

/// Input until the client says no more. Without a taker it is read and dropped, so that a client's end is noticed.
async fn listen(
    mut from: impl AsyncRead + Unpin,
    mut input: Option<AttachInput>,
    mut keys: Option<DetachKeys>,
) -> io::Result<Heard> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).await?;
        let typed = &buffer[..count];
        if count == 0 {
            if let Some(input) = &mut input {
                if let Some(keys) = &keys {
                    input.write(keys.held()).await?;
                }
                input.close().await?;
            }
            return Ok(Heard::All);
        }
        let Some(input) = &mut input else { continue };
        match &mut keys {
            None => input.write(typed).await?,
            Some(keys) => {
                let (passed, is_over) = keys.filter(typed);
                if !passed.is_empty() {
                    input.write(&passed).await?;
                }
                if is_over {
                    return Ok(Heard::Detached);
                }
            }
        }
    }
}

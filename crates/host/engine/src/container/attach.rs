//! Attaches clients to a container's streams, also before it is started.
//!
//! In: which streams. Out: a reader of frames and a writer. A client that comes early waits at the container: the start
//! connects it before the program runs, so that nothing is missed.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use logs::OutputStream;
use shim::client::{self, AttachReader, AttachWriter, Handle};
use tokio::sync::oneshot;

use super::Container;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::watch::Status;

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// It will write standard input.
    pub stdin: bool,
    /// It wants standard output.
    pub stdout: bool,
    /// It wants standard error.
    pub stderr: bool,
}

/// An attached client.
pub struct Attached {
    /// Whether the container has a terminal: output is one raw stream then.
    pub tty: bool,
    /// The output.
    pub output: AttachOutput,
    /// The input; `None` when it wasn't wanted or the container has none open.
    pub input: Option<AttachInput>,
}

/// Reads an attached container's output.
pub struct AttachOutput {
    state: Output,
    /// Closed once the end is on record; the output of an exec is not over before, since clients ask for the exit code
    /// as soon as it is.
    recorded: Option<oneshot::Receiver<()>>,
}

enum Output {
    Waiting(oneshot::Receiver<AttachReader>),
    Live(AttachReader),
    Over,
}

impl AttachOutput {
    pub(crate) fn live(reader: AttachReader) -> Self {
        AttachOutput { state: Output::Live(reader), recorded: None }
    }

    /// The same output, which ends only when `recorded` is closed.
    pub(crate) fn until(self, recorded: oneshot::Receiver<()>) -> Self {
        AttachOutput { recorded: Some(recorded), ..self }
    }

    /// The next piece; `None` when the process has ended, or was never started. Cancel safe.
    pub async fn next(&mut self) -> Option<(OutputStream, Bytes)> {
        loop {
            match &mut self.state {
                Output::Waiting(coming) => {
                    self.state = match coming.await {
                        Ok(reader) => Output::Live(reader),
                        Err(_) => Output::Over,
                    };
                }
                Output::Live(reader) => match reader.next().await {
                    Ok(Some(piece)) => return Some((piece.stream, piece.bytes.into())),
                    Ok(None) => self.state = Output::Over,
                    Err(error) => {
                        tracing::debug!(%error, "attached stream broke off");
                        self.state = Output::Over;
                    }
                },
                Output::Over => {
                    if let Some(recorded) = &mut self.recorded {
                        // Nothing is ever sent: it closes.
                        let _ = recorded.await;
                        self.recorded = None;
                    }
                    return None;
                }
            }
        }
    }
}

/// Writes an attached container's input.
pub struct AttachInput {
    state: Input,
}

enum Input {
    Waiting(oneshot::Receiver<AttachWriter>),
    Live(AttachWriter),
    Over,
}

impl AttachInput {
    pub(crate) fn live(writer: AttachWriter) -> Self {
        AttachInput { state: Input::Live(writer) }
    }

    async fn writer(&mut self) -> io::Result<&mut AttachWriter> {
        if let Input::Waiting(coming) = &mut self.state {
            self.state = match coming.await {
                Ok(writer) => Input::Live(writer),
                Err(_) => Input::Over,
            };
        }
        match &mut self.state {
            Input::Live(writer) => Ok(writer),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Hands over all bytes; waits while the container doesn't run yet or doesn't read.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer().await?.write(bytes).await
    }

    /// Says that no more follows (half-close); output goes on.
    pub async fn close(&mut self) -> io::Result<()> {
        self.writer().await?.close().await
    }
}

/// A client that came before the container was started.
pub(crate) struct Pending {
    options: client::AttachOptions,
    reader: oneshot::Sender<AttachReader>,
    writer: Option<oneshot::Sender<AttachWriter>>,
}

impl Engine {
    /// Attaches to a container; one that doesn't run is waited for.
    pub async fn attach(&self, container: &str, options: AttachOptions) -> Result<Attached, EngineError> {
        let container = self.inner.registry.find(container)?;
        let (tty, open_stdin) = {
            let live = container.live();
            (live.record.config.tty, live.record.config.open_stdin)
        };
        match container.status() {
            Status::Paused => {
                return Err(EngineError::wrong_state(format!(
                    "container {} is paused, unpause the container before attach",
                    container.id
                )));
            }
            Status::Restarting => {
                return Err(EngineError::wrong_state(format!(
                    "container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => {}
        }
        let has_stdin = options.stdin && open_stdin;
        let wanted =
            client::AttachOptions { stdin: has_stdin, stdout: options.stdout, stderr: options.stderr };
        let attached = match wait_or_running(&container, wanted) {
            Waiting::Ready(shim) => {
                let both = shim.attach(wanted).await.map_err(|error| EngineError::Shim(Box::new(error)))?;
                (AttachOutput::live(both.reader), Some(AttachInput::live(both.writer)))
            }
            Waiting::Later(output, input) => (output, input),
        };
        self.inner.events.container(&container, "attach", &[]);
        let input = attached.1.filter(|_| has_stdin);
        Ok(Attached { tty, output: attached.0, input })
    }

    /// Sets the size of a running container's terminal.
    pub async fn resize(&self, container: &str, rows: u16, cols: u16) -> Result<(), EngineError> {
        let container = self.inner.registry.find(container)?;
        let running = container.running()?;
        match running.shim.resize(rows, cols).await {
            Ok(()) => {}
            // Docker ignores a resize of a container without a terminal.
            Err(client::RequestError::Refused { .. } | client::RequestError::Ended) => return Ok(()),
            Err(error) => return Err(EngineError::Shim(Box::new(error))),
        }
        let size = [("height", rows.to_string()), ("width", cols.to_string())];
        self.inner.events.container(&container, "resize", &size);
        Ok(())
    }
}

enum Waiting {
    Ready(Handle),
    Later(AttachOutput, Option<AttachInput>),
}

fn wait_or_running(container: &Arc<Container>, options: client::AttachOptions) -> Waiting {
    let mut live = container.live();
    if let Some(running) = &live.running {
        return Waiting::Ready(running.shim.clone());
    }
    let (reader, coming_reader) = oneshot::channel();
    let (writer, coming_writer) = oneshot::channel();
    // Those who gave up meanwhile must not pile up.
    live.pending.retain(|pending| !pending.reader.is_closed());
    live.pending.push(Pending { options, reader, writer: options.stdin.then_some(writer) });
    Waiting::Later(
        AttachOutput { recorded: None, state: Output::Waiting(coming_reader) },
        Some(AttachInput { state: Input::Waiting(coming_writer) }),
    )
}

/// Connects everybody who waits; called before the program runs.
pub(crate) async fn connect_pending(container: &Container, shim: &Handle) {
    let pending = std::mem::take(&mut container.live().pending);
    for client in pending {
        if client.reader.is_closed() {
            continue;
        }
        match shim.attach(client.options).await {
            Ok(attached) => {
                // Whoever gave up meanwhile closes its streams by that.
                let _ = client.reader.send(attached.reader);
                if let Some(writer) = client.writer {
                    let _ = writer.send(attached.writer);
                }
            }
            Err(error) => {
                tracing::warn!(container.id = %container.id, error = &error as &dyn std::error::Error, "client not attached");
            }
        }
    }
}

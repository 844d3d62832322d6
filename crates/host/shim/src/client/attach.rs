//! The streams of an attached client.
//!
//! In: a connection that has asked for them. Out: pieces of output until the process has ended; input on its way to it.
//! Never buffers more than one piece each way: back-pressure reaches the container.

use std::io;
use std::sync::Arc;

use logs::OutputStream;
use tokio::net::UnixStream;

use super::wire::{FrameReader, FrameWriter};
use crate::protocol::{Kind, MAX_REQUEST_BYTES, WANTS_STDERR, WANTS_STDIN, WANTS_STDOUT, frame};

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttachOptions {
    /// It will write standard input.
    pub stdin: bool,
    /// It wants standard output (or the terminal).
    pub stdout: bool,
    /// It wants standard error.
    pub stderr: bool,
}

impl AttachOptions {
    pub(super) fn flags(self) -> u8 {
        let flag = |is_wanted: bool, flag: u8| if is_wanted { flag } else { 0 };
        flag(self.stdin, WANTS_STDIN) | flag(self.stdout, WANTS_STDOUT) | flag(self.stderr, WANTS_STDERR)
    }
}

/// Both directions of an attached client; they may be used by different tasks.
///
/// An attached client that doesn't read holds the container up once buffers are full; dropping both halves lets it go on.
#[derive(Debug)]
pub struct Attached {
    /// The container's output.
    pub reader: AttachReader,
    /// The container's input.
    pub writer: AttachWriter,
}

impl Attached {
    pub(super) fn new(stream: Arc<UnixStream>, frames: FrameReader) -> Self {
        Self { reader: AttachReader { frames }, writer: AttachWriter { frames: FrameWriter::new(stream) } }
    }
}

/// A piece of output: at most 64 KiB, cut wherever a read ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Which stream it came from.
    pub stream: OutputStream,
    /// The bytes; never empty.
    pub bytes: Vec<u8>,
}

/// Reads an attached container's output.
#[derive(Debug)]
pub struct AttachReader {
    frames: FrameReader,
}

impl AttachReader {
    /// The next piece; `None` when the process has ended and everything it wrote was returned, or when it could not be
    /// started.
    ///
    /// Cancel safe. An error (`UnexpectedEof`) means that the shim died.
    pub async fn next(&mut self) -> io::Result<Option<Output>> {
        loop {
            let Some(frame) = self.frames.next().await? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            match frame.kind {
                Some(Kind::Output) => {
                    if let Some(stream) = OutputStream::from_number(frame.flags) {
                        return Ok(Some(Output { stream, bytes: frame.payload }));
                    }
                }
                Some(Kind::Exited | Kind::Failed) => return Ok(None),
                _ => {}
            }
        }
    }
}

/// Writes an attached container's input.
#[derive(Debug)]
pub struct AttachWriter {
    frames: FrameWriter,
}

impl AttachWriter {
    /// Hands over all bytes; waits while the container doesn't read. When cancelled, the rest of a piece that was begun
    /// is sent by the next call. Input to a process that has closed its standard input is lost without an error.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(MAX_REQUEST_BYTES) {
            self.frames.send(&frame(Kind::Input, 0, piece)).await?;
        }
        Ok(())
    }

    /// Says that no more input follows. Closes the container's standard input if the spec says `stdin_once` and there is no
    /// terminal; output goes on. Dropping the writer without this has the same effect once the reader is dropped too.
    pub async fn close(&mut self) -> io::Result<()> {
        self.frames.send(&frame(Kind::InputEnd, 0, &[])).await
    }
}

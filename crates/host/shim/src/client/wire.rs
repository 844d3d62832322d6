//! Frames over an asynchronous socket.
//!
//! In: bytes. Out: frames, and the other way round. All waits are cancel safe: what was read or is half written stays here.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::protocol::{HEADER_BYTES, Header, Kind, MAX_NEWS_BYTES};
use crate::spec::SOCKET_FILE;

/// Bytes read at once in the beginning. Chosen: the daemon keeps a connection to every container, and most only say hello.
const FIRST_READ_BYTES: usize = 1024;

/// Bytes read at once when much comes. Chosen: a few pieces of output.
const MOST_READ_BYTES: usize = 64 * 1024;

/// A frame from the shim.
#[derive(Debug)]
pub(super) struct Frame {
    /// `None` for one that isn't known here.
    pub(super) kind: Option<Kind>,
    pub(super) flags: u8,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn json<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.payload)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Connects to the shim in `dir`.
pub(super) async fn connect(dir: &Path) -> io::Result<Arc<UnixStream>> {
    // By way of the directory's descriptor: the whole path may be longer than a socket's address can be.
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let flags = i32::try_from(flags.bits()).expect("these flags fit the type the kernel takes them in");
    let dir = File::options().read(true).custom_flags(flags).open(dir)?;
    let stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET_FILE}", dir.as_raw_fd())).await?;
    Ok(Arc::new(stream))
}

/// The receiving side.
#[derive(Debug)]
pub(super) struct FrameReader {
    stream: Arc<UnixStream>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were handed out.
    taken: usize,
    /// Doubles whenever a read fills it.
    read_bytes: usize,
}

impl FrameReader {
    pub(super) fn new(stream: Arc<UnixStream>) -> Self {
        Self { stream, buffer: Vec::new(), taken: 0, read_bytes: FIRST_READ_BYTES }
    }

    /// The next frame; `None` when the shim has closed the connection after a whole one.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            self.buffer.drain(..std::mem::take(&mut self.taken));
            self.stream.readable().await?;
            self.buffer.reserve(self.read_bytes);
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) if count >= self.read_bytes => {
                    self.read_bytes = (2 * self.read_bytes).min(MOST_READ_BYTES);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The shim ended while something of ours was unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn take_frame(&mut self) -> io::Result<Option<Frame>> {
        let rest = &self.buffer[self.taken..];
        let Some(header) = rest.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::decode(*header);
        if header.len > MAX_NEWS_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame is too long"));
        }
        let Some(payload) = rest.get(HEADER_BYTES..HEADER_BYTES + header.len) else { return Ok(None) };
        let payload = payload.to_vec();
        self.taken += HEADER_BYTES + header.len;
        Ok(Some(Frame { kind: Kind::from_number(header.kind), flags: header.flags, payload }))
    }
}

/// The sending side.
#[derive(Debug)]
pub(super) struct FrameWriter {
    stream: Arc<UnixStream>,
    /// What a cancelled call left over.
    pending: Vec<u8>,
}

impl FrameWriter {
    pub(super) fn new(stream: Arc<UnixStream>) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Sends a frame, after what a cancelled call may have left over.
    pub(super) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        // Nothing of this frame is taken before the rest of the last one is out: a cancelled call leaves at most one.
        self.flush().await?;
        self.pending.extend_from_slice(frame);
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

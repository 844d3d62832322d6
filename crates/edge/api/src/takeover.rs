//! Takes a connection out of HTTP: attach and exec speak raw bytes after the request.
//!
//! In: a request that was read to its end. Out: `101 UPGRADED` (the client asked for an upgrade) or a bare `200 OK`, and
//! then raw bytes both ways. The handler decides that it happens; the connection's task does it, so that one owner holds
//! the socket all the time and bytes the client sent early are not lost. Source: moby, `httputils.HijackConnection` and
//! `container_routes.go` `postContainersAttach`.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Notify;

/// Either end of a connection: unix, TCP, or in tests a pipe.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A connection with what was read ahead of it.
pub(crate) struct Raw {
    early: Bytes,
    socket: Box<dyn Socket>,
}

/// Speaks raw bytes to the end of a conversation.
pub(crate) type Speak = Box<dyn FnOnce(Raw) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What to send, and who speaks afterwards.
pub(crate) struct Takeover {
    /// Whether the client asked for `Upgrade: tcp`.
    pub(crate) upgrade: bool,
    /// The content type of the raw stream.
    pub(crate) kind: &'static str,
    /// Runs until the conversation is over; then the connection closes.
    pub(crate) speak: Speak,
}

/// Where a handler leaves the takeover for the connection's task.
#[derive(Clone, Default)]
pub(crate) struct Slot(Arc<Inner>);

#[derive(Default)]
struct Inner {
    takeover: Mutex<Option<Takeover>>,
    filled: Notify,
}

impl Slot {
    /// Leaves a takeover; the handler's future must then wait for ever, since no HTTP response follows.
    pub(crate) fn fill(&self, takeover: Takeover) {
        *self.0.takeover.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
        self.0.filled.notify_one();
    }

    /// Waits for a takeover. Cancel safe.
    pub(crate) async fn filled(&self) -> Takeover {
        loop {
            if let Some(takeover) = self.0.takeover.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return takeover;
            }
            self.0.filled.notified().await;
        }
    }
}

impl Takeover {
    /// Answers the request and speaks until the end.
    pub(crate) async fn run(self, socket: impl Socket + 'static, early: Bytes) -> io::Result<()> {
        let mut socket = socket;
        let head = match self.upgrade {
            true => format!(
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: {}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
                self.kind
            ),
            false => format!("HTTP/1.1 200 OK\r\nContent-Type: {}\r\n\r\n", self.kind),
        };
        socket.write_all(head.as_bytes()).await?;
        socket.flush().await?;
        (self.speak)(Raw { early, socket: Box::new(socket) }).await;
        Ok(())
    }
}

impl AsyncRead for Raw {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let count = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..count]);
        self.early.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Raw {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bytes)
    }
    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

//! Takes a connection out of HTTP: attach and exec speak raw bytes after the request.
//!
//! In: a request that was read to its end. Out: `101 UPGRADED` (the client asked for an upgrade) or a bare `200 OK`, and
//! then raw bytes both ways. The handler decides that it happens; the connection's task does it, so that one owner holds
//! the socket all the time and bytes the client sent early are not lost. Source: moby, `httputils.HijackConnection` and
//! `container_routes.go` `postContainersAttach`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

/// Either end of a connection: unix, TCP, or in tests a pipe.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    /// The kernel's socket under it; a test's pipe has none.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

impl Socket for UnixStream {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

impl Socket for TcpStream {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

impl Socket for TlsStream<TcpStream> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.get_ref().0.descriptor()
    }
}

#[cfg(test)]
impl Socket for tokio::io::DuplexStream {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

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
    pub(crate) async fn run(self, socket: Box<dyn Socket>, early: Bytes) -> io::Result<()> {
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
        (self.speak)(Raw { early, socket }).await;
        Ok(())
    }
}

impl Raw {
    /// Waits until the client is gone: it has closed the connection in both directions, or its machine does not answer.
    ///
    /// For ever where that cannot be seen. A client that only says no more is not gone.
    pub(crate) fn client_gone(&self) -> impl Future<Output = ()> + Send + use<> {
        // A second descriptor has its own readiness: clearing it takes nothing from who writes.
        let second = self.socket.descriptor().map(|socket| socket.try_clone_to_owned());
        async move {
            match second {
                None => std::future::pending().await,
                Some(second) => {
                    if let Err(error) = hung_up(second).await {
                        tracing::debug!(%error, "the end of a client is not watched for");
                        std::future::pending().await
                    }
                }
            }
        }
    }
}

/// Waits until neither side of a connection can write any more (`EPOLLHUP`).
async fn hung_up(socket: io::Result<OwnedFd>) -> io::Result<()> {
    let socket = register(socket?)?;
    loop {
        let mut guard = socket.ready(Interest::WRITABLE).await?;
        if guard.ready().is_write_closed() {
            return Ok(());
        }
        guard.clear_ready();
    }
}

#[expect(deprecated, reason = "its successor is unsafe; an `OwnedFd` keeps what that asks for")]
fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, Interest::WRITABLE)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Waits until a connection whose client has already said all is known to be over.
    async fn check(server: Box<dyn Socket>, client: impl AsyncWrite + Unpin) {
        let mut client = client;
        client.shutdown().await.unwrap();
        let mut raw = Raw { early: Bytes::new(), socket: server };
        let gone = raw.client_gone();
        tokio::pin!(gone);
        tokio::select! {
            biased;
            () = &mut gone => panic!("a client that says no more can still listen"),
            () = tokio::task::yield_now() => {}
        }
        raw.write_all(b"heard").await.unwrap();
        // Closed with something unread, a TCP connection is reset at once.
        drop(client);
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the client is gone");
    }

    #[tokio::test]
    async fn a_client_that_closed_its_connection_is_noticed_without_a_word_to_it() {
        let (server, client) = UnixStream::pair().unwrap();
        check(Box::new(server), client).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        check(Box::new(listener.accept().await.unwrap().0), client).await;
    }
}

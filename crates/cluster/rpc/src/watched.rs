//! TLS streams that remember what HTTP does not tell: at the calling end how it ended, at the answering end when something
//! last came.
//!
//! In: what the socket and TLS answer. Out: the same, and afterwards whether the other side closed, went silent, or does
//! not trust this node. Never changes what goes through.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{rustls, server};

/// How a connection ended.
pub(crate) enum End<'a> {
    /// The other side closed it, or the network said that nobody is there any more.
    Closed,
    /// Nothing came for so long that it was given up.
    Silent,
    /// TLS refused to go on.
    Tls(&'a rustls::Error),
}

/// What is known of a connection's end.
pub(crate) struct Fate {
    began: Instant,
    /// When something was last read, in milliseconds since `began`.
    read_ms: AtomicU64,
    /// Silence that is given up.
    limit: Duration,
    /// The socket said that it is over.
    is_closed: AtomicBool,
    /// TLS said why. It may come after a failed write: what the other side said last is still to be read then.
    reason: OnceLock<rustls::Error>,
}

impl Fate {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            began: Instant::now(),
            read_ms: AtomicU64::new(0),
            limit,
            is_closed: AtomicBool::new(false),
            reason: OnceLock::new(),
        }
    }

    /// How it ended. To be asked once it has.
    pub(crate) fn end(&self) -> End<'_> {
        if let Some(reason) = self.reason.get() {
            return End::Tls(reason);
        }
        let read = self.began + Duration::from_millis(self.read_ms.load(Ordering::Relaxed));
        // When nobody else ended it, this side did.
        let is_silent = !self.is_closed.load(Ordering::Relaxed) && read.elapsed() >= self.limit;
        if is_silent { End::Silent } else { End::Closed }
    }

    fn was_read(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.read_ms.store(since, Ordering::Relaxed);
    }

    fn ended(&self, reason: Option<&rustls::Error>) {
        self.is_closed.store(true, Ordering::Relaxed);
        if let Some(reason) = reason {
            // The first one counts.
            let _ = self.reason.set(reason.clone());
        }
    }
}

/// A stream that remembers how it ended.
pub(crate) struct Watched {
    stream: TlsStream<TcpStream>,
    fate: Arc<Fate>,
}

impl Watched {
    pub(crate) fn new(stream: TlsStream<TcpStream>, fate: Arc<Fate>) -> Self {
        Self { stream, fate }
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            self.fate.ended(inner);
        })
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if result.is_ok() {
            if buffer.filled().len() > before {
                self.fate.was_read();
            } else {
                self.fate.ended(None);
            }
        }
        Poll::Ready(self.note(result))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        Poll::Ready(self.note(result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices));
        Poll::Ready(self.note(result))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_flush(context));
        Poll::Ready(self.note(result))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_shutdown(context));
        Poll::Ready(self.note(result))
    }
}

/// When something last came on a connection.
pub(crate) struct Ear {
    began: tokio::time::Instant,
    /// In milliseconds since `began`.
    heard_ms: AtomicU64,
}

impl Ear {
    pub(crate) fn new() -> Self {
        Self { began: tokio::time::Instant::now(), heard_ms: AtomicU64::new(0) }
    }

    pub(crate) fn heard(&self) -> tokio::time::Instant {
        self.began + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    fn hear(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(since, Ordering::Relaxed);
    }
}

/// A stream that tells when something came.
pub(crate) struct Listened {
    stream: server::TlsStream<TcpStream>,
    ear: Arc<Ear>,
}

impl Listened {
    pub(crate) fn new(stream: server::TlsStream<TcpStream>, ear: Arc<Ear>) -> Self {
        Self { stream, ear }
    }
}

impl AsyncRead for Listened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if buffer.filled().len() > before {
            self.ear.hear();
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Listened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

//! Reads the rest of a body that its handler did not want, so that a client that still sends gets to read the answer.
//!
//! In: the body of a request, as its handler drops it. Out: nothing; what comes is thrown away. A server that closes
//! instead breaks the client's write, and Go's client then never looks at what was answered. Source: moby's archives are
//! read to their end as well, `pkg/archive` `flush`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long a client may send nothing before the rest is not waited for. chosen: one that was told of an error ends soon.
const SILENCE: Duration = Duration::from_secs(10);

/// Where the bodies of one connection's requests are left.
#[derive(Clone, Default)]
pub(crate) struct Leftover(Arc<Left>);

#[derive(Default)]
struct Left {
    body: Mutex<Option<Incoming>>,
    is_left: Notify,
}

impl Leftover {
    /// A body whose rest comes back here.
    pub(crate) fn watch(&self, body: Incoming) -> RequestBody {
        RequestBody { body: Some(body), leftover: self.clone() }
    }

    /// Reads what is left, for as long as it is polled. When the daemon stops, nobody waits for the rest.
    pub(crate) async fn drain(&self, stop: &CancellationToken) -> Infallible {
        loop {
            let left = self.0.body.lock().unwrap_or_else(PoisonError::into_inner).take();
            match left {
                None => self.0.is_left.notified().await,
                Some(mut body) => {
                    let mut next = async || tokio::time::timeout(SILENCE, body.frame()).await;
                    while let Some(Ok(Some(Ok(_)))) = stop.run_until_cancelled(next()).await {}
                }
            }
        }
    }
}

/// The body of a request.
pub(crate) struct RequestBody {
    /// `None` only while it is dropped.
    body: Option<Incoming>,
    leftover: Leftover,
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        if unread.is_some() {
            *self.leftover.0.body.lock().unwrap_or_else(PoisonError::into_inner) = unread;
            self.leftover.0.is_left.notify_one();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

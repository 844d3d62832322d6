//! Reads the body of a request within its limits of size and time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::Body;
use wire::{Code, Refusal};

use crate::frame::{self, Kind};
use crate::limits;

/// A body that arrives.
pub(crate) struct Incoming {
    /// What was read past the header of an upload.
    ahead: Bytes,
    /// `None` when all of it is there.
    body: Option<hyper::body::Incoming>,
}

impl Incoming {
    pub(crate) fn new(body: hyper::body::Incoming) -> Self {
        Self { ahead: Bytes::new(), body: Some(body) }
    }

    /// A body that is there as a whole.
    pub(crate) fn whole(body: Bytes) -> Self {
        Self { ahead: body, body: None }
    }

    /// The next piece; `None` at the end of a complete body.
    pub(crate) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.ahead))));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        loop {
            match ready!(Pin::new(&mut *body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    // Trailers say nothing in our protocol.
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Refusal> {
        match std::future::poll_fn(|context| self.poll_piece(context)).await {
            None => Ok(None),
            Some(Ok(piece)) => Ok(Some(piece)),
            Some(Err(error)) => Err(Refusal::new(Code::Aborted, format!("the request broke off: {error}"))),
        }
    }
}

/// The whole body, at most [`limits::MESSAGE`].
pub(crate) async fn whole(mut incoming: Incoming) -> Result<Bytes, Refusal> {
    let read = async {
        let Some(first) = incoming.piece().await? else { return Ok(Bytes::new()) };
        let Some(second) = incoming.piece().await? else { return short(first) };
        let mut all = BytesMut::from(&first[..]);
        let mut next = Some(second);
        while let Some(piece) = next {
            all.extend_from_slice(&piece);
            if all.len() > limits::MESSAGE {
                break;
            }
            next = incoming.piece().await?;
        }
        short(all.freeze())
    };
    in_time(read).await
}

/// The header of an upload; the body stays in `incoming`.
pub(crate) async fn header(incoming: &mut Incoming) -> Result<Bytes, Refusal> {
    let read = async {
        let mut arrived = BytesMut::new();
        loop {
            match frame::decode(&mut arrived, limits::MESSAGE) {
                Ok(Some((Kind::Item, header))) => {
                    incoming.ahead = arrived.freeze();
                    return Ok(header);
                }
                Ok(None) => {}
                Ok(Some(_)) => return Err(without_header()),
                Err(error) => return Err(Refusal::new(Code::InvalidArgument, error.to_string())),
            }
            let piece = incoming.piece().await?.ok_or_else(without_header)?;
            arrived.extend_from_slice(&piece);
        }
    };
    in_time(read).await
}

async fn in_time(read: impl Future<Output = Result<Bytes, Refusal>>) -> Result<Bytes, Refusal> {
    let late = |_| Err(Refusal::new(Code::DeadlineExceeded, "the request took too long to arrive"));
    tokio::time::timeout(limits::BODY, read).await.unwrap_or_else(late)
}

fn short(body: Bytes) -> Result<Bytes, Refusal> {
    // Source of the text: gRPC, `rpc_util.go`.
    let text = || format!("received message larger than max ({} vs. {})", body.len(), limits::MESSAGE);
    if body.len() > limits::MESSAGE { Err(Refusal::new(Code::ResourceExhausted, text())) } else { Ok(body) }
}

fn without_header() -> Refusal {
    Refusal::new(Code::InvalidArgument, "the upload has no header")
}

//! The receiving end of a stream.
//!
//! In: the body of a response. Out: items, in order, and how it ended. Never opens a stream again: that is the caller's.

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures_util::{Stream, StreamExt};
use hyper::body::{Body as _, Incoming};
use serde::de::DeserializeOwned;
use wire::Refusal;

use crate::client::read;
use crate::connection::{Connection, unreachable};
use crate::error::CallError;
use crate::frame::{self, Kind};
use crate::limits;
use crate::peer::Peer;

/// Items of a stream that another node sends.
///
/// Ends with `None` when the other side ended it, with an error and then `None` when the connection broke (at once when
/// it was closed, within the client's ping limits when the other machine is gone). Dropping it tells the other side.
pub struct Subscription<T> {
    /// It lives as long as its streams.
    connection: Arc<Connection>,
    /// `None` after the end.
    body: Option<Incoming>,
    arrived: BytesMut,
    item: PhantomData<fn() -> T>,
}

impl<T> Subscription<T> {
    pub(crate) fn new(connection: Arc<Connection>, body: Incoming) -> Self {
        Self { connection, body: Some(body), arrived: BytesMut::new(), item: PhantomData }
    }

    /// Who sends.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.connection.peer.as_ref()
    }

    /// The next item. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<T, CallError>>
    where
        T: DeserializeOwned,
    {
        StreamExt::next(self).await
    }
}

impl<T: DeserializeOwned> Subscription<T> {
    /// What has arrived as a whole.
    fn take(&mut self) -> Result<Option<T>, CallError> {
        let address = &self.connection.address;
        let message = frame::decode(&mut self.arrived, limits::ITEM)
            .map_err(|error| unreachable(address, io::Error::new(io::ErrorKind::InvalidData, error)))?;
        match message {
            None | Some((Kind::Padding, _)) => Ok(None),
            Some((Kind::Item, body)) => read(address, &body).map(Some),
            Some((Kind::Refusal, body)) => Err(CallError::Refused(read::<Refusal>(address, &body)?)),
        }
    }

    fn fail(&mut self, error: CallError) -> Poll<Option<Result<T, CallError>>> {
        self.body = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl<T: DeserializeOwned> Stream for Subscription<T> {
    type Item = Result<T, CallError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match this.take() {
                Ok(Some(item)) => return Poll::Ready(Some(Ok(item))),
                Ok(None) => {}
                Err(error) => return this.fail(error),
            }
            let Some(body) = this.body.as_mut() else { return Poll::Ready(None) };
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    // Trailers say nothing in our protocol.
                    if let Ok(data) = frame.into_data() {
                        this.arrived.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    let error = this.connection.broken(error);
                    return this.fail(error);
                }
                None if this.arrived.is_empty() => {
                    this.body = None;
                    return Poll::Ready(None);
                }
                None => {
                    let error = unreachable(&this.connection.address, io::ErrorKind::UnexpectedEof.into());
                    this.arrived.clear();
                    return this.fail(error);
                }
            }
        }
    }
}

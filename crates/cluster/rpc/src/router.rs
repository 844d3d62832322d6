//! Which function answers which method, and who may call it.
//!
//! In: a name, the caller, the body. Out: what the function answered, or why it was not called.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::{Callers, Code, Method, RawMethod, Refusal, Streaming};

use crate::body::Outgoing;
use crate::items::Items;
use crate::peer::Caller;
use crate::receive::{self, Incoming};

/// The methods of a server.
///
/// A handler's future is dropped at any `.await` when the caller goes away; a stream is dropped then, too.
#[derive(Default)]
pub struct Router {
    entries: BTreeMap<&'static str, Entry>,
}

/// One method.
pub(crate) struct Entry {
    pub(crate) callers: Callers,
    handler: Handler,
}

type Handler = Arc<dyn Fn(Caller, Incoming) -> BoxFuture<'static, Result<Outgoing, Refusal>> + Send + Sync>;

/// The body of an upload, in pieces as they come. Ends without an error only when the sender completed it.
pub struct Upload {
    incoming: Incoming,
}

/// An upload that was not completed.
#[derive(Debug, thiserror::Error)]
#[error("the upload broke off")]
pub struct UploadBroken(#[source] hyper::Error);

impl Stream for Upload {
    type Item = Result<Bytes, UploadBroken>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(self.incoming.poll_piece(context));
        Poll::Ready(piece.map(|piece| piece.map_err(UploadBroken)))
    }
}

impl Router {
    /// Without any method.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a call.
    ///
    /// # Panics
    /// When there is a method of that name: a mistake in the program.
    #[must_use]
    pub fn method<M, F, Fut>(self, handler: F) -> Self
    where
        M: Method,
        F: Fn(Caller, M::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<M::Response, Refusal>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.add(RawMethod { name: M::NAME, callers: M::CALLERS }, move |caller, incoming| {
            let handler = Arc::clone(&handler);
            async move {
                let request = parse(&receive::whole(incoming).await?)?;
                let response = handler(caller, request).await?;
                Ok(Outgoing::whole(short(written(&response)?)?))
            }
        })
    }

    /// Adds a call that is answered by a stream. It ends with the stream's end, or with its first refusal.
    ///
    /// # Panics
    /// When there is a method of that name: a mistake in the program.
    #[must_use]
    pub fn streaming<M, F, Fut, S>(self, handler: F) -> Self
    where
        M: Streaming,
        F: Fn(Caller, M::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, Refusal>> + Send + 'static,
        S: Stream<Item = Result<M::Item, Refusal>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.add(RawMethod { name: M::NAME, callers: M::CALLERS }, move |caller, incoming| {
            let handler = Arc::clone(&handler);
            async move {
                let request = parse(&receive::whole(incoming).await?)?;
                let items = handler(caller, request).await?;
                Ok(Outgoing::pieces(Box::pin(Items::new(items))))
            }
        })
    }

    /// Adds a call of bytes, at most 4 MiB in and out.
    ///
    /// # Panics
    /// When there is a method of that name: a mistake in the program.
    #[must_use]
    pub fn raw<F, Fut>(self, method: RawMethod, handler: F) -> Self
    where
        F: Fn(Caller, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Bytes, Refusal>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.add(method, move |caller, incoming| {
            let handler = Arc::clone(&handler);
            async move {
                let request = receive::whole(incoming).await?;
                Ok(Outgoing::whole(short(handler(caller, request).await?)?))
            }
        })
    }

    /// Adds a call whose body may have any size: a header of at most 4 MiB, then the body in pieces.
    ///
    /// # Panics
    /// When there is a method of that name: a mistake in the program.
    #[must_use]
    pub fn upload<F, Fut>(self, method: RawMethod, handler: F) -> Self
    where
        F: Fn(Caller, Bytes, Upload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Bytes, Refusal>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.add(method, move |caller, mut incoming| {
            let handler = Arc::clone(&handler);
            async move {
                let header = receive::header(&mut incoming).await?;
                Ok(Outgoing::whole(short(handler(caller, header, Upload { incoming }).await?)?))
            }
        })
    }

    fn add<F, Fut>(mut self, method: RawMethod, handler: F) -> Self
    where
        F: Fn(Caller, Incoming) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outgoing, Refusal>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |caller, incoming| handler(caller, incoming).boxed());
        let before = self.entries.insert(method.name, Entry { callers: method.callers, handler });
        assert!(before.is_none(), "two methods are named {}", method.name);
        self
    }

    /// The method of that name.
    pub(crate) fn find(&self, name: &str) -> Result<&Entry, Refusal> {
        // Source of the text: gRPC, `server.go`.
        self.entries
            .get(name)
            .ok_or_else(|| Refusal::new(Code::Unimplemented, format!("unknown method {name}")))
    }
}

impl Entry {
    /// Calls the handler. Whether the caller may was checked before.
    pub(crate) async fn answer(&self, caller: Caller, incoming: Incoming) -> Result<Outgoing, Refusal> {
        (self.handler)(caller, incoming).await
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(Code::InvalidArgument, format!("cannot read the request: {error}")))
}

fn written<T: Serialize>(value: &T) -> Result<Bytes, Refusal> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| Refusal::new(Code::Internal, format!("cannot write the answer: {error}")))
}

/// The other side would refuse to read more.
fn short(answer: Bytes) -> Result<Bytes, Refusal> {
    let length = answer.len();
    let is_short = length <= crate::limits::MESSAGE;
    is_short.then_some(answer).ok_or_else(|| {
        Refusal::new(Code::ResourceExhausted, format!("an answer of {length} bytes is too long"))
    })
}

//! Calls other nodes: one connection per address, opened when it is needed and watched while it is there.
//!
//! In: an address, a method, a request, a limit of time. Out: the answer, a stream, or why there is none. Never repeats
//! a request that the other side may have seen.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use objects::Nanos;
use serde::de::DeserializeOwned;
use wire::join::{Root, RootRequest, TrustRoot};
use wire::{Code, Method, RawMethod, Refusal, Streaming};

use crate::accept::REFUSED;
use crate::body::{Outgoing, Pieces};
use crate::clock;
use crate::connection::{Connection, unreachable};
use crate::error::CallError;
use crate::frame::{self, Kind};
use crate::limits;
use crate::pool::Pool;
use crate::subscription::Subscription;
use crate::tls::Tls;

/// Connections tried for one request: a second one when the first was closed before the request was sent.
const ATTEMPTS: usize = 2;

/// A method that no server has: asked for the time in its refusal.
const TIME: &str = "time";

/// How long a manager whose certificate is out of its time may take to tell the time. Chosen: a hint is worth a second.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// How long a connection may be silent before it is asked whether it is there.
    pub ping_after: Duration,
    /// How long it then has to answer before it is given up.
    pub ping_limit: Duration,
}

impl Default for ClientOptions {
    /// A machine that is gone is noticed within 2 s, one that is slow by less than 1.2 s is not taken for it.
    fn default() -> Self {
        Self { ping_after: Duration::from_millis(800), ping_limit: Duration::from_millis(1_200) }
    }
}

/// How far another machine's clock is from this one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// The other clock minus this one.
    pub by: Nanos,
    /// How wrong that may be: the time the call took.
    pub within: Nanos,
}

/// Calls managers of the swarm. Copies share their connections, which close when the last copy is gone and the last
/// stream has ended.
#[derive(Clone)]
pub struct Client {
    tls: Tls,
    pool: Arc<Pool>,
}

impl Client {
    /// With the usual options.
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        Self::with_options(tls, ClientOptions::default())
    }

    /// With others.
    #[must_use]
    pub fn with_options(tls: Tls, options: ClientOptions) -> Self {
        Self { tls, pool: Arc::new(Pool::new(options)) }
    }

    /// Makes a call; `limit` is for all of it, the connection included.
    pub async fn call<M: Method>(
        &self,
        address: &str,
        request: &M::Request,
        limit: Duration,
    ) -> Result<M::Response, CallError> {
        let body = Outgoing::whole(written(request)?);
        let answer = within(address, limit, self.whole(address, M::NAME, body)).await?;
        read(address, &answer)
    }

    /// Opens a stream; `limit` is until the other side has accepted it.
    pub async fn stream<M: Streaming>(
        &self,
        address: &str,
        request: &M::Request,
        limit: Duration,
    ) -> Result<Subscription<M::Item>, CallError> {
        let body = Outgoing::whole(written(request)?);
        let (connection, response) = within(address, limit, self.accepted(address, M::NAME, body)).await?;
        Ok(Subscription::new(connection, response.into_body()))
    }

    /// Makes a call of bytes; `limit` is for all of it.
    pub async fn raw(
        &self,
        address: &str,
        method: RawMethod,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        within(address, limit, self.whole(address, method.name, Outgoing::whole(body))).await
    }

    /// As [`Self::raw`], for calls that are small, frequent, and may be done twice: as a datagram beside the connection, and
    /// over the connection when there is no answer to that.
    pub async fn small(
        &self,
        address: &str,
        method: RawMethod,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let began = Instant::now();
        let ready = self.pool.ready(address, self.tls.current().generation);
        let ready = ready.filter(|connection| connection.check_time(clock::now(), None).is_ok());
        if let Some(line) = ready.as_ref().and_then(|connection| connection.line.as_ref())
            && let Some(answer) = line.call(method.name, &body, limit).await
        {
            return answer.map_err(CallError::Refused);
        }
        self.raw(address, method, body, limit.saturating_sub(began.elapsed())).await
    }

    /// As [`Self::call`], in the way of [`Self::small`].
    pub async fn small_call<M: Method>(
        &self,
        address: &str,
        request: &M::Request,
        limit: Duration,
    ) -> Result<M::Response, CallError> {
        let method = RawMethod { name: M::NAME, callers: M::CALLERS };
        let answer = self.small(address, method, written(request)?, limit).await?;
        read(address, &answer)
    }

    /// Sends a header (at most 4 MiB) and a body of any size; `limit` is for all of it. An error in `body` breaks the
    /// upload off.
    pub async fn upload(
        &self,
        address: &str,
        method: RawMethod,
        header: Bytes,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let header = frame::encode(Kind::Item, &header);
        let pieces: Pieces = Box::pin(stream::iter([Ok(header)]).chain(body));
        within(address, limit, self.whole(address, method.name, Outgoing::pieces(pieces))).await
    }

    /// Asks a machine for its swarm's trust root without knowing whom it talks to: the caller checks the answer against
    /// the digest in a join token before it believes any of it.
    pub async fn fetch_root(address: &str, limit: Duration) -> Result<TrustRoot, CallError> {
        Self::new(Tls::blind()).call::<Root>(address, &RootRequest {}, limit).await
    }

    /// How far the clock at `address` was away at the last call; `None` before the first answer.
    #[must_use]
    pub fn offset(&self, address: &str) -> Option<Offset> {
        self.pool.offset(address)
    }

    /// Whether there is a live connection to `address`.
    #[must_use]
    pub fn is_connected(&self, address: &str) -> bool {
        self.pool.live(address).is_some()
    }

    /// Waits until there is no live connection to `address`; returns at once when there is none.
    pub async fn disconnected(&self, address: &str) {
        while let Some(closed) = self.pool.live(address) {
            closed.cancelled().await;
        }
    }

    /// Makes the next call to `address` open a new connection; streams stay on the old one.
    pub fn forget(&self, address: &str) {
        self.pool.forget(address);
    }

    /// The whole answer to a request.
    async fn whole(&self, address: &str, name: &str, body: Outgoing) -> Result<Bytes, CallError> {
        let (connection, response) = self.accepted(address, name, body).await?;
        collect(&connection, response.into_body()).await
    }

    /// Sends a request to a manager that is trusted, and waits until it is accepted.
    async fn accepted(
        &self,
        address: &str,
        name: &str,
        body: Outgoing,
    ) -> Result<(Arc<Connection>, Response<Incoming>), CallError> {
        let mut request = request(address, name, body)?;
        let mut attempt = 1;
        loop {
            let connection = self.pool.connection(address, self.tls.current()).await?;
            if let Err(error) = self.check_time(&connection).await {
                // Its certificate may have run out since the connection was made; the manager has another one by now.
                if attempt < ATTEMPTS && connection.was_in_time {
                    attempt += 1;
                    continue;
                }
                return Err(error);
            }
            match self.send(&connection, request).await {
                Ok(response) => return Ok((Arc::clone(&connection), accepted(&connection, response).await?)),
                Err(Unsent { request: Some(unsent), .. }) if attempt < ATTEMPTS => {
                    self.pool.discard(&connection);
                    request = unsent;
                    attempt += 1;
                }
                Err(unsent) => {
                    if connection.is_closed() {
                        self.pool.discard(&connection);
                    }
                    return Err(connection.broken(unsent.error));
                }
            }
        }
    }

    /// Refuses a manager whose certificate is out of its time; its clock is asked first, so that the error can say which
    /// of the two is wrong.
    async fn check_time(&self, connection: &Arc<Connection>) -> Result<(), CallError> {
        let Err(plain) = connection.check_time(clock::now(), None) else { return Ok(()) };
        self.pool.discard(connection);
        let asked = request(&connection.address, TIME, Outgoing::whole(Bytes::new()))?;
        // Without an answer the error lacks the hint, nothing else.
        let Ok(Ok(response)) = tokio::time::timeout(TIME_LIMIT, self.send(connection, asked)).await else {
            return Err(plain);
        };
        drop(response);
        connection.check_time(clock::now(), self.pool.offset(&connection.address))
    }

    async fn send(
        &self,
        connection: &Connection,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, Unsent> {
        let sent = (Instant::now(), clock::now());
        let response = connection.sender.clone().try_send_request(request).await.map_err(|mut failed| {
            let request = failed.take_message();
            Unsent { error: failed.into_error(), request }
        })?;
        if let Some(theirs) = clock::read(response.headers()) {
            let took = Nanos::from(sent.0.elapsed());
            let by = Nanos(theirs.since(sent.1).0 - took.0 / 2);
            self.pool.learn(&connection.address, Offset { by, within: took });
        }
        Ok(response)
    }
}

/// A request that has no answer.
struct Unsent {
    error: hyper::Error,
    /// When nothing of it was sent.
    request: Option<Request<Outgoing>>,
}

async fn within<T>(
    address: &str,
    limit: Duration,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let late = |_| Err(CallError::TimedOut { address: address.to_owned(), limit });
    tokio::time::timeout(limit, call).await.unwrap_or_else(late)
}

fn request(address: &str, name: &str, body: Outgoing) -> Result<Request<Outgoing>, CallError> {
    let uri = format!("https://{address}/{name}");
    let mut request = Request::post(uri)
        .body(body)
        .map_err(|error| unreachable(address, io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    clock::stamp(request.headers_mut());
    Ok(request)
}

/// The response, unless it is a refusal.
async fn accepted(
    connection: &Arc<Connection>,
    response: Response<Incoming>,
) -> Result<Response<Incoming>, CallError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    if status != REFUSED {
        let text = format!("unexpected HTTP status {status}");
        return Err(Refusal::new(Code::Internal, text).into());
    }
    let body = collect(connection, response.into_body()).await?;
    Err(CallError::Refused(read(&connection.address, &body)?))
}

async fn collect(connection: &Connection, body: Incoming) -> Result<Bytes, CallError> {
    let collected = Limited::new(body, limits::MESSAGE).collect().await;
    let error = match collected {
        Ok(collected) => return Ok(collected.to_bytes()),
        Err(error) => error,
    };
    match error.downcast::<hyper::Error>() {
        Ok(error) => Err(connection.broken(*error)),
        Err(error) => {
            debug_assert!(error.is::<LengthLimitError>(), "the only other error of a limited body");
            Err(unreachable(&connection.address, io::Error::new(io::ErrorKind::FileTooLarge, error)))
        }
    }
}

fn written<T: serde::Serialize>(request: &T) -> Result<Bytes, CallError> {
    let text = serde_json::to_vec(request)
        .map_err(|error| Refusal::new(Code::InvalidArgument, format!("cannot write the request: {error}")))?;
    Ok(Bytes::from(text))
}

pub(crate) fn read<T: DeserializeOwned>(address: &str, body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body)
        .map_err(|source| CallError::Garbled { address: address.to_owned(), source: Arc::new(source) })
}

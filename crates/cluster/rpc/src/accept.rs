//! The life of a server's connections: accepted, authenticated, served, closed.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use objects::{Nanos, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::{Callers, Code, Refusal};

use crate::body::Outgoing;
use crate::datagram::{LineKey, SmallCall};
use crate::peer::{Caller, Peer};
use crate::receive::Incoming;
use crate::router::Entry;
use crate::server::Shared;
use crate::watched::{Ear, Listened};
use crate::{authorize, clock, limits, listener};

/// Pause after the machine ran out of descriptors or memory. Chosen: short enough for a join, long enough for others to
/// give some back.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// How long a refused client may take to read why. Chosen: a round trip of a second.
const LINGER: Duration = Duration::from_secs(1);

/// Marks a response that is a [`Refusal`].
pub(crate) const REFUSED: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// A connection and who is at its other end.
struct Connection {
    shared: Arc<Shared>,
    peer: Option<Peer>,
    remote: SocketAddr,
    /// Whether its clock was looked at: with its first request.
    is_timed: AtomicBool,
}

/// Accepts connections until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>, bound: TcpListener) {
    loop {
        match bound.accept().await {
            Ok((stream, remote)) => {
                let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
                let serving = serve(Arc::clone(&shared), stream, remote);
                let stopped = shared.stopped.clone();
                shared.tasks.spawn(async move { stopped.run_until_cancelled(serving).await });
            }
            Err(error) => {
                tracing::warn!(error = %error, "accept failed");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, remote: SocketAddr) {
    let Some(stranger) = shared.admit(remote.ip()).filter(|_| !shared.is_full()) else {
        tracing::debug!(remote = %remote, "too many connections");
        return;
    };
    let accepted = tokio::time::timeout(limits::HANDSHAKE, handshake(&shared, stream, remote)).await;
    match accepted {
        Err(_) => tracing::debug!(remote = %remote, "handshake took too long"),
        Ok(None) => {}
        Ok(Some((stream, peer))) => {
            // A node is no stranger from here on; one without a certificate keeps its place.
            let _place = peer.is_none().then_some(stranger);
            authenticated(shared, stream, peer, remote).await;
        }
    }
}

async fn handshake(
    shared: &Shared,
    stream: TcpStream,
    remote: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Option<Peer>)> {
    // It only fails when the other side is gone already.
    listener::settle(&stream).ok()?;
    // The identity is that of the moment: a renewed certificate counts from the next connection on.
    let config = shared.tls.current().server.clone()?;
    let acceptor = LazyConfigAcceptor::new(Default::default(), stream);
    let started = acceptor.await.inspect_err(|error| refused(remote, error)).ok()?;
    match started.into_stream(config).into_fallible().await {
        Ok(stream) => {
            let peer = peer(&stream);
            Some((stream, peer))
        }
        Err((error, stream)) => {
            refused(remote, &error);
            linger(stream).await;
            None
        }
    }
}

fn refused(remote: SocketAddr, error: &io::Error) {
    tracing::debug!(remote = %remote, error = %error, "handshake failed");
}

/// Gives a client the time to read why it was refused: closing at once would take the alert away from it.
async fn linger(mut stream: TcpStream) {
    let mut rest = [0; 1024];
    let reading = async {
        // Both only fail when there is nobody left to tell.
        if stream.shutdown().await.is_ok() {
            while matches!(stream.read(&mut rest).await, Ok(1..)) {}
        }
    };
    // Whoever reads slower has had its time.
    let _ = tokio::time::timeout(LINGER, reading).await;
}

/// The node at the other end. The verifier has read the same certificate.
fn peer(stream: &TlsStream<TcpStream>) -> Option<Peer> {
    let certificates = stream.get_ref().1.peer_certificates()?;
    Peer::of_der(certificates.first()?).ok()
}

async fn authenticated(
    shared: Arc<Shared>,
    stream: TlsStream<TcpStream>,
    peer: Option<Peer>,
    remote: SocketAddr,
) {
    let closed = CancellationToken::new();
    let ear = Arc::new(Ear::new());
    let registered = peer.as_ref().map(|peer| shared.register(peer, &closed, &ear));
    let key = LineKey::of(stream.get_ref().1);
    let _line = peer.as_ref().zip(key).map(|(peer, key)| shared.list(key, peer));
    let is_known = registered.is_some();
    let connection =
        Arc::new(Connection { shared: Arc::clone(&shared), peer, remote, is_timed: AtomicBool::new(false) });
    let executor = Tracked { tasks: shared.tasks.clone(), closed: closed.child_token() };
    // What the connection started ends with it.
    let _end = executor.closed.clone().drop_guard();
    let service = service_fn(move |request| {
        let connection = Arc::clone(&connection);
        async move { Ok::<_, std::convert::Infallible>(connection.respond(request).await) }
    });
    let serving = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(limits::HEADERS)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(Listened::new(stream, ear)), service);
    let mut serving = std::pin::pin!(serving);
    let life = async {
        if is_known { std::future::pending().await } else { tokio::time::sleep(limits::ANONYMOUS_LIFE).await }
    };
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = closed.cancelled() => Ok(()),
        () = life => Ok(()),
        () = shared.draining.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! { ended = serving => ended, () = closed.cancelled() => Ok(()) }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(remote = %remote, error = %error, "connection broke");
    }
}

/// Runs what a connection starts; it ends with the connection.
#[derive(Clone)]
struct Tracked {
    tasks: TaskTracker,
    closed: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let closed = self.closed.clone();
        self.tasks.spawn(async move { closed.run_until_cancelled(future).await.is_some() });
    }
}

/// The method of that name, if this peer may call it, and whether the peer's certificate has run out.
fn admit<'s>(
    shared: &'s Shared,
    peer: Option<&Peer>,
    name: &str,
    now: Timestamp,
) -> Result<(&'s Entry, bool), Refusal> {
    let entry = shared.router.find(name)?;
    if let Some(peer) = peer
        && let Some(unwelcome) = (shared.options.refuse)(peer, entry.callers)
    {
        tracing::debug!(node = %peer.node, method = name, ?unwelcome, "a call is turned away");
        return Err(authorize::turned_away(unwelcome));
    }
    let is_expired = authorize::check(entry.callers, peer, now)?;
    Ok((entry, is_expired))
}

/// Answers a call that came beside its connection.
pub(crate) async fn answer_small(
    shared: &Shared,
    peer: &Peer,
    call: &SmallCall,
    remote: SocketAddr,
) -> Result<Bytes, Refusal> {
    let (entry, is_expired) = admit(shared, Some(peer), &call.name, clock::now())?;
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let caller = Caller { peer: Some(peer.clone()), is_expired, remote, offset: None };
    let answer = entry.answer(caller, Incoming::whole(call.body.clone())).await?;
    let long = || Refusal::new(Code::Unimplemented, "the answer does not fit into a datagram");
    answer.into_whole().ok_or_else(long)
}

impl Connection {
    async fn respond(&self, request: Request<hyper::body::Incoming>) -> Response<Outgoing> {
        let answered = self.answer(request).await;
        let mut response = match answered {
            Ok(body) => Response::new(body),
            Err(refusal) => {
                let text = serde_json::to_vec(&refusal).expect("a refusal has nothing that JSON has not");
                let mut response = Response::new(Outgoing::whole(Bytes::from(text)));
                *response.status_mut() = REFUSED;
                response
            }
        };
        clock::stamp(response.headers_mut());
        response
    }

    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Result<Outgoing, Refusal> {
        let (head, body) = request.into_parts();
        let now = clock::now();
        let name = head.uri.path().trim_start_matches('/');
        let offset = clock::read(&head.headers).map(|theirs| theirs.since(now));
        self.compare_clocks(offset);
        let (entry, is_expired) = admit(&self.shared, self.peer.as_ref(), name, now)?;
        if head.method != Method::POST {
            return Err(Refusal::new(Code::Unimplemented, "only POST is understood"));
        }
        if entry.callers == Callers::Anyone && !self.shared.allows(self.remote.ip()) {
            let text = "too many requests from this address, try again later";
            return Err(Refusal::new(Code::ResourceExhausted, text));
        }
        let caller = Caller { peer: self.peer.clone(), is_expired, remote: self.remote, offset };
        entry.answer(caller, Incoming::new(body)).await
    }

    /// Names a node whose clock is far off, once for each connection: it may get no further than this.
    fn compare_clocks(&self, offset: Option<Nanos>) {
        let is_first = !self.is_timed.swap(true, Ordering::Relaxed);
        if let (true, Some(peer), Some(offset)) = (is_first, &self.peer, offset)
            && clock::is_far_off(offset)
        {
            let (node, address) = (&peer.node, self.remote.ip());
            tracing::warn!("the clock of node {node} ({address}) is {} this machine's", clock::side(offset));
        }
    }
}

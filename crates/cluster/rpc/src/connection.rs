//! One connection to a manager: made, verified, watched until it ends.
//!
//! In: an address, an identity. Out: something that takes requests, and a token that says when it is over. Never tries
//! twice.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use objects::{Nanos, Timestamp};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Outgoing;
use crate::client::{ClientOptions, Offset};
use crate::datagram::{Line, LineKey};
use crate::error::{CallError, Distrust, Untrusted};
use crate::peer::{Peer, Validity};
use crate::tls::Current;
use crate::watched::{End, Fate, Watched};
use crate::{clock, limits};

/// The name every manager's certificate has. Source: swarmkit, `ca/config.go` (`ManagerRole`).
const MANAGER: &str = "swarm-manager";

/// How long the kernel may try to reach an address. Chosen: its second try comes after a second; a third would come
/// after three, when a fresh attempt finds a healed link sooner.
const REACH: Duration = Duration::from_millis(1_800);

/// Unread bytes that a stream, and all streams together, may pile up. Chosen: an item in flight, without holding much
/// for a reader that is slow.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// A live or ended connection.
pub(crate) struct Connection {
    pub(crate) address: String,
    /// The manager at the other end; `None` only for the very first question.
    pub(crate) peer: Option<Peer>,
    /// Whether that manager's certificate was in its time when the connection was made.
    pub(crate) was_in_time: bool,
    pub(crate) sender: SendRequest<Outgoing>,
    /// Cancelled when it is over.
    pub(crate) closed: CancellationToken,
    /// For small calls.
    pub(crate) line: Option<Line>,
    fate: Arc<Fate>,
}

/// What a connection is made with.
pub(crate) struct Dial {
    pub(crate) address: String,
    pub(crate) current: Arc<Current>,
    pub(crate) options: ClientOptions,
    pub(crate) tasks: TaskTracker,
}

impl Dial {
    /// Makes the connection. Its certificate may be out of its time: see [`Connection::check_time`].
    pub(crate) async fn connect(self) -> Result<Connection, CallError> {
        let stream = reach(&self.address).await.map_err(|source| unreachable(&self.address, source))?;
        let connector = TlsConnector::from(Arc::clone(&self.current.client));
        let name = ServerName::try_from(MANAGER).expect("the name is a DNS name");
        let shaking = connector.connect(name, stream);
        let stream = match tokio::time::timeout(limits::HANDSHAKE, shaking).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed(&self.address, error)),
            Err(_) => return Err(unreachable(&self.address, io::ErrorKind::TimedOut.into())),
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let peer = certificates.and_then(|all| all.first()).and_then(|first| Peer::of_der(first).ok());
        let key = LineKey::of(stream.get_ref().1);
        let line = key.and_then(|key| Some(Line::new(key, stream.get_ref().0.peer_addr().ok()?)));
        let now = clock::now();
        let was_in_time = peer.as_ref().is_some_and(|peer| peer.validity(now) == Validity::Valid);
        let fate = Arc::new(Fate::new(self.options.ping_limit));
        let watched = Watched::new(stream, Arc::clone(&fate));
        let (sender, driver) = http2::Builder::new(Tracked(self.tasks.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(self.options.ping_after)
            .keep_alive_timeout(self.options.ping_limit)
            // Whoever waits for something finds out; what nobody waits for is not asked for ever.
            .keep_alive_while_idle(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(watched))
            .await
            .map_err(|error| broken(&self.address, &fate, error))?;
        let closed = CancellationToken::new();
        let over = closed.clone().drop_guard();
        let address = self.address.clone();
        self.tasks.spawn(async move {
            let _over = over;
            if let Err(error) = driver.await {
                tracing::debug!(address, error = %error, "connection broke");
            }
        });
        Ok(Connection { address: self.address, peer, was_in_time, sender, closed, line, fate })
    }
}

impl Connection {
    /// Whether it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled() || self.sender.is_closed()
    }

    /// Why a request on it failed.
    pub(crate) fn broken(&self, error: hyper::Error) -> CallError {
        broken(&self.address, &self.fate, error)
    }

    /// Whether the other side's certificate is in its time; `offset` is what is known of its clock.
    pub(crate) fn check_time(&self, now: Timestamp, offset: Option<Offset>) -> Result<(), CallError> {
        let Some(peer) = &self.peer else { return Ok(()) };
        let why = match peer.validity(now) {
            Validity::Valid => return Ok(()),
            Validity::Expired => Distrust::Expired { now, end: peer.not_after },
            Validity::NotYet => Distrust::NotYetValid { now, start: peer.not_before },
        };
        let offset: Option<Nanos> = offset.map(|offset| offset.by);
        Err(Untrusted { address: self.address.clone(), why, offset }.into())
    }
}

async fn reach(address: &str) -> io::Result<TcpStream> {
    let numeric: Result<SocketAddr, _> = address.parse();
    let found = match numeric {
        Ok(address) => vec![address],
        Err(_) => tokio::net::lookup_host(address).await?.collect(),
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in found {
        match tokio::time::timeout(REACH, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

pub(crate) fn unreachable(address: &str, source: io::Error) -> CallError {
    CallError::Unreachable { address: address.to_owned(), source: Arc::new(source) }
}

/// A handshake that failed: by distrust, or because the connection broke.
fn failed(address: &str, error: io::Error) -> CallError {
    let distrust = error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(distrust);
    match distrust {
        Some(why) => Untrusted { address: address.to_owned(), why, offset: None }.into(),
        None => unreachable(address, error),
    }
}

/// A connection that broke later. In TLS 1.3 a server that does not trust its client says so only then.
fn broken(address: &str, fate: &Fate, error: hyper::Error) -> CallError {
    match fate.end() {
        End::Silent => unreachable(address, io::Error::new(io::ErrorKind::TimedOut, error)),
        End::Closed => unreachable(address, io::Error::new(io::ErrorKind::ConnectionAborted, error)),
        End::Tls(reason) => match distrust(reason) {
            Some(why) => Untrusted { address: address.to_owned(), why, offset: None }.into(),
            None => unreachable(address, io::Error::new(io::ErrorKind::ConnectionAborted, error)),
        },
    }
}

fn distrust(error: &rustls::Error) -> Option<Distrust> {
    match error {
        rustls::Error::InvalidCertificate(reason) => Some(invalid(reason)),
        rustls::Error::AlertReceived(alert) => rejected(*alert),
        rustls::Error::NoCertificatesPresented => {
            Some(Distrust::Invalid { what: "the other side has no certificate".to_owned() })
        }
        _ => None,
    }
}

fn invalid(reason: &CertificateError) -> Distrust {
    match reason {
        // Roots of all swarms have the same name, so a foreign one is met by a wrong signature, too.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Distrust::Foreign,
        CertificateError::NotValidForNameContext { presented, .. } => {
            let plain =
                |name: &String| name.trim_start_matches("DnsName(\"").trim_end_matches("\")").to_owned();
            Distrust::NotManager { names: presented.iter().map(plain).collect::<Vec<_>>().join(", ") }
        }
        CertificateError::NotValidForName => Distrust::NotManager { names: "another name".to_owned() },
        CertificateError::Other(other) => match other.0.downcast_ref::<Distrust>() {
            Some(why) => why.clone(),
            None => Distrust::Invalid { what: other.to_string() },
        },
        other => Distrust::Invalid { what: other.to_string() },
    }
}

/// What a server's alert says about this node's certificate. Source of the texts: Go, `crypto/tls/alert.go`.
fn rejected(alert: AlertDescription) -> Option<Distrust> {
    let alert = match alert {
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::CertificateRequired => "certificate required",
        _ => return None,
    };
    Some(Distrust::NotTrustedThere { alert: alert.to_owned() })
}

/// Runs what a connection starts; it ends with the connection.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.0.spawn(async move {
            future.await;
        });
    }
}

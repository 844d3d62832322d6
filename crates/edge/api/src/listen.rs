//! Opens the sockets the API listens on.
//!
//! In: a path or an address. Out: a listener. A unix socket file left by a daemon that died is replaced; one that answers
//! is not touched. Never listens on TCP unless told to.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;

use crate::takeover::Socket;
use crate::tls::{self, TlsError, TlsFiles};

/// Who may speak to the unix socket: owner and group. Source: moby, `daemon/listeners/listeners_linux.go`.
const SOCKET_MODE: u32 = 0o660;
/// The group that may, if it exists. Source: dockerd, `--group`.
pub const DEFAULT_GROUP: &str = "docker";

/// How long a client may take for the TLS handshake. Source: Go's `net/http`, which docker's hosts use, allows 10 s.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a TCP connection may be silent before the other machine is asked whether it is there, and between two
/// such questions. Source: Go's `net.KeepAliveConfig`, whose defaults dockerd's listeners have.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where requests come from.
pub enum Listener {
    /// A unix socket; its file is removed when the listener is dropped.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Its file.
        path: PathBuf,
    },
    /// A TCP socket.
    Tcp(TcpListener),
    /// A TCP socket whose clients speak TLS.
    Tls {
        /// The socket.
        listener: TcpListener,
        /// Certificate, key, and whom it trusts.
        acceptor: TlsAcceptor,
    },
}

/// A connection that came in; a TLS handshake is still to be done, by whoever owns the connection, so that a slow
/// client keeps nobody else waiting.
pub(crate) enum Incoming {
    Plain(Box<dyn Socket>),
    Tls(TcpStream, TlsAcceptor),
}

impl Incoming {
    /// Shakes hands if need be.
    pub(crate) async fn ready(self) -> io::Result<Box<dyn Socket>> {
        match self {
            Self::Plain(socket) => Ok(socket),
            Self::Tls(socket, acceptor) => {
                let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await;
                Ok(Box::new(shaken.map_err(|_| tls::too_slow())??))
            }
        }
    }
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process answers on the socket.
    #[error("can't create unix socket {}: another daemon listens there", path.display())]
    InUse {
        /// The socket file.
        path: PathBuf,
    },
    /// Something that is no socket lies there.
    #[error("can't create unix socket {}: a file that is no socket is in the way", path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// The TLS files are of no use.
    #[error("set up TLS")]
    Tls(#[source] TlsError),
    /// The kernel refused.
    #[error("listen on {address}")]
    Failed {
        /// Path or address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Listener {
    /// Listens on a unix socket, readable and writable for owner and `group`.
    ///
    /// A group that does not exist leaves the socket to its owner alone.
    pub fn unix(path: &Path, group: &str) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Failed { address: path.display().to_string(), source };
        remove_stale(path)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
        if let Some(gid) = gid_of(group) {
            std::os::unix::fs::chown(path, None, Some(gid)).map_err(failed)?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self::Unix { listener, path: path.to_owned() })
    }

    /// Listens on `host:port`.
    pub async fn tcp(address: &str) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Failed { address: address.to_owned(), source };
        TcpListener::bind(address).await.map(Self::Tcp).map_err(failed)
    }

    /// Listens on `host:port` for clients that speak TLS.
    pub async fn tls(address: &str, files: &TlsFiles) -> Result<Self, ListenError> {
        let acceptor = tls::acceptor(files).map_err(ListenError::Tls)?;
        let failed = |source| ListenError::Failed { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self::Tls { listener, acceptor })
    }

    /// What people give to `-H`.
    pub fn address(&self) -> String {
        match self {
            Self::Unix { path, .. } => format!("unix://{}", path.display()),
            Self::Tcp(listener) | Self::Tls { listener, .. } => listener
                .local_addr()
                .map_or_else(|_| "tcp://?".to_owned(), |address| format!("tcp://{address}")),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Incoming> {
        match self {
            Self::Unix { listener, .. } => Ok(Incoming::Plain(Box::new(listener.accept().await?.0))),
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                prepare(&socket)?;
                Ok(Incoming::Plain(Box::new(socket)))
            }
            Self::Tls { listener, acceptor } => {
                let (socket, _) = listener.accept().await?;
                prepare(&socket)?;
                Ok(Incoming::Tls(socket, acceptor.clone()))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix { path, .. } = self {
            // The next start replaces a file that stays, so a failure here harms nobody.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes a socket file that nobody answers on.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Failed { address: path.display().to_string(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::InTheWay { path: path.to_owned() });
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ListenError::InUse { path: path.to_owned() });
    }
    fs::remove_file(path).map_err(failed)
}

/// Sends small pieces at once, and finds out when the other machine is gone.
fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE)?;
    Ok(())
}

/// The number of a group by name, from `/etc/group`. A number is taken as it is.
fn gid_of(group: &str) -> Option<u32> {
    if let Ok(gid) = group.parse() {
        return Some(gid);
    }
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

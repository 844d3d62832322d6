//! A manager that serves: its methods for other nodes on the control port, and the proofs of life that arrive there.
//!
//! In: an open manager, where to listen. Out: both, stopped together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use manager::Manager;
use rpc::pulse::PulseServer;
use rpc::{BindError, Router, Server, ServerOptions, Tls};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::keys::{self, Keys};

/// How long calls may go on when a manager stops. chosen: an answer that is under way takes milliseconds, and who waits
/// longer is told by the end of the connection.
const GRACE: Duration = Duration::from_millis(200);

/// Why a manager does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("`{0}` is not an address to listen on")]
    Address(String),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("listen for proofs of life on {address}")]
    Pulses {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// A manager and its server.
pub(crate) struct Serving {
    pub(crate) manager: Manager,
    server: Server,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
}

impl Serving {
    /// Serves `manager` on `listen` (`ip:port`). When this fails, the manager is still the caller's to stop.
    pub(crate) fn start(manager: &Manager, listen: &str, tls: Tls, keys: Keys) -> Result<Self, ServeError> {
        let address: SocketAddr = listen.parse().map_err(|_| ServeError::Address(listen.to_owned()))?;
        let refusing = manager.clone();
        let options = ServerOptions {
            refuse: Arc::new(move |peer, callers| refusing.turns_away(peer, callers)),
            ..ServerOptions::default()
        };
        let server = Server::bind(address, tls, manager.routes(Router::default()), options)?;
        let pulses = PulseServer::bind(address).map_err(|source| ServeError::Pulses { address, source })?;
        manager.attend(pulses.answering(server.visitors()), server.visitors());
        let stopping = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(keys::keep_sealed(keys, manager.clone(), stopping.clone()));
        Ok(Self { manager: manager.clone(), server, stopping, tasks })
    }

    /// Stops the manager, then its server: the others are called and answered until leadership is handed over.
    pub(crate) async fn stop(mut self) {
        self.stopping.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the manager ended badly");
            }
        }
        Box::pin(self.manager.stop()).await;
        self.server.shutdown(GRACE).await;
    }
}

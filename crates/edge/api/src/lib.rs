//! The Docker Engine API over HTTP, on unix sockets and TCP.
//!
//! ```text
//!  socket ─► server (one task per connection) ─► dispatch (version, route) ─► routes/<noun> ─► engine, images, swarm
//!                 ▲                                                              │
//!                 └── takeover: attach and exec leave HTTP ◄── Answer ◄──────────┘
//! ```
//!
//! Translates and nothing else: what a request means is decided by the engine, the image store and the swarm's manager.
//! `error.rs` alone chooses status codes. The route table is one list; `docs/api-coverage.md` is generated from it.

mod answer;
mod call;
mod clock;
mod converse;
mod coverage;
mod detach;
mod dispatch;
mod error;
mod facts;
mod leftover;
mod listen;
mod log_lines;
mod query;
mod route;
mod routes;
mod server;
mod state;
mod takeover;
#[cfg(test)]
mod testing;
mod tls;
mod versions;
mod work;

pub use coverage::{RouteInfo, Support, coverage_document, route_table};
pub use facts::HostFacts;
pub use listen::{DEFAULT_GROUP, ListenError, Listener};
pub use routes::task_logs::TaskLogs;
pub use state::{AppState, DaemonInfo};
pub use tls::{TlsError, TlsFiles};

use http::HeaderValue;
use tokio_util::sync::CancellationToken;

/// Serves the API on every listener until `shutdown`; then requests may end, and streams are cut.
///
/// `state.shutdown` must be the same token or a child of it. Unix sockets are removed on return.
pub async fn serve(listeners: Vec<Listener>, state: AppState, shutdown: CancellationToken) {
    let server = format!("Docker/{} (linux)", state.daemon().version);
    let server = HeaderValue::try_from(server).unwrap_or(HeaderValue::from_static("Docker"));
    let dispatcher = dispatch::Dispatcher::new(state, routes::all(), server);
    server::run(listeners, dispatcher, shutdown).await;
}

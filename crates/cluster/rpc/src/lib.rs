//! Calls and streams between nodes over mutual TLS, and proof of life.
//!
//! ```text
//!  Client ──call, stream, raw, upload──► one HTTP/2 connection per address, TLS 1.3 ──► Server ──► Router ──► handlers
//!     └── Tls: own certificate, trust roots; replaced while connections live                 └── who calls, and may they?
//!     └── small calls: datagrams under a key of that connection ─────────────────► PulseServer ┘
//!  PulseSender ──UDP, HMAC──► PulseServer
//! ```
//!
//! In: methods of `wire`, a node's identity. Out: answers, streams, refusals; who is at the other end is always known.
//! Never decides anything about the swarm: what a method does is its handler's.

mod accept;
mod authorize;
mod body;
mod client;
mod clock;
mod connection;
mod datagram;
mod error;
mod frame;
mod items;
mod limits;
mod listener;
mod peer;
mod pool;
pub mod pulse;
mod receive;
mod router;
mod server;
mod subscription;
mod tls;
mod verify;
mod watched;

pub use client::{Client, ClientOptions, Offset};
pub use error::{CallError, Distrust, Untrusted};
pub use peer::{Caller, NotOfASwarm, Peer, Validity};
pub use router::{Router, Upload, UploadBroken};
pub use server::{BindError, Doorkeeper, Server, ServerOptions, Unwelcome, Visitors};
pub use subscription::Subscription;
pub use tls::{Credentials, InvalidCredentials, Tls};

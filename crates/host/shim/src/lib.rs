//! The small process that owns one container, and the daemon's client for it.
//!
//! ```text
//!  daemon                                   shim: one per container or exec, one thread, outlives the daemon
//!  client::spawn ──spec.json, socket pair──► main ─► runtime::create ─► "created"
//!  Handle::go    ─────────────────────────► start                          │ pipes or terminal
//!  Handle::attach ◄──shim.sock────────────► epoll loop ◄───────────────────┘
//!  Handle::wait  ◄─────────────────────────     │ exit.json, cgroup removed, "exited"
//!                                               ├─► logs::Writer
//!                                               └─► resolver on 127.0.0.11 ◄── files of names
//! ```
//!
//! In: a directory with a [`ShimSpec`]. Out: a running process whose output is logged and whose end is on record, whatever
//! becomes of the daemon. Never decides whether something is started again.
#![allow(
    unsafe_code,
    reason = "signal masks, process attributes, terminals and mapped files are reached by raw system calls"
)]

pub mod client;
mod exit;
mod protocol;
mod resolver;
mod server;
mod spec;

pub use exit::Exit;
pub use resolver::{NetworkNames, RESOLVER_ADDRESS, RESOLVER_FILE, ResolverConfig, ResolverSpec, Upstream};
pub use server::main;
pub use spec::{EXIT_FILE, Launch, SOCKET_FILE, SPEC_FILE, STATE_FILE, ShimSpec};

//! Encodes and sends rtnetlink, nf_tables and conntrack messages, without forking a process.
//!
//! In: calls with plain values. Out: kernel objects of the network namespace that the calling thread is in when the
//! socket is opened, and errors that carry the kernel's own explanation. Everything is synchronous and small, so that
//! the single-threaded init of a container can use it too. Decides nothing about which objects there should be.
//!
//! ```text
//!  route::RouteSocket ─┐
//!  nft::NftSocket ─────┼─► socket (requests, acknowledgements) ─► kernel
//!  conntrack ──────────┘        ▲
//!  watch::Watch ◄───────────────┴── wire (messages and attributes)
//! ```
#![allow(
    unsafe_code,
    reason = "a few socket options and `poll`-free reads have no safe wrapper; each use says why it holds"
)]

mod batch;
pub mod conntrack;
mod error;
mod filter;
pub mod legacy;
pub mod namespace;
pub mod nft;
pub mod port_hold;
pub mod route;
mod socket;
pub mod watch;
mod wire;
pub mod xfrm;

pub use error::NetlinkError;

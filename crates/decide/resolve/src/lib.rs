//! Decides what the resolver of a container answers.
//!
//! In: the bytes of a query, the tables of names of the container's networks, how many answers there were before. Out: the
//! bytes of a reply, or that somebody else must be asked. Never panics, whatever the bytes are: the process that asks
//! holds a container. A codec of our own: `docs/decisions/0011-own-dns-codec.md`.
//!
//! ```text
//!  query ─► query::read ─► find (names, addresses) ─► reply ─► Reply
//!                              └─ nobody knows it ─► Forward ─► upstream ─► relay::judge ─► the same bytes, other id
//! ```

mod answer;
mod find;
mod query;
pub mod relay;
mod reply;

pub use answer::{Answer, Scope, TTL_S, Transport, Unknown, answer};

//! Decides which tasks a service should have: replicas, rollouts, restarts, history.
//!
//! ```text
//!   service ──► slot::tend (each slot: restart, start, retire, forget) ──► scale ──► rollout
//!   one slot ─► slot::tend
//!   one node ─► evict
//! ```
//!
//! In: a draft over the store, and what changed. Out: tasks made, raised in desired state or removed in the draft, and the
//! times to look again. What must be remembered is in the objects. Never chooses a node: `schedule` does.

mod attachment;
mod evict;
mod global;
mod history;
mod outdated;
mod removal;
mod replicated;
mod restart;
mod rollout;
mod service;
mod slot;
mod spawn;
mod turn;

#[cfg(test)]
mod tests;

pub use evict::node;
pub use outdated::is_outdated;
pub use service::{service, slot};
pub use turn::{Reason, Turn, WakeKey};

//! A whole swarm in one process: managers with the real replicated log, agents, users, and every fault that a seed holds.
//!
//! ```text
//!   seed ──► World: faults ──► Time (tasks, clock) ── Net (loss, cuts, doubles) ── SimDisk (torn, full, slow)
//!                                 └─ Manager: raft::Consensus + control::step, leases, roles, dispatch
//!                                 └─ Agent: wanted tasks, containers, reports, proofs of life
//!                                 └─ users ──► acknowledgements ──► History ◄── commits of every manager
//! ```
//!
//! In: a seed. Out: nothing, or the invariant that broke, when, and how to see it again.

pub mod agent;
pub mod disk;
pub mod history;
mod invariants;
mod leading;
pub mod manager;
pub mod net;
mod serve;
pub mod shared;
pub mod time;
mod wire;
pub mod world;

pub use world::{Failure, Summary, run};

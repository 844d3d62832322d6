//! Who is in the swarm: which nodes are there, which of them manage, and who may leave.
//!
//! ```text
//!   proofs of life, sessions ──► Leases::judge ──► Judgement ──► write of a node's status, and when its tasks move
//!   raft's members ──► Managers ──► roles::reconcile ──► RoleStep (add, remove, hand over)
//!                         └───────► reachability::writes ──► ManagerStatus of the nodes
//! ```
//!
//! In: the store, what was heard, raft's view, the time. Out: writes and steps for the shell. Never hears, asks or waits
//! itself.

mod judgement;
mod lease;
mod leases;
mod leave;
mod managers;
mod mass;
mod moment;
pub mod network_keys;
pub mod reachability;
pub mod roles;
pub mod trust;

#[cfg(test)]
mod tests;

pub use judgement::Judgement;
pub use leases::{LONGEST_HOLD, Leases, MASS_HOLD};
pub use leave::{LeaveWarning, Leaver};
pub use managers::{ManagerPeer, Managers};
pub use moment::{LeaseTimes, Moment};
pub use roles::{RoleError, RoleStep};

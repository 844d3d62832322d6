//! Decides on which node a task runs, and explains why one cannot.
//!
//! ```text
//!   waiting tasks ──► groups (service, spec version) ──► filter nodes, least loaded first (per branch of labels) ──► node
//!                          Loads: what each node carries, kept up to date change by change
//! ```
//!
//! In: tasks without a node, and what the nodes carry. Out: tasks ASSIGNED in the draft, or an explanation in their
//! status. Never moves a task that has a node.

mod demand;
mod explain;
mod filter;
mod loads;
mod pick;
mod place;
mod spread;

pub use loads::Loads;
pub use place::{Outcome, Unplaced, place};

#[cfg(test)]
mod tests;

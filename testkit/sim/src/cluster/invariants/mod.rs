//! What must hold in a whole swarm, one file each.
//!
//! In: the history, at each thing that happens; the swarm at its end. Out: nothing, or what broke. What must hold for every
//! store is in [`crate::invariants`], and judged after each commit, too.

pub(crate) mod acknowledged_is_kept;
pub(crate) mod containers_run_on;
pub(crate) mod history_is_one;
pub(crate) mod index_grows;
pub(crate) mod no_more_than_wanted;
pub(crate) mod reads_are_fresh;
pub(crate) mod swarm_converges;
pub(crate) mod term_has_one_leader;

#[cfg(test)]
mod tests;

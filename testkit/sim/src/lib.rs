//! A seeded world that runs the decisions of a manager without a clock, a network or a container.
//!
//! ```text
//!   seed ──► World: faults, users, agents, clock ──► store.apply ──► Dirty::note ──► control::step ──► store.apply …
//!                                                        └── every change and every quiet moment ──► invariants
//! ```
//!
//! In: a seed. Out: nothing, or the invariant that broke, at which event, and how to see it again. The same seed gives the
//! same history. The step is the one production runs.

pub mod agent;
pub mod chance;
pub mod cluster;
pub mod invariants;
pub mod user;
pub mod world;

pub use world::{Failure, World};

/// Runs the world of one seed: faults first, then peace until nothing is left to do.
pub fn run(seed: u64) -> Result<World, Failure> {
    let mut world = World::new(seed);
    world.live_with_faults()?;
    world.come_to_rest()?;
    Ok(world)
}

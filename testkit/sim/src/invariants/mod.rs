//! What must hold, one file each.
//!
//! In: a commit with the store before and after it, or the world in a quiet moment. Out: nothing, or what broke.

mod addresses_belong_to_one;
mod asks_are_met;
mod history_is_bounded;
mod incremental_is_complete;
mod placement_is_allowed;
mod ports_belong_to_one_service;
mod running_tasks_are_left_alone;
mod slots_have_one_runner;
mod states_only_grow;
mod versions_grow;

use objects::Timestamp;
use store::{Change, Store};

use crate::World;

/// After every commit.
pub fn on_changes(before: &Store, after: &Store, changes: &[Change], now: Timestamp) -> Result<(), String> {
    states_only_grow::check(changes)?;
    versions_grow::check(changes)?;
    addresses_belong_to_one::check(after)?;
    placement_is_allowed::check(before, changes)?;
    running_tasks_are_left_alone::check(before, after, changes, now)
}

/// When the manager has nothing more to write.
pub fn when_quiet(world: &World) -> Result<(), String> {
    slots_have_one_runner::check(&world.store, world.now)?;
    ports_belong_to_one_service::check(&world.store)?;
    history_is_bounded::check(&world.store)?;
    incremental_is_complete::check(world)
}

/// When nothing more will ever happen by itself.
pub fn at_rest(store: &Store) -> Result<(), String> {
    asks_are_met::check(store)
}

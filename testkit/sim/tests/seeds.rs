//! Runs many seeded worlds of one manager's decisions; `many` says how more of them are run, or one again.

mod many;

/// Worlds per run of the tests.
const SEEDS: u64 = 256;

#[test]
fn no_seed_breaks_an_invariant() {
    let worlds = many::each("seeds", SEEDS, |seed| sim::run(seed).map(|world| world.changes));
    let (count, changes) = (worlds.len(), worlds.iter().sum::<usize>());
    println!("{count} worlds, {changes} changes");
    assert!(changes > 100 * count, "the worlds were hardly alive: {changes} changes");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let (one, other) = (sim::run(7).unwrap(), sim::run(7).unwrap());
    assert_eq!((one.store, one.now), (other.store, other.now));
}

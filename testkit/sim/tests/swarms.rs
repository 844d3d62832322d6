//! Runs many seeded swarms, each with the real replicated log; `many` says how more of them are run, or one again.

mod many;

use std::time::Duration;

use sim::cluster::Summary;

/// Swarms per run of the tests.
const SEEDS: u64 = 256;

#[test]
fn no_seed_breaks_a_swarm() {
    let summaries = many::each("swarms", SEEDS, sim::cluster::run);
    let sum = |of: fn(&Summary) -> usize| summaries.iter().map(of).sum::<usize>();
    let (commits, leaders) = (sum(|one| one.commits), sum(|one| one.leaders));
    let age: Duration = summaries.iter().map(|one| one.age).sum();
    println!(
        "{} swarms, {commits} commits, {leaders} leaders, {} s of their time",
        summaries.len(),
        age.as_secs()
    );
    if let [one] = &summaries[..] {
        println!("{one:?}");
        return;
    }
    let count = summaries.len();
    assert!(commits > 20 * count && leaders > count, "the swarms were hardly alive");
}

#[test]
fn the_same_seed_gives_the_same_swarm() {
    for seed in [7, 11, 19, 23] {
        assert_eq!(sim::cluster::run(seed).unwrap(), sim::cluster::run(seed).unwrap(), "seed {seed}");
    }
}

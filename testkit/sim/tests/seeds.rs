//! Runs many seeded worlds. `SKEP_SEEDS=n` runs more of them, `SKEP_SEED=x` runs one again.

/// Worlds per run of the tests.
const SEEDS: u64 = 256;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn no_seed_breaks_an_invariant() {
    let seeds: Vec<u64> = match number("SKEP_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SKEP_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let lanes = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
    let changes: usize = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes)
            .map(|lane| {
                let mine: Vec<u64> = seeds.iter().copied().skip(lane).step_by(lanes).collect();
                let run = |seed| sim::run(seed).map(|world| world.changes);
                scope.spawn(move || mine.into_iter().map(run).sum::<Result<usize, sim::Failure>>())
            })
            .collect();
        let results: Result<usize, sim::Failure> = lanes.into_iter().map(|lane| lane.join().unwrap()).sum();
        results.unwrap_or_else(|failure| panic!("{failure}"))
    });
    println!("{} worlds, {changes} changes", seeds.len());
    assert!(changes > 100 * seeds.len(), "the worlds were hardly alive: {changes} changes");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let (one, other) = (sim::run(7).unwrap(), sim::run(7).unwrap());
    assert_eq!((one.store, one.now), (other.store, other.now));
}

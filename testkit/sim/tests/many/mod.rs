//! Runs a world for each of many seeds, on all processors, and tells every seed that failed.
//!
//! In: `SKEP_SEED=x` for one seed, `SKEP_SEEDS=n` for the first n, `SKEP_SEEDS=a..b` for a part; otherwise the caller's
//! number. Out: what the worlds gave. A world that panics is
//! named, and so is one that does not end, which ends the process: nothing else can.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

/// What one world may take. chosen: a hundred times what the slowest needs on an idle machine, for busy ones.
const HANGS_AFTER: Duration = Duration::from_secs(300);

/// Between two looks at how long worlds take.
const LOOK: Duration = Duration::from_secs(1);

/// The seeds that are asked for.
fn seeds(otherwise: u64) -> Range<u64> {
    let number = |text: &str| text.trim().parse().unwrap_or_else(|_| panic!("not a number: {text}"));
    if let Ok(seed) = std::env::var("SKEP_SEED") {
        let seed = number(&seed);
        return seed..seed + 1;
    }
    match std::env::var("SKEP_SEEDS") {
        Ok(text) => match text.split_once("..") {
            Some((from, to)) => number(from)..number(to),
            None => 0..number(&text),
        },
        Err(_) => 0..otherwise,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while holding it")
}

/// Runs `world` for each seed; panics with the message of each that failed. `test` is the name of the file of tests.
pub(crate) fn each<T: Send, E: std::fmt::Display + Send>(
    test: &str,
    otherwise: u64,
    world: impl Fn(u64) -> Result<T, E> + Sync,
) -> Vec<T> {
    let seeds = seeds(otherwise);
    let next = AtomicU64::new(seeds.start);
    let lanes = std::thread::available_parallelism().map_or(1, usize::from);
    let (good, bad) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let running: Vec<Mutex<Option<(u64, Instant)>>> = (0..lanes).map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        let (ended, end) = mpsc::channel::<()>();
        for lane in &running {
            let (ended, seeds, next, good, bad, world) = (ended.clone(), &seeds, &next, &good, &bad, &world);
            scope.spawn(move || {
                let _ended = ended;
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        break;
                    }
                    *lock(lane) = Some((seed, Instant::now()));
                    match run(seed, world) {
                        Ok(Ok(result)) => lock(good).push(result),
                        Ok(Err(failure)) => lock(bad).push(failure.to_string()),
                        Err(_) => lock(bad)
                            .push(format!("the world of seed {seed} panicked\n{}", again(test, seed))),
                    }
                    *lock(lane) = None;
                }
            });
        }
        drop(ended);
        while let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(LOOK) {
            running.iter().filter_map(|lane| *lock(lane)).for_each(|(seed, since)| watch(test, seed, since));
        }
    });
    let bad = bad.into_inner().expect("nothing panics while holding it");
    assert!(bad.is_empty(), "{} of {} seeds failed:\n{}", bad.len(), seeds.count(), bad.join("\n"));
    good.into_inner().expect("nothing panics while holding it")
}

/// Runs one world on a thread that is named after it: a panic says so, even one that ends the process.
fn run<T: Send, E: Send>(
    seed: u64,
    world: &(impl Fn(u64) -> Result<T, E> + Sync),
) -> std::thread::Result<Result<T, E>> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(format!("seed {seed}"));
        thread.spawn_scoped(scope, || world(seed)).expect("there is room for a thread").join()
    })
}

/// How a seed is run again.
fn again(test: &str, seed: u64) -> String {
    format!("see it again with: SKEP_SEED={seed} cargo test -p sim --test {test}")
}

/// Ends everything when a world has taken too long.
#[allow(clippy::print_stderr, reason = "the process ends here")]
fn watch(test: &str, seed: u64, since: Instant) {
    if since.elapsed() > HANGS_AFTER {
        eprintln!("the world of seed {seed} hangs: it did not end within {HANGS_AFTER:?}");
        eprintln!("{}", again(test, seed));
        std::process::exit(1);
    }
}

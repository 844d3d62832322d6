//! How long to wait before a manager is asked again.
//!
//! In: tries and what came of them, random numbers. Out: waits. Source: reference 5 (100 ms, then 0.1 s and twice the
//! one before, drawn evenly from what is below).

use std::time::Duration;

/// What each wait grows by. Source: swarmkit, `agent/config.go` (`initialSessionFailureBackoff`).
const STEP: Duration = Duration::from_millis(100);

/// The longest wait. chosen: a swarm that was away is whole again within two seconds of the return of its managers;
/// swarmkit's 8 s are for sessions that cost more.
const LONGEST: Duration = Duration::from_secs(2);

/// A session that lasted for less is a failure. chosen: longer than the longest wait, so that a session that is refused
/// again and again is asked for no faster than one that is never opened.
const LASTING: Duration = Duration::from_secs(3);

/// Waits between tries.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The next wait is drawn from below this.
    below: Duration,
}

impl Pace {
    /// The wait before the next try; zero for the first. `random` is any number, all evenly likely.
    pub(crate) fn wait(&self, random: u64) -> Duration {
        let nanos = u64::try_from(self.below.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(if nanos == 0 { 0 } else { random % nanos })
    }

    /// A try failed.
    pub(crate) fn failed(&mut self) {
        self.below = (self.below * 2 + STEP).min(LONGEST);
    }

    /// A session ended after it had lasted for this long.
    pub(crate) fn ended(&mut self, lasted: Duration) {
        if lasted < LASTING {
            self.failed();
        } else {
            self.below = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_start_anew_after_a_session_that_lasted() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(u64::MAX), Duration::ZERO);
        let mut bounds = Vec::new();
        for _ in 0..6 {
            pace.failed();
            bounds.push(pace.below.as_millis());
            assert!((0..1000).all(|random| pace.wait(random * 7_919_993) < pace.below));
        }
        assert_eq!(bounds, [100, 300, 700, 1500, 2000, 2000]);
        pace.ended(Duration::from_secs(1));
        assert_eq!(pace.below, LONGEST);
        pace.ended(Duration::from_secs(4));
        assert_eq!(pace.wait(5), Duration::ZERO);
    }
}

//! Decides whether a plain container is started again after its process ended, and after which wait.
//!
//! In: its restart policy, how it ended, what happened before. Out: the wait, or nothing. Never applies to a service's
//! tasks, whose restarts the orchestrator decides.

use objects::Nanos;
use serde::{Deserialize, Serialize};

/// The first wait. Source of these three: moby, `daemon/internal/restartmanager/restartmanager.go`.
const FIRST_DELAY: Nanos = Nanos(100_000_000);
const LONGEST_DELAY: Nanos = Nanos(60_000_000_000);
/// A run this long forgets the failures before it.
const GOOD_RUN: Nanos = Nanos(10_000_000_000);

/// `HostConfig.RestartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Never.
    No,
    /// After every exit that nobody asked for, and at each start of the daemon.
    Always,
    /// As always, but a container that was stopped by hand stays so when the daemon starts.
    UnlessStopped,
    /// Only when the exit code isn't 0.
    OnFailure {
        /// At most so many restarts; 0 is without limit.
        retries: u32,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunEnd {
    /// The exit code of the container's process.
    pub exit_code: i64,
    /// Whether somebody asked for the end (stop, kill).
    pub was_asked_for: bool,
    /// How long the process ran.
    pub ran_for: Nanos,
}

/// What is remembered between the runs of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backoff {
    last_delay: Nanos,
    restarts: u32,
}

impl Backoff {
    /// How often it was restarted since somebody last started it (`RestartCount`).
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// The wait before the next start, or `None` when the container stays stopped.
    ///
    /// Doubles from 100 ms per restart, at most 60 s; a run of 10 s or more starts from 100 ms again.
    pub fn after(&mut self, policy: Policy, end: RunEnd) -> Option<Nanos> {
        let wants = !end.was_asked_for
            && match policy {
                Policy::No => false,
                Policy::Always | Policy::UnlessStopped => true,
                Policy::OnFailure { retries } => {
                    end.exit_code != 0 && (retries == 0 || self.restarts < retries)
                }
            };
        if !wants {
            return None;
        }
        let base = if end.ran_for.0 >= GOOD_RUN.0 { 0 } else { self.last_delay.0 };
        let delay = if base == 0 { FIRST_DELAY.0 } else { base.saturating_mul(2).min(LONGEST_DELAY.0) };
        self.last_delay = Nanos(delay);
        self.restarts = self.restarts.saturating_add(1);
        Some(self.last_delay)
    }
}

/// Whether a container that doesn't run is started when the daemon starts.
pub fn starts_with_daemon(policy: Policy, was_stopped_by_hand: bool, exit_code: i64, restarts: u32) -> bool {
    match policy {
        Policy::No => false,
        Policy::Always => true,
        Policy::UnlessStopped => !was_stopped_by_hand,
        Policy::OnFailure { retries } => {
            !was_stopped_by_hand && exit_code != 0 && (retries == 0 || restarts < retries)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn failed_at_once() -> RunEnd {
        RunEnd { exit_code: 1, was_asked_for: false, ran_for: Nanos(0) }
    }

    #[test]
    fn waits_double_up_to_a_minute() {
        let mut backoff = Backoff::default();
        let waits: Vec<i64> = (0..12)
            .map(|_| backoff.after(Policy::Always, failed_at_once()).expect("always restarts").0 / 1_000_000)
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(backoff.restarts(), 12);
    }

    #[test]
    fn a_run_of_ten_seconds_forgets_the_failures() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.after(Policy::Always, failed_at_once());
        }
        let end = RunEnd { ran_for: Nanos(10_000_000_000), ..failed_at_once() };
        assert_eq!(backoff.after(Policy::Always, end), Some(FIRST_DELAY));
    }

    #[test]
    fn on_failure_counts_its_retries_and_ignores_success() {
        let mut backoff = Backoff::default();
        let policy = Policy::OnFailure { retries: 2 };
        assert_eq!(backoff.after(policy, RunEnd { exit_code: 0, ..failed_at_once() }), None);
        assert!(backoff.after(policy, failed_at_once()).is_some());
        assert!(backoff.after(policy, failed_at_once()).is_some());
        assert_eq!(backoff.after(policy, failed_at_once()), None);
    }

    #[test]
    fn who_was_stopped_by_hand_stays_stopped() {
        let end = RunEnd { was_asked_for: true, ..failed_at_once() };
        for policy in [Policy::Always, Policy::UnlessStopped, Policy::OnFailure { retries: 0 }] {
            assert_eq!(Backoff::default().after(policy, end), None, "{policy:?}");
        }
    }

    #[test]
    fn the_daemons_start_follows_the_policy() {
        for (policy, by_hand, code, expect) in [
            (Policy::No, false, 1, false),
            (Policy::Always, true, 0, true),
            (Policy::UnlessStopped, true, 1, false),
            (Policy::UnlessStopped, false, 0, true),
            (Policy::OnFailure { retries: 0 }, false, 0, false),
            (Policy::OnFailure { retries: 0 }, false, 1, true),
            (Policy::OnFailure { retries: 3 }, false, 1, false),
        ] {
            assert_eq!(starts_with_daemon(policy, by_hand, code, 3), expect, "{policy:?} {by_hand} {code}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_never_outside_its_bounds(runs in proptest::collection::vec((0i64..3, 0i64..20), 0..60)) {
            let mut backoff = Backoff::default();
            for (exit_code, seconds) in runs {
                let ran_for = Nanos(seconds * 1_000_000_000);
                let end = RunEnd { exit_code, was_asked_for: false, ran_for };
                if let Some(wait) = backoff.after(Policy::OnFailure { retries: 0 }, end) {
                    prop_assert!(exit_code != 0);
                    prop_assert!((FIRST_DELAY.0..=LONGEST_DELAY.0).contains(&wait.0));
                }
            }
        }
    }
}

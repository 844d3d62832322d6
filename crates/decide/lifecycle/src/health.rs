//! Decides when a container is probed next and what a probe's result says about its health.
//!
//! In: the probe's settings, the start of the container and each result. Out: the time of the next probe, the new status
//! when it changed, the last five results. Never runs a probe and never acts on a status: plain containers are left
//! alone, and a task's container is stopped by the agent.

use objects::{Nanos, Timestamp};
use serde::{Deserialize, Serialize};

/// How many results are kept. Source: moby, `daemon/health.go`, `maxLogEntries`.
pub const LOG_ENTRIES: usize = 5;
/// How much of a probe's output is kept, in bytes. Source: moby, `daemon/health.go`, `maxOutputLen`.
pub const OUTPUT_BYTES: usize = 4096;
/// The smallest duration a health check may name. Source: moby, `api/types/container`, `MinimumDuration`.
pub const MINIMUM_DURATION: Nanos = Nanos(1_000_000);

const SECOND: i64 = 1_000_000_000;
/// Source of the five defaults: moby, `daemon/health.go`.
const INTERVAL: Nanos = Nanos(30 * SECOND);
const TIMEOUT: Nanos = Nanos(30 * SECOND);
const START_PERIOD: Nanos = Nanos(0);
const START_INTERVAL: Nanos = Nanos(5 * SECOND);
const RETRIES: u32 = 3;

/// A probe's settings with every default filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Time from the end of one probe to the start of the next.
    pub interval: Nanos,
    /// Time after which a probe is killed and counts as failed.
    pub timeout: Nanos,
    /// Time after the container's start in which failures don't count as long as it never was healthy.
    pub start_period: Nanos,
    /// Replaces `interval` within the start period while the status is starting.
    pub start_interval: Nanos,
    /// Failures in a row that make a container unhealthy; at least 1.
    pub retries: u32,
}

impl Schedule {
    /// Fills in Docker's defaults for what is zero (or negative, which the API refuses earlier).
    pub fn new(
        interval: Nanos,
        timeout: Nanos,
        start_period: Nanos,
        start_interval: Nanos,
        retries: i64,
    ) -> Self {
        let or = |value: Nanos, default: Nanos| if value.0 > 0 { value } else { default };
        Schedule {
            interval: or(interval, INTERVAL),
            timeout: or(timeout, TIMEOUT),
            start_period: or(start_period, START_PERIOD),
            start_interval: or(start_interval, START_INTERVAL),
            retries: u32::try_from(retries).ok().filter(|&n| n > 0).unwrap_or(RETRIES),
        }
    }
}

/// What is known about a container's health. Docker's words in lower case on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No probe succeeded since the start, and too few failed.
    Starting,
    /// The last probe succeeded, or fewer than `retries` failed since one that did.
    Healthy,
    /// At least `retries` probes failed in a row, or the container stopped.
    Unhealthy,
}

impl Status {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Starting => "starting",
            Status::Healthy => "healthy",
            Status::Unhealthy => "unhealthy",
        }
    }
}

/// One probe's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// When the probe began.
    pub start: Timestamp,
    /// When its process ended or was given up.
    pub end: Timestamp,
    /// 0 is healthy; -1 means that the probe could not run or took too long.
    pub exit_code: i64,
    /// At most [`OUTPUT_BYTES`] of what it printed (see [`clip_output`]).
    pub output: String,
}

/// The health of one container from its start on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    status: Status,
    failing_streak: u32,
    log: Vec<Outcome>,
    started_at: Timestamp,
}

impl Health {
    /// The health of a container that starts now.
    pub fn started(at: Timestamp) -> Self {
        Health { status: Status::Starting, failing_streak: 0, log: Vec::new(), started_at: at }
    }

    /// A new start of the same container: the results stay to be read, the judgement begins anew.
    pub fn restarted(&mut self, at: Timestamp) {
        self.status = Status::Starting;
        self.failing_streak = 0;
        self.started_at = at;
    }

    /// The container's process ended: it is shown as unhealthy. Source: moby, `container/health.go`,
    /// `CloseMonitorChannel`.
    pub fn stopped(&mut self) {
        self.status = Status::Unhealthy;
    }

    /// The status now.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Failures since the last success.
    pub fn failing_streak(&self) -> u32 {
        self.failing_streak
    }

    /// The last results, oldest first, at most [`LOG_ENTRIES`].
    pub fn log(&self) -> &[Outcome] {
        &self.log
    }

    /// How long after `now` (the start, or the end of the last probe) the next probe is due.
    pub fn wait_before_probe(&self, schedule: &Schedule, now: Timestamp) -> Nanos {
        let is_starting = self.status == Status::Starting;
        let in_start_period = now.0.saturating_sub(self.started_at.0) < schedule.start_period.0;
        if is_starting && in_start_period { schedule.start_interval } else { schedule.interval }
    }

    /// Takes in one result; returns the new status if it changed.
    pub fn record(&mut self, schedule: &Schedule, outcome: Outcome) -> Option<Status> {
        let before = self.status;
        let is_success = outcome.exit_code == 0;
        let in_start_period = outcome.start.0.saturating_sub(self.started_at.0) < schedule.start_period.0;
        if self.log.len() >= LOG_ENTRIES {
            self.log.drain(..=self.log.len() - LOG_ENTRIES);
        }
        self.log.push(outcome);
        if is_success {
            self.failing_streak = 0;
            self.status = Status::Healthy;
        } else if !(before == Status::Starting && in_start_period) {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= schedule.retries {
                self.status = Status::Unhealthy;
            }
        }
        (self.status != before).then_some(self.status)
    }
}

/// A probe's output as it is shown: the first [`OUTPUT_BYTES`], then `...` if there was more. Bytes that are no UTF-8
/// are replaced.
pub fn clip_output(output: &[u8]) -> String {
    if output.len() <= OUTPUT_BYTES {
        return String::from_utf8_lossy(output).into_owned();
    }
    format!("{}...", String::from_utf8_lossy(&output[..OUTPUT_BYTES]))
}

/// The text of a probe that took longer than `timeout` (Go's notation, such as `30s`).
pub fn timeout_text(timeout: &str, output: &str) -> String {
    if output.is_empty() {
        format!("Health check exceeded timeout ({timeout})")
    } else {
        format!("Health check exceeded timeout ({timeout}): {output}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(start_period_s: i64) -> Schedule {
        Schedule::new(Nanos(SECOND), Nanos(SECOND), Nanos(start_period_s * SECOND), Nanos(SECOND / 10), 3)
    }

    fn outcome(at_s: i64, exit_code: i64) -> Outcome {
        let start = Timestamp(at_s * SECOND);
        Outcome { start, end: start, exit_code, output: format!("at {at_s}") }
    }

    /// Feeds `(second, exit code)` and returns the statuses that were announced.
    fn feed(health: &mut Health, schedule: &Schedule, results: &[(i64, i64)]) -> Vec<Option<Status>> {
        results.iter().map(|&(at, code)| health.record(schedule, outcome(at, code))).collect()
    }

    #[test]
    fn zeroes_mean_dockers_defaults() {
        let schedule = Schedule::new(Nanos(0), Nanos(0), Nanos(0), Nanos(0), 0);
        let seconds = |n: i64| Nanos(n * SECOND);
        assert_eq!(
            schedule,
            Schedule {
                interval: seconds(30),
                timeout: seconds(30),
                start_period: seconds(0),
                start_interval: seconds(5),
                retries: 3
            }
        );
    }

    #[test]
    fn the_first_success_makes_it_healthy_and_is_announced_once() {
        let mut health = Health::started(Timestamp(0));
        let said = feed(&mut health, &schedule(0), &[(1, 0), (2, 0)]);
        assert_eq!(said, [Some(Status::Healthy), None]);
    }

    #[test]
    fn it_is_unhealthy_after_as_many_failures_as_retries() {
        let mut health = Health::started(Timestamp(0));
        let said = feed(&mut health, &schedule(0), &[(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(said, [None, None, Some(Status::Unhealthy), None]);
        assert_eq!(health.failing_streak(), 4);
    }

    #[test]
    fn a_success_ends_the_streak() {
        let mut health = Health::started(Timestamp(0));
        feed(&mut health, &schedule(0), &[(1, 1), (2, 1), (3, 0), (4, 1), (5, 1)]);
        assert_eq!(health.status(), Status::Healthy);
        assert_eq!(health.failing_streak(), 2);
    }

    #[test]
    fn failures_in_the_start_period_are_logged_but_not_counted() {
        let mut health = Health::started(Timestamp(0));
        feed(&mut health, &schedule(10), &[(1, 1), (2, 1), (3, 1), (9, 1)]);
        assert_eq!((health.status(), health.failing_streak(), health.log().len()), (Status::Starting, 0, 4));
        let said = feed(&mut health, &schedule(10), &[(10, 1), (11, 1), (12, 1)]);
        assert_eq!(said, [None, None, Some(Status::Unhealthy)]);
    }

    #[test]
    fn a_success_ends_the_start_period() {
        let mut health = Health::started(Timestamp(0));
        feed(&mut health, &schedule(100), &[(1, 0), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(health.status(), Status::Unhealthy);
    }

    #[test]
    fn the_start_interval_counts_only_while_starting_in_the_start_period() {
        let schedule = schedule(10);
        let mut health = Health::started(Timestamp(0));
        assert_eq!(health.wait_before_probe(&schedule, Timestamp(0)), schedule.start_interval);
        assert_eq!(health.wait_before_probe(&schedule, Timestamp(10 * SECOND)), schedule.interval);
        feed(&mut health, &schedule, &[(1, 0)]);
        assert_eq!(health.wait_before_probe(&schedule, Timestamp(2 * SECOND)), schedule.interval);
    }

    #[test]
    fn a_restart_judges_anew_and_keeps_the_results() {
        let mut health = Health::started(Timestamp(0));
        feed(&mut health, &schedule(0), &[(1, 1), (2, 1), (3, 1)]);
        health.stopped();
        health.restarted(Timestamp(5 * SECOND));
        assert_eq!((health.status(), health.failing_streak(), health.log().len()), (Status::Starting, 0, 3));
    }

    #[test]
    fn long_output_is_cut_and_marked() {
        assert_eq!(clip_output(b"ok"), "ok");
        assert_eq!(clip_output(&[b'x'; OUTPUT_BYTES]).len(), OUTPUT_BYTES);
        let clipped = clip_output(&[b'x'; OUTPUT_BYTES + 1]);
        assert!(clipped.ends_with("x...") && clipped.len() == OUTPUT_BYTES + 3);
    }

    proptest! {
        #[test]
        fn the_log_holds_the_last_five_and_the_streak_counts_failures(
            codes in proptest::collection::vec(0i64..3, 0..40)
        ) {
            let schedule = schedule(0);
            let mut health = Health::started(Timestamp(0));
            for (at, code) in codes.iter().enumerate() {
                health.record(&schedule, outcome(at as i64, *code));
            }
            let streak = codes.iter().rev().take_while(|&&code| code != 0).count();
            prop_assert_eq!(health.failing_streak() as usize, streak);
            let kept: Vec<i64> = health.log().iter().map(|o| o.exit_code).collect();
            let from = codes.len().saturating_sub(LOG_ENTRIES);
            prop_assert_eq!(kept, codes[from..].to_vec());
            let expected = match codes.last() {
                None => Status::Starting,
                Some(0) => Status::Healthy,
                Some(_) if streak >= 3 => Status::Unhealthy,
                Some(_) if codes.contains(&0) => Status::Healthy,
                Some(_) => Status::Starting,
            };
            // An unhealthy container stays so until a success, however the streak grows.
            prop_assert_eq!(health.status(), expected);
        }
    }
}

//! The end of a container: its last output, its record, and nothing left behind.
//!
//! In: how the process ended. Out: a complete log, `exit.json`, no cgroup, no socket, the news to everybody connected. A
//! process in the background that holds a stream open, a client that doesn't read and a full `/run` delay the end by
//! seconds; none can prevent it.

use std::time::{Duration, Instant};

use logs::OutputStream;
use objects::Timestamp;

use crate::Exit;
use crate::protocol::{Failure, Kind};

use super::process::{self, ChildEnd};
use super::serve::{Phase, Shim};
use super::streams::ReadOutcome;

/// How long output may still come from processes that hold a stream of the one that ended.
/// Source: moby, `daemon/monitor.go` (two seconds for the streams of an exec).
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// How long an attached client may take for the next piece of the last output. Chosen: a stalled network recovers in it.
const CLIENT_TIME: Duration = Duration::from_secs(10);

/// How often a record that could not be written is tried again. Chosen.
const RECORD_RETRY: Duration = Duration::from_secs(1);

/// What is read of one stream after [`DRAIN_TIME`], against a writer that never stops. Source: the largest pipe an
/// unprivileged process can make (`/proc/sys/fs/pipe-max-size`).
const LAST_BYTES: usize = 1024 * 1024;

/// How far the end has come.
#[derive(Debug)]
pub(crate) struct Ending {
    exit: Exit,
    /// Streams are given up at this time.
    drain_until: Instant,
    /// Clients that are behind are given up at this time.
    clients_until: Instant,
    was_held: bool,
    /// The next attempt at the record.
    record_at: Instant,
    is_recorded: bool,
}

impl Ending {
    pub(crate) fn started_at(&self) -> Timestamp {
        self.exit.started_at
    }

    /// When something has to be looked at although nothing happened.
    pub(crate) fn next_deadline(&self, now: Instant) -> Duration {
        let next = if self.is_recorded || self.was_held {
            self.clients_until
        } else {
            self.drain_until.max(self.record_at)
        };
        // A little late, so that the deadline has passed for sure.
        next.saturating_duration_since(now) + Duration::from_millis(1)
    }
}

impl Shim {
    /// The process was seen to end.
    pub(super) fn begin_ending(&mut self, started_at: Timestamp, end: ChildEnd) {
        let finished_at = process::now();
        self.resolver = None;
        let mut oom_killed = false;
        if let Some(cgroup) = &self.created.cgroup {
            oom_killed = cgroup.oom_kills() > 0;
            // In a PID namespace of its own nobody is left; otherwise they'd stay behind. What this misses is killed with
            // the cgroup's removal.
            let _ = cgroup.kill_all();
        }
        let now = Instant::now();
        let exit = Exit {
            code: end.code,
            signal: end.signal,
            oom_killed,
            started_at,
            finished_at,
            log_lines_dropped: 0,
        };
        self.phase = Phase::Ended(Ending {
            exit,
            drain_until: now + DRAIN_TIME,
            clients_until: now + CLIENT_TIME,
            was_held: false,
            record_at: now,
            is_recorded: false,
        });
    }

    /// Goes as far towards the end as it can now.
    pub(super) fn progress_ending(&mut self) {
        let now = Instant::now();
        self.watch_clients(now);
        if !self.streams.are_done() && !self.must_hold_output() {
            self.read_what_is_there();
            if self.drain_time_is_over(now) && !self.must_hold_output() {
                self.streams.close_outputs();
            }
        }
        if self.streams.are_done() && self.record(now) {
            self.take_leave(now);
        }
    }

    /// Gives up on clients that haven't taken anything for too long.
    fn watch_clients(&mut self, now: Instant) {
        let is_held = self.clients.iter().flatten().any(super::client::Client::is_behind);
        let Phase::Ended(ending) = &mut self.phase else { return };
        if !is_held || !ending.was_held {
            ending.clients_until = now + CLIENT_TIME;
        } else if now >= ending.clients_until {
            for client in self.clients.iter_mut().flatten().filter(|client| client.is_behind()) {
                client.silence();
            }
        }
        ending.was_held = is_held;
    }

    fn drain_time_is_over(&self, now: Instant) -> bool {
        matches!(&self.phase, Phase::Ended(ending) if now >= ending.drain_until)
    }

    /// Reads both streams until they are empty, have ended or must wait for a client.
    fn read_what_is_there(&mut self) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let mut total = 0;
            while total < LAST_BYTES {
                match self.read_output(stream) {
                    ReadOutcome::Bytes(count) => total += count,
                    ReadOutcome::Nothing | ReadOutcome::End => break,
                }
            }
        }
    }

    /// Completes the log and writes the record; whether it is in place.
    fn record(&mut self, now: Instant) -> bool {
        let Phase::Ended(ending) = &mut self.phase else { return true };
        if ending.is_recorded {
            return true;
        }
        if now < ending.record_at {
            return false;
        }
        self.log.finish(ending.exit.finished_at);
        ending.exit.log_lines_dropped = self.log.dropped();
        if self.dir.write_exit(&ending.exit).is_err() {
            ending.record_at = now + RECORD_RETRY;
            ending.drain_until = ending.record_at;
            return false;
        }
        ending.is_recorded = true;
        ending.clients_until = now + CLIENT_TIME;
        if let Some(cgroup) = &self.created.cgroup {
            // What is left is swept up by the daemon, which looks for cgroups without a container.
            let _ = cgroup.remove();
        }
        self.dir.remove_socket();
        let exit = ending.exit.clone();
        for client in self.clients.iter_mut().flatten() {
            client.send_json(Kind::Exited, &exit);
        }
        true
    }

    /// Waits until everybody has the news, or has shown no interest.
    fn take_leave(&mut self, now: Instant) {
        let Phase::Ended(ending) = &self.phase else { return };
        let is_behind = self.clients.iter().flatten().any(super::client::Client::is_behind);
        if !is_behind || now >= ending.clients_until {
            self.phase = Phase::Over;
            return;
        }
        for client in self.clients.iter_mut().flatten() {
            client.update_interest(&self.poll);
        }
    }

    /// The program could not be executed: the process is gone already, and there is no end worth a record.
    pub(super) fn fail_start(&mut self, failure: &Failure) {
        if let Some(cgroup) = &self.created.cgroup {
            let _ = cgroup.remove();
        }
        self.dir.remove_all();
        for client in self.clients.iter_mut().flatten() {
            client.send_json(Kind::Failed, failure);
        }
        self.phase = Phase::Over;
    }

    /// Ends a process that was never started, and leaves nothing.
    pub(super) fn give_up(&mut self, reason: &str) {
        super::discard(&self.created);
        self.fail_start(&Failure {
            message: reason.to_owned(),
            exit_code: Some(crate::client::EXIT_CODE_OTHER),
        });
    }
}

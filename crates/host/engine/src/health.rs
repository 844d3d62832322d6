//! Probes containers that have a health check, and tells when their health changes.
//!
//! In: running containers. Out: results in their records, events. What a result means is decided in `lifecycle::health`;
//! an unhealthy container is left alone here. One task per container with a check; it ends with the run.

use std::sync::Arc;
use std::time::Duration;

use docker::{ContainerConfig, ExecConfig};
use lifecycle::health::{Health, OUTPUT_BYTES, Outcome, Schedule, clip_output, timeout_text};
use objects::Timestamp;

use crate::container::record::Run;
use crate::container::{Container, Running};
use crate::engine::{Engine, now};
use crate::exec;

/// A probe that could not run or took too long. Source: moby, `daemon/health.go`.
const NO_EXIT_CODE: i64 = -1;

/// The settings of a container's probe; `None` without a check.
pub(crate) fn schedule(config: &ContainerConfig) -> Option<Schedule> {
    let check = config.healthcheck.as_ref()?;
    command(config)?;
    Some(Schedule::new(
        check.interval,
        check.timeout,
        check.start_period,
        check.start_interval,
        check.retries,
    ))
}

/// What a probe runs: `CMD` as it is, `CMD-SHELL` through the image's shell.
fn command(config: &ContainerConfig) -> Option<Vec<String>> {
    let test = &config.healthcheck.as_ref()?.test;
    match test.first().map(String::as_str)? {
        "CMD" => Some(test[1..].to_vec()).filter(|words| !words.is_empty()),
        "CMD-SHELL" => {
            let shell = config.shell.as_ref().map(|words| words.to_vec()).filter(|words| !words.is_empty());
            let mut words = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
            words.extend_from_slice(&test[1..]);
            Some(words)
        }
        _ => None,
    }
}

/// A run begins: its health is starting, the results of earlier runs stay readable.
pub(crate) fn begin(run: &mut Run, has_check: bool, at: Timestamp) {
    match (&mut run.health, has_check) {
        (health, false) => *health = None,
        (Some(health), true) => health.restarted(at),
        (health @ None, true) => *health = Some(Health::started(at)),
    }
}

/// Probes this run in the background.
pub(crate) fn spawn(engine: &Engine, container: &Arc<Container>, running: &Running) {
    let config = container.live().record.config.clone();
    let (Some(schedule), Some(command)) = (schedule(&config), command(&config)) else { return };
    let probe = Probe {
        engine: engine.clone(),
        container: Arc::clone(container),
        running: running.clone(),
        schedule,
        command,
    };
    engine.inner.tasks.spawn(probe.run());
}

struct Probe {
    engine: Engine,
    container: Arc<Container>,
    running: Running,
    schedule: Schedule,
    command: Vec<String>,
}

impl Probe {
    async fn run(self) {
        let shutdown = self.engine.inner.shutdown.clone();
        tokio::select! {
            () = self.probe_until_over() => {}
            () = self.running.over.cancelled() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn probe_until_over(&self) {
        loop {
            let wait = {
                let live = self.container.live();
                let Some(health) = &live.record.run.health else { return };
                health.wait_before_probe(&self.schedule, now())
            };
            tokio::time::sleep(wait.to_std()).await;
            if self.container.status() != crate::watch::Status::Running {
                // Paused: the next turn looks again.
                continue;
            }
            let outcome = self.once().await;
            self.record(outcome).await;
        }
    }

    async fn once(&self) -> Outcome {
        let start = now();
        let config = ExecConfig {
            attach_stdout: true,
            attach_stderr: true,
            cmd: self.command.clone().into(),
            ..Default::default()
        };
        let timeout = self.schedule.timeout.to_std();
        let (exit_code, output) = match exec::probe(&self.engine, &self.container, config, timeout).await {
            Ok(done) => match done.exit_code {
                Some(code) => (code, clip_output(&done.output)),
                None => {
                    let spent = docker::units::format_duration(self.schedule.timeout);
                    (NO_EXIT_CODE, timeout_text(&spent, &clip_output(&done.output)))
                }
            },
            Err(error) => (NO_EXIT_CODE, crate::container::start::error_text(&error)),
        };
        Outcome { start, end: now(), exit_code, output }
    }

    async fn record(&self, outcome: Outcome) {
        let changed = {
            let mut live = self.container.live();
            // The run may have ended while the probe did: its last word is "unhealthy".
            let is_same_run =
                live.running.as_ref().is_some_and(|now| now.shim.pid() == self.running.shim.pid());
            if !is_same_run {
                return;
            }
            let Some(health) = &mut live.record.run.health else { return };
            health.record(&self.schedule, outcome)
        };
        let Some(status) = changed else { return };
        let inner = &self.engine.inner;
        inner.save_or_log(&self.container).await;
        inner.events.container(&self.container, &format!("health_status: {}", status.as_str()), &[]);
        inner.announce(&self.container);
    }
}

/// How much of a probe's output is read: one byte more than shown tells that there was more.
pub(crate) const PROBE_OUTPUT: usize = OUTPUT_BYTES + 1;

/// What a probe did.
pub(crate) struct Probed {
    /// `None`: it took too long and was killed.
    pub(crate) exit_code: Option<i64>,
    pub(crate) output: Vec<u8>,
}

/// How long a killed probe may take to be gone before its result is given anyway.
pub(crate) const KILLED_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn config(test: &[&str], shell: Option<&[&str]>) -> ContainerConfig {
        let list = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        ContainerConfig {
            healthcheck: Some(docker::HealthcheckConfig { test: list(test), ..Default::default() }),
            shell: shell.map(|words| list(words).into()),
            ..Default::default()
        }
    }

    #[test]
    fn the_test_says_what_runs() {
        let check = |test: &[&str], shell, expect: Option<&[&str]>| {
            let expect = expect.map(|words| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
            assert_eq!(command(&config(test, shell)), expect, "{test:?}");
        };
        check(&[], None, None);
        check(&["NONE"], None, None);
        check(&["CMD", "curl", "-f"], None, Some(&["curl", "-f"]));
        check(&["CMD-SHELL", "exit 1"], None, Some(&["/bin/sh", "-c", "exit 1"]));
        check(&["CMD-SHELL", "exit 1"], Some(&["/bin/bash", "-ec"]), Some(&["/bin/bash", "-ec", "exit 1"]));
    }
}

//! Waits for a container's end and takes it in: record, network, events, restart or removal.
//!
//! In: the shim's word about the end. Out: the container's new state. One task per running container, owned by the
//! engine; it ends with the container or with the engine, whichever is first.

use std::sync::Arc;

use lifecycle::restart::RunEnd;
use objects::Timestamp;
use runtime::cgroup::Cgroup;
use shim::client::{Ended, Lost};
use tokio_util::sync::CancellationToken;

use super::record::Record;
use super::start;
use super::{Container, Running, remove};
use crate::engine::{Engine, Inner, now};
use crate::files::{self, blocking};
use crate::watch::Status;

/// 128 + SIGKILL: the kernel kills a container whose shim dies.
const KILLED: i64 = 137;

/// How a run ended, whoever tells it.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) exit_code: i64,
    pub(crate) oom_killed: bool,
    pub(crate) finished_at: Timestamp,
    pub(crate) error: String,
    /// Whether the machine went down under it.
    pub(crate) went_with_machine: bool,
}

/// Waits for the end of this run in the background.
pub(crate) fn spawn(engine: &Engine, container: &Arc<Container>, running: &Running) {
    let (engine, container, running) = (engine.clone(), Arc::clone(container), running.clone());
    let inner = Arc::clone(&engine.inner);
    inner.shim_group.take_in(&running.shim);
    inner.tasks.spawn(async move {
        let shutdown = engine.inner.shutdown.clone();
        tokio::select! {
            ended = running.shim.wait() => {
                let end = end_of(&container, ended).await;
                let _turn = container.turn.lock().await;
                take_in_turn(&engine, &container, end).await;
            }
            () = shutdown.cancelled() => {}
        }
    });
}

/// What the shim's word means. A lost container's processes are killed first.
pub(crate) async fn end_of(container: &Container, ended: Ended) -> End {
    match ended {
        Ended::Exited(exit) => {
            if exit.log_lines_dropped > 0 {
                tracing::warn!(container.id = %container.id, lines = exit.log_lines_dropped, "log is incomplete");
            }
            End {
                exit_code: i64::from(exit.code),
                oom_killed: exit.oom_killed,
                finished_at: exit.finished_at,
                error: String::new(),
                went_with_machine: false,
            }
        }
        Ended::Lost(lost) => {
            kill_lost(&container.id, lost).await;
            End {
                exit_code: KILLED,
                oom_killed: false,
                finished_at: now(),
                error: "shim died".into(),
                went_with_machine: false,
            }
        }
    }
}

/// Kills what a dead shim left running.
pub(crate) async fn kill_lost(id: &str, lost: Lost) {
    tracing::error!(container.id = %id, pid = lost.pid, "shim died without a word; killing its container");
    let Some((parent, name)) = lost.cgroup else { return };
    remove_cgroup(parent, name).await;
}

/// Kills all processes of a cgroup and removes it.
pub(crate) async fn remove_cgroup(parent: String, name: String) {
    let removed = tokio::task::spawn_blocking(move || {
        Cgroup::open(&parent, &name).and_then(|cgroup| {
            cgroup.kill_all()?;
            cgroup.remove()
        })
    })
    .await;
    match removed {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(error = &error as &dyn std::error::Error, "cgroup not removed"),
        Err(error) => tracing::error!(%error, "cgroup not removed"),
    }
}

/// Takes in the end of the present run; the caller has the container's turn.
pub(crate) async fn take_in_turn(engine: &Engine, container: &Arc<Container>, end: End) {
    let inner = &engine.inner;
    let attachment = container.live().record.run.attachment.clone();
    inner.config.network.release(&container.id).await;
    inner.config.images.set_running(&container.id, false);
    let (running, delay, ran_for, auto_remove) = note_end(container, &end);
    // The shim's record goes only once ours is written: without both, the next engine would not know how it ended.
    if inner.save_or_log(container).await {
        let dir = inner.roots.shim(&container.id);
        if let Err(error) = blocking(move || files::remove_dir(&dir)).await {
            tracing::warn!(container.id = %container.id, error = &error as &dyn std::error::Error, "shim directory left");
        }
    }
    if let Some(running) = running {
        running.over.cancel();
        running.ended.send_replace(true);
    }
    tell(inner, container, &end, attachment, ran_for);
    if let Some(delay) = delay {
        restart_later(engine, container, delay.to_std());
    } else if auto_remove {
        remove::remove_or_retry(engine, container, true).await;
    }
}

type Noted = (Option<Running>, Option<objects::Nanos>, objects::Nanos, bool);

/// Writes the end into the record in memory; says whether and when it is started again.
fn note_end(container: &Container, end: &End) -> Noted {
    let mut live = container.live();
    let policy = live.record.restart_policy();
    let is_held = live.held > 0;
    let running = live.running.take();
    live.pending.clear();
    let auto_remove = live.record.host_config.auto_remove && !is_held;
    let run = &mut live.record.run;
    let ran_for = end.finished_at.since(run.started_at);
    run.pid = None;
    run.attachment = None;
    run.stop_by = None;
    run.exit_code = end.exit_code;
    run.oom_killed = end.oom_killed;
    run.went_with_machine = end.went_with_machine;
    run.finished_at = end.finished_at;
    run.error.clone_from(&end.error);
    if let Some(health) = &mut run.health {
        health.stopped();
    }
    let run_end = RunEnd { exit_code: end.exit_code, was_asked_for: run.stopped_by_hand || is_held, ran_for };
    let delay = run.backoff.after(policy, run_end);
    run.status = if delay.is_some() { Status::Restarting } else { Status::Exited };
    (running, delay, ran_for, auto_remove)
}

fn tell(
    inner: &Inner,
    container: &Container,
    end: &End,
    attachment: Option<network::Attachment>,
    ran_for: objects::Nanos,
) {
    if end.oom_killed {
        inner.events.container(container, "oom", &[]);
    }
    let seconds = (ran_for.0 / 1_000_000_000).max(0).to_string();
    let details = [("exitCode", end.exit_code.to_string()), ("execDuration", seconds)];
    inner.events.container(container, "die", &details);
    for endpoint in attachment.iter().flat_map(|attachment| &attachment.endpoints) {
        inner.events.endpoint(endpoint, "disconnect", &container.id);
    }
    container.publish_phase(true);
    inner.announce(container);
}

/// Starts it again after the wait, unless somebody stops, starts or removes it before.
pub(crate) fn restart_later(engine: &Engine, container: &Arc<Container>, delay: std::time::Duration) {
    let cancelled = CancellationToken::new();
    container.live().restart = Some(cancelled.clone());
    let (engine, container) = (engine.clone(), Arc::clone(container));
    let inner = Arc::clone(&engine.inner);
    inner.tasks.spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = cancelled.cancelled() => return,
            () = engine.inner.shutdown.cancelled() => return,
        }
        if container.status() != Status::Restarting {
            return;
        }
        start::start_by_policy(engine.clone(), container).await;
    });
}

/// A container that waits for its restart stays as it is; true when it did wait.
pub(crate) async fn cancel_restart(inner: &Inner, container: &Container) -> bool {
    let _turn = container.turn.lock().await;
    {
        let mut live = container.live();
        if live.record.run.status != Status::Restarting {
            return false;
        }
        if let Some(waiting) = live.restart.take() {
            waiting.cancel();
        }
        let run: &mut Record = &mut live.record;
        run.run.status = Status::Exited;
        run.run.stopped_by_hand = true;
    }
    inner.save_or_log(container).await;
    container.publish_phase(false);
    inner.announce(container);
    true
}

//! Ends containers that run: stop, kill, restart.
//!
//! In: a signal and how long the container may take. Out: a container without a process. The wait happens without the
//! container's turn, so that others may kill it meanwhile. An engine that is shut down lets go of a stop at once; its
//! deadline is on record, and the next engine finishes it.

use std::sync::Arc;
use std::time::Duration;

use objects::{Nanos, Timestamp};
use shim::client::{RequestError, SignalTarget};

use super::start::{self, Cause};
use super::{Container, Running, pause, signal, supervise};
use crate::engine::{Engine, Inner, now};
use crate::error::EngineError;
use crate::watch::Status;

/// How long a killed process may take to be gone. Source: moby, `daemon/kill.go`.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// How a container is stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Instead of the container's own stop signal.
    pub signal: Option<String>,
    /// Seconds until it is killed, instead of the container's own; negative waits for ever.
    pub timeout: Option<i64>,
}

impl Engine {
    /// Stops a container. One that doesn't run: [`EngineError::NotModified`].
    pub async fn stop(&self, container: &str, options: StopOptions) -> Result<(), EngineError> {
        let container = self.inner.registry.find(container)?;
        let number = options.signal.as_deref().map(signal::parse).transpose()?;
        let engine = self.clone();
        let asked = Asked { number, timeout: options.timeout, is_for_good: true };
        self.to_the_end(async move { stop(&engine.inner, &container, asked).await }).await
    }

    /// Sends a signal by name or number; without one SIGKILL, and then waits for the end.
    pub async fn kill(&self, container: &str, signal: Option<&str>) -> Result<(), EngineError> {
        let number = signal.filter(|text| !text.is_empty()).map_or(Ok(libc::SIGKILL), signal::parse)?;
        let reference = container.to_owned();
        let container = self.inner.registry.find(container)?;
        let engine = self.clone();
        self.to_the_end(async move {
            kill(&engine.inner, &container, number).await.map_err(|error| match error {
                EngineError::WrongState(state) => {
                    EngineError::wrong_state(format!("cannot kill container: {reference}: {state}"))
                }
                other => other,
            })
        })
        .await
    }

    /// Stops a container if it runs, and starts it.
    pub async fn restart(&self, container: &str, options: StopOptions) -> Result<(), EngineError> {
        let container = self.inner.registry.find(container)?;
        let number = options.signal.as_deref().map(signal::parse).transpose()?;
        let engine = self.clone();
        self.to_the_end(async move {
            container.live().held += 1;
            let asked = Asked { number, timeout: options.timeout, is_for_good: false };
            let outcome = restart(&engine, &container, asked).await;
            container.live().held -= 1;
            outcome
        })
        .await
    }
}

/// How a stop was asked for.
#[derive(Clone, Copy)]
struct Asked {
    /// `None`: the container's own stop signal.
    number: Option<i32>,
    /// As [`StopOptions::timeout`].
    timeout: Option<i64>,
    /// Whether it stays stopped. Half a restart is not finished by the next engine: it could only end it.
    is_for_good: bool,
}

async fn restart(engine: &Engine, container: &Arc<Container>, asked: Asked) -> Result<(), EngineError> {
    match stop(&engine.inner, container, asked).await {
        Ok(()) | Err(EngineError::NotModified) => {}
        Err(error) => return Err(error),
    }
    match start::start(engine, container, Cause::Asked).await {
        Ok(()) | Err(EngineError::NotModified) => {}
        Err(error) => return Err(error),
    }
    engine.inner.events.container(container, "restart", &[]);
    Ok(())
}

async fn stop(inner: &Inner, container: &Arc<Container>, asked: Asked) -> Result<(), EngineError> {
    if supervise::cancel_restart(inner, container).await {
        return Ok(());
    }
    let Ok(running) = container.running() else { return Err(EngineError::NotModified) };
    let (own_signal, own_timeout) = {
        let live = container.live();
        (live.record.config.stop_signal.clone(), live.record.stop_timeout())
    };
    let number = match asked.number {
        Some(number) => number,
        None if own_signal.is_empty() => libc::SIGTERM,
        None => signal::parse(&own_signal)?,
    };
    let timeout = u64::try_from(asked.timeout.unwrap_or(own_timeout)).ok();
    let patience = timeout.map(Duration::from_secs);
    let deadline = patience.filter(|_| asked.is_for_good).map(|patience| now() + Nanos::from(patience));
    note_stopped_by_hand(inner, container, deadline).await;
    pause::thaw(inner, container).await?;
    send(inner, container, &running, number).await?;
    await_or_kill(inner, container, &running, patience).await
}

/// Goes on with a stop that the last engine let go of, in the background. The container has heard its signal.
pub(crate) fn finish(engine: &Engine, container: &Arc<Container>, running: Running) {
    let Some(deadline) = container.live().record.run.stop_by else { return };
    let (engine, container) = (engine.clone(), Arc::clone(container));
    let inner = Arc::clone(&engine.inner);
    inner.tasks.spawn(async move {
        let inner = &engine.inner;
        let patience = deadline.since(now()).to_std();
        let finished = async {
            pause::thaw(inner, &container).await?;
            await_or_kill(inner, &container, &running, Some(patience)).await
        };
        match finished.await {
            Ok(()) | Err(EngineError::ShuttingDown) => {}
            Err(error) => {
                tracing::error!(container.id = %container.id, error = &error as &dyn std::error::Error, "not stopped");
            }
        }
    });
}

/// Waits for the end, and kills the container when it takes too long.
async fn await_or_kill(
    inner: &Inner,
    container: &Arc<Container>,
    running: &Running,
    patience: Option<Duration>,
) -> Result<(), EngineError> {
    if !has_ended(inner, container, running, patience).await? {
        tracing::info!(container.id = %container.id, ?patience, "container did not stop in time, killing it");
        send(inner, container, running, libc::SIGKILL).await?;
        if !has_ended(inner, container, running, Some(KILL_WAIT)).await? {
            return Err(EngineError::NotKilled);
        }
    }
    inner.events.container(container, "stop", &[]);
    Ok(())
}

/// Sends a signal; after SIGKILL waits for the end.
pub(crate) async fn kill(inner: &Inner, container: &Arc<Container>, number: i32) -> Result<(), EngineError> {
    if number == libc::SIGKILL && supervise::cancel_restart(inner, container).await {
        return Ok(());
    }
    // A start that is under way comes first: before its program runs there is nobody to hear the signal.
    drop(container.turn.lock().await);
    let running = container.running()?;
    let stop_signal = container.live().record.config.stop_signal.clone();
    let stops = match stop_signal.as_str() {
        "" => number == libc::SIGTERM,
        own => signal::parse(own)? == number,
    };
    if number == libc::SIGKILL || stops {
        note_stopped_by_hand(inner, container, None).await;
        pause::thaw(inner, container).await?;
    }
    send(inner, container, &running, number).await?;
    if number == libc::SIGKILL && !has_ended(inner, container, &running, Some(KILL_WAIT)).await? {
        return Err(EngineError::NotKilled);
    }
    Ok(())
}

/// Remembered before the signal: whatever happens next, the restart policy leaves it stopped. Of several deadlines the
/// first one counts.
async fn note_stopped_by_hand(inner: &Inner, container: &Container, stop_by: Option<Timestamp>) {
    let is_news = {
        let run = &mut container.live().record.run;
        let first = [run.stop_by, stop_by].into_iter().flatten().min();
        let is_news = !run.stopped_by_hand || run.stop_by != first;
        run.stopped_by_hand = true;
        run.stop_by = first;
        is_news
    };
    if is_news {
        inner.save_or_log(container).await;
    }
}

async fn send(
    inner: &Inner,
    container: &Container,
    running: &Running,
    number: i32,
) -> Result<(), EngineError> {
    let target = if number == libc::SIGKILL { SignalTarget::All } else { SignalTarget::Init };
    match running.shim.signal(number, target).await {
        // It ended by itself a moment ago.
        Ok(()) | Err(RequestError::Ended | RequestError::Refused { .. }) => {}
        Err(error) => return Err(EngineError::Shim(Box::new(error))),
    }
    inner.events.container(container, "kill", &[("signal", number.to_string())]);
    Ok(())
}

/// Waits until this run's end has been taken in; false when it takes longer than `patience`.
async fn has_ended(
    inner: &Inner,
    container: &Container,
    running: &Running,
    patience: Option<Duration>,
) -> Result<bool, EngineError> {
    let pid = running.shim.pid();
    let mut phase = container.phase();
    let is_over = |container: &Container| {
        let live = container.live();
        live.running.as_ref().is_none_or(|now| now.shim.pid() != pid)
            || matches!(live.record.run.status, Status::Removed)
    };
    let end = async {
        // The phase is published after the record has changed.
        while !is_over(container) {
            if phase.changed().await.is_err() {
                return;
            }
        }
        // The end is being taken in; its last step publishes the phase.
        let _taken_in = container.turn.lock().await;
    };
    let end = async {
        match patience {
            Some(patience) => tokio::time::timeout(patience, end).await.is_ok(),
            None => {
                end.await;
                true
            }
        }
    };
    tokio::select! {
        has_ended = end => Ok(has_ended),
        () = inner.shutdown.cancelled() => Err(EngineError::ShuttingDown),
    }
}

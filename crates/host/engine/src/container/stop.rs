//! Ends containers that run: stop, kill, restart.
//!
//! In: a signal and how long the container may take. Out: a container without a process. The wait happens without the
//! container's turn, so that others may kill it meanwhile.

use std::sync::Arc;
use std::time::Duration;

use shim::client::{RequestError, SignalTarget};

use super::start::{self, Cause};
use super::{Container, Running, pause, signal, supervise};
use crate::engine::{Engine, Inner};
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
        self.to_the_end(async move { stop(&engine.inner, &container, number, options.timeout).await }).await
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
            let outcome = restart(&engine, &container, number, options.timeout).await;
            container.live().held -= 1;
            outcome
        })
        .await
    }
}

async fn restart(
    engine: &Engine,
    container: &Arc<Container>,
    number: Option<i32>,
    timeout: Option<i64>,
) -> Result<(), EngineError> {
    match stop(&engine.inner, container, number, timeout).await {
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

async fn stop(
    inner: &Inner,
    container: &Arc<Container>,
    number: Option<i32>,
    timeout: Option<i64>,
) -> Result<(), EngineError> {
    if supervise::cancel_restart(inner, container).await {
        return Ok(());
    }
    let Ok(running) = container.running() else { return Err(EngineError::NotModified) };
    note_stopped_by_hand(inner, container).await;
    pause::thaw(inner, container).await?;
    let (own_signal, own_timeout) = {
        let live = container.live();
        (live.record.config.stop_signal.clone(), live.record.stop_timeout())
    };
    let number = match number {
        Some(number) => number,
        None if own_signal.is_empty() => libc::SIGTERM,
        None => signal::parse(&own_signal)?,
    };
    send(inner, container, &running, number).await?;
    let timeout = timeout.unwrap_or(own_timeout);
    let patience = u64::try_from(timeout).ok().map(Duration::from_secs);
    if !has_ended(inner, container, &running, patience).await? {
        tracing::info!(container.id = %container.id, timeout, "container did not stop in time, killing it");
        send(inner, container, &running, libc::SIGKILL).await?;
        if !has_ended(inner, container, &running, Some(KILL_WAIT)).await? {
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
        note_stopped_by_hand(inner, container).await;
        pause::thaw(inner, container).await?;
    }
    send(inner, container, &running, number).await?;
    if number == libc::SIGKILL && !has_ended(inner, container, &running, Some(KILL_WAIT)).await? {
        return Err(EngineError::NotKilled);
    }
    Ok(())
}

/// Remembered before the signal: whatever happens next, the restart policy leaves it stopped.
async fn note_stopped_by_hand(inner: &Inner, container: &Container) {
    let was = std::mem::replace(&mut container.live().record.run.stopped_by_hand, true);
    if !was {
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

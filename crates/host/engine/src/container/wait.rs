//! Waits for a container: until it doesn't run, until its next end, until it is gone.

use docker::{WaitError, WaitResponse};
use tokio::sync::watch;

use super::Phase;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::watch::Status;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// That it has no process; at once when it has none now (`not-running`).
    #[default]
    NotRunning,
    /// That a process of it ends after this moment (`next-exit`).
    NextExit,
    /// That it doesn't exist any more (`removed`).
    Removed,
}

impl std::str::FromStr for WaitCondition {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "" | "not-running" => Ok(WaitCondition::NotRunning),
            "next-exit" => Ok(WaitCondition::NextExit),
            "removed" => Ok(WaitCondition::Removed),
            _ => Err(EngineError::invalid(format!("invalid condition: \"{text}\""))),
        }
    }
}

/// A wait that has begun: nothing that happens from now on is missed.
pub struct Waiter {
    phase: watch::Receiver<Phase>,
    condition: WaitCondition,
    ends_before: u64,
    failed_before: u64,
}

impl Waiter {
    /// Waits for the condition. Dropping the future gives up.
    pub async fn finished(mut self) -> WaitResponse {
        let (condition, before, failed_before) = (self.condition, self.ends_before, self.failed_before);
        let is_given_up =
            |phase: &Phase| condition == WaitCondition::Removed && phase.failed_removals > failed_before;
        let is_over = |phase: &Phase| {
            phase.status == Status::Removed
                || match condition {
                    WaitCondition::NotRunning => matches!(phase.status, Status::Created | Status::Exited),
                    WaitCondition::NextExit => phase.ends > before,
                    WaitCondition::Removed => is_given_up(phase),
                }
        };
        // The sender goes away with the container: that counts as removed.
        let seen = self.phase.wait_for(is_over).await.map(|phase| phase.clone()).ok();
        let phase = seen.unwrap_or_else(|| self.phase.borrow().clone());
        let failed = phase.status != Status::Removed && is_given_up(&phase);
        // Why a start failed is the answer to that start; who waits for an end that never began is not told it again.
        // Source: docker 20.10, observed with `run --rm` of a missing command.
        let message = match condition {
            _ if failed => phase.removal_error,
            WaitCondition::NotRunning => phase.error,
            WaitCondition::NextExit | WaitCondition::Removed => String::new(),
        };
        let error = (!message.is_empty()).then_some(WaitError { message });
        WaitResponse { status_code: phase.exit_code, error }
    }
}

impl Engine {
    /// Begins to wait; the answer comes from [`Waiter::finished`].
    pub async fn wait(&self, container: &str, condition: WaitCondition) -> Result<Waiter, EngineError> {
        let phase = self.inner.registry.find(container)?.phase();
        let (ends_before, failed_before) = {
            let now = phase.borrow();
            (now.ends, now.failed_removals)
        };
        Ok(Waiter { phase, condition, ends_before, failed_before })
    }
}

//! Creates an exec: checks, an id. Nothing runs yet.

use std::sync::Arc;

use docker::{ExecConfig, ExecCreateResponse};

use super::Exec;
use super::start::forget_later;
use crate::engine::{Engine, new_id};
use crate::error::EngineError;
use crate::watch::Status;

impl Engine {
    /// Creates an exec in a running container.
    pub async fn exec_create(
        &self,
        container: &str,
        config: ExecConfig,
    ) -> Result<ExecCreateResponse, EngineError> {
        if config.cmd.is_empty() {
            return Err(EngineError::invalid("No exec command specified"));
        }
        for pair in &config.env {
            if pair.is_empty() || pair.starts_with('=') {
                return Err(EngineError::invalid(format!("invalid environment variable: {pair}")));
            }
        }
        if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
            return Err(EngineError::invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        let container = self.inner.registry.find(container)?;
        check_state(container.status(), &container.id)?;
        let exec = Exec::new(new_id()?, container.id.clone(), config);
        let id = exec.id.clone();
        let action = format!("exec_create: {}", exec.config.cmd.join(" "));
        self.inner.execs.insert(Arc::clone(&exec));
        forget_later(self, &exec);
        self.inner.events.container(&container, &action, &[("execID", id.clone())]);
        Ok(ExecCreateResponse { id })
    }
}

/// Source of the texts: moby, `daemon/exec.go`, `getActiveContainer`.
pub(crate) fn check_state(status: Status, id: &str) -> Result<(), EngineError> {
    match status {
        Status::Running => Ok(()),
        Status::Paused => Err(EngineError::wrong_state(format!(
            "Container {id} is paused, unpause the container before exec"
        ))),
        Status::Restarting => Err(EngineError::wrong_state(format!(
            "Container {id} is restarting, wait until the container is running"
        ))),
        _ => Err(EngineError::wrong_state(format!("container {id} is not running"))),
    }
}

//! Shows an exec, and sets the size of its terminal.

use docker::{ExecInspect, ExecProcess};
use shim::client::RequestError;

use super::Phase;
use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Everything about an exec.
    pub async fn exec_inspect(&self, exec: &str) -> Result<ExecInspect, EngineError> {
        let exec = self.inner.execs.find(exec)?;
        let config = &exec.config;
        let live = exec.live();
        Ok(ExecInspect {
            id: exec.id.clone(),
            running: live.phase == Phase::Running,
            exit_code: live.exit_code,
            process_config: ExecProcess {
                tty: config.tty,
                entrypoint: config.cmd.first().cloned().unwrap_or_default(),
                arguments: config.cmd.get(1..).unwrap_or_default().to_vec(),
                privileged: Some(config.privileged),
                user: config.user.clone(),
            },
            open_stdin: config.attach_stdin,
            open_stderr: config.attach_stderr,
            open_stdout: config.attach_stdout,
            can_remove: live.phase == Phase::Over,
            container_id: exec.container.clone(),
            detach_keys: config.detach_keys.clone(),
            pid: i64::from(live.pid),
        })
    }

    /// Sets the size of a running exec's terminal.
    pub async fn exec_resize(&self, exec: &str, rows: u16, cols: u16) -> Result<(), EngineError> {
        let exec = self.inner.execs.find(exec)?;
        let shim = {
            let live = exec.live();
            live.shim.clone().filter(|_| live.phase == Phase::Running)
        };
        let Some(shim) = shim else {
            return Err(EngineError::wrong_state(format!("exec {} is not running", exec.id)));
        };
        match shim.resize(rows, cols).await {
            Ok(()) | Err(RequestError::Refused { .. } | RequestError::Ended) => Ok(()),
            Err(error) => Err(EngineError::Shim(Box::new(error))),
        }
    }
}

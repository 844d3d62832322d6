//! Freezes and thaws a container's processes.

use std::sync::Arc;

use runtime::cgroup::Cgroup;

use super::{Container, start};
use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::files::blocking;
use crate::watch::Status;

impl Engine {
    /// Stops all processes of a container where they are.
    pub async fn pause(&self, container: &str) -> Result<(), EngineError> {
        let container = self.inner.registry.find(container)?;
        let engine = self.clone();
        self.to_the_end(async move {
            let _turn = container.turn.lock().await;
            match container.status() {
                Status::Running => {}
                Status::Paused => {
                    return Err(EngineError::wrong_state(format!(
                        "container {} is already paused",
                        container.id
                    )));
                }
                Status::Restarting => {
                    return Err(EngineError::wrong_state(format!(
                        "Container {} is restarting, wait until the container is running",
                        container.id
                    )));
                }
                _ => {
                    return Err(EngineError::wrong_state(format!(
                        "container {} is not running",
                        container.id
                    )));
                }
            }
            freeze(&engine.inner, &container, true).await?;
            engine.inner.events.container(&container, "pause", &[]);
            Ok(())
        })
        .await
    }

    /// Lets a paused container go on.
    pub async fn unpause(&self, container: &str) -> Result<(), EngineError> {
        let container = self.inner.registry.find(container)?;
        let engine = self.clone();
        self.to_the_end(async move {
            let _turn = container.turn.lock().await;
            if container.status() != Status::Paused {
                return Err(EngineError::wrong_state(format!("Container {} is not paused", container.id)));
            }
            freeze(&engine.inner, &container, false).await?;
            engine.inner.events.container(&container, "unpause", &[]);
            Ok(())
        })
        .await
    }
}

/// Lets a paused container go on so that it hears a signal; any other is left as it is.
pub(crate) async fn thaw(inner: &Inner, container: &Arc<Container>) -> Result<(), EngineError> {
    let _turn = container.turn.lock().await;
    if container.status() == Status::Paused {
        freeze(inner, container, false).await?;
    }
    Ok(())
}

async fn freeze(inner: &Inner, container: &Arc<Container>, is_frozen: bool) -> Result<(), EngineError> {
    let parent = start::cgroup_parent(inner, &container.live().record);
    let name = container.id.clone();
    blocking(move || {
        Cgroup::open(&parent, &name)
            .and_then(|cgroup| cgroup.freeze(is_frozen))
            .map_err(|error| EngineError::Cgroup(Box::new(error)))
    })
    .await?;
    container.live().record.run.status = if is_frozen { Status::Paused } else { Status::Running };
    inner.save_or_log(container).await;
    container.publish_phase(false);
    inner.announce(container);
    Ok(())
}

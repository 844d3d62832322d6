//! Removes containers: the mark on disk first, so that whatever happens, the next daemon finishes it.

use std::sync::Arc;

use docker::{ContainersPruneReport, Filters};

use super::record::Record;
use super::{Container, stop, supervise};
use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::files::{self, blocking};
use crate::state::Change;
use crate::volume;
use crate::watch::Status;

/// How a container is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// With its anonymous volumes.
    pub volumes: bool,
}

impl Engine {
    /// Removes a container with its writable layer and its log.
    pub async fn remove(&self, container: &str, options: RemoveOptions) -> Result<(), EngineError> {
        let container = self.inner.registry.find(container)?;
        let engine = self.clone();
        self.to_the_end(async move { remove(&engine.inner, &container, options).await }).await
    }

    /// Removes every container that doesn't run and passes `label` and `until`.
    pub async fn containers_prune(&self, filters: &Filters) -> Result<ContainersPruneReport, EngineError> {
        let invalid = |error: docker::filters::FilterError| EngineError::invalid(error.to_string());
        filters.validate(&["label", "label!", "until"]).map_err(invalid)?;
        let now = crate::engine::now();
        let mut until = None;
        for text in filters.get("until") {
            until =
                docker::units::parse_moment(text, now).map_err(|e| EngineError::invalid(e.to_string()))?;
        }
        let mut report = ContainersPruneReport { containers_deleted: Some(Vec::new()), space_reclaimed: 0 };
        for container in self.inner.registry.all() {
            let is_wanted = {
                let live = container.live();
                matches!(live.record.run.status, Status::Created | Status::Exited)
                    && until.is_none_or(|until| live.record.created < until)
                    && filters.matches_labels("label", &live.record.config.labels)
                    && !(filters.contains("label!")
                        && filters.matches_labels("label!", &live.record.config.labels))
            };
            if !is_wanted {
                continue;
            }
            let upper = self.inner.roots.overlay(&container.id).join("upper");
            let size = blocking(move || Ok(files::tree_size(&upper))).await?;
            // Somebody may have started or removed it meanwhile.
            if self.remove(&container.id, RemoveOptions::default()).await.is_ok() {
                report.space_reclaimed += size;
                report.containers_deleted.get_or_insert_default().push(container.id.clone());
            }
        }
        Ok(report)
    }
}

async fn remove(
    inner: &Inner,
    container: &Arc<Container>,
    options: RemoveOptions,
) -> Result<(), EngineError> {
    if options.force {
        supervise::cancel_restart(inner, container).await;
        match stop::kill(inner, container, libc::SIGKILL).await {
            // It doesn't run.
            Ok(()) | Err(EngineError::WrongState(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let _turn = container.turn.lock().await;
    let name = container.name();
    let refuse = |why: &str| EngineError::wrong_state(format!("cannot remove container \"/{name}\": {why}"));
    match container.status() {
        Status::Created | Status::Exited | Status::Removing => {}
        // Another request or its restart policy was faster.
        Status::Removed => {
            return if options.force {
                Ok(())
            } else {
                Err(EngineError::NoSuchContainer(container.id.clone()))
            };
        }
        Status::Paused => return Err(refuse("container is paused and must be unpaused first")),
        status => {
            return Err(refuse(&format!(
                "container is {}: stop the container before removing or force remove",
                status.as_str()
            )));
        }
    }
    remove_in_turn(inner, container, options.volumes).await
}

/// Removes a container without a process; the caller has its turn. What fails is tried again by the next daemon.
pub(crate) async fn remove_in_turn(
    inner: &Inner,
    container: &Arc<Container>,
    with_volumes: bool,
) -> Result<(), EngineError> {
    let (name, mounts) = {
        let mut live = container.live();
        live.record.removing = true;
        // Who waited for its start waits no more.
        live.pending.clear();
        live.record.removing_volumes |= with_volumes;
        live.record.run.status = Status::Removing;
        (live.record.name.clone(), live.record.mounts.clone())
    };
    inner.save(container).await?;
    inner.execs.forget_container(inner, &container.id).await;
    inner.config.network.release(&container.id).await;
    let (shim, dir) = (inner.roots.shim(&container.id), inner.roots.container(&container.id));
    blocking(move || {
        files::remove_dir(&shim)?;
        files::remove_dir(&dir)
    })
    .await?;
    let with_volumes = container.live().record.removing_volumes;
    volume::release(inner, &container.id, &mounts, with_volumes).await;
    inner.state.commit(vec![Change::remove::<Record>(&container.id)]).await?;
    inner.config.images.release(&container.id).await;
    inner.registry.remove(&container.id, &name);
    container.live().record.run.status = Status::Removed;
    inner.events.container(container, "destroy", &[]);
    container.publish_gone();
    inner.announce(container);
    Ok(())
}

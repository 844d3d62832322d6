//! Removes containers: the mark on disk first, so that whatever happens, the next daemon finishes it.

use std::sync::Arc;
use std::time::Duration;

use docker::{ContainersPruneReport, Filters};

use super::record::Record;
use super::{Container, start, stop, supervise};
use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::files::{self, blocking};
use crate::state::Change;
use crate::volume;
use crate::watch::Status;

/// How soon a removal that nobody asks for again is tried again, and the longest pause. Chosen: a disk that is full may be
/// emptied within minutes.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

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

/// Removes a container whose removal nobody will ask for again; the caller has its turn. What fails is tried again in the
/// background.
pub(crate) async fn remove_or_retry(engine: &Engine, container: &Arc<Container>, with_volumes: bool) {
    let Err(error) = remove_in_turn(&engine.inner, container, with_volumes).await else { return };
    tracing::error!(container.id = %container.id, error = &error as &dyn std::error::Error, "not removed");
    let (engine, container) = (engine.clone(), Arc::clone(container));
    let inner = Arc::clone(&engine.inner);
    inner.tasks.spawn(async move { retry(&engine.inner, &container, with_volumes).await });
}

async fn retry(inner: &Inner, container: &Arc<Container>, with_volumes: bool) {
    let (mut pause, longest) = TRY_AGAIN;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = longest.min(2 * pause),
            () = inner.shutdown.cancelled() => return,
        }
        let _turn = container.turn.lock().await;
        // Somebody may have removed it, or started it again.
        if !matches!(container.status(), Status::Created | Status::Exited | Status::Removing) {
            return;
        }
        match remove_in_turn(inner, container, with_volumes).await {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(container.id = %container.id, error = &error as &dyn std::error::Error, "not removed");
            }
        }
    }
}

/// Removes a container without a process; the caller has its turn. Of what fails, whoever waits for the removal hears; it
/// may be tried again, and the next daemon does.
pub(crate) async fn remove_in_turn(
    inner: &Inner,
    container: &Arc<Container>,
    with_volumes: bool,
) -> Result<(), EngineError> {
    let outcome = mark_and_take_away(inner, container, with_volumes).await;
    if let Err(error) = &outcome {
        container.publish_not_removed(start::error_text(error));
        inner.announce(container);
    }
    outcome
}

async fn mark_and_take_away(
    inner: &Inner,
    container: &Arc<Container>,
    with_volumes: bool,
) -> Result<(), EngineError> {
    let before = {
        let mut live = container.live();
        // Who waited for its start waits no more.
        live.pending.clear();
        let before = (live.record.removing, live.record.removing_volumes, live.record.run.status);
        live.record.removing = true;
        live.record.removing_volumes |= with_volumes;
        live.record.run.status = Status::Removing;
        before
    };
    if let Err(error) = inner.save(container).await {
        // Nothing was taken away: it is what it was.
        let mut live = container.live();
        (live.record.removing, live.record.removing_volumes, live.record.run.status) = before;
        return Err(error);
    }
    take_away(inner, container).await
}

async fn take_away(inner: &Inner, container: &Arc<Container>) -> Result<(), EngineError> {
    let (name, mounts) = {
        let live = container.live();
        (live.record.name.clone(), live.record.mounts.clone())
    };
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
    let slot = inner.state.reserve().await?;
    let removed = {
        // From here on nobody writes the record any more.
        let mut live = container.live();
        live.record.run.status = Status::Removed;
        slot.send(vec![Change::remove::<Record>(&container.id)])
    };
    if let Err(error) = removed.done().await {
        container.live().record.run.status = Status::Removing;
        return Err(error.into());
    }
    inner.config.images.release(&container.id).await;
    inner.registry.remove(&container.id, &name);
    inner.shim_group.container_removed();
    inner.events.container(container, "destroy", &[]);
    container.publish_gone();
    inner.announce(container);
    Ok(())
}

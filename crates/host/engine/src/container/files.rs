//! Lends the files of a container to a piece of work, whether or not it runs.
//!
//! In: a container. Out: its root directory, for as long as the work takes. Of one that runs: what its first process
//! sees. Of one that doesn't: its layers with its volumes and binds, and nobody starts, removes or renames it
//! meanwhile.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use runtime::view::{Files, ViewError};

use super::Container;
use super::create::lookup_error;
use super::record::Record;
use crate::engine::Inner;
use crate::error::EngineError;
use crate::files::blocking;
use crate::spec_build;
use crate::watch::Status;

/// Which of a container's files are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// All that it sees, with volumes and binds.
    Everything,
    /// Its layers alone.
    Layers,
}

/// How often it is looked again whether the container runs, when it ends or starts at that moment. Chosen: each round
/// needs a start or an end in between.
const ROUNDS: usize = 10;

/// Runs `work` with the container's root directory, away from the async threads.
pub(crate) async fn lend<T, F>(
    inner: &Arc<Inner>,
    container: &Arc<Container>,
    sight: Sight,
    work: F,
) -> Result<T, EngineError>
where
    T: Send + 'static,
    F: FnOnce(BorrowedFd<'_>) -> T + Send + 'static,
{
    let mut work = Some(work);
    for _ in 0..ROUNDS {
        if let Ok(running) = container.running() {
            let files = match sight {
                Sight::Everything => Files::OfProcess(running.shim.pid()),
                Sight::Layers => Files::BelowMountsOf(running.shim.pid()),
            };
            match lend_now(files, &mut work).await? {
                Some(done) => return Ok(done),
                None => continue,
            }
        }
        let _turn = container.turn.lock().await;
        container.check_exists()?;
        if container.running().is_ok() {
            continue;
        }
        // Its shim may still be there, silent.
        if container.status().has_process() {
            return Err(EngineError::ShimSilent(container.id.clone()));
        }
        let files = stopped(inner, &container.record(), sight).await?;
        if let Some(done) = lend_now(files, &mut work).await? {
            return Ok(done);
        }
    }
    Err(EngineError::wrong_state(format!("container {} keeps on starting and ending", container.id)))
}

/// `None` if the process has ended; the work is then still to be done.
async fn lend_now<T, F>(files: Files, work: &mut Option<F>) -> Result<Option<T>, EngineError>
where
    T: Send + 'static,
    F: FnOnce(BorrowedFd<'_>) -> T + Send + 'static,
{
    let mut todo = work.take();
    let (outcome, left) = blocking(move || {
        let outcome = runtime::view::lend(&files, |root| todo.take().map(|work| work(root)));
        Ok((outcome, todo))
    })
    .await?;
    *work = left;
    match outcome {
        Ok(done) => Ok(done),
        Err(ViewError::Gone { .. }) => Ok(None),
        Err(error) => Err(EngineError::View(error)),
    }
}

/// The layers and mounts of a container without a process.
async fn stopped(inner: &Inner, record: &Record, sight: Sight) -> Result<Files, EngineError> {
    let id = record.image_id.parse();
    let id = id.map_err(|error: images::ParseDigestError| EngineError::Images(Box::new(error)))?;
    let image = inner.config.images.image(&id).await.map_err(lookup_error)?;
    let overlay = inner.roots.overlay(&record.id);
    let root = runtime::Root {
        lower: image.layers,
        upper: overlay.join("upper"),
        work: overlay.join("work"),
        merged: overlay.join("merged"),
        readonly: false,
    };
    if sight == Sight::Layers {
        return Ok(Files::Stopped(root, Vec::new()));
    }
    let mut binds: Vec<runtime::Mount> =
        record.mounts.iter().map(|mount| spec_build::user_mount(mount, &inner.roots)).collect();
    let owner = record.host_config.network_mode.strip_prefix("container:").unwrap_or(&record.id);
    for name in ["resolv.conf", "hostname", "hosts"] {
        let (source, target) = (inner.roots.container(owner).join(name), format!("/etc/{name}"));
        // They are written by the first start.
        if source.exists() && !record.mounts.iter().any(|mount| mount.destination == target) {
            binds.push(spec_build::bind(source, target.as_ref(), record.host_config.readonly_rootfs));
        }
    }
    Ok(Files::Stopped(root, binds))
}

/// Refuses what Docker refuses while a container is being removed. Source: moby, `daemon/archive.go`.
pub(crate) fn check_present(container: &Container) -> Result<(), EngineError> {
    match container.status() {
        Status::Removing | Status::Removed => {
            Err(EngineError::wrong_state(format!("container is marked for removal: {}", container.id)))
        }
        _ => Ok(()),
    }
}

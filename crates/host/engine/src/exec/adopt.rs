//! Finds the execs that outlived the daemon: detached ones go on, the others' clients are gone and they are killed.

use std::sync::Arc;

use shim::client::{Adopted, SignalTarget};

use super::{Exec, NOTE_FILE, Note, Phase, start};
use crate::engine::Engine;

/// Looks at one exec directory.
pub(crate) async fn adopt(engine: &Engine, id: &str) {
    let dir = engine.inner.roots.exec(id);
    let note = std::fs::read(dir.join(NOTE_FILE)).ok();
    let note = note.and_then(|text| serde_json::from_slice::<Note>(&text).ok());
    match shim::client::adopt(&dir).await {
        Ok(Adopted::Running(shim)) => {
            let container = note.as_ref().and_then(|note| engine.inner.registry.by_id(&note.container));
            if let (Some(note), Some(container)) = (note, container) {
                let exec = Exec::new(note.id, note.container, note.config);
                {
                    let mut live = exec.live();
                    live.phase = Phase::Running;
                    live.pid = shim.pid();
                    live.shim = Some(shim.clone());
                }
                engine.inner.execs.insert(Arc::clone(&exec));
                // Nobody reads its output: only detached execs outlive a daemon.
                drop(start::supervise(engine, &container, &exec, &shim));
                return;
            }
            // Refused only when it has ended already.
            let _ = shim.signal(libc::SIGKILL, SignalTarget::All).await;
            let _ = tokio::time::timeout(crate::health::KILLED_WAIT, shim.wait()).await;
        }
        Ok(Adopted::Exited(_) | Adopted::Lost(_)) => {}
        Err(error) => {
            tracing::warn!(exec.id = %id, error = &error as &dyn std::error::Error, "exec not adopted")
        }
    }
    start::remove_dir(&engine.inner, id).await;
}

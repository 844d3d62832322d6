//! Gives a container another name.

use super::names;
use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Renames a container; the new name must be free.
    pub async fn rename(&self, container: &str, name: &str) -> Result<(), EngineError> {
        if container.is_empty() || name.is_empty() {
            return Err(EngineError::invalid("Neither old nor new names may be empty"));
        }
        let new = names::check(name)?;
        let container = self.inner.registry.find(container)?;
        let engine = self.clone();
        self.to_the_end(async move {
            let inner = &engine.inner;
            let _turn = container.turn.lock().await;
            container.check_exists()?;
            let old = container.name();
            if old == new {
                return Err(EngineError::invalid(
                    "Renaming a container with the same name as its current name",
                ));
            }
            inner.registry.claim_name(&new, &container.id)?;
            container.live().record.name.clone_from(&new);
            if let Err(error) = inner.save(&container).await {
                container.live().record.name = old;
                inner.registry.free_name(&new, &container.id);
                return Err(error);
            }
            inner.registry.free_name(&old, &container.id);
            inner.config.network.rename(&container.id, &new).await;
            inner.events.container(&container, "rename", &[("oldName", format!("/{old}"))]);
            inner.announce(&container);
            Ok(())
        })
        .await
    }
}

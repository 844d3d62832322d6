//! What a container changed, as a layer for an image.
//!
//! In: a container, in any state. Out: what writes the layer's tar. A container that runs may go on changing its files
//! meanwhile; pausing it first is the caller's. Never changes anything.

use images::{ImageId, LayerWriter};

use super::create::lookup_error;
use super::remove::RemoveOptions;
use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// The layer that the container's own files are on its image.
    pub async fn changed_layer(&self, container: &str) -> Result<LayerWriter, EngineError> {
        let container = self.inner.registry.find(container)?;
        let image = container.record().image_id;
        let id: ImageId = image.parse().map_err(|_| EngineError::NoSuchImage(image.clone()))?;
        let below = self.inner.config.images.image(&id).await.map_err(lookup_error)?;
        let upper = self.inner.roots.overlay(&container.id).join("upper");
        Ok(images::diff(upper, below.layers))
    }

    /// Removes a container whatever it does, for somebody who does not wait for it.
    pub fn remove_soon(&self, container: &str) {
        let (engine, id) = (self.clone(), container.to_owned());
        self.inner.tasks.spawn(async move {
            let options = RemoveOptions { force: true, volumes: true };
            match engine.remove(&id, options).await {
                Ok(()) | Err(EngineError::NoSuchContainer(_)) => {}
                // It stays, and whoever lists containers sees it.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(container.id = %id, error, "container of a build not removed");
                }
            }
        });
    }
}

//! Writes a container's whole root file system as an archive, as `docker export` does.
//!
//! In: a container, running or not. Out: its layers as one tree. What is mounted in it, such as volumes, is left out.

use std::os::fd::BorrowedFd;

use images::What;

use super::archive::{Outgoing, Streamed, stream};
use super::files::{self, Sight};
use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// The root file system of a container as an archive.
    pub async fn export(&self, container: &str) -> Result<Streamed, EngineError> {
        let container = self.inner.registry.find(container)?;
        files::check_present(&container)?;
        let pack =
            |root: BorrowedFd<'_>, out: &mut Outgoing| images::pack(root, What::Tree(b""), &|_| false, out);
        let streamed = stream(&self.inner, &container, Sight::Layers, pack)?.started().await?;
        self.inner.events.container(&container, "export", &[]);
        Ok(streamed)
    }
}

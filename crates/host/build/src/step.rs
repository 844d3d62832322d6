//! One step: the image that it makes, or made before.
//!
//! In: the image below, the step's command line, its layer. Out: the next image. Never decides what a step means.

use docker::ImageConfig;
use images::{ContainerUse, DeriveOptions, ImageId, LayerWriter, Platform, Store};

use crate::error::BuildError;
use crate::output::Output;

/// Where a stage has got to.
pub(crate) struct State {
    /// `None` as long as nothing was put on an empty image.
    pub(crate) image: Option<ImageId>,
    /// The config of the next image.
    pub(crate) config: ImageConfig,
    /// Who makes it; empty for nobody.
    pub(crate) author: String,
    /// What an image without one below is for.
    pub(crate) platform: Option<Platform>,
    /// Whether this stage has a `CMD` of its own.
    pub(crate) has_cmd: bool,
}

impl State {
    /// The shell in front of a command in text form.
    pub(crate) fn shell(&self) -> Vec<String> {
        match &self.config.shell {
            Some(shell) if !shell.is_empty() => shell.to_vec(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        }
    }

    /// The command line of a step that runs nothing. Source: moby, `withCmdComment` and `withCmdCommentString`: those
    /// that change files have one space less.
    pub(crate) fn comment(&self, text: &str, changes_files: bool) -> String {
        let space = if changes_files { "" } else { " " };
        format!("{} #(nop) {space}{text}", self.shell().join(" "))
    }
}

/// The part of a build that makes images.
pub(crate) struct Steps<'a> {
    pub(crate) images: &'a Store,
    pub(crate) out: &'a Output,
    pub(crate) uses_cache: bool,
    /// Names this build among those that need images.
    pub(crate) holder: String,
}

impl Steps<'_> {
    /// Takes the image that the same step made on the same image before, if there is one.
    pub(crate) async fn reuse(&self, state: &mut State, key: &str) -> bool {
        let known = self.uses_cache.then(|| self.images.cached_step(state.image.as_ref(), key)).flatten();
        // It may be removed at this moment: then it is made anew.
        let Some(id) = known.filter(|id| self.hold(id).is_ok()) else { return false };
        self.out.text(" ---> Using cache\n").await;
        state.image = Some(id);
        true
    }

    /// Makes the next image.
    pub(crate) async fn make(
        &self,
        state: &mut State,
        created_by: String,
        layer: Option<LayerWriter>,
    ) -> Result<(), BuildError> {
        let options = DeriveOptions {
            base: state.image.clone(),
            layer,
            config: state.config.clone(),
            platform: state.platform.clone(),
            cache_key: Some(created_by.clone()),
            created_by,
            comment: String::new(),
            author: state.author.clone(),
            reference: None,
        };
        let id = self.images.derive(options).await?;
        self.hold(&id)?;
        state.image = Some(id);
        Ok(())
    }

    /// From now on the image stays until the next one is made, or the build is over.
    pub(crate) fn hold(&self, id: &ImageId) -> Result<(), BuildError> {
        let by = ContainerUse { container: self.holder.clone(), is_running: true };
        Ok(self.images.hold(id, by)?)
    }
}

//! The store as other crates see it.
//!
//! In: names, streams, options. Out: images, Docker's shapes, typed errors. Every method may be called at any time
//! from any number of tasks, and every future may be dropped at any point.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use docker::{AuthConfig, DistributionInspect, HistoryItem, ImageInspect, ImageSummary};

use crate::commit::CommitOptions;
use crate::context::{self, Fetched, Scratch};
use crate::derive::DeriveOptions;
use crate::errors::{
    DeriveError, FetchError, FileError, ImportError, LayerError, LoadError, LookupError, OpenError,
    PullError, PushError, RemoveError, TagError,
};
use crate::ids::ImageId;
use crate::options::{
    ContainerUse, Image, ImportOptions, ListOptions, PullOptions, Pulled, PushOptions, Pushed,
    RegistryConfig, Removed, TarStream,
};
use crate::platform::Platform;
use crate::progress::ProgressSender;
use crate::registry::Registry;
use crate::shelf::{Hold, Shelf};
use crate::{commit, derive, import, load, pull, push, query, registry, remove, save};

/// All images of one host. A cheap handle: clones share everything.
#[derive(Clone)]
pub struct Store {
    shelf: Arc<Shelf>,
    registry: Arc<RwLock<Arc<Registry>>>,
}

/// Runs blocking work on a thread made for it. A panic there goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only when the runtime shuts down, and then nobody polls this any more.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Store {
    /// Opens or makes the store below `root` and removes what an earlier run left unfinished. Images that were
    /// removed by force while a container held them stay until [`Store::sweep`].
    ///
    /// `root` becomes readable by root only. Only one process may use it at a time: the caller's lock sees to that.
    pub async fn open(root: impl Into<PathBuf>, config: RegistryConfig) -> Result<Store, OpenError> {
        let root = root.into();
        let shelf = blocking(move || Shelf::open(&root)).await?;
        let registry = Arc::new(RwLock::new(Arc::new(Registry::new(config))));
        Ok(Store { shelf: Arc::new(shelf), registry })
    }

    /// Replaces how registries are reached; operations under way keep what they began with.
    pub fn configure(&self, config: RegistryConfig) {
        *self.registry.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Registry::new(config));
    }

    fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes `options.reference` present. Dropping the future stops it and leaves nothing.
    ///
    /// `progress` gets Docker's lines; failures are returned, never sent there.
    pub async fn pull(&self, options: PullOptions, progress: ProgressSender) -> Result<Pulled, PullError> {
        pull::pull(&self.shelf, &self.registry(), options, &progress).await
    }

    /// Asks the registry what a name stands for, without pulling.
    pub async fn distribution(
        &self,
        reference: &str,
        auth: Option<&AuthConfig>,
    ) -> Result<DistributionInspect, PullError> {
        pull::distribution(&self.registry(), reference, auth).await
    }

    /// Loads every image of a `docker save` or OCI archive; returns ids with the familiar names they got. An image
    /// with several names appears once for each.
    ///
    /// Images before a broken one in the same archive stay loaded.
    pub async fn load(
        &self,
        archive: TarStream,
        progress: ProgressSender,
    ) -> Result<Vec<(ImageId, Option<String>)>, LoadError> {
        load::load(&self.shelf, archive, &progress).await
    }

    /// Makes an image of one layer from the tar of a root file system; plain, gzip or zstd.
    pub async fn import(
        &self,
        archive: TarStream,
        options: ImportOptions,
        progress: ProgressSender,
    ) -> Result<ImageId, ImportError> {
        import::import(&self.shelf, archive, options, &progress).await
    }

    /// Makes an image of another one and a step. Dropping the future stops it and leaves nothing.
    pub async fn derive(&self, options: DeriveOptions) -> Result<ImageId, DeriveError> {
        derive::derive(&self.shelf, options).await
    }

    /// An empty folder for the files of a build; it goes when the result is dropped.
    pub fn scratch(&self) -> Result<Scratch, FileError> {
        Scratch::new(&self.shelf)
    }

    /// Unpacks an archive (plain, gzip or zstd) into a folder of its own. Nothing in it leads out of the folder.
    pub async fn unpack(&self, archive: TarStream) -> Result<Scratch, LayerError> {
        context::unpack_stream(&self.shelf, archive).await
    }

    /// As [`Store::unpack`], of an archive in a file.
    pub async fn unpack_file(&self, path: PathBuf) -> Result<Scratch, LayerError> {
        context::unpack_file(&self.shelf, path).await
    }

    /// Fetches an address into a folder of its own.
    pub async fn fetch(&self, url: &str) -> Result<Fetched, FetchError> {
        context::fetch(&self.shelf, url).await
    }

    /// The image that the build step `key` made on `parent` earlier. Reads memory only.
    pub fn cached_step(&self, parent: Option<&ImageId>, key: &str) -> Option<ImageId> {
        derive::cached(&self.shelf.index(), parent, key)
    }

    /// Writes images into one archive, as `docker save` does; a name without a tag is all tags of its repository.
    ///
    /// The archive is written while the stream is read; an error in it means that it is not complete.
    pub fn save(&self, names: &[String], platform: Option<&Platform>) -> Result<TarStream, LookupError> {
        save::save(&self.shelf, names, platform)
    }

    /// Sends what a name stands for to its registry; see [`PushOptions`].
    ///
    /// `progress` gets Docker's lines; failures are returned, never sent there.
    pub async fn push(
        &self,
        options: PushOptions,
        progress: ProgressSender,
    ) -> Result<Vec<Pushed>, PushError> {
        push::push(&self.shelf, &self.registry(), options, &progress).await
    }

    /// Asks a registry whether it takes these credentials.
    pub async fn check_login(&self, auth: &AuthConfig) -> Result<(), PushError> {
        registry::check_login(&self.registry(), auth).await
    }

    /// Makes an image of `options.base` and one more layer, whose tar is `layer`.
    pub async fn commit(&self, layer: TarStream, options: CommitOptions) -> Result<ImageId, ImportError> {
        commit::commit(&self.shelf, layer, options).await
    }

    /// Gives the image `source` the further name `target` (`name[:tag]`), taking it from any other image.
    pub async fn tag(&self, source: &str, target: &str) -> Result<ImageId, TagError> {
        let (shelf, source, target) = (Arc::clone(&self.shelf), source.to_owned(), target.to_owned());
        blocking(move || remove::tag(&shelf, &source, &target)).await
    }

    /// The image a name, digest, id or beginning of an id stands for. Reads memory only.
    pub fn resolve(&self, name: &str) -> Result<ImageId, LookupError> {
        query::find(&self.shelf.index(), name).map(|(id, _)| id)
    }

    /// What is needed to make a container; also works for an image that was removed by force while held.
    pub async fn image(&self, id: &ImageId) -> Result<Image, LookupError> {
        let (shelf, id) = (Arc::clone(&self.shelf), id.clone());
        blocking(move || shelf.image(&id)).await
    }

    /// `GET /images/json`, newest first. A `before` or `since` that names no image is an error.
    pub async fn list(&self, options: &ListOptions) -> Result<Vec<ImageSummary>, LookupError> {
        self.shelf.list(options)
    }

    /// `GET /images/{name}/json`.
    pub async fn inspect(&self, name: &str) -> Result<ImageInspect, LookupError> {
        let (shelf, name) = (Arc::clone(&self.shelf), name.to_owned());
        blocking(move || shelf.inspect(&name)).await
    }

    /// `GET /images/{name}/history`, newest first.
    pub async fn history(&self, name: &str) -> Result<Vec<HistoryItem>, LookupError> {
        let (shelf, name) = (Arc::clone(&self.shelf), name.to_owned());
        blocking(move || shelf.history(&name)).await
    }

    /// `DELETE /images/{name}`. A name is untagged; with the last name the image goes. `force` also removes an
    /// image with names in several repositories, or of stopped containers, never of running ones.
    pub async fn remove(&self, name: &str, force: bool) -> Result<Vec<Removed>, RemoveError> {
        let (shelf, name) = (Arc::clone(&self.shelf), name.to_owned());
        blocking(move || remove::remove(&shelf, &name, force)).await
    }

    /// Keeps `image` and its layers until [`Store::release`]. Call before the container is recorded, and again for
    /// each container found after a start. Replaces an earlier hold of the same container.
    pub fn hold(&self, image: &ImageId, by: ContainerUse) -> Result<(), LookupError> {
        let hold = Hold { image: image.clone(), is_running: by.is_running };
        match self.shelf.hold(by.container, hold) {
            true => Ok(()),
            false => Err(LookupError::NotFound { reference: image.to_string() }),
        }
    }

    /// Tells that a container with a hold started or stopped.
    pub fn set_running(&self, container: &str, is_running: bool) {
        self.shelf.set_running(container, is_running);
    }

    /// Ends a container's hold; an image removed by force meanwhile is deleted now.
    pub async fn release(&self, container: &str) {
        if let Some(id) = self.shelf.end_hold(container) {
            self.delete_unheld(Some(id)).await;
        }
    }

    /// To be called once after a start, when every existing container has its hold again: deletes images that
    /// were removed by force and are held by nobody any more. Before this call none of them is deleted.
    pub async fn sweep(&self) {
        self.delete_unheld(None).await;
    }

    async fn delete_unheld(&self, id: Option<ImageId>) {
        let shelf = Arc::clone(&self.shelf);
        if let Err(error) = blocking(move || remove::delete_unheld(&shelf, id.as_ref())).await {
            // The index on disk still has it; the next release or start tries again.
            tracing::warn!(error = %error, "removed image not deleted");
        }
    }

    /// Number of images that `docker images` shows; for `docker info`.
    pub fn count(&self) -> usize {
        self.shelf.index().images.values().filter(|record| !record.is_removed).count()
    }
}

//! The store's state: the index in memory and on disk, what work under way needs, what containers hold.
//!
//! In: changes as closures. Out: the new index, on disk before anybody sees it. Never talks to a network and never
//! holds a lock while it does anything slower than writing the index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use docker::{ProgressMessage, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::disk::{Disk, Temp};
use crate::errors::{FileError, OpenError};
use crate::ids::{Digest, ImageId};
use crate::index::{Index, Layer};

/// Layers downloaded at once, over all pulls. Source: moby, `max-concurrent-downloads`.
const MAX_DOWNLOADS: usize = 3;
/// Layers unpacked at once. Chosen: two keep a disk and two cores busy, more only seek.
const MAX_UNPACKS: usize = 2;

/// Everything behind a [`crate::Store`].
pub(crate) struct Shelf {
    pub(crate) disk: Disk,
    index: RwLock<Arc<Index>>,
    /// Held while an index is made and written. Taken before `live`, never after it.
    writer: Mutex<()>,
    live: Mutex<Live>,
    flights: Mutex<BTreeMap<String, Weak<Flight>>>,
    pub(crate) downloads: Arc<Semaphore>,
    pub(crate) unpacks: Arc<Semaphore>,
}

/// What lives only as long as the process.
#[derive(Default)]
struct Live {
    /// Unpacked layers no image of the index has yet, by chain id.
    layers: BTreeMap<Digest, Layer>,
    /// How many operations under way need a blob or layer (by chain id).
    pins: BTreeMap<Digest, usize>,
    /// By container id.
    holds: BTreeMap<String, Hold>,
    /// Images about to be deleted: no new hold may begin.
    doomed: BTreeSet<ImageId>,
}

/// A container's need of an image.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) image: ImageId,
    pub(crate) is_running: bool,
}

/// A locked mutex; a panic elsewhere leaves data that is still consistent, since changes are single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

impl Shelf {
    pub(crate) fn open(root: &Path) -> Result<Shelf, OpenError> {
        let disk = Disk::open(root)?;
        let mut index = Index::read(root)?;
        // A layer whose folder is gone (an admin's `rm`) makes its images unusable: better to forget them.
        let gone: BTreeSet<Digest> = index
            .layers
            .iter()
            .filter(|(_, layer)| !disk.layer(&layer.folder).is_dir())
            .map(|(chain, _)| chain.clone())
            .collect();
        let broken: BTreeSet<ImageId> = index
            .images
            .iter()
            .filter(|(id, record)| {
                !disk.has_blob(&id.0)
                    || record.layers.iter().any(|c| gone.contains(c) || !index.layers.contains_key(c))
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in &broken {
            tracing::error!(image.id = %id, "image is damaged on disk and forgotten");
            index.images.remove(id);
        }
        index.names.retain(|_, id| !broken.contains(id));
        index.drop_unused_layers();
        index.write(root)?;
        disk.keep_layers(&index.layers.values().map(|layer| layer.folder.as_str()).collect())?;
        disk.keep_blobs(&index.blobs())?;
        Ok(Shelf {
            disk,
            index: RwLock::new(Arc::new(index)),
            writer: Mutex::default(),
            live: Mutex::default(),
            flights: Mutex::default(),
            downloads: Arc::new(Semaphore::new(MAX_DOWNLOADS)),
            unpacks: Arc::new(Semaphore::new(MAX_UNPACKS)),
        })
    }

    /// The index as it is now.
    pub(crate) fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the index: on disk first, then in memory. An error of `change` changes nothing. Blocks on the disk.
    ///
    /// Layers that the new index names are taken over from those made meanwhile, and layers that it does not need
    /// any more are deleted.
    pub(crate) fn commit<T, E: From<FileError>>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T, E>,
    ) -> Result<T, E> {
        let writer = lock(&self.writer);
        let mut next = Index::clone(&self.index());
        let out = change(&mut next)?;
        let dropped = next.drop_unused_layers();
        next.write(self.disk.root())?;
        let folders: Vec<String> = {
            // Both change under one lock, so that a layer is always found in one of them.
            let mut live = lock(&self.live);
            live.layers.retain(|chain, _| !next.layers.contains_key(chain));
            let (keep, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
                dropped.into_iter().partition(|(chain, _)| live.pins.contains_key(chain));
            live.layers.extend(keep);
            *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
            gone.into_values().map(|layer| layer.folder).collect()
        };
        let removed: Vec<Temp> = folders.iter().filter_map(|folder| self.disk.take_layer(folder)).collect();
        drop(writer);
        // Deleting a large tree takes long; nobody can see it any more.
        drop(removed);
        Ok(out)
    }

    /// Deletes layers and blobs that neither the index nor work under way needs. Blocks on the disk.
    pub(crate) fn collect(&self) {
        let writer = lock(&self.writer);
        let index = self.index();
        let (folders, keep) = {
            let mut live = lock(&self.live);
            let Live { layers, pins, .. } = &mut *live;
            let unused: Vec<Digest> =
                layers.keys().filter(|chain| !pins.contains_key(chain)).cloned().collect();
            let folders: Vec<Layer> = unused.iter().filter_map(|chain| layers.remove(chain)).collect();
            let mut keep = index.blobs();
            keep.extend(pins.keys().cloned());
            keep.extend(layers.values().map(|layer| layer.blob.digest.clone()));
            (folders, keep)
        };
        let removed: Vec<Temp> = folders.iter().filter_map(|l| self.disk.take_layer(&l.folder)).collect();
        if let Err(e) = self.disk.keep_blobs(&keep) {
            tracing::warn!(error = %e, "unused blobs not removed");
        }
        drop(writer);
        drop(removed);
    }

    /// The layer with this chain id, if it is unpacked, whether or not an image has it already.
    pub(crate) fn layer(&self, chain: &Digest) -> Option<Layer> {
        let live = lock(&self.live);
        live.layers.get(chain).cloned().or_else(|| self.index().layers.get(chain).cloned())
    }

    /// Puts an unpacked folder in place. The caller has pinned `chain`.
    pub(crate) fn add_layer(&self, chain: &Digest, made: Temp, mut layer: Layer) -> Result<(), FileError> {
        layer.folder = self.disk.new_layer_name();
        made.put(&self.disk.layer(&layer.folder))?;
        lock(&self.live).layers.insert(chain.clone(), layer);
        Ok(())
    }

    pub(crate) fn layer_path(&self, layer: &Layer) -> PathBuf {
        self.disk.layer(&layer.folder)
    }

    /// Begins a container's hold, unless the image is gone or about to go.
    pub(crate) fn hold(&self, container: String, hold: Hold) -> bool {
        let mut live = lock(&self.live);
        let is_there = self.index().images.contains_key(&hold.image) && !live.doomed.contains(&hold.image);
        if is_there {
            live.holds.insert(container, hold);
        }
        is_there
    }

    pub(crate) fn set_running(&self, container: &str, is_running: bool) {
        if let Some(hold) = lock(&self.live).holds.get_mut(container) {
            hold.is_running = is_running;
        }
    }

    pub(crate) fn end_hold(&self, container: &str) -> Option<ImageId> {
        lock(&self.live).holds.remove(container).map(|hold| hold.image)
    }

    /// Containers that hold `image`, as (id, is running).
    pub(crate) fn holders(&self, image: &ImageId) -> Vec<(String, bool)> {
        let live = lock(&self.live);
        let of_image = live.holds.iter().filter(|(_, hold)| hold.image == *image);
        of_image.map(|(container, hold)| (container.clone(), hold.is_running)).collect()
    }

    /// Forbids new holds of `image` if `may_go` agrees with the present ones; until [`Shelf::spare`].
    pub(crate) fn doom<E>(
        &self,
        image: &ImageId,
        may_go: impl FnOnce(&[(String, bool)]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut live = lock(&self.live);
        let holders: Vec<(String, bool)> = live
            .holds
            .iter()
            .filter(|(_, hold)| hold.image == *image)
            .map(|(container, hold)| (container.clone(), hold.is_running))
            .collect();
        may_go(&holders)?;
        live.doomed.insert(image.clone());
        Ok(())
    }

    pub(crate) fn spare(&self, image: &ImageId) {
        lock(&self.live).doomed.remove(image);
    }
}

/// Keeps blobs and layers from being collected while an operation makes an image of them.
///
/// When dropped, whatever no image has taken over meanwhile is deleted.
pub(crate) struct Pins {
    shelf: Arc<Shelf>,
    digests: Vec<Digest>,
}

impl Pins {
    pub(crate) fn new(shelf: &Arc<Shelf>) -> Pins {
        Pins { shelf: Arc::clone(shelf), digests: Vec::new() }
    }

    pub(crate) fn add(&mut self, digests: impl IntoIterator<Item = Digest>) {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let mut live = lock(&self.shelf.live);
        for digest in &digests {
            *live.pins.entry(digest.clone()).or_default() += 1;
        }
        drop(live);
        self.digests.extend(digests);
    }

    /// Ends the pins and collects at once. Blocks on the disk.
    pub(crate) fn release(mut self) {
        self.unpin();
        self.shelf.collect();
    }

    fn unpin(&mut self) {
        let mut live = lock(&self.shelf.live);
        for digest in self.digests.drain(..) {
            if let Some(count) = live.pins.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    live.pins.remove(&digest);
                }
            }
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if self.digests.is_empty() {
            return;
        }
        self.unpin();
        // A dropped future cannot wait: the collection runs on a thread for blocking work. Without a runtime the
        // process is ending, and the next start collects.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let shelf = Arc::clone(&self.shelf);
            runtime.spawn_blocking(move || shelf.collect());
        }
    }
}

/// One piece of work that several operations want: one does it, the others wait and see its progress.
pub(crate) struct Flight {
    turn: Arc<Semaphore>,
    state: watch::Sender<Option<ProgressMessage>>,
}

/// The right to do the work; the next one in line gets it when this is dropped.
pub(crate) struct Turn {
    flight: Arc<Flight>,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    /// Tells those who wait for the same work.
    pub(crate) fn tell(&self, line: &ProgressMessage) {
        self.flight.state.send_replace(Some(line.clone()));
    }
}

impl Shelf {
    /// Waits for the right to do the work called `key`, passing on what its present doer tells.
    pub(crate) async fn turn(&self, key: String, mut watch_line: impl AsyncFnMut(ProgressMessage)) -> Turn {
        let flight = self.flight(key);
        let mut state = flight.state.subscribe();
        let mut acquire = std::pin::pin!(Arc::clone(&flight.turn).acquire_owned());
        loop {
            tokio::select! {
                biased;
                permit = &mut acquire => {
                    let permit = permit.expect("the semaphore of a flight is never closed");
                    return Turn { flight, _permit: permit };
                }
                Ok(()) = state.changed() => {
                    let line = state.borrow_and_update().clone();
                    if let Some(line) = line {
                        watch_line(line).await;
                    }
                }
            }
        }
    }

    fn flight(&self, key: String) -> Arc<Flight> {
        let mut flights = lock(&self.flights);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::new(Flight { turn: Arc::new(Semaphore::new(1)), state: watch::Sender::new(None) });
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }
}

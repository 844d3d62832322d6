//! Makes an image visible: its record and its names, all at once, when everything it needs is in place.
//!
//! In: an image's config, its layers in the store and pinned, its names. Out: the new index. Never fetches and never
//! unpacks.

use std::sync::Arc;

use crate::errors::FileError;
use crate::ids::{Digest, ImageId};
use crate::index::{Descriptor, Index, Record};
use crate::manifest::Config;
use crate::shelf::{Pins, Shelf, now};

/// An image whose layers are in place.
pub(crate) struct Ready {
    pub(crate) id: ImageId,
    pub(crate) record: Record,
    /// The config and the manifests, to be kept as blobs; pinned.
    pub(crate) documents: Vec<Vec<u8>>,
    /// Canonical names to give it.
    pub(crate) names: Vec<String>,
}

/// Makes an image visible, or cleans up after its failure; then ends the pins. Whether anything changed.
///
/// All of it happens on one thread that a dropped future does not stop: the pins must outlive the commit. `None` if
/// that thread ended without a result.
pub(crate) async fn finish<E: From<FileError> + Send + 'static>(
    shelf: &Arc<Shelf>,
    pins: Pins,
    fetched: Result<Ready, E>,
) -> Option<Result<bool, E>> {
    let shelf = Arc::clone(shelf);
    let work = tokio::task::spawn_blocking(move || {
        let outcome = fetched.and_then(|ready| {
            for bytes in &ready.documents {
                shelf.disk.put_blob(bytes)?;
            }
            shelf.disk.sync()?;
            Ok(add_image(&shelf, &ready.id, ready.record, &ready.names)?)
        });
        // Deletes what was fetched for nothing; after a success there is nothing to delete.
        pins.release();
        outcome
    });
    work.await.ok()
}

impl Record {
    /// A record of an image of these layers (chain ids, base first); its size comes with [`add_image`].
    pub(crate) fn new(config: &Config, layers: Vec<Digest>, manifests: Vec<Descriptor>) -> Record {
        Record {
            created: config.created,
            tagged: now(),
            layers,
            size: 0,
            labels: config.config.as_ref().map(|c| c.labels.clone()).unwrap_or_default(),
            platform: config.platform(),
            manifests,
            is_removed: false,
            parent: None,
            cache_key: None,
        }
    }
}

/// Writes an image and its names into the index; whether that changed anything. Blocks on the disk.
///
/// The layers are in the store and pinned.
fn add_image(shelf: &Shelf, id: &ImageId, mut record: Record, names: &[String]) -> Result<bool, FileError> {
    shelf.commit(|index: &mut Index| {
        record.size = 0;
        for chain in &record.layers {
            let layer = index.layers.get(chain).cloned().or_else(|| shelf.layer(chain));
            let layer = layer.expect("a pinned layer stays until it is released");
            record.size += layer.size;
            index.layers.insert(chain.clone(), layer);
        }
        let mut is_new = false;
        match index.images.get_mut(id) {
            Some(known) => {
                is_new |= std::mem::take(&mut known.is_removed);
                let more: Vec<Descriptor> =
                    record.manifests.iter().filter(|d| !known.manifests.contains(d)).cloned().collect();
                known.manifests.extend(more);
            }
            None => {
                is_new = true;
                index.images.insert(id.clone(), record);
            }
        }
        for name in names {
            is_new |= index.names.insert(name.clone(), id.clone()).as_ref() != Some(id);
        }
        if is_new && let Some(record) = index.images.get_mut(id) {
            record.tagged = now();
        }
        Ok(is_new)
    })
}

//! Makes an image of an image and one more layer: what a container has changed.
//!
//! In: the image, the layer's tar as it streams in, the new image's config. Out: an image in the index. A broken stream
//! leaves nothing.

use std::sync::Arc;

use docker::ImageConfig;

use crate::changes;
use crate::disk::Temp;
use crate::errors::{ImportError, LayerError};
use crate::ids::{Digest, ImageId};
use crate::import::{parse_name, store};
use crate::index::{Descriptor, Record, chain_ids};
use crate::layer::unpack_blob;
use crate::manifest::{Config, MAX_LAYERS, Step};
use crate::options::TarStream;
use crate::platform::Platform;
use crate::register::{Ready, finish};
use crate::shelf::{Pins, Shelf, now};
use crate::spool::read_in_thread;

/// A tar without entries. Source: moby, `layer.DigestSHA256EmptyTar`.
const EMPTY_TAR: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// What to make of a container's changes.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// The image the container was made from.
    pub base: String,
    /// `name[:tag]`; `None` leaves the image without a name.
    pub reference: Option<String>,
    /// What the container runs with.
    pub config: ImageConfig,
    /// Dockerfile instructions (`CMD`, `ENV`, …), one each, applied to the config.
    pub changes: Vec<String>,
    /// The comment in history.
    pub comment: String,
    /// Who made it.
    pub author: String,
}

/// See [`crate::Store::commit`].
pub(crate) async fn commit(
    shelf: &Arc<Shelf>,
    stream: TarStream,
    options: CommitOptions,
) -> Result<ImageId, ImportError> {
    let name = options.reference.as_deref().map(parse_name).transpose()?;
    let mut config = options.config.clone();
    // Before the changes, as the shell of a step that was run. Source: moby, `image.NewChildImage`.
    let created_by = config.cmd.as_ref().map(|words| words.join(" ")).unwrap_or_default();
    changes::apply(&mut config, &options.changes)?;
    let base_id: ImageId =
        options.base.parse().map_err(|_| ImportError::InvalidReference(options.base.clone()))?;
    let base = shelf.config(&base_id).map_err(|e| ImportError::Base(Box::new(e)))?;
    let mut pins = Pins::new(shelf);
    let chains = chain_ids(&base.rootfs.diff_ids);
    pins.add(chains.iter().cloned());
    if let Some(lost) = chains.iter().find(|chain| shelf.layer(chain).is_none()) {
        return Err(ImportError::InvalidReference(format!("layer {lost} of the image is gone")));
    }
    let disk = Arc::clone(shelf);
    let stored =
        read_in_thread(stream, move |reader| store(&disk, reader)).await.ok_or(ImportError::Stopped)?;
    let (temp, blob) = stored?;
    let made = make_layer(shelf, &mut pins, &base, temp, blob).await;
    let ready = made.map(|diff_id| {
        let config = describe(base, config, created_by, diff_id, &options);
        let bytes = serde_json::to_vec(&config).expect("a config has string keys and plain values");
        let id = ImageId(Digest::of(&bytes));
        pins.add([id.0.clone()]);
        let record = Record::new(&config, chain_ids(&config.rootfs.diff_ids), Vec::new());
        Ready {
            id,
            record,
            documents: vec![bytes],
            names: name.iter().map(|name| name.canonical()).collect(),
        }
    });
    let id = ready.as_ref().map(|ready| ready.id.clone()).ok();
    finish(shelf, pins, ready).await.ok_or(ImportError::Stopped)??;
    id.ok_or(ImportError::Stopped)
}

/// Puts the layer over those of `base`; `None` if there is nothing in it.
async fn make_layer(
    shelf: &Arc<Shelf>,
    pins: &mut Pins,
    base: &Config,
    temp: Temp,
    blob: Descriptor,
) -> Result<Option<Digest>, ImportError> {
    if blob.digest.as_str() == EMPTY_TAR {
        return Ok(None);
    }
    if base.rootfs.diff_ids.len() >= MAX_LAYERS {
        // Source: moby, `layer.ErrMaxDepthExceeded`.
        return Err(ImportError::InvalidReference("max depth exceeded".to_owned()));
    }
    pins.add([blob.digest.clone()]);
    temp.put(&shelf.disk.blob(&blob.digest))?;
    let (folder, layer) = unpack_blob(shelf, blob, None, |_| {}).await?;
    let diff_id = layer.diff_id.clone();
    let all: Vec<Digest> = base.rootfs.diff_ids.iter().cloned().chain([diff_id.clone()]).collect();
    let chain = chain_ids(&all).pop().expect("there is at least the new layer");
    pins.add([chain.clone()]);
    let _turn = shelf.turn(format!("layer {chain}"), async |_| {}).await;
    if shelf.layer(&chain).is_none() {
        shelf.add_layer(&chain, folder, layer).map_err(LayerError::from)?;
    }
    Ok(Some(diff_id))
}

fn describe(
    mut base: Config,
    config: ImageConfig,
    created_by: String,
    layer: Option<Digest>,
    options: &CommitOptions,
) -> Config {
    let created = now();
    let platform = Platform::host();
    if base.os.is_empty() {
        (base.os, base.architecture, base.variant) = (platform.os, platform.architecture, platform.variant);
    }
    base.history.push(Step {
        created,
        created_by,
        author: options.author.clone(),
        comment: options.comment.clone(),
        empty_layer: layer.is_none(),
    });
    base.rootfs.kind = "layers".to_owned();
    base.rootfs.diff_ids.extend(layer);
    Config {
        author: options.author.clone(),
        comment: options.comment.clone(),
        created,
        config: Some(config),
        ..base
    }
}

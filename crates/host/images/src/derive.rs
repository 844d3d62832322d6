//! Makes an image of another one and a step: what `docker commit` and each instruction of a build do.
//!
//! In: the image below, what writes the new layer's tar, the new config. Out: an image in the index with one history entry
//! more. A step that changes no file adds no layer. Nothing is visible before it is complete; a dropped future leaves
//! nothing.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use docker::{ImageConfig, Reference};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::codec::Encoding;
use crate::diff::LayerWriter;
use crate::disk::Temp;
use crate::errors::{DeriveError, FileError, LayerError};
use crate::ids::{Digest, Hasher, ImageId};
use crate::index::{Descriptor, Index, Record, chain_ids};
use crate::layer::unpack_blob;
use crate::manifest::{Config, MAX_LAYERS, RootFs, Step};
use crate::platform::Platform;
use crate::register::{Ready, finish};
use crate::shelf::{Pins, Shelf, now};

/// What to make.
pub struct DeriveOptions {
    /// The image below; `None` is an empty one.
    pub base: Option<ImageId>,
    /// Writes the tar of the new layer; `None` for a step that only changes the config.
    pub layer: Option<LayerWriter>,
    /// The whole config of the new image.
    pub config: ImageConfig,
    /// The platform of an image without one below; `None` is this machine's.
    pub platform: Option<Platform>,
    /// The command line of the step, as `docker history` shows it.
    pub created_by: String,
    /// Free text of the step.
    pub comment: String,
    /// Who made it; empty keeps the author of the image below.
    pub author: String,
    /// `name[:tag]`; `None` leaves it without a name.
    pub reference: Option<String>,
    /// By what a build finds this step again; `None` for what is no step of a build. With it the new image remembers the
    /// one below as its parent.
    pub cache_key: Option<String>,
}

/// See [`crate::Store::derive`].
pub(crate) async fn derive(shelf: &Arc<Shelf>, options: DeriveOptions) -> Result<ImageId, DeriveError> {
    let name = options.reference.as_deref().map(parse_name).transpose()?;
    let base = base(shelf, options.base.as_ref())?;
    let mut pins = Pins::new(shelf);
    pins.add(base.layers.iter().cloned());
    let made = match options.layer {
        None => Ok(None),
        Some(write) => make_layer(shelf, &mut pins, write, &base).await,
    };
    let parent = options.cache_key.is_some().then_some(options.base).flatten();
    let ready = made.map(|layer| {
        let described = Described {
            config: options.config,
            created_by: options.created_by,
            comment: options.comment,
            author: options.author,
            platform: options.platform,
        };
        let config = described.on(base.config, layer.as_ref());
        let bytes = serde_json::to_vec(&config).expect("a config has string keys and plain values");
        let id = ImageId(Digest::of(&bytes));
        pins.add([id.0.clone()]);
        let mut record = Record::new(&config, chain_ids(&config.rootfs.diff_ids), Vec::new());
        record.parent = parent;
        record.cache_key = options.cache_key;
        Ready { id, record, documents: vec![bytes], names: name.iter().map(Reference::canonical).collect() }
    });
    let id = ready.as_ref().map(|ready| ready.id.clone()).ok();
    finish(shelf, pins, ready).await.ok_or(DeriveError::Stopped)??;
    id.ok_or(DeriveError::Stopped)
}

fn parse_name(text: &str) -> Result<Reference, DeriveError> {
    let parsed = Reference::parse(text).map_err(|e| DeriveError::InvalidReference(e.to_string()))?;
    if parsed.digest.is_some() {
        return Err(DeriveError::InvalidReference("cannot commit to digest reference".to_owned()));
    }
    Ok(parsed.with_default_tag())
}

/// The image below.
struct Base {
    config: Config,
    /// Chain ids, base first.
    layers: Vec<Digest>,
}

fn base(shelf: &Shelf, id: Option<&ImageId>) -> Result<Base, DeriveError> {
    let Some(id) = id else { return Ok(Base { config: Config::default(), layers: Vec::new() }) };
    let layers = shelf.index().images.get(id).map(|record| record.layers.clone());
    let layers = layers.ok_or_else(|| crate::LookupError::NotFound { reference: id.to_string() })?;
    Ok(Base { config: shelf.config(id)?, layers })
}

/// What a step says.
struct Described {
    config: ImageConfig,
    created_by: String,
    comment: String,
    author: String,
    platform: Option<Platform>,
}

impl Described {
    /// Source: moby, `image/image.go`, `NewChildImage`.
    fn on(self, base: Config, diff_id: Option<&Digest>) -> Config {
        let created = now();
        let platform = match base.os.is_empty() {
            true => self.platform.unwrap_or_else(Platform::host),
            false => base.platform(),
        };
        let mut rootfs = RootFs { kind: "layers".to_owned(), ..base.rootfs };
        rootfs.diff_ids.extend(diff_id.cloned());
        let mut history = base.history;
        history.push(Step {
            created,
            created_by: self.created_by,
            comment: self.comment.clone(),
            author: self.author.clone(),
            empty_layer: diff_id.is_none(),
        });
        Config {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            os_version: base.os_version,
            author: if self.author.is_empty() { base.author } else { self.author },
            comment: self.comment,
            docker_version: String::new(),
            created,
            config: Some(self.config),
            rootfs,
            history,
        }
    }
}

/// The new layer's diff id; `None` when it holds nothing.
async fn make_layer(
    shelf: &Arc<Shelf>,
    pins: &mut Pins,
    write: LayerWriter,
    base: &Base,
) -> Result<Option<Digest>, DeriveError> {
    let (disk, is_cancelled) = (Arc::clone(shelf), Arc::new(AtomicBool::new(false)));
    let _stop = CancelOnDrop(Arc::clone(&is_cancelled));
    let stored = tokio::task::spawn_blocking(move || store(&disk, write, is_cancelled));
    let (temp, diff_id, blob) = stored.await.map_err(|_| DeriveError::Stopped)??;
    if diff_id == Digest::of(&[0; 1024]) {
        return Ok(None);
    }
    if base.layers.len() >= MAX_LAYERS {
        // Source: moby, `layer.ErrMaxDepthExceeded`.
        return Err(DeriveError::TooDeep);
    }
    pins.add([blob.digest.clone()]);
    temp.put(&shelf.disk.blob(&blob.digest))?;
    let chain = match base.layers.last() {
        None => diff_id.clone(),
        Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
    };
    pins.add([chain.clone()]);
    let _turn = shelf.turn(format!("layer {chain}"), async |_| {}).await;
    if shelf.layer(&chain).is_none() {
        let (folder, layer) = unpack_blob(shelf, blob, Some(diff_id.clone()), |_| {}).await?;
        shelf.add_layer(&chain, folder, layer).map_err(LayerError::from)?;
    }
    Ok(Some(diff_id))
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes the layer's tar, compressed, into `tmp/`. Blocks on the disk.
fn store(
    shelf: &Shelf,
    write: LayerWriter,
    is_cancelled: Arc<AtomicBool>,
) -> Result<(Temp, Digest, Descriptor), DeriveError> {
    let temp = shelf.disk.temp("commit");
    let file = File::create(temp.path()).map_err(FileError::at("open", temp.path()))?;
    let packed = HashingWriter { out: BufWriter::new(file), hasher: Hasher::default(), size: 0 };
    // Chosen: layers of builds are written far more often than sent; the fastest level is half of the time.
    let mut plain =
        Plain { out: GzEncoder::new(packed, Compression::fast()), hasher: Hasher::default(), is_cancelled };
    write(&mut plain).map_err(DeriveError::Write)?;
    let diff_id = plain.hasher.finish();
    let mut packed = plain.out.finish().map_err(FileError::at("write", temp.path()))?;
    packed.out.flush().map_err(FileError::at("write", temp.path()))?;
    let media_type = Encoding::Gzip.layer_media_type().to_owned();
    Ok((temp, diff_id, Descriptor { media_type, digest: packed.hasher.finish(), size: packed.size }))
}

/// Counts and hashes what it passes on.
struct HashingWriter<W> {
    out: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The plain side; fails once nobody waits for the result any more.
struct Plain<W> {
    out: W,
    hasher: Hasher,
    is_cancelled: Arc<AtomicBool>,
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.is_cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let n = self.out.write(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The image that a step with `key` on `parent` made earlier, the newest of several. Reads memory only.
/// Source: moby, `daemon/images/cache.go`, `getLocalCachedImage`.
pub(crate) fn cached(index: &Index, parent: Option<&ImageId>, key: &str) -> Option<ImageId> {
    let of_step = index.images.iter().filter(|(_, record)| {
        !record.is_removed && record.parent.as_ref() == parent && record.cache_key.as_deref() == Some(key)
    });
    of_step.max_by_key(|(_, record)| record.created).map(|(id, _)| id.clone())
}

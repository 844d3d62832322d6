//! Writes images into one archive, as `docker save` does: an OCI layout with a `manifest.json` for older readers.
//!
//! In: names and ids. Out: the archive as a stream, written while it is read. Blobs are written as they are kept, so that
//! digests of registries survive. What is written is pinned until the stream ends or is dropped. Never changes anything.
//! Source: moby 28, `image/tarexport/save.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use bytes::Bytes;
use docker::Reference;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::archive::{Entry, Kind};
use crate::archive_write::ArchiveWriter;
use crate::errors::{LookupError, WrongPlatform};
use crate::ids::{Digest, ImageId};
use crate::index::{Descriptor, Index, Record};
use crate::manifest::{self, Document};
use crate::options::TarStream;
use crate::platform::Platform;
use crate::query::{By, find};
use crate::shelf::{Pins, Shelf};

/// Pieces that may wait for a slow reader. Chosen: with the piece's size a few hundred kilobytes per stream.
const PIECES: usize = 4;
const PIECE: usize = 128 * 1024;
/// An image config as manifests call it.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// All of Docker's and OCI's layers that are compressed with gzip.
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// One image to be written.
struct Chosen {
    id: ImageId,
    record: Record,
    tags: Vec<Reference>,
}

/// A manifest to be written or pushed, and what it describes.
pub(crate) struct Described {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
    pub(crate) config: Descriptor,
    /// Base first.
    pub(crate) layers: Vec<Descriptor>,
}

/// See [`crate::Store::save`].
pub(crate) fn save(
    shelf: &Arc<Shelf>,
    names: &[String],
    platform: Option<&Platform>,
) -> Result<TarStream, LookupError> {
    let index = shelf.index();
    let chosen = choose(&index, names)?;
    for image in &chosen {
        if let Some(wanted) = platform
            && wanted.rank(&image.record.platform).is_none()
        {
            return Err(LookupError::WrongPlatform(Box::new(WrongPlatform {
                reference: names.join(", "),
                found: image.record.platform.clone(),
                wanted: wanted.clone(),
            })));
        }
    }
    let mut pins = Pins::new(shelf);
    for image in &chosen {
        pins.add([image.id.0.clone()]);
        pins.add(image.record.manifests.iter().map(|manifest| manifest.digest.clone()));
        pins.add(image.record.layers.iter().cloned());
        pins.add(layers(&index, &image.record).into_iter().map(|layer| layer.digest));
    }
    let (sender, pieces) = mpsc::channel(PIECES);
    let shelf = Arc::clone(shelf);
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PIECE, Pieces { sender: sender.clone() });
        let written = write(&shelf, &index, &chosen, &mut out).and_then(|()| out.flush());
        if let Err(error) = written {
            // Nobody is left to be told when the reader went away.
            let _is_gone = sender.blocking_send(Err(error)).is_err();
        }
        pins.release();
    });
    let next = async |mut pieces: mpsc::Receiver<io::Result<Bytes>>| {
        pieces.recv().await.map(|piece| (piece, pieces))
    };
    Ok(Box::pin(futures_util::stream::unfold(pieces, next)))
}

/// Sends what is written as pieces; fails once nobody reads any more.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for Pieces {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(buf);
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Each image once, with the names it was asked for by: a name without a tag is all tags of its repository, an id none.
fn choose(index: &Index, names: &[String]) -> Result<Vec<Chosen>, LookupError> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut add = |id: ImageId, tag: Option<Reference>| {
        let Some(record) = index.images.get(&id) else { return };
        let at = chosen.iter().position(|image| image.id == id).unwrap_or_else(|| {
            chosen.push(Chosen { id: id.clone(), record: record.clone(), tags: Vec::new() });
            chosen.len() - 1
        });
        let tags = &mut chosen[at].tags;
        tags.extend(tag.filter(|tag| !tags.contains(tag)));
    };
    for name in names {
        let parsed = Reference::parse(name).ok();
        if let Some(repository) = parsed.as_ref().filter(|r| r.tag.is_none() && r.digest.is_none()) {
            let prefix = format!("{}:", repository.name());
            let all: Vec<_> = index.names.iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
            if !all.is_empty() {
                for (name, id) in all {
                    add(id.clone(), Reference::parse(name).ok());
                }
                continue;
            }
        }
        let (id, by) = find(index, name)?;
        let tag = match by {
            By::Name(canonical) => Reference::parse(&canonical).ok().filter(|r| r.tag.is_some()),
            By::Id => None,
        };
        add(id, tag);
    }
    Ok(chosen)
}

/// The blobs of an image's layers, base first.
pub(crate) fn layers(index: &Index, record: &Record) -> Vec<Descriptor> {
    let layers = record.layers.iter().filter_map(|chain| index.layers.get(chain));
    layers.map(|layer| layer.blob.clone()).collect()
}

/// The manifest the image came with if it describes what is kept here, else one made now. Blocks on the disk.
pub(crate) fn describe(shelf: &Shelf, index: &Index, id: &ImageId, record: &Record) -> io::Result<Described> {
    let blobs = layers(index, record);
    for descriptor in &record.manifests {
        let Ok(bytes) = shelf.disk.read_blob(&descriptor.digest) else { continue };
        let Ok(Document::Manifest(found)) = manifest::parse(&bytes, Some(&descriptor.media_type)) else {
            continue;
        };
        let is_same = found.layers.iter().map(|l| &l.digest).eq(blobs.iter().map(|l| &l.digest));
        if is_same && found.config.digest == id.0 {
            let descriptor = descriptor.clone();
            return Ok(Described { descriptor, bytes, config: found.config, layers: found.layers });
        }
    }
    let size = std::fs::metadata(shelf.disk.blob(&id.0))?.len();
    let config = Descriptor { media_type: CONFIG_TYPE.to_owned(), digest: id.0.clone(), size };
    let layers: Vec<Descriptor> = blobs.into_iter().map(as_oci).collect();
    let bytes = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": manifest::OCI_MANIFEST, "config": config, "layers": layers,
    }));
    let bytes = bytes.expect("a manifest has string keys and plain values");
    let descriptor = Descriptor {
        media_type: manifest::OCI_MANIFEST.to_owned(),
        digest: Digest::of(&bytes),
        size: bytes.len() as u64,
    };
    Ok(Described { descriptor, bytes, config, layers })
}

/// A manifest of one kind has layers of that kind.
fn as_oci(mut layer: Descriptor) -> Descriptor {
    if layer.media_type == DOCKER_LAYER {
        layer.media_type = crate::codec::Encoding::Gzip.layer_media_type().to_owned();
    }
    layer
}

fn write(shelf: &Shelf, index: &Index, chosen: &[Chosen], out: &mut dyn Write) -> io::Result<()> {
    let mut saver = Saver { shelf, out: ArchiveWriter::new(out), written: BTreeSet::new() };
    saver.folder("blobs/")?;
    saver.folder("blobs/sha256/")?;
    let (mut manifests, mut legacy) = (Vec::new(), Vec::new());
    for image in chosen {
        let described = describe(shelf, index, &image.id, &image.record)?;
        for layer in &described.layers {
            saver.blob(&layer.digest)?;
        }
        saver.blob(&image.id.0)?;
        saver.bytes(&blob_path(&described.descriptor.digest), &described.bytes)?;
        manifests.extend(entries(image, &described.descriptor, &image.record.platform));
        let paths: Vec<String> = described.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
        let tags: Vec<String> = image.tags.iter().map(Reference::familiar).collect();
        legacy.push(json!({
            "Config": blob_path(&image.id.0),
            "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
            "Layers": paths,
        }));
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": manifests,
    });
    saver.bytes("index.json", index.to_string().as_bytes())?;
    saver.bytes("manifest.json", Value::from(legacy).to_string().as_bytes())?;
    saver.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    saver.out.finish().map(drop)
}

/// One entry of the index for each name. Source: containerd, `images/archive`, for the annotations.
fn entries(image: &Chosen, manifest: &Descriptor, platform: &Platform) -> Vec<Value> {
    let mut entry = json!(manifest);
    let mut shown = json!({"architecture": platform.architecture, "os": platform.os});
    if !platform.variant.is_empty() {
        shown["variant"] = json!(platform.variant);
    }
    entry["platform"] = shown;
    if image.tags.is_empty() {
        return vec![entry];
    }
    let named = |tag: &Reference| {
        let mut entry = entry.clone();
        let annotations: BTreeMap<&str, String> = BTreeMap::from([
            ("io.containerd.image.name", tag.canonical()),
            ("org.opencontainers.image.ref.name", tag.tag.clone().unwrap_or_default()),
        ]);
        entry["annotations"] = json!(annotations);
        entry
    };
    image.tags.iter().map(named).collect()
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

struct Saver<'a, W> {
    shelf: &'a Shelf,
    out: ArchiveWriter<W>,
    /// Names in the archive: images share layers.
    written: BTreeSet<String>,
}

impl<W: Write> Saver<'_, W> {
    fn folder(&mut self, path: &str) -> io::Result<()> {
        self.out.entry(&entry(Kind::Folder, path, 0o755))
    }

    fn bytes(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        if self.written.insert(path.to_owned()) {
            self.out.file(&entry(Kind::File, path, 0o644), bytes.len() as u64, &mut &bytes[..])?;
        }
        Ok(())
    }

    fn blob(&mut self, digest: &Digest) -> io::Result<()> {
        let path = blob_path(digest);
        if self.written.insert(path.clone()) {
            let mut file = File::open(self.shelf.disk.blob(digest))?;
            let size = file.metadata()?.len();
            self.out.file(&entry(Kind::File, &path, 0o644), size, &mut file)?;
        }
        Ok(())
    }
}

/// Everything has the time zero: the same images make the same archive.
fn entry(kind: Kind, path: &str, mode: u32) -> Entry {
    Entry {
        kind,
        path: path.as_bytes().to_vec(),
        link: Vec::new(),
        mode,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

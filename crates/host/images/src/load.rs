//! Loads images from an archive: what `docker save` writes, and OCI layouts in a tar.
//!
//! In: the archive as it streams in, compressed or not. Out: images in the index with the names the archive gives
//! them. Nothing becomes visible unless it is complete; a broken archive leaves nothing.

use std::sync::Arc;

use docker::{ProgressMessage, Reference};
use serde::Deserialize;

use crate::errors::{LayerError, LoadError, PullError};
use crate::ids::{Digest, ImageId};
use crate::index::{Descriptor, Record, chain_ids};
use crate::layer::unpack_blob;
use crate::manifest::{self, Config, Document};
use crate::options::TarStream;
use crate::platform::Platform;
use crate::progress::{ProgressSender, count};
use crate::register::{Ready, finish};
use crate::shelf::{Pins, Shelf};
use crate::spool::read_in_thread;
use crate::spooled::{Spooled, spool};

/// One image the archive promises.
struct Promise {
    config: String,
    names: Vec<Reference>,
    /// Files of the layers, base first.
    layers: Vec<String>,
    /// The manifest, if the archive has one.
    manifest: Option<(Descriptor, Vec<u8>)>,
}

/// What all images of one archive have in common.
struct Loader<'a> {
    shelf: &'a Arc<Shelf>,
    spooled: Spooled,
    progress: &'a ProgressSender,
}

/// See [`crate::Store::load`].
pub(crate) async fn load(
    shelf: &Arc<Shelf>,
    stream: TarStream,
    progress: &ProgressSender,
) -> Result<Vec<(ImageId, Option<String>)>, LoadError> {
    let place = Arc::clone(shelf);
    let spooled =
        read_in_thread(stream, move |reader| spool(place, reader)).await.ok_or(LoadError::Stopped)??;
    let mut loader = Loader { shelf, spooled, progress };
    let mut loaded = Vec::new();
    for promise in promises(&loader.spooled)? {
        loaded.extend(loader.load_one(promise).await?);
    }
    Ok(loaded)
}

/// What `manifest.json` of `docker save` says of one image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

fn promises(spooled: &Spooled) -> Result<Vec<Promise>, LoadError> {
    if spooled.has("manifest.json") {
        let saved: Vec<Saved> = spooled.json("manifest.json")?;
        return saved.into_iter().map(from_saved).collect();
    }
    if spooled.has("index.json") && spooled.has("oci-layout") {
        let found = oci_entries(spooled, "index.json", 0)?;
        return found.into_iter().map(|entry| from_oci(spooled, &entry)).collect();
    }
    // Source: moby, `image/tarexport/load.go`.
    let text = "invalid archive: does not contain a manifest.json";
    Err(LoadError::Invalid(text.to_owned()))
}

fn from_saved(saved: Saved) -> Result<Promise, LoadError> {
    let names = saved.repo_tags.unwrap_or_default();
    let names: Result<Vec<Reference>, LoadError> = names.iter().map(|name| tagged(name)).collect();
    Ok(Promise {
        config: saved.config,
        names: names?,
        layers: saved.layers.unwrap_or_default(),
        manifest: None,
    })
}

fn tagged(name: &str) -> Result<Reference, LoadError> {
    let parsed = Reference::parse(name).map_err(|e| LoadError::Invalid(format!("{e}: {name}")))?;
    match parsed.tag.is_some() && parsed.digest.is_none() {
        true => Ok(parsed),
        false => Err(LoadError::Invalid(format!("invalid tag {name:?}"))),
    }
}

/// The builds of an OCI layout that fit this machine, with their names.
fn oci_entries(spooled: &Spooled, file: &str, depth: u32) -> Result<Vec<manifest::Entry>, LoadError> {
    #[derive(Deserialize)]
    struct Layout {
        manifests: Vec<manifest::Entry>,
    }
    if depth > 3 {
        return Err(LoadError::Invalid("manifest list is nested too deeply".to_owned()));
    }
    let layout: Layout = spooled.json(file)?;
    let mut found = Vec::new();
    for entry in layout.manifests {
        let media_type = entry.descriptor.media_type.as_str();
        if ![manifest::OCI_INDEX, manifest::DOCKER_LIST].contains(&media_type) {
            found.push(entry);
            continue;
        }
        let nested = oci_entries(spooled, &blob_file(&entry.descriptor.digest), depth + 1)?;
        let platform = Platform::host();
        let chosen = manifest::choose(&nested, &platform).cloned();
        let mut chosen = chosen.ok_or(LoadError::NoMatchingManifest { platform })?;
        // The name stands at the outer entry.
        chosen.annotations.extend(entry.annotations);
        found.push(chosen);
    }
    Ok(found)
}

fn blob_file(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn from_oci(spooled: &Spooled, entry: &manifest::Entry) -> Result<Promise, LoadError> {
    let file = blob_file(&entry.descriptor.digest);
    let (expected, found) = (entry.descriptor.digest.clone(), spooled.digest(&file)?);
    if expected != found {
        return Err(LoadError::WrongDigest { file, expected, found });
    }
    let bytes = spooled.bytes(&file)?;
    let manifest = match manifest::parse(&bytes, Some(&entry.descriptor.media_type)) {
        Ok(Document::Manifest(manifest)) => manifest,
        Ok(Document::Index(_)) => return Err(LoadError::Invalid(format!("`{file}` is no image manifest"))),
        Err(PullError::Parse { source, .. }) => return Err(LoadError::Parse { file, source }),
        Err(e) => return Err(LoadError::Invalid(e.to_string())),
    };
    // Source: containerd, `images/archive`: the full name first, then the mere tag or name.
    let name = entry.annotations.get("io.containerd.image.name");
    let name = name
        .or_else(|| entry.annotations.get("org.opencontainers.image.ref.name").filter(|n| n.contains(':')));
    Ok(Promise {
        config: blob_file(&manifest.config.digest),
        names: name.map(|name| tagged(name)).transpose()?.into_iter().collect(),
        layers: manifest.layers.iter().map(|layer| blob_file(&layer.digest)).collect(),
        manifest: Some((entry.descriptor.clone(), bytes)),
    })
}

impl Loader<'_> {
    async fn load_one(&mut self, promise: Promise) -> Result<Vec<(ImageId, Option<String>)>, LoadError> {
        let (id, config, bytes) = self.config(&promise)?;
        let chains = chain_ids(&config.rootfs.diff_ids);
        let (descriptors, mut documents): (Vec<Descriptor>, Vec<Vec<u8>>) =
            promise.manifest.into_iter().unzip();
        documents.push(bytes);
        let mut pins = Pins::new(self.shelf);
        pins.add([id.0.clone()]);
        pins.add(descriptors.iter().map(|descriptor| descriptor.digest.clone()));
        pins.add(chains.iter().cloned());
        for file in &promise.layers {
            pins.add([self.spooled.digest(file)?]);
        }
        let layers = promise.layers.iter().zip(&config.rootfs.diff_ids).zip(&chains);
        let mut fetched = Ok(());
        for ((file, diff_id), chain) in layers {
            fetched = self.layer(file, diff_id, chain).await;
            if fetched.is_err() {
                break;
            }
        }
        if fetched.is_ok() {
            self.tell_moved_names(&id, &promise.names).await;
        }
        let ready = fetched.map(|()| Ready {
            id: id.clone(),
            record: Record::new(&config, chains, descriptors),
            documents,
            names: promise.names.iter().map(Reference::canonical).collect(),
        });
        finish(self.shelf, pins, ready).await.ok_or(LoadError::Stopped)??;
        self.tell_loaded(&id, &promise.names).await;
        if promise.names.is_empty() {
            return Ok(vec![(id, None)]);
        }
        Ok(promise.names.iter().map(|name| (id.clone(), Some(name.familiar()))).collect())
    }

    /// The config of a promised image, checked against what the archive says of it.
    fn config(&self, promise: &Promise) -> Result<(ImageId, Config, Vec<u8>), LoadError> {
        let bytes = self.spooled.bytes(&promise.config)?;
        let config: Config = serde_json::from_slice(&bytes)
            .map_err(|source| LoadError::Parse { file: promise.config.clone(), source })?;
        let id = ImageId(Digest::of(&bytes));
        if let Some(expected) = promise.config.strip_prefix("blobs/sha256/")
            && expected != id.hex()
        {
            let expected = format!("sha256:{expected}").parse()?;
            return Err(LoadError::WrongDigest { file: promise.config.clone(), expected, found: id.0 });
        }
        let (expected, found) = (config.rootfs.diff_ids.len(), promise.layers.len());
        if expected != found {
            // Source: moby, `image/tarexport/load.go`.
            let text = format!("invalid manifest, layers length mismatch: expected {expected}, got {found}");
            return Err(LoadError::Invalid(text));
        }
        if config.os != "linux" {
            return Err(LoadError::Invalid(format!("cannot load {} image on linux", config.os)));
        }
        if found > manifest::MAX_LAYERS {
            return Err(LoadError::Invalid("max depth exceeded".to_owned()));
        }
        Ok((id, config, bytes))
    }

    async fn layer(&mut self, file: &str, diff_id: &Digest, chain: &Digest) -> Result<(), LoadError> {
        let _turn = self.shelf.turn(format!("layer {chain}"), async |_| {}).await;
        if self.shelf.layer(chain).is_some() {
            return Ok(());
        }
        let blob = self.spooled.take_blob(file)?;
        let (id, total, bars) = (diff_id.short().to_owned(), blob.size, self.progress.clone());
        let line = move |bytes| ProgressMessage::bytes(&id, "Loading layer", count(bytes), count(total));
        self.progress.send(line(0)).await;
        let (report, last) = (line.clone(), line);
        let report = move |bytes| bars.offer(report(bytes));
        let (folder, layer) = unpack_blob(self.shelf, blob, Some(diff_id.clone()), report).await?;
        self.progress.send(last(total)).await;
        self.shelf.add_layer(chain, folder, layer).map_err(LayerError::from)?;
        Ok(())
    }

    /// Source: moby, `image/tarexport/load.go`, `setLoadedTag`.
    async fn tell_moved_names(&self, id: &ImageId, names: &[Reference]) {
        let index = self.shelf.index();
        for name in names {
            if let Some(old) = index.names.get(&name.canonical()).filter(|old| *old != id) {
                let name = name.familiar();
                let text = format!(
                    "The image {name} already exists, renaming the old one with ID {old} to empty string\n"
                );
                self.progress.send(ProgressMessage::stream(text)).await;
            }
        }
    }

    async fn tell_loaded(&self, id: &ImageId, names: &[Reference]) {
        if names.is_empty() {
            self.progress.send(ProgressMessage::stream(format!("Loaded image ID: {id}\n"))).await;
        }
        for name in names {
            let text = format!("Loaded image: {}\n", name.familiar());
            self.progress.send(ProgressMessage::stream(text)).await;
        }
    }
}

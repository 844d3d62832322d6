//! Pushes images: what the registry lacks, then the manifest under its tag.
//!
//! In: a name, credentials. Out: the digest of each tag, progress in Docker's words, and the name with its digest in the
//! index. Nothing here changes unless the registry has everything; a dropped future ends the transfers.
//! Source: moby 28, `distribution/push_v2.go`.

use std::sync::Arc;

use docker::{ProgressMessage, Reference};
use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use crate::download::with_retries;
use crate::errors::{FileError, LookupError, PullError, PushError, WrongPlatform};
use crate::ids::{Digest, ImageId};
use crate::index::{Descriptor, Index};
use crate::options::{PushOptions, Pushed};
use crate::progress::{ProgressSender, count};
use crate::registry::{Begun, Registry, Session, reach};
use crate::save::{Described, describe};
use crate::shelf::{Pins, Shelf};

/// Layers sent at once. Source: moby, `max-concurrent-uploads`.
const MAX_UPLOADS: usize = 5;
/// Repositories asked to give a layer. Source: moby, `push_v2.go`, `maxMountAttempts`.
const MAX_MOUNTS: usize = 4;

/// See [`crate::Store::push`].
pub(crate) async fn push(
    shelf: &Arc<Shelf>,
    registry: &Registry,
    options: PushOptions,
    progress: &ProgressSender,
) -> Result<Vec<Pushed>, PushError> {
    let invalid = |text: String| PushError::InvalidReference(text);
    let reference = Reference::parse(&options.reference).map_err(|e| invalid(e.to_string()))?;
    if reference.digest.is_some() {
        return Err(invalid("cannot push a digest reference".to_owned()));
    }
    let index = shelf.index();
    let names = names(&index, &reference)?;
    for (_, id) in &names {
        check_platform(&index, id, &options)?;
    }
    let text = format!("The push refers to repository [{}]", reference.name());
    progress.send(ProgressMessage::status(text)).await;
    let endpoint = reach(registry, &reference.domain).await?;
    let push = Push {
        shelf,
        session: Session::new(endpoint, reference, options.auth),
        progress,
        uploads: Semaphore::new(MAX_UPLOADS),
    };
    let mut pushed = Vec::new();
    for (name, id) in names {
        pushed.push(push.one(&index, name, id).await?);
    }
    Ok(pushed)
}

/// What is to be pushed: one tag, or all of the repository, by tag.
fn names(index: &Index, reference: &Reference) -> Result<Vec<(Reference, ImageId)>, PushError> {
    let found: Vec<(Reference, ImageId)> = match &reference.tag {
        Some(_) => index.names.get_key_value(&reference.canonical()).into_iter().collect::<Vec<_>>(),
        None => {
            let prefix = format!("{}:", reference.name());
            index.names.iter().filter(|(name, _)| name.starts_with(&prefix)).collect()
        }
    }
    .into_iter()
    .filter(|(_, id)| index.images.get(id).is_some_and(|record| !record.is_removed))
    .filter_map(|(name, id)| Some((Reference::parse(name).ok()?, id.clone())))
    .collect();
    if found.is_empty() {
        // Source: moby, `distribution/push.go`, for the wording and the name without its domain's default.
        return Err(PushError::NoSuchName(reference.name()));
    }
    Ok(found)
}

fn check_platform(index: &Index, id: &ImageId, options: &PushOptions) -> Result<(), PushError> {
    let (Some(wanted), Some(record)) = (&options.platform, index.images.get(id)) else { return Ok(()) };
    match wanted.rank(&record.platform) {
        Some(_) => Ok(()),
        None => Err(PushError::Lookup(LookupError::WrongPlatform(Box::new(WrongPlatform {
            reference: options.reference.clone(),
            found: record.platform.clone(),
            wanted: wanted.clone(),
        })))),
    }
}

/// Everything one push carries along.
struct Push<'a> {
    shelf: &'a Arc<Shelf>,
    session: Session,
    progress: &'a ProgressSender,
    uploads: Semaphore,
}

/// One layer to be sent.
struct Sent<'a> {
    /// Short diff id.
    id: &'a str,
    blob: &'a Descriptor,
    /// Repositories of the same registry that have it.
    homes: Vec<String>,
}

impl Push<'_> {
    async fn one(&self, index: &Index, name: Reference, id: ImageId) -> Result<Pushed, PushError> {
        let record = index.images.get(&id).ok_or_else(|| PushError::NoSuchName(name.familiar()))?;
        let mut pins = Pins::new(self.shelf);
        pins.add([id.0.clone()]);
        pins.add(record.layers.iter().cloned());
        pins.add(crate::save::layers(index, record).into_iter().map(|blob| blob.digest));
        let described = describe(self.shelf, index, &id, record)
            .map_err(|e| FileError::at("read", self.shelf.disk.blob(&id.0))(e))?;
        let config = self.shelf.config(&id)?;
        let diff_ids = &config.rootfs.diff_ids;
        let layers: Vec<Sent<'_>> = described
            .layers
            .iter()
            .zip(diff_ids)
            .zip(&record.layers)
            .map(|((blob, diff_id), chain)| Sent {
                id: diff_id.short(),
                blob,
                homes: homes(index, chain, &name),
            })
            .collect();
        for layer in layers.iter().rev() {
            self.progress.send(ProgressMessage::layer(layer.id, "Preparing")).await;
        }
        try_join_all(layers.iter().rev().map(|layer| self.layer(layer))).await?;
        self.config(&described).await?;
        let pushed = self.manifest(&name, &described).await?;
        self.remember(&name, id, &pushed.digest).await?;
        drop(pins);
        Ok(pushed)
    }

    async fn layer(&self, layer: &Sent<'_>) -> Result<(), PushError> {
        let permit = match self.uploads.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                self.state(layer, "Waiting").await;
                self.uploads.acquire().await.map_err(|_| PushError::Stopped)?
            }
        };
        if with_retries(async || self.session.has_blob(&layer.blob.digest).await).await? {
            self.state(layer, "Layer already exists").await;
            return Ok(());
        }
        for home in &layer.homes {
            // A registry that does not mount begins an upload, which is left alone: it expires.
            if let Ok(Begun::Mounted) = self.session.begin_upload(&layer.blob.digest, Some(home)).await {
                self.state(layer, &format!("Mounted from {home}")).await;
                return Ok(());
            }
        }
        let (progress, id, total) = (self.progress.clone(), layer.id.to_owned(), layer.blob.size);
        let report = move |bytes| {
            progress.offer(ProgressMessage::bytes(&id, "Pushing", count(bytes), count(total)));
        };
        self.send(layer.blob, report).await?;
        drop(permit);
        self.state(layer, "Pushed").await;
        Ok(())
    }

    async fn state(&self, layer: &Sent<'_>, text: &str) {
        self.progress.send(ProgressMessage::layer(layer.id, text)).await;
    }

    /// Uploads a blob, from the beginning after a failure that may pass.
    async fn send(
        &self,
        blob: &Descriptor,
        report: impl Fn(u64) + Clone + Send + Sync + 'static,
    ) -> Result<(), PullError> {
        let path = self.shelf.disk.blob(&blob.digest);
        with_retries(async || match self.session.begin_upload(&blob.digest, None).await? {
            Begun::Mounted => Ok(()),
            Begun::At(location) => self.session.upload(&location, blob, &path, report.clone()).await,
        })
        .await
    }

    async fn config(&self, described: &Described) -> Result<(), PushError> {
        let config = &described.config;
        if !with_retries(async || self.session.has_blob(&config.digest).await).await? {
            self.send(config, |_| {}).await?;
        }
        Ok(())
    }

    async fn manifest(&self, name: &Reference, described: &Described) -> Result<Pushed, PushError> {
        let (manifest, bytes) = (&described.descriptor, &described.bytes);
        let tag = name.tag.clone().unwrap_or_default();
        let put = with_retries(async || self.session.put_manifest(&tag, manifest, bytes).await).await?;
        let expected = manifest.digest.clone();
        if let Some(found) = put.filter(|found| *found != expected) {
            return Err(PushError::WrongDigest { expected, found });
        }
        let text = format!("{tag}: digest: {expected} size: {}", manifest.size);
        self.progress.send(ProgressMessage::status(text)).await;
        let aux = serde_json::json!({"Tag": tag, "Digest": expected, "Size": manifest.size});
        let line = ProgressMessage {
            progress_detail: Some(Default::default()),
            aux: Some(aux),
            ..ProgressMessage::default()
        };
        self.progress.send(line).await;
        Ok(Pushed { reference: name.familiar(), tag, digest: expected, size: manifest.size })
    }

    /// The name with its digest names the image from now on.
    async fn remember(&self, name: &Reference, id: ImageId, digest: &Digest) -> Result<(), PushError> {
        let (shelf, canonical) = (Arc::clone(self.shelf), format!("{}@{digest}", name.name()));
        let work = tokio::task::spawn_blocking(move || {
            shelf.commit(|index: &mut Index| -> Result<(), FileError> {
                // It may have been removed meanwhile.
                if index.images.contains_key(&id) {
                    index.names.insert(canonical, id);
                }
                Ok(())
            })
        });
        Ok(work.await.map_err(|_| PushError::Stopped)??)
    }
}

/// Other repositories of the same registry that had the layer when last heard of.
fn homes(index: &Index, chain: &Digest, name: &Reference) -> Vec<String> {
    let has_layer = |id: &ImageId| index.images.get(id).is_some_and(|record| record.layers.contains(chain));
    let digests = index.names.iter().filter(|(name, id)| name.contains('@') && has_layer(id));
    let mut homes: Vec<String> = digests
        .filter_map(|(name, _)| Reference::parse(name).ok())
        .filter(|other| other.domain == name.domain && other.path != name.path)
        .map(|other| other.path)
        .collect();
    homes.dedup();
    homes.truncate(MAX_MOUNTS);
    homes
}

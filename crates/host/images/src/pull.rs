//! Pulls an image: finds it, fetches what is missing, unpacks it, and only then gives it a name.
//!
//! In: a reference, a platform, credentials. Out: an image in the index, and progress in Docker's words. Dropping the
//! future at any point leaves the store as it was.

use std::sync::Arc;

use docker::{AuthConfig, DistributionInspect, OciDescriptor, OciPlatform, ProgressMessage, Reference};
use futures_util::future::try_join_all;

use crate::download::{Teller, download, with_retries};
use crate::errors::{LayerError, PullError};
use crate::ids::{Digest, ImageId};
use crate::index::{Descriptor, Record, chain_ids};
use crate::layer::unpack_blob;
use crate::manifest::{self, Config, Document, Manifest};
use crate::options::{PullOptions, Pulled};
use crate::platform::Platform;
use crate::progress::{ProgressSender, count};
use crate::register::{Ready, finish};
use crate::registry::{Found, Registry, Session};
use crate::shelf::{Pins, Shelf};

/// Everything one pull carries along.
struct Pull<'a> {
    shelf: &'a Arc<Shelf>,
    reference: Reference,
    platform: Platform,
    progress: &'a ProgressSender,
}

/// A complete description of one build.
struct Build {
    id: ImageId,
    config: Config,
    manifest: Manifest,
    /// Manifest and index as they came, for the store.
    documents: Vec<(Descriptor, Vec<u8>)>,
    config_bytes: Vec<u8>,
}

/// What to ask the registry for: the digest if there is one, else the tag.
fn target(reference: &Reference) -> &str {
    let named = reference.digest.as_deref().or(reference.tag.as_deref());
    named.unwrap_or(docker::reference::DEFAULT_TAG)
}

fn parse(reference: &str) -> Result<Reference, PullError> {
    let parsed = Reference::parse(reference).map_err(|e| PullError::InvalidReference(e.to_string()))?;
    let mut parsed = parsed.with_default_tag();
    if parsed.digest.is_some() {
        // A digest says it all; Docker drops the tag as well.
        parsed.tag = None;
    }
    Ok(parsed)
}

/// See [`crate::Store::pull`].
pub(crate) async fn pull(
    shelf: &Arc<Shelf>,
    registry: &Registry,
    options: PullOptions,
    progress: &ProgressSender,
) -> Result<Pulled, PullError> {
    let reference = parse(&options.reference)?;
    let platform = options.platform.unwrap_or_else(Platform::host);
    let pull = Pull { shelf, reference, platform, progress };
    let heading = format!("Pulling from {}", pull.reference.path);
    let heading =
        ProgressMessage { id: Some(target(&pull.reference).to_owned()), ..ProgressMessage::status(heading) };
    if let Some(done) = pull.is_current(registry, options.auth.as_ref()).await {
        progress.send(heading).await;
        return Ok(pull.tell_result(done).await);
    }
    let (session, found) = find(registry, &pull.reference, options.auth).await?;
    progress.send(heading).await;
    let done = pull.make(&session, found).await?;
    Ok(pull.tell_result(done).await)
}

/// See [`crate::Store::distribution`].
pub(crate) async fn distribution(
    registry: &Registry,
    reference: &str,
    auth: Option<&AuthConfig>,
) -> Result<DistributionInspect, PullError> {
    let (session, found) = find(registry, &parse(reference)?, auth.cloned()).await?;
    let document = manifest::parse(&found.bytes, found.media_type.as_deref())?;
    let descriptor = OciDescriptor {
        media_type: media_type(&found, &document),
        digest: found.digest.to_string(),
        size: count(found.bytes.len() as u64),
        ..OciDescriptor::default()
    };
    let platforms = match document {
        Document::Index(entries) => entries
            .into_iter()
            .filter_map(|entry| entry.platform)
            .map(|p| OciPlatform {
                architecture: p.architecture,
                os: p.os,
                os_version: p.os_version,
                os_features: p.os_features,
                variant: p.variant,
            })
            .collect(),
        Document::Manifest(manifest) => {
            let bytes = with_retries(async || session.config(&manifest.config.digest).await).await?;
            let config: Config = parse_config(&bytes)?;
            vec![OciPlatform {
                architecture: config.architecture,
                os: config.os,
                os_version: config.os_version,
                os_features: Vec::new(),
                variant: config.variant,
            }]
        }
    };
    Ok(DistributionInspect { descriptor, platforms })
}

fn parse_config(bytes: &[u8]) -> Result<Config, PullError> {
    serde_json::from_slice(bytes).map_err(|source| PullError::Parse { what: "image config", source })
}

/// What a document is called where the registry did not say.
fn media_type(found: &Found, document: &Document) -> String {
    let default = match document {
        Document::Index(_) => manifest::OCI_INDEX,
        Document::Manifest(_) => manifest::OCI_MANIFEST,
    };
    let known = found.media_type.as_deref().filter(|t| t.starts_with("application/vnd."));
    known.unwrap_or(default).to_owned()
}

/// Asks one place after the other; returns the first that has it.
async fn find(
    registry: &Registry,
    reference: &Reference,
    auth: Option<AuthConfig>,
) -> Result<(Session, Found), PullError> {
    let endpoints = registry.endpoints(&reference.domain).await.map_err(|e| no_client(reference, &e))?;
    let last = endpoints.len() - 1;
    for (n, endpoint) in endpoints.into_iter().enumerate() {
        let session = Session::new(endpoint, reference.clone(), auth.clone());
        let is_last = n == last;
        // Without TLS on the other side the first attempt fails at once: no reason to repeat it.
        let outcome = match is_last {
            true => with_retries(async || session.manifest(target(reference)).await).await,
            false => session.manifest(target(reference)).await,
        };
        match outcome {
            Ok(found) => {
                registry.has_answered(session.endpoint());
                return Ok((session, found));
            }
            Err(e)
                if !is_last && (session.endpoint().is_mirror || matches!(e, PullError::Transport { .. })) =>
            {
                tracing::debug!(error = %e, "registry endpoint failed, trying the next");
            }
            Err(e) => return Err(e),
        }
    }
    unreachable!("the last endpoint returns")
}

fn no_client(reference: &Reference, error: &reqwest::Error) -> PullError {
    PullError::Transport {
        method: "Get",
        url: format!("https://{}/v2/", reference.domain),
        cause: crate::message(error),
        is_transient: false,
    }
}

impl Pull<'_> {
    /// Asks only for the digest of a tag that is known here. `None` whenever that does not settle it.
    async fn is_current(&self, registry: &Registry, auth: Option<&AuthConfig>) -> Option<Pulled> {
        let index = self.shelf.index();
        let id = index.names.get(&self.reference.canonical())?;
        let record = index.images.get(id).filter(|r| self.platform.rank(&r.platform) == Some(0))?;
        if let Some(digest) = &self.reference.digest {
            let _present = record;
            return self.pulled(id, digest.parse().ok()?, false);
        }
        for endpoint in registry.endpoints(&self.reference.domain).await.ok()? {
            if endpoint.is_mirror {
                continue;
            }
            let session = Session::new(endpoint, self.reference.clone(), auth.cloned());
            let Ok(digest) = session.head(target(&self.reference)).await else { continue };
            let pinned = self.by_digest(&digest?.to_string());
            return match index.names.get(&pinned) {
                Some(known) if known == id => {
                    self.pulled(id, pinned.rsplit('@').next()?.parse().ok()?, false)
                }
                _ => None,
            };
        }
        None
    }

    fn pulled(&self, id: &ImageId, digest: Digest, is_new: bool) -> Option<Pulled> {
        Some(Pulled { id: id.clone(), reference: self.reference.familiar(), digest, is_new })
    }

    /// The canonical name with a digest in place of the tag.
    fn by_digest(&self, digest: &str) -> String {
        format!("{}@{digest}", self.reference.name())
    }

    async fn tell_result(&self, pulled: Pulled) -> Pulled {
        self.progress.send(ProgressMessage::status(format!("Digest: {}", pulled.digest))).await;
        let text = if pulled.is_new { "Downloaded newer image for" } else { "Image is up to date for" };
        self.progress.send(ProgressMessage::status(format!("Status: {text} {}", pulled.reference))).await;
        pulled
    }

    async fn make(&self, session: &Session, found: Found) -> Result<Pulled, PullError> {
        let digest = found.digest.clone();
        let build = self.choose(session, found).await?;
        let mut pins = Pins::new(self.shelf);
        let chains = chain_ids(&build.config.rootfs.diff_ids);
        pins.add([build.id.0.clone()]);
        pins.add(build.documents.iter().map(|(d, _)| d.digest.clone()));
        pins.add(build.manifest.layers.iter().map(|layer| layer.digest.clone()));
        pins.add(chains.iter().cloned());
        let layers = build.manifest.layers.iter().zip(&build.config.rootfs.diff_ids).zip(&chains);
        let jobs = layers.map(|((blob, diff_id), chain)| self.layer(session, blob, diff_id, chain));
        let fetched = try_join_all(jobs).await.map(drop);
        let id = build.id.clone();
        let ready = fetched.map(|()| self.ready(build, chains, &digest));
        let is_new = finish(self.shelf, pins, ready).await.ok_or(PullError::Stopped)??;
        Ok(Pulled { id, reference: self.reference.familiar(), digest, is_new })
    }

    fn ready(&self, build: Build, chains: Vec<Digest>, digest: &Digest) -> Ready {
        let (descriptors, mut documents): (Vec<Descriptor>, Vec<Vec<u8>>) =
            build.documents.into_iter().unzip();
        documents.push(build.config_bytes);
        let record = Record::new(&build.config, chains, descriptors);
        Ready { id: build.id, record, documents, names: self.new_names(digest) }
    }

    fn new_names(&self, digest: &Digest) -> Vec<String> {
        let mut names = vec![self.by_digest(digest.as_str())];
        if self.reference.digest.is_none() {
            names.push(self.reference.canonical());
        }
        names
    }

    /// From what the registry has under the name down to one build that fits, checked.
    async fn choose(&self, session: &Session, found: Found) -> Result<Build, PullError> {
        let mut documents = Vec::new();
        let mut found = found;
        // An index may list further indexes; two levels are more than any registry has.
        for _ in 0..4 {
            let document =
                manifest::parse(&found.bytes, found.media_type.as_deref()).map_err(|e| match e {
                    PullError::SchemaOne(_) => PullError::SchemaOne(self.reference.familiar()),
                    e => e,
                })?;
            let media_type = media_type(&found, &document);
            let descriptor =
                Descriptor { media_type, digest: found.digest.clone(), size: found.bytes.len() as u64 };
            documents.push((descriptor, found.bytes));
            let entries = match document {
                Document::Manifest(manifest) => return self.describe(session, manifest, documents).await,
                Document::Index(entries) => entries,
            };
            let chosen = manifest::choose(&entries, &self.platform)
                .ok_or_else(|| PullError::NoMatchingManifest { platform: self.platform.clone() })?;
            let digest = chosen.descriptor.digest.as_str();
            found = with_retries(async || session.manifest(digest).await).await?;
        }
        Err(PullError::Invalid("manifest list is nested too deeply".to_owned()))
    }

    async fn describe(
        &self,
        session: &Session,
        manifest: Manifest,
        documents: Vec<(Descriptor, Vec<u8>)>,
    ) -> Result<Build, PullError> {
        let id = ImageId(manifest.config.digest.clone());
        let known = self.shelf.index().images.contains_key(&id);
        let config_bytes = match known {
            true => self.shelf.disk.read_blob(&id.0)?,
            false => with_retries(async || session.config(&id.0).await).await?,
        };
        let config = parse_config(&config_bytes)?;
        check_config(&manifest, &config)?;
        Ok(Build { id, config, manifest, documents, config_bytes })
    }

    /// Makes one layer present, together with anybody else who wants it.
    async fn layer(
        &self,
        session: &Session,
        blob: &Descriptor,
        diff_id: &Digest,
        chain: &Digest,
    ) -> Result<(), PullError> {
        let id = blob.digest.short();
        if self.shelf.layer(chain).is_some() {
            self.progress.send(ProgressMessage::layer(id, "Already exists")).await;
            return Ok(());
        }
        self.progress.send(ProgressMessage::layer(id, "Pulling fs layer")).await;
        let pass_on = async |line: ProgressMessage| {
            self.progress.send(ProgressMessage { id: Some(id.to_owned()), ..line }).await;
        };
        let turn = self.shelf.turn(format!("layer {chain}"), pass_on).await;
        if self.shelf.layer(chain).is_none() {
            self.fetch_blob(session, blob).await?;
            let teller = Teller { progress: self.progress, turn: &turn, id };
            let total = blob.size;
            teller.bytes("Extracting", 0, total);
            let (progress, short) = (self.progress.clone(), id.to_owned());
            let report = move |bytes| {
                progress.offer(ProgressMessage::bytes(&short, "Extracting", count(bytes), count(total)));
            };
            let made = unpack_blob(self.shelf, blob.clone(), Some(diff_id.clone()), report).await;
            let (folder, layer) = made.map_err(PullError::from)?;
            self.shelf.add_layer(chain, folder, layer).map_err(LayerError::from)?;
        }
        self.progress.send(ProgressMessage::layer(id, "Pull complete")).await;
        Ok(())
    }

    async fn fetch_blob(&self, session: &Session, blob: &Descriptor) -> Result<(), PullError> {
        let id = blob.digest.short();
        let turn = self
            .shelf
            .turn(format!("blob {}", blob.digest), async |line| self.progress.send(line).await)
            .await;
        if self.shelf.disk.has_blob(&blob.digest) {
            self.progress.send(ProgressMessage::layer(id, "Download complete")).await;
            return Ok(());
        }
        let teller = Teller { progress: self.progress, turn: &turn, id };
        let permit = match Arc::clone(&self.shelf.downloads).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                teller.state("Waiting").await;
                Arc::clone(&self.shelf.downloads).acquire_owned().await.map_err(|_| PullError::Stopped)?
            }
        };
        let outcome = download(self.shelf, session, blob, &teller).await;
        drop(permit);
        outcome
    }
}

fn check_config(manifest: &Manifest, config: &Config) -> Result<(), PullError> {
    if config.os != "linux" {
        let os = &config.os;
        return Err(PullError::Invalid(format!(
            "image operating system \"{os}\" cannot be used on this platform: operating system is not supported"
        )));
    }
    // Source: moby, `distribution`, `errRootFSMismatch`.
    if manifest.layers.len() != config.rootfs.diff_ids.len() {
        return Err(PullError::Invalid("layers from manifest don't match image configuration".to_owned()));
    }
    // Source: moby, `layer.ErrMaxDepthExceeded`.
    if manifest.layers.len() > manifest::MAX_LAYERS {
        return Err(PullError::Invalid("max depth exceeded".to_owned()));
    }
    Ok(())
}

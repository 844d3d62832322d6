//! Answers questions about images: which one a name means, lists, details, history.
//!
//! In: the index and config blobs. Out: Docker's JSON shapes. Never changes anything.

use std::collections::BTreeMap;

use docker::{
    GraphDriver, HistoryItem, ImageInspect, ImageMetadata, ImageSummary, OciDescriptor, Reference, RootFs,
};

use crate::errors::LookupError;
use crate::ids::{Digest, ImageId};
use crate::index::{Index, Record};
use crate::manifest::Config;
use crate::options::{Image, ListFilter, ListOptions};
use crate::progress::count;
use crate::shelf::Shelf;

/// Shortest text taken for the beginning of an id. Source: moby takes any; one digit names a random image.
const SHORTEST_PREFIX: usize = 1;

/// How a name found its image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// By a name in the index; its canonical form.
    Name(String),
    /// By its id or the beginning of it.
    Id,
}

fn not_found(name: &str) -> LookupError {
    let reference = match Reference::parse(name) {
        Ok(parsed) => parsed.with_default_tag().familiar(),
        Err(_) => name.to_owned(),
    };
    LookupError::NotFound { reference }
}

/// The image `name` means, and whether it is a name or an id.
/// Source: moby, `daemon/images/image.go`, `getImage`: a full id, then names, then the beginning of an id.
pub(crate) fn find(index: &Index, name: &str) -> Result<(ImageId, By), LookupError> {
    let visible = |id: &ImageId| index.images.get(id).is_some_and(|record| !record.is_removed);
    let with_algorithm = if name.starts_with("sha256:") { name.to_owned() } else { format!("sha256:{name}") };
    if let Ok(digest) = with_algorithm.parse::<Digest>() {
        let id = ImageId(digest);
        return if visible(&id) { Ok((id, By::Id)) } else { Err(not_found(name)) };
    }
    if let Ok(reference) = Reference::parse(name) {
        let mut reference = reference.with_default_tag();
        if reference.digest.is_some() {
            reference.tag = None;
        }
        let canonical = reference.canonical();
        if let Some(id) = index.names.get(&canonical).filter(|id| visible(id)) {
            return Ok((id.clone(), By::Name(canonical)));
        }
        // `name@sha256:<id>` means the image if it has that name.
        if let Some(digest) = reference.digest.as_deref().and_then(|d| d.parse::<Digest>().ok()) {
            let (id, prefix) = (ImageId(digest), format!("{}:", reference.name()));
            if visible(&id) && index.names_of(&id).any(|name| name.starts_with(&prefix)) {
                return Ok((id, By::Id));
            }
        }
    }
    find_prefix(index, name)
}

fn find_prefix(index: &Index, name: &str) -> Result<(ImageId, By), LookupError> {
    let prefix = name.strip_prefix("sha256:").unwrap_or(name);
    let is_hex = prefix.len() >= SHORTEST_PREFIX
        && prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !is_hex {
        // A text that is neither a name nor an id is told as such.
        return match Reference::parse(name) {
            Err(e) if name.is_empty() || prefix.len() == name.len() => {
                Err(LookupError::InvalidReference(e.to_string()))
            }
            _ => Err(not_found(name)),
        };
    }
    let mut found = index.images.iter().filter(|(id, r)| !r.is_removed && id.hex().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some((id, _)), None) => Ok((id.clone(), By::Id)),
        (Some(_), Some(_)) => Err(LookupError::Ambiguous { prefix: name.to_owned() }),
        (None, _) => Err(not_found(name)),
    }
}

/// Familiar names of an image: those with tags and those with digests, each sorted.
pub(crate) fn familiar_names(index: &Index, id: &ImageId) -> (Vec<String>, Vec<String>) {
    let (mut tags, mut digests) = (Vec::new(), Vec::new());
    for reference in index.names_of(id).filter_map(|name| Reference::parse(name).ok()) {
        let list = if reference.digest.is_some() { &mut digests } else { &mut tags };
        list.push(reference.familiar());
    }
    (tags, digests)
}

impl Shelf {
    /// The config of an image. Blocks on the disk for one small file.
    pub(crate) fn config(&self, id: &ImageId) -> Result<Config, LookupError> {
        let bytes = self.disk.read_blob(&id.0)?;
        serde_json::from_slice(&bytes).map_err(|source| LookupError::Damaged { id: id.to_string(), source })
    }

    /// See [`crate::Store::image`].
    pub(crate) fn image(&self, id: &ImageId) -> Result<Image, LookupError> {
        let index = self.index();
        let record =
            index.images.get(id).ok_or_else(|| LookupError::NotFound { reference: id.to_string() })?;
        let config = self.config(id)?;
        let layers = record.layers.iter().rev().filter_map(|chain| index.layers.get(chain));
        Ok(Image {
            id: id.clone(),
            platform: record.platform.clone(),
            layers: layers.map(|layer| self.layer_path(layer)).collect(),
            config: config.config.unwrap_or_default(),
            tags: familiar_names(&index, id).0,
        })
    }

    /// See [`crate::Store::inspect`].
    pub(crate) fn inspect(&self, name: &str) -> Result<ImageInspect, LookupError> {
        let index = self.index();
        let (id, _) = find(&index, name)?;
        let record = index.images.get(&id).ok_or_else(|| not_found(name))?;
        let config = self.config(&id)?;
        let (repo_tags, repo_digests) = familiar_names(&index, &id);
        let folders = record.layers.iter().rev().filter_map(|chain| index.layers.get(chain));
        let folders: Vec<String> =
            folders.map(|layer| self.layer_path(layer).display().to_string()).collect();
        Ok(ImageInspect {
            id: id.to_string(),
            repo_tags,
            repo_digests,
            parent: record.parent.as_ref().map(ImageId::to_string).unwrap_or_default(),
            comment: config.comment,
            created: (!config.created.is_zero()).then_some(config.created),
            docker_version: config.docker_version,
            author: config.author,
            config: config.config,
            architecture: config.architecture,
            variant: config.variant,
            os: config.os,
            os_version: config.os_version,
            size: count(record.size),
            graph_driver: graph_driver(folders),
            root_fs: RootFs {
                kind: "layers".to_owned(),
                layers: config.rootfs.diff_ids.iter().map(Digest::to_string).collect(),
            },
            metadata: ImageMetadata { last_tag_time: record.tagged },
            descriptor: descriptor(record),
            ..ImageInspect::default()
        })
    }

    /// See [`crate::Store::history`].
    pub(crate) fn history(&self, name: &str) -> Result<Vec<HistoryItem>, LookupError> {
        let index = self.index();
        let (id, _) = find(&index, name)?;
        let record = index.images.get(&id).ok_or_else(|| not_found(name))?;
        let config = self.config(&id)?;
        let mut layers = record.layers.iter();
        let mut items: Vec<HistoryItem> = config
            .history
            .into_iter()
            .map(|step| {
                let layer = if step.empty_layer { None } else { layers.next() };
                let size = layer.and_then(|chain| index.layers.get(chain)).map_or(0, |layer| layer.size);
                HistoryItem {
                    comment: step.comment,
                    created: unix_seconds(step.created),
                    created_by: step.created_by,
                    id: "<missing>".to_owned(),
                    size: count(size),
                    tags: None,
                }
            })
            .collect();
        items.reverse();
        // Steps of a build that was made here are images of their own.
        let mut step = Some(id);
        for item in &mut items {
            let Some(id) = step.take() else { break };
            item.id = id.to_string();
            let (tags, _) = familiar_names(&index, &id);
            item.tags = (!tags.is_empty()).then_some(tags);
            step = index.images.get(&id).and_then(|record| record.parent.clone());
        }
        Ok(items)
    }

    /// See [`crate::Store::list`].
    pub(crate) fn list(&self, options: &ListOptions) -> Result<Vec<ImageSummary>, LookupError> {
        let index = self.index();
        let bounds = Bounds::new(&index, &options.filters)?;
        let sharers = options.shared_size.then(|| sharers(&index));
        let mut rows = Vec::new();
        let hidden = if options.all { Default::default() } else { index.intermediates() };
        let visible = |id: &ImageId, record: &Record| !record.is_removed && !hidden.contains(id);
        for (id, record) in index.images.iter().filter(|(id, record)| visible(id, record)) {
            let Some((repo_tags, repo_digests)) = bounds.admit(&index, id, record) else { continue };
            let shared = sharers.as_ref().map_or(-1, |sharers| {
                let shared = record.layers.iter().filter(|chain| sharers.get(chain).is_some_and(|n| *n > 1));
                count(shared.filter_map(|chain| index.layers.get(chain)).map(|layer| layer.size).sum())
            });
            let containers = if options.containers { self.holders(id).len() as i64 } else { -1 };
            rows.push((
                record.created,
                ImageSummary {
                    containers,
                    created: unix_seconds(record.created),
                    id: id.to_string(),
                    labels: Some(record.labels.clone()).filter(|labels| !labels.is_empty()),
                    parent_id: record.parent.as_ref().map(ImageId::to_string).unwrap_or_default(),
                    descriptor: descriptor(record),
                    repo_digests,
                    repo_tags,
                    shared_size: shared,
                    size: count(record.size),
                    ..ImageSummary::default()
                },
            ));
        }
        // Newest first, as dockerd; equal times by id, so that the order is stable.
        rows.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }
}

fn unix_seconds(time: docker::Timestamp) -> i64 {
    time.0.div_euclid(1_000_000_000)
}

/// The descriptor of what the registry has under the image's name.
fn descriptor(record: &Record) -> Option<OciDescriptor> {
    record.manifests.first().map(|d| OciDescriptor {
        media_type: d.media_type.clone(),
        digest: d.digest.to_string(),
        size: count(d.size),
        ..OciDescriptor::default()
    })
}

/// Folders top first. Source: docker 28.1, observed: `UpperDir` is the top layer, `LowerDir` the ones below.
fn graph_driver(folders: Vec<String>) -> GraphDriver {
    let mut data = BTreeMap::new();
    if let Some((top, below)) = folders.split_first() {
        data.insert("UpperDir".to_owned(), top.clone());
        if !below.is_empty() {
            data.insert("LowerDir".to_owned(), below.join(":"));
        }
    }
    GraphDriver { data: Some(data), name: "overlay2".to_owned() }
}

/// How many images have each layer.
fn sharers(index: &Index) -> BTreeMap<&Digest, usize> {
    let mut sharers = BTreeMap::new();
    for chain in index.images.values().filter(|r| !r.is_removed).flat_map(|r| &r.layers) {
        *sharers.entry(chain).or_default() += 1;
    }
    sharers
}

/// Filters with the images they name looked up.
struct Bounds<'a> {
    filter: &'a ListFilter,
    /// Created before all of these, in nanoseconds.
    before: Option<i64>,
    since: Option<i64>,
}

impl<'a> Bounds<'a> {
    fn new(index: &Index, filter: &'a ListFilter) -> Result<Bounds<'a>, LookupError> {
        let created = |name: &String| -> Result<i64, LookupError> {
            let (id, _) = find(index, name)?;
            Ok(index.images.get(&id).map_or(0, |record| record.created.0))
        };
        let before: Vec<i64> = filter.before.iter().map(created).collect::<Result<_, _>>()?;
        let since: Vec<i64> = filter.since.iter().map(created).collect::<Result<_, _>>()?;
        let until = filter.until.map(|seconds| seconds.saturating_mul(1_000_000_000));
        Ok(Bounds { filter, before: before.into_iter().chain(until).min(), since: since.into_iter().max() })
    }

    /// The tags and digests to show, or `None` if the image is filtered out.
    fn admit(&self, index: &Index, id: &ImageId, record: &Record) -> Option<(Vec<String>, Vec<String>)> {
        let is_within = self.before.is_none_or(|before| record.created.0 < before)
            && self.since.is_none_or(|since| record.created.0 > since)
            && self.filter.label.iter().all(|wanted| has_label(&record.labels, wanted));
        if !is_within {
            return None;
        }
        let (mut tags, mut digests) = familiar_names(index, id);
        if self.filter.dangling.is_some_and(|wanted| wanted != tags.is_empty()) {
            return None;
        }
        if !self.filter.reference.is_empty() {
            let matches = |name: &String| self.filter.reference.iter().any(|pattern| is_match(pattern, name));
            tags.retain(matches);
            digests.retain(matches);
            if tags.is_empty() && digests.is_empty() {
                return None;
            }
        }
        Some((tags, digests))
    }
}

fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

/// Whether a familiar name, or its part before tag and digest, matches the pattern.
/// Source: distribution/reference, `FamiliarMatch`.
fn is_match(pattern: &str, name: &str) -> bool {
    let bare = Reference::parse(name).map(|r| r.familiar_name()).unwrap_or_default();
    glob(pattern.as_bytes(), name.as_bytes()) || glob(pattern.as_bytes(), bare.as_bytes())
}

/// Shell pattern with `*` and `?`, neither of which matches a slash, and `[a-z]`. Source: Go, `path.Match`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            let end = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
            (0..=end).any(|n| glob(rest, &text[n..]))
        }
        Some((b'?', rest)) => text.split_first().is_some_and(|(c, text)| *c != b'/' && glob(rest, text)),
        Some((b'[', rest)) => match (class(rest), text.split_first()) {
            (Some((set, rest)), Some((c, text))) => set.holds(*c) && glob(rest, text),
            _ => false,
        },
        Some((b'\\', rest)) => match (rest.split_first(), text.split_first()) {
            (Some((want, rest)), Some((have, text))) => want == have && glob(rest, text),
            _ => false,
        },
        Some((want, rest)) => text.split_first().is_some_and(|(have, text)| want == have && glob(rest, text)),
    }
}

struct Class<'a> {
    is_negated: bool,
    members: &'a [u8],
}

fn class(rest: &[u8]) -> Option<(Class<'_>, &[u8])> {
    let end = rest.iter().position(|b| *b == b']')?;
    let (members, after) = (&rest[..end], &rest[end + 1..]);
    Some(match members.split_first() {
        Some((b'^', members)) => (Class { is_negated: true, members }, after),
        _ => (Class { is_negated: false, members }, after),
    })
}

impl Class<'_> {
    fn holds(&self, c: u8) -> bool {
        let mut members = self.members;
        let mut is_member = false;
        while let [first, rest @ ..] = members {
            match rest {
                [b'-', last, more @ ..] => {
                    is_member |= (*first..=*last).contains(&c);
                    members = more;
                }
                _ => {
                    is_member |= *first == c;
                    members = rest;
                }
            }
        }
        is_member != self.is_negated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expect) in [
            ("alpine", "alpine:latest", true),
            ("alpine:*", "alpine:latest", true),
            ("al*", "alpine:latest", true),
            ("*", "alpine:latest", true),
            ("*", "user/app:1", false),
            ("*/app", "user/app:1", true),
            ("alpine:3.?", "alpine:3.1", true),
            ("alpine:[1-3].*", "alpine:3.1", true),
            ("alpine:[^1-3].*", "alpine:3.1", false),
            ("alp", "alpine:latest", false),
            ("[", "alpine:latest", false),
        ] {
            assert_eq!(is_match(pattern, name), expect, "{pattern} on {name}");
        }
    }
}

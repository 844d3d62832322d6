//! What the store remembers: images, names, layers. One JSON file, replaced atomically.
//!
//! In: a folder. Out: the index as it was last written completely. Never refers to a layer or blob that was not
//! complete on disk before the index was written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use docker::Timestamp;
use serde::{Deserialize, Serialize};

use crate::errors::{FileError, OpenError};
use crate::ids::{Digest, ImageId};
use crate::platform::Platform;

/// Format of the file. A later one is refused rather than misread.
const VERSION: u32 = 1;
const FILE: &str = "index.json";

/// Everything the store knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    pub(crate) images: BTreeMap<ImageId, Record>,
    /// Canonical references, with a tag or with a digest, and what they name.
    pub(crate) names: BTreeMap<String, ImageId>,
    /// By chain id.
    pub(crate) layers: BTreeMap<Digest, Layer>,
}

/// One image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) created: Timestamp,
    /// When a name last began to point here.
    pub(crate) tagged: Timestamp,
    /// Chain ids, base first.
    pub(crate) layers: Vec<Digest>,
    /// Bytes of all layers' files.
    pub(crate) size: u64,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) platform: Platform,
    /// Manifest and index as the registry has them; the config's blob is the image's id.
    pub(crate) manifests: Vec<Descriptor>,
    /// Removed by force while a container held it: shown nowhere, deleted with the last hold.
    #[serde(default)]
    pub(crate) is_removed: bool,
    /// The image that the build step was made on which made this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<ImageId>,
    /// The build step, so that it is found again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache_key: Option<String>,
}

/// One unpacked layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// Name of its folder below `l/`.
    pub(crate) folder: String,
    /// Digest of its plain tar.
    pub(crate) diff_id: Digest,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// The archive it was unpacked from.
    pub(crate) blob: Descriptor,
}

/// What a blob is, how it is called and how long it is, as manifests say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Index {
    /// Reads the index in `root`; without one, an empty index.
    pub(crate) fn read(root: &Path) -> Result<Index, OpenError> {
        /// Read first, so that a later format is recognised before its fields are.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let path = root.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Index::default()),
            Err(e) => return Err(FileError::at("read", path)(e).into()),
        };
        let corrupt = |source| OpenError::Corrupt { path: path.clone(), source };
        let found = serde_json::from_slice::<Versioned>(&bytes).map_err(corrupt)?.version;
        if found > VERSION {
            return Err(OpenError::TooNew { found, known: VERSION });
        }
        serde_json::from_slice(&bytes).map_err(corrupt)
    }

    /// Replaces the index in `root`: after a crash it is either the old or the new one.
    pub(crate) fn write(&mut self, root: &Path) -> Result<(), FileError> {
        self.version = VERSION;
        let bytes = serde_json::to_vec(self).expect("the index has string keys and plain values");
        let (path, new) = (root.join(FILE), root.join("tmp").join(FILE));
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        write().map_err(FileError::at("write", &new))?;
        std::fs::rename(&new, &path).map_err(FileError::at("rename", &path))?;
        File::open(root).and_then(|dir| dir.sync_all()).map_err(FileError::at("sync", root))
    }

    /// Forgets layers that no image has; returns them.
    pub(crate) fn drop_unused_layers(&mut self) -> BTreeMap<Digest, Layer> {
        let used: BTreeSet<&Digest> = self.images.values().flat_map(|record| &record.layers).collect();
        let unused: Vec<Digest> = self.layers.keys().filter(|chain| !used.contains(chain)).cloned().collect();
        unused.into_iter().filter_map(|chain| self.layers.remove_entry(&chain)).collect()
    }

    /// Digests of all blobs an image needs.
    pub(crate) fn blobs(&self) -> BTreeSet<Digest> {
        let configs = self.images.keys().map(|id| id.0.clone());
        let manifests = self.images.values().flat_map(|r| &r.manifests).map(|d| d.digest.clone());
        let layers = self.layers.values().map(|layer| layer.blob.digest.clone());
        configs.chain(manifests).chain(layers).collect()
    }

    /// Whether a build step was made on this image.
    pub(crate) fn has_children(&self, id: &ImageId) -> bool {
        self.images.values().any(|record| !record.is_removed && record.parent.as_ref() == Some(id))
    }

    /// Images that exist only as steps of others: without a name, with another one made on them.
    pub(crate) fn intermediates(&self) -> BTreeSet<ImageId> {
        let named: BTreeSet<&ImageId> = self.names.values().collect();
        let parents = self.images.values().filter(|r| !r.is_removed).filter_map(|r| r.parent.as_ref());
        parents.filter(|parent| !named.contains(parent)).cloned().collect()
    }

    /// Canonical references of an image, sorted.
    pub(crate) fn names_of<'a>(&'a self, id: &'a ImageId) -> impl Iterator<Item = &'a str> {
        self.names.iter().filter(move |(_, named)| *named == id).map(|(name, _)| name.as_str())
    }
}

/// The id of each layer together with everything below it, base first.
/// Source: OCI image specification, "Layer ChainID".
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chains.push(match chains.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let diffs: Vec<Digest> = [b"a", b"b"].iter().map(|b| Digest::of(*b)).collect();
        let chains = chain_ids(&diffs);
        assert_eq!(chains[0], diffs[0]);
        assert_eq!(chains[1], Digest::of(format!("{} {}", diffs[0], diffs[1]).as_bytes()));
    }

    #[test]
    fn a_damaged_or_later_index_is_refused_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Index::read(dir.path()).unwrap().images.is_empty());
        std::fs::write(dir.path().join(FILE), b"{\"version\":99,\"new\":1}").unwrap();
        assert!(matches!(Index::read(dir.path()), Err(OpenError::TooNew { found: 99, .. })));
        std::fs::write(dir.path().join(FILE), b"{\"version\":1,").unwrap();
        assert!(matches!(Index::read(dir.path()), Err(OpenError::Corrupt { .. })));
    }
}

//! Manifests, indexes and configs: the JSON that describes an image.
//!
//! In: bytes. Out: checked values. Never fetches what they refer to.

use docker::{ImageConfig, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

use crate::errors::PullError;
use crate::ids::Digest;
use crate::index::Descriptor;
use crate::platform::Platform;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Everything a registry may answer with.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Most layers an image may have. Source: moby, `layer.maxLayerDepth`; overlayfs itself takes 500.
pub(crate) const MAX_LAYERS: usize = 125;

/// What a name in a registry stands for.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Vec<Entry>),
    Manifest(Manifest),
}

/// One build in an index.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) descriptor: Descriptor,
    #[serde(default)]
    pub(crate) platform: Option<EntryPlatform>,
    #[serde(default)]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

/// The platform of a build as the index says it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct EntryPlatform {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: String,
    #[serde(default, rename = "os.version")]
    pub(crate) os_version: String,
    #[serde(default, rename = "os.features")]
    pub(crate) os_features: Vec<String>,
}

/// One build: its config and layers, base first.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Reads a manifest or index of any kind; `media_type` is what the registry called it, if it did.
pub(crate) fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Document, PullError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        schema_version: Option<u32>,
        media_type: Option<String>,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        fs_layers: Option<serde::de::IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct List {
        manifests: Vec<Entry>,
    }
    let parse_error = |what| move |source| PullError::Parse { what, source };
    let probe: Probe = serde_json::from_slice(bytes).map_err(parse_error("manifest"))?;
    if probe.schema_version == Some(1) || probe.fs_layers.is_some() {
        return Err(PullError::SchemaOne(media_type.unwrap_or("this image").to_owned()));
    }
    // The document's own word counts first: a mere `application/json` in the header is common.
    let known = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
    let named = [probe.media_type.as_deref(), media_type].into_iter().flatten().find(|t| known.contains(t));
    match named {
        Some(OCI_INDEX | DOCKER_LIST) => {}
        Some(_) => {
            return serde_json::from_slice(bytes).map(Document::Manifest).map_err(parse_error("manifest"));
        }
        None if probe.manifests.is_some() => {}
        None if probe.media_type.is_none() => {
            return serde_json::from_slice(bytes).map(Document::Manifest).map_err(parse_error("manifest"));
        }
        None => return Err(PullError::UnsupportedMediaType(probe.media_type.unwrap_or_default())),
    }
    let list: List = serde_json::from_slice(bytes).map_err(parse_error("manifest list"))?;
    Ok(Document::Index(list.manifests))
}

/// The build that fits best; among equals the first.
pub(crate) fn choose<'a>(entries: &'a [Entry], wanted: &Platform) -> Option<&'a Entry> {
    let ranked = entries.iter().filter_map(|entry| {
        let rank = match &entry.platform {
            Some(p) => wanted.rank(&Platform::new(&p.os, &p.architecture, &p.variant))?,
            // An entry without a platform is taken if nothing says it fits.
            None => u32::MAX,
        };
        // Attestations stand in the index as images of an unknown platform.
        let is_image = [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST]
            .contains(&entry.descriptor.media_type.as_str());
        is_image.then_some((rank, entry))
    });
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
}

/// The config of an image. Unknown fields are kept in the blob, which is never rewritten.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub(crate) os_version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) author: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) comment: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) docker_version: String,
    #[serde(default, deserialize_with = "lenient_time")]
    pub(crate) created: Timestamp,
    #[serde(default)]
    pub(crate) config: Option<ImageConfig>,
    #[serde(default)]
    pub(crate) rootfs: RootFs,
    #[serde(default, deserialize_with = "null_as_empty")]
    pub(crate) history: Vec<Step>,
}

/// The layers of an image, base first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    #[serde(default, deserialize_with = "null_as_empty")]
    pub(crate) diff_ids: Vec<Digest>,
}

/// How a layer came to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Step {
    #[serde(default, deserialize_with = "lenient_time")]
    pub(crate) created: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) created_by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) author: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) comment: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) empty_layer: bool,
}

impl Config {
    pub(crate) fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, &self.variant)
    }
}

fn null_as_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Builders write all sorts of times; an odd one is no reason to refuse the image.
fn lenient_time<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    let text: Option<String> = Option::deserialize(from)?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[(&str, &str)]) -> Vec<Entry> {
        let entry = |(n, (arch, variant)): (usize, &(&str, &str))| {
            serde_json::json!({
                "mediaType": OCI_MANIFEST, "size": n, "digest": Digest::of(&[n as u8]),
                "platform": {"os": "linux", "architecture": arch, "variant": variant},
            })
        };
        let list: Vec<_> = platforms.iter().enumerate().map(entry).collect();
        let bytes = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": list})).unwrap();
        match parse(&bytes, Some("application/json")).unwrap() {
            Document::Index(entries) => entries,
            Document::Manifest(_) => panic!("taken for a manifest"),
        }
    }

    #[test]
    fn the_best_build_is_chosen() {
        let entries = index(&[("unknown", ""), ("arm", "v6"), ("arm", "v7"), ("amd64", ""), ("arm64", "v8")]);
        for (wanted, expect) in [
            ("linux/amd64", Some(3)),
            ("linux/arm/v7", Some(2)),
            ("linux/arm64", Some(4)),
            ("linux/s390x", None),
        ] {
            let chosen = choose(&entries, &wanted.parse().unwrap()).map(|e| e.descriptor.size);
            assert_eq!(chosen, expect, "{wanted}");
        }
    }

    #[test]
    fn other_documents_are_refused_by_name() {
        assert!(matches!(parse(b"{", None), Err(PullError::Parse { .. })));
        assert!(matches!(parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, None), Err(PullError::SchemaOne(_))));
        let helm = br#"{"schemaVersion":2,"mediaType":"application/vnd.other"}"#;
        assert!(matches!(parse(helm, None), Err(PullError::UnsupportedMediaType(_))));
    }

    #[test]
    fn an_odd_config_is_read() {
        let config: Config = serde_json::from_str(
            r#"{"created":"yesterday","history":null,"config":null,"rootfs":{"diff_ids":null},"os":"linux"}"#,
        )
        .unwrap();
        assert!(config.created.is_zero() && config.history.is_empty());
    }
}

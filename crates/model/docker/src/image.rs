//! Images: config, inspect, list, history, delete, distribution.
//!
//! In: config blobs and what the image store knows. Out: API answers. Never computes a digest.

use std::collections::BTreeMap;

use crate::container_config::ContainerConfig;
use crate::shape::is_default;
use objects::Timestamp;

/// The `config` of an image: the same shape as a container's.
pub type ImageConfig = ContainerConfig;

shape! {
    /// Answer of `GET /images/{name}/json`.
    pub struct ImageInspect {
        pub id: String,
        pub repo_tags: Vec<String>,
        pub repo_digests: Vec<String>,
        pub parent: String,
        pub comment: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub created: Option<Timestamp>,
        pub docker_version: String,
        pub author: String,
        pub config: Option<ImageConfig>,
        pub architecture: String,
        #[serde(skip_serializing_if = "is_default")]
        pub variant: String,
        pub os: String,
        #[serde(skip_serializing_if = "is_default")]
        pub os_version: String,
        pub size: i64,
        /// Only before API 1.44.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub virtual_size: Option<i64>,
        pub graph_driver: GraphDriver,
        #[serde(rename = "RootFS")]
        pub root_fs: RootFs,
        pub metadata: ImageMetadata,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub descriptor: Option<OciDescriptor>,
    }

    /// Storage driver and its paths.
    pub struct GraphDriver {
        pub data: Option<BTreeMap<String, String>>,
        pub name: String,
    }

    /// The layers of an image, base first, as digests of their uncompressed tar.
    pub struct RootFs {
        #[serde(rename = "Type")]
        pub kind: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub layers: Vec<String>,
    }

    /// What this host remembers of an image.
    pub struct ImageMetadata {
        pub last_tag_time: Timestamp,
    }

    /// A content descriptor of the OCI image specification.
    pub struct OciDescriptor {
        #[serde(rename = "mediaType")]
        pub media_type: String,
        #[serde(rename = "digest")]
        pub digest: String,
        #[serde(rename = "size")]
        pub size: i64,
        #[serde(rename = "annotations", skip_serializing_if = "Option::is_none")]
        pub annotations: Option<BTreeMap<String, String>>,
        #[serde(rename = "platform", skip_serializing_if = "Option::is_none")]
        pub platform: Option<OciPlatform>,
    }

    /// A platform of the OCI image specification.
    pub struct OciPlatform {
        #[serde(rename = "architecture")]
        pub architecture: String,
        #[serde(rename = "os")]
        pub os: String,
        #[serde(rename = "os.version", skip_serializing_if = "is_default")]
        pub os_version: String,
        #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
        pub os_features: Vec<String>,
        #[serde(rename = "variant", skip_serializing_if = "is_default")]
        pub variant: String,
    }

    /// A row of `GET /images/json`.
    pub struct ImageSummary {
        /// -1: not counted.
        pub containers: i64,
        /// Unix seconds.
        pub created: i64,
        pub id: String,
        pub labels: Option<BTreeMap<String, String>>,
        pub parent_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub descriptor: Option<OciDescriptor>,
        pub repo_digests: Vec<String>,
        pub repo_tags: Vec<String>,
        /// -1: not counted.
        pub shared_size: i64,
        pub size: i64,
        /// Only before API 1.44.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub virtual_size: Option<i64>,
    }

    /// A row of `GET /images/{name}/history`, newest first.
    pub struct HistoryItem {
        pub comment: String,
        /// Unix seconds.
        pub created: i64,
        pub created_by: String,
        /// `<missing>` for layers without an image of their own.
        pub id: String,
        pub size: i64,
        pub tags: Option<Vec<String>>,
    }

    /// A row of `DELETE /images/{name}`: exactly one of the two is set.
    pub struct ImageDeleteResponse {
        #[serde(skip_serializing_if = "Option::is_none")]
        pub untagged: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub deleted: Option<String>,
    }

    /// Answer of `POST /images/prune`.
    pub struct ImagesPruneReport {
        pub images_deleted: Option<Vec<ImageDeleteResponse>>,
        pub space_reclaimed: u64,
    }

    /// Answer of `GET /distribution/{name}/json`.
    pub struct DistributionInspect {
        pub descriptor: OciDescriptor,
        pub platforms: Vec<OciPlatform>,
    }
}

//! Mounts: as asked for (`HostConfig.Mounts`) and as they are (`Mounts` of inspect).
//!
//! In: create bodies. Out: inspect and list answers. Never looks at a path.

use std::collections::BTreeMap;

use crate::shape::is_default;

shape! {
    /// A mount as the long syntax asks for it.
    pub struct Mount {
        /// `bind`, `volume`, `tmpfs`, `npipe`, `cluster`, `image`.
        #[serde(rename = "Type")]
        pub kind: String,
        #[serde(skip_serializing_if = "is_default")]
        pub source: String,
        #[serde(skip_serializing_if = "is_default")]
        pub target: String,
        #[serde(skip_serializing_if = "is_default")]
        pub read_only: bool,
        #[serde(skip_serializing_if = "is_default")]
        pub consistency: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bind_options: Option<BindOptions>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume_options: Option<VolumeOptions>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub image_options: Option<ImageOptions>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tmpfs_options: Option<TmpfsOptions>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cluster_options: Option<serde_json::Value>,
    }

    /// Options of a bind mount.
    pub struct BindOptions {
        #[serde(skip_serializing_if = "is_default")]
        pub propagation: String,
        #[serde(skip_serializing_if = "is_default")]
        pub non_recursive: bool,
        #[serde(skip_serializing_if = "is_default")]
        pub create_mountpoint: bool,
        #[serde(skip_serializing_if = "is_default")]
        pub read_only_non_recursive: bool,
        #[serde(skip_serializing_if = "is_default")]
        pub read_only_force_recursive: bool,
    }

    /// Options of a volume mount.
    pub struct VolumeOptions {
        #[serde(skip_serializing_if = "is_default")]
        pub no_copy: bool,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String>,
        /// Since API 1.45.
        #[serde(skip_serializing_if = "is_default")]
        pub subpath: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver_config: Option<DriverConfig>,
    }

    /// A driver by name and its options.
    pub struct DriverConfig {
        #[serde(skip_serializing_if = "is_default")]
        pub name: String,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub options: BTreeMap<String, String>,
    }

    /// Options of an image mount. Since API 1.48.
    pub struct ImageOptions {
        #[serde(skip_serializing_if = "is_default")]
        pub subpath: String,
    }

    /// Options of a tmpfs mount.
    pub struct TmpfsOptions {
        #[serde(skip_serializing_if = "is_default")]
        pub size_bytes: i64,
        #[serde(skip_serializing_if = "is_default")]
        pub mode: u32,
        /// Since API 1.46; each is `[name]` or `[name, value]`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub options: Vec<Vec<String>>,
    }

    /// A mount as it is in a container.
    pub struct MountPoint {
        #[serde(rename = "Type", skip_serializing_if = "is_default")]
        pub kind: String,
        #[serde(skip_serializing_if = "is_default")]
        pub name: String,
        pub source: String,
        pub destination: String,
        #[serde(skip_serializing_if = "is_default")]
        pub driver: String,
        pub mode: String,
        #[serde(rename = "RW")]
        pub rw: bool,
        pub propagation: String,
    }
}

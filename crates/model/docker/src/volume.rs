//! Volumes.
//!
//! In: create bodies. Out: inspect, list, prune. Never touches a directory.

use std::collections::BTreeMap;

shape! {
    /// Body of `POST /volumes/create`.
    pub struct VolumeCreateRequest {
        /// Empty: a random 64-hex name.
        pub name: String,
        /// Empty: `local`.
        pub driver: String,
        pub driver_opts: BTreeMap<String, String>,
        pub labels: BTreeMap<String, String>,
        pub cluster_volume_spec: Option<serde_json::Value>,
    }

    /// A volume.
    pub struct VolumeInspect {
        /// RFC 3339 with seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub created_at: Option<String>,
        pub driver: String,
        pub labels: Option<BTreeMap<String, String>>,
        pub mountpoint: String,
        pub name: String,
        pub options: Option<BTreeMap<String, String>>,
        /// `local`.
        pub scope: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub usage_data: Option<VolumeUsage>,
    }

    /// Size and users of a volume; -1: not counted.
    pub struct VolumeUsage {
        pub ref_count: i64,
        pub size: i64,
    }

    /// Answer of `GET /volumes`.
    pub struct VolumeListResponse {
        pub volumes: Vec<VolumeInspect>,
        pub warnings: Option<Vec<String>>,
    }

    /// Answer of `POST /volumes/prune`.
    pub struct VolumesPruneReport {
        pub volumes_deleted: Option<Vec<String>>,
        pub space_reclaimed: u64,
    }
}

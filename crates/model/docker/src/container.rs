//! Containers as the API shows them: inspect, list, state, health, wait, top, update.
//!
//! In: what the engine knows. Out: JSON with dockerd's field order. Never formats a status by itself.

use std::collections::BTreeMap;

use crate::container_config::{ContainerConfig, EndpointSettings};
use crate::host_config::{HostConfig, RestartPolicy};
use crate::image::GraphDriver;
use crate::mount::MountPoint;
use crate::port::{Port, PortMap};
use crate::shape::is_default;
use objects::Timestamp;

shape! {
    /// Answer of `GET /containers/{id}/json`.
    pub struct ContainerInspect {
        pub id: String,
        pub created: Timestamp,
        pub path: String,
        pub args: Vec<String>,
        pub state: State,
        /// The image's id, `sha256:…`.
        pub image: String,
        pub resolv_conf_path: String,
        pub hostname_path: String,
        pub hosts_path: String,
        pub log_path: String,
        /// With the leading slash.
        pub name: String,
        pub restart_count: i64,
        pub driver: String,
        pub platform: String,
        pub mount_label: String,
        pub process_label: String,
        pub app_armor_profile: String,
        #[serde(rename = "ExecIDs")]
        pub exec_ids: Option<Vec<String>>,
        pub host_config: HostConfig,
        pub graph_driver: GraphDriver,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_rw: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_root_fs: Option<i64>,
        pub mounts: Vec<MountPoint>,
        pub config: ContainerConfig,
        pub network_settings: NetworkSettings,
    }

    /// What a container is doing.
    pub struct State {
        /// `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
        pub status: String,
        pub running: bool,
        pub paused: bool,
        pub restarting: bool,
        #[serde(rename = "OOMKilled")]
        pub oom_killed: bool,
        pub dead: bool,
        pub pid: i64,
        pub exit_code: i64,
        pub error: String,
        pub started_at: Timestamp,
        pub finished_at: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub health: Option<Health>,
    }

    /// Health and the last five probes, oldest first.
    pub struct Health {
        /// `starting`, `healthy`, `unhealthy`.
        pub status: String,
        pub failing_streak: i64,
        pub log: Vec<HealthLog>,
    }

    /// One probe.
    pub struct HealthLog {
        pub start: Timestamp,
        pub end: Timestamp,
        pub exit_code: i64,
        /// At most 4096 bytes.
        pub output: String,
    }

    /// A container's networks and published ports.
    pub struct NetworkSettings {
        pub bridge: String,
        #[serde(rename = "SandboxID")]
        pub sandbox_id: String,
        pub sandbox_key: String,
        pub ports: PortMap,
        pub hairpin_mode: bool,
        #[serde(rename = "LinkLocalIPv6Address")]
        pub link_local_ipv6_address: String,
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        pub link_local_ipv6_prefix_len: i64,
        #[serde(rename = "SecondaryIPAddresses")]
        pub secondary_ip_addresses: Option<Vec<serde_json::Value>>,
        #[serde(rename = "SecondaryIPv6Addresses")]
        pub secondary_ipv6_addresses: Option<Vec<serde_json::Value>>,
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        pub gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: i64,
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        pub mac_address: String,
        pub networks: BTreeMap<String, EndpointSettings>,
    }

    /// A row of `GET /containers/json`.
    pub struct ContainerSummary {
        pub id: String,
        /// With the leading slash.
        pub names: Vec<String>,
        pub image: String,
        #[serde(rename = "ImageID")]
        pub image_id: String,
        pub command: String,
        /// Unix seconds.
        pub created: i64,
        pub ports: Vec<Port>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_rw: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_root_fs: Option<i64>,
        pub labels: BTreeMap<String, String>,
        pub state: String,
        /// `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`, `Created`.
        pub status: String,
        pub host_config: SummaryHostConfig,
        pub network_settings: SummaryNetworkSettings,
        pub mounts: Vec<MountPoint>,
    }

    /// The host config fields a list shows.
    pub struct SummaryHostConfig {
        #[serde(skip_serializing_if = "is_default")]
        pub network_mode: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub annotations: Option<BTreeMap<String, String>>,
    }

    /// The networks a list shows.
    pub struct SummaryNetworkSettings {
        pub networks: BTreeMap<String, EndpointSettings>,
    }

    /// Answer of `POST /containers/{id}/wait`.
    pub struct WaitResponse {
        pub status_code: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub error: Option<WaitError>,
    }

    /// Why a wait ended without an exit code of its own.
    pub struct WaitError {
        pub message: String,
    }

    /// Answer of `GET /containers/{id}/top`.
    pub struct TopResponse {
        pub processes: Vec<Vec<String>>,
        pub titles: Vec<String>,
    }

    /// A row of `GET /containers/{id}/changes`. Kind: 0 modified, 1 added, 2 deleted.
    pub struct Change {
        pub path: String,
        pub kind: u8,
    }

    /// Body of `POST /containers/{id}/update`: `None` leaves the field as it is, as does zero.
    pub struct ContainerUpdate {
        pub cpu_shares: Option<i64>,
        pub memory: Option<i64>,
        pub nano_cpus: Option<i64>,
        pub blkio_weight: Option<u16>,
        pub cpu_period: Option<i64>,
        pub cpu_quota: Option<i64>,
        pub cpu_realtime_period: Option<i64>,
        pub cpu_realtime_runtime: Option<i64>,
        pub cpuset_cpus: Option<String>,
        pub cpuset_mems: Option<String>,
        pub memory_reservation: Option<i64>,
        pub memory_swap: Option<i64>,
        pub pids_limit: Option<i64>,
        pub restart_policy: Option<RestartPolicy>,
    }

    /// Answer of `POST /containers/{id}/update`.
    pub struct UpdateResponse {
        pub warnings: Vec<String>,
    }

    /// Answer of `POST /containers/prune`.
    pub struct ContainersPruneReport {
        pub containers_deleted: Option<Vec<String>>,
        pub space_reclaimed: u64,
    }
}

//! The daemon about itself: version, info, disk usage.
//!
//! In: what the daemon knows of its host and of its swarm. Out: the answers. Never probes anything.

use std::collections::BTreeMap;

use crate::container::ContainerSummary;
use crate::image::ImageSummary;
use crate::shape::{Empty, is_default};
use crate::volume::VolumeInspect;

shape! {
    /// Answer of `GET /version`.
    pub struct SystemVersion {
        pub platform: VersionPlatform,
        pub components: Vec<ComponentVersion>,
        pub version: String,
        pub api_version: String,
        #[serde(rename = "MinAPIVersion")]
        pub min_api_version: String,
        pub git_commit: String,
        pub go_version: String,
        pub os: String,
        pub arch: String,
        pub kernel_version: String,
        #[serde(skip_serializing_if = "is_default")]
        pub experimental: bool,
        pub build_time: String,
    }

    /// The product's name.
    pub struct VersionPlatform {
        pub name: String,
    }

    /// One part of the daemon.
    pub struct ComponentVersion {
        pub name: String,
        pub version: String,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub details: BTreeMap<String, String>,
    }

    /// Answer of `GET /info`.
    pub struct SystemInfo {
        #[serde(rename = "ID")]
        pub id: String,
        pub containers: i64,
        pub containers_running: i64,
        pub containers_paused: i64,
        pub containers_stopped: i64,
        pub images: i64,
        pub driver: String,
        pub driver_status: Vec<[String; 2]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub system_status: Option<Vec<[String; 2]>>,
        pub plugins: PluginsInfo,
        pub memory_limit: bool,
        pub swap_limit: bool,
        #[serde(rename = "CpuCfsPeriod")]
        pub cpu_cfs_period: bool,
        #[serde(rename = "CpuCfsQuota")]
        pub cpu_cfs_quota: bool,
        #[serde(rename = "CPUShares")]
        pub cpu_shares: bool,
        #[serde(rename = "CPUSet")]
        pub cpu_set: bool,
        pub pids_limit: bool,
        #[serde(rename = "IPv4Forwarding")]
        pub ipv4_forwarding: bool,
        pub debug: bool,
        #[serde(rename = "NFd")]
        pub n_fd: i64,
        pub oom_kill_disable: bool,
        #[serde(rename = "NGoroutines")]
        pub n_goroutines: i64,
        /// RFC 3339 with nanoseconds.
        pub system_time: String,
        pub logging_driver: String,
        pub cgroup_driver: String,
        #[serde(skip_serializing_if = "is_default")]
        pub cgroup_version: String,
        #[serde(rename = "NEventsListener")]
        pub n_events_listener: i64,
        pub kernel_version: String,
        pub operating_system: String,
        #[serde(rename = "OSVersion")]
        pub os_version: String,
        #[serde(rename = "OSType")]
        pub os_type: String,
        pub architecture: String,
        pub index_server_address: String,
        pub registry_config: RegistryServiceConfig,
        #[serde(rename = "NCPU")]
        pub n_cpu: i64,
        /// Bytes.
        pub mem_total: i64,
        pub generic_resources: Option<Vec<serde_json::Value>>,
        pub docker_root_dir: String,
        pub http_proxy: String,
        pub https_proxy: String,
        pub no_proxy: String,
        pub name: String,
        pub labels: Vec<String>,
        pub experimental_build: bool,
        pub server_version: String,
        pub runtimes: BTreeMap<String, Runtime>,
        pub default_runtime: String,
        pub swarm: SwarmInfo,
        pub live_restore_enabled: bool,
        pub isolation: String,
        pub init_binary: String,
        pub containerd_commit: Commit,
        pub runc_commit: Commit,
        pub init_commit: Commit,
        pub security_options: Vec<String>,
        #[serde(skip_serializing_if = "is_default")]
        pub product_license: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub default_address_pools: Vec<AddressPool>,
        #[serde(rename = "CDISpecDirs")]
        pub cdi_spec_dirs: Vec<String>,
        pub warnings: Option<Vec<String>>,
    }

    /// Names of drivers per kind.
    pub struct PluginsInfo {
        pub volume: Vec<String>,
        pub network: Vec<String>,
        pub authorization: Option<Vec<String>>,
        pub log: Vec<String>,
    }

    /// Registries and how they are reached.
    pub struct RegistryServiceConfig {
        #[serde(rename = "AllowNondistributableArtifactsCIDRs", skip_serializing_if = "Option::is_none")]
        pub allow_nondistributable_artifacts_cidrs: Option<Vec<String>>,
        #[serde(rename = "AllowNondistributableArtifactsHostnames", skip_serializing_if = "Option::is_none")]
        pub allow_nondistributable_artifacts_hostnames: Option<Vec<String>>,
        #[serde(rename = "InsecureRegistryCIDRs")]
        pub insecure_registry_cidrs: Vec<String>,
        pub index_configs: BTreeMap<String, RegistryIndex>,
        pub mirrors: Vec<String>,
    }

    /// One registry.
    pub struct RegistryIndex {
        pub name: String,
        pub mirrors: Vec<String>,
        pub secure: bool,
        pub official: bool,
    }

    /// A container runtime by name.
    pub struct Runtime {
        #[serde(rename = "path", skip_serializing_if = "is_default")]
        pub path: String,
        #[serde(rename = "runtimeArgs", skip_serializing_if = "Vec::is_empty")]
        pub runtime_args: Vec<String>,
        #[serde(rename = "status", skip_serializing_if = "Option::is_none")]
        pub status: Option<BTreeMap<String, String>>,
    }

    /// A part's commit.
    pub struct Commit {
        #[serde(rename = "ID")]
        pub id: String,
    }

    /// A pool that default networks are cut from.
    pub struct AddressPool {
        pub base: String,
        pub size: u8,
    }

    /// This node's part in a swarm.
    pub struct SwarmInfo {
        #[serde(rename = "NodeID")]
        pub node_id: String,
        pub node_addr: String,
        /// `inactive`, `pending`, `active`, `error`, `locked`.
        pub local_node_state: String,
        pub control_available: bool,
        pub error: String,
        pub remote_managers: Option<Vec<SwarmPeer>>,
        #[serde(skip_serializing_if = "is_default")]
        pub nodes: i64,
        #[serde(skip_serializing_if = "is_default")]
        pub managers: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cluster: Option<serde_json::Value>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub warnings: Vec<String>,
    }

    /// A manager this node knows.
    pub struct SwarmPeer {
        #[serde(rename = "NodeID")]
        pub node_id: String,
        pub addr: String,
    }

    /// Answer of `GET /system/df`.
    pub struct DiskUsage {
        pub layers_size: i64,
        pub images: Option<Vec<ImageSummary>>,
        pub containers: Option<Vec<ContainerSummary>>,
        pub volumes: Option<Vec<VolumeInspect>>,
        pub build_cache: Option<Vec<Empty>>,
    }
}

//! What a container gets from this host: every field of API 1.51's `HostConfig`.
//!
//! In: create and update bodies. Out: inspect answers, in Docker's field order. Never checks ranges: the engine does.

use std::collections::BTreeMap;

use crate::mount::Mount;
use crate::port::PortMap;
use crate::shape::{Words, is_default};

shape! {
    /// Limits, mounts, network, and security of a container on this host.
    pub struct HostConfig {
        /// `source:target[:options]`, source a path or a volume name.
        pub binds: Option<Vec<String>>,
        #[serde(rename = "ContainerIDFile")]
        pub container_id_file: String,
        pub log_config: LogConfig,
        /// `""`, `default`, `bridge`, `host`, `none`, `container:<id>` or a network's name.
        pub network_mode: String,
        pub port_bindings: PortMap,
        pub restart_policy: RestartPolicy,
        pub auto_remove: bool,
        pub volume_driver: String,
        pub volumes_from: Option<Vec<String>>,
        /// Rows, columns.
        pub console_size: [u32; 2],
        #[serde(skip_serializing_if = "Option::is_none")]
        pub annotations: Option<BTreeMap<String, String>>,
        pub cap_add: Option<Words>,
        pub cap_drop: Option<Words>,
        /// `""`, `private` or `host`. Since API 1.41.
        pub cgroupns_mode: String,
        pub dns: Vec<String>,
        pub dns_options: Vec<String>,
        pub dns_search: Vec<String>,
        /// `name:address`.
        pub extra_hosts: Option<Vec<String>>,
        pub group_add: Option<Vec<String>>,
        /// `""`, `none`, `private`, `shareable`, `host` or `container:<id>`.
        pub ipc_mode: String,
        pub cgroup: String,
        pub links: Option<Vec<String>>,
        pub oom_score_adj: i64,
        /// `""`, `host` or `container:<id>`.
        pub pid_mode: String,
        pub privileged: bool,
        pub publish_all_ports: bool,
        pub readonly_rootfs: bool,
        pub security_opt: Option<Vec<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub storage_opt: Option<BTreeMap<String, String>>,
        /// Path in the container: mount options.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tmpfs: Option<BTreeMap<String, String>>,
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        pub userns_mode: String,
        /// Bytes; 0 is 64 MiB.
        pub shm_size: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub sysctls: Option<BTreeMap<String, String>>,
        pub runtime: String,
        pub isolation: String,
        pub cpu_shares: i64,
        /// Bytes; 0 is no limit.
        pub memory: i64,
        /// Billionths of a CPU; 0 is no limit.
        pub nano_cpus: i64,
        pub cgroup_parent: String,
        pub blkio_weight: u16,
        pub blkio_weight_device: Vec<WeightDevice>,
        pub blkio_device_read_bps: Vec<ThrottleDevice>,
        pub blkio_device_write_bps: Vec<ThrottleDevice>,
        #[serde(rename = "BlkioDeviceReadIOps")]
        pub blkio_device_read_iops: Vec<ThrottleDevice>,
        #[serde(rename = "BlkioDeviceWriteIOps")]
        pub blkio_device_write_iops: Vec<ThrottleDevice>,
        pub cpu_period: i64,
        pub cpu_quota: i64,
        pub cpu_realtime_period: i64,
        pub cpu_realtime_runtime: i64,
        pub cpuset_cpus: String,
        pub cpuset_mems: String,
        pub devices: Vec<DeviceMapping>,
        pub device_cgroup_rules: Option<Vec<String>>,
        pub device_requests: Option<Vec<DeviceRequest>>,
        #[serde(skip_serializing_if = "is_default")]
        pub kernel_memory: i64,
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_default")]
        pub kernel_memory_tcp: i64,
        pub memory_reservation: i64,
        /// Bytes of memory and swap together; -1 is unlimited swap, 0 is twice `memory`.
        pub memory_swap: i64,
        pub memory_swappiness: Option<i64>,
        pub oom_kill_disable: Option<bool>,
        /// `None`, 0 and -1 are no limit.
        pub pids_limit: Option<i64>,
        pub ulimits: Vec<Ulimit>,
        pub cpu_count: i64,
        pub cpu_percent: i64,
        #[serde(rename = "IOMaximumIOps")]
        pub io_maximum_iops: u64,
        #[serde(rename = "IOMaximumBandwidth")]
        pub io_maximum_bandwidth: u64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub mounts: Vec<Mount>,
        /// `None` is the default list, `[]` masks nothing.
        pub masked_paths: Option<Vec<String>>,
        /// `None` is the default list, `[]` protects nothing.
        pub readonly_paths: Option<Vec<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub init: Option<bool>,
    }

    /// Log driver; empty type takes the daemon's default.
    pub struct LogConfig {
        #[serde(rename = "Type")]
        pub driver: String,
        pub config: BTreeMap<String, String>,
    }

    /// When a plain container starts again: `""`/`no`, `always`, `on-failure`, `unless-stopped`.
    pub struct RestartPolicy {
        pub name: String,
        pub maximum_retry_count: i64,
    }

    /// A block device's weight.
    pub struct WeightDevice {
        pub path: String,
        pub weight: u16,
    }

    /// A block device's limit: bytes or operations per second.
    pub struct ThrottleDevice {
        pub path: String,
        pub rate: u64,
    }

    /// A device of the host made visible inside.
    pub struct DeviceMapping {
        pub path_on_host: String,
        pub path_in_container: String,
        pub cgroup_permissions: String,
    }

    /// Devices asked for by driver and capability (GPUs).
    pub struct DeviceRequest {
        pub driver: String,
        pub count: i64,
        #[serde(rename = "DeviceIDs")]
        pub device_ids: Option<Vec<String>>,
        pub capabilities: Option<Vec<Vec<String>>>,
        pub options: Option<BTreeMap<String, String>>,
    }

    /// A resource limit by its setrlimit name without `RLIMIT_`, lower case; -1 is unlimited.
    pub struct Ulimit {
        pub name: String,
        pub hard: i64,
        pub soft: i64,
    }
}

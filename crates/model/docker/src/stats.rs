//! Resource use of a container, as `GET /containers/{id}/stats` streams it.
//!
//! In: counters read from cgroups and links. Out: the snake_case shape of the API. Never computes a percentage.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use objects::Timestamp;

/// One reading and the one before it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Container name with slash.
    pub name: String,
    /// Container id.
    pub id: String,
    /// When read.
    pub read: Timestamp,
    /// When the previous one was read; zero for the first.
    pub preread: Timestamp,
    /// Processes.
    pub pids_stats: PidsStats,
    /// Block device use.
    pub blkio_stats: BlkioStats,
    /// Windows only; always 0.
    pub num_procs: u32,
    /// Windows only; always `{}`.
    pub storage_stats: BTreeMap<String, serde_json::Value>,
    /// CPU now.
    pub cpu_stats: CpuStats,
    /// CPU at the previous reading.
    pub precpu_stats: CpuStats,
    /// Memory now.
    pub memory_stats: MemoryStats,
    /// Per interface; missing without a network namespace of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<BTreeMap<String, NetworkStats>>,
}

/// Processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// Tasks now.
    #[serde(default, skip_serializing_if = "crate::shape::is_default")]
    pub current: u64,
    /// Limit; 0 is none.
    #[serde(default, skip_serializing_if = "crate::shape::is_default")]
    pub limit: u64,
}

/// Use of block devices. The kernel has no figures any more for those that are always `null`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields have the names and the meaning of the Engine API reference")]
pub struct BlkioStats {
    pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
    pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
    pub io_queue_recursive: Option<Vec<BlkioEntry>>,
    pub io_service_time_recursive: Option<Vec<BlkioEntry>>,
    pub io_wait_time_recursive: Option<Vec<BlkioEntry>>,
    pub io_merged_recursive: Option<Vec<BlkioEntry>>,
    pub io_time_recursive: Option<Vec<BlkioEntry>>,
    pub sectors_recursive: Option<Vec<BlkioEntry>>,
}

/// One figure of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `read` or `write`.
    pub op: String,
    /// Bytes or operations.
    pub value: u64,
}

/// CPU use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    /// The container's use.
    pub cpu_usage: CpuUsage,
    /// The whole host's use in nanoseconds.
    #[serde(default, skip_serializing_if = "crate::shape::is_default")]
    pub system_cpu_usage: u64,
    /// CPUs.
    #[serde(default, skip_serializing_if = "crate::shape::is_default")]
    pub online_cpus: u32,
    /// Throttling.
    pub throttling_data: Throttling,
}

/// Nanoseconds of CPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuUsage {
    /// In all.
    pub total_usage: u64,
    /// In the kernel.
    pub usage_in_kernelmode: u64,
    /// In user mode.
    pub usage_in_usermode: u64,
}

/// How often the CPU limit bit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// Periods in all.
    pub periods: u64,
    /// Periods throttled.
    pub throttled_periods: u64,
    /// Nanoseconds throttled.
    pub throttled_time: u64,
}

/// Memory use in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// Now.
    #[serde(default, skip_serializing_if = "crate::shape::is_default")]
    pub usage: u64,
    /// The most so far, on cgroup version 1.
    #[serde(default, skip_serializing_if = "crate::shape::is_default")]
    pub max_usage: u64,
    /// Counters of the cgroup.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stats: BTreeMap<String, u64>,
    /// Limit, or the host's memory.
    #[serde(default, skip_serializing_if = "crate::shape::is_default")]
    pub limit: u64,
}

/// One interface's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the kernel's counter names")]
pub struct NetworkStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

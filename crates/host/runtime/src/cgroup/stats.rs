//! Reads a group's figures from the kernel's files.
//!
//! In: the directories of a group. Out: `Stats`. A file that is missing counts as zero: kernels differ in what they have.

use std::path::Path;

use super::{Cgroup, Stats};

/// Reads all figures of a group.
pub(super) fn read(group: &Cgroup) -> Stats {
    let mut stats = Stats { memory_limit_bytes: u64::MAX, pids_limit: u64::MAX, ..Stats::default() };
    if let Some(own) = group.v1("cpuacct") {
        v1_cpu_time(own, &mut stats);
    }
    if let Some(own) = group.v1("cpu") {
        let table = table(own, "cpu.stat");
        stats.cpu_periods = field(&table, "nr_periods");
        stats.cpu_throttled_periods = field(&table, "nr_throttled");
        stats.cpu_throttled_ns = field(&table, "throttled_time");
    }
    if let Some(own) = group.v1("memory") {
        stats.memory_usage_bytes = number(own, "memory.usage_in_bytes").unwrap_or(0);
        stats.memory_max_usage_bytes = number(own, "memory.max_usage_in_bytes").unwrap_or(0);
        stats.memory_limit_bytes = number(own, "memory.limit_in_bytes").map_or(u64::MAX, unlimited_when_huge);
        stats.memory_stat = table(own, "memory.stat");
        stats.memory_inactive_file_bytes = field(&stats.memory_stat, "total_inactive_file");
    }
    if let Some(own) = group.v1("pids") {
        pids(own, &mut stats);
    }
    if let Some(own) = group.v1("blkio") {
        v1_block(own, &mut stats);
    }
    if let Some(own) = group.v2() {
        v2(own, &mut stats);
    }
    stats
}

fn v1_cpu_time(own: &Path, stats: &mut Stats) {
    stats.cpu_usage_ns = number(own, "cpuacct.usage").unwrap_or(0);
    stats.cpu_user_ns = number(own, "cpuacct.usage_user").unwrap_or(0);
    stats.cpu_system_ns = number(own, "cpuacct.usage_sys").unwrap_or(0);
}

fn v2(own: &Path, stats: &mut Stats) {
    if own.join("cpu.max").exists() || stats.cpu_usage_ns == 0 {
        let table = table(own, "cpu.stat");
        stats.cpu_usage_ns = field(&table, "usage_usec") * 1000;
        stats.cpu_user_ns = field(&table, "user_usec") * 1000;
        stats.cpu_system_ns = field(&table, "system_usec") * 1000;
        if own.join("cpu.max").exists() {
            stats.cpu_periods = field(&table, "nr_periods");
            stats.cpu_throttled_periods = field(&table, "nr_throttled");
            stats.cpu_throttled_ns = field(&table, "throttled_usec") * 1000;
        }
    }
    if let Some(usage) = number(own, "memory.current") {
        stats.memory_usage_bytes = usage;
        stats.memory_max_usage_bytes = number(own, "memory.peak").unwrap_or(0);
        stats.memory_limit_bytes = number(own, "memory.max").unwrap_or(u64::MAX);
        stats.memory_stat = table(own, "memory.stat");
        stats.memory_inactive_file_bytes = field(&stats.memory_stat, "inactive_file");
    }
    if own.join("pids.current").exists() {
        pids(own, stats);
    }
    if let Ok(text) = std::fs::read_to_string(own.join("io.stat")) {
        for part in text.split_whitespace() {
            match part.split_once('=') {
                Some(("rbytes", value)) => stats.block_read_bytes += value.parse::<u64>().unwrap_or(0),
                Some(("wbytes", value)) => stats.block_write_bytes += value.parse::<u64>().unwrap_or(0),
                _ => {}
            }
        }
    }
}

fn pids(own: &Path, stats: &mut Stats) {
    stats.pids_current = number(own, "pids.current").unwrap_or(0);
    stats.pids_limit = number(own, "pids.max").unwrap_or(u64::MAX);
}

fn v1_block(own: &Path, stats: &mut Stats) {
    let Ok(text) = std::fs::read_to_string(own.join("blkio.throttle.io_service_bytes")) else { return };
    for line in text.lines() {
        let mut fields = line.split(' ').skip(1);
        match (fields.next(), fields.next().and_then(|value| value.parse::<u64>().ok())) {
            (Some("Read"), Some(bytes)) => stats.block_read_bytes += bytes,
            (Some("Write"), Some(bytes)) => stats.block_write_bytes += bytes,
            _ => {}
        }
    }
}

/// Version 1 shows "no limit" as the largest number of whole pages.
fn unlimited_when_huge(bytes: u64) -> u64 {
    if bytes >= i64::MAX as u64 & !0xffff { u64::MAX } else { bytes }
}

/// A file with one number; `max` and missing files are `None`.
fn number(own: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(own.join(file)).ok()?.trim().parse().ok()
}

/// A file with lines of a name and a number.
pub(super) fn table(own: &Path, file: &str) -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(own.join(file)).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// A value of such a file; zero when it is missing.
pub(super) fn field(table: &[(String, u64)], name: &str) -> u64 {
    table.iter().find(|(key, _)| key == name).map_or(0, |(_, value)| *value)
}

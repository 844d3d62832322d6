//! Reads a group's figures from the kernel's files.
//!
//! In: the directories of a group. Out: `Stats`. A file that is missing counts as zero: kernels differ in what they have.

use std::path::Path;

use super::{BlockUse, Cgroup, Stats};

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
        stats.block = v2_block(&text);
    }
}

/// Lines such as `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn v2_block(text: &str) -> Vec<BlockUse> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let mut found = BlockUse { device: device(fields.next()?)?, ..BlockUse::default() };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => found.read_bytes = value,
                "wbytes" => found.write_bytes = value,
                "rios" => found.reads = value,
                "wios" => found.writes = value,
                _ => {}
            }
        }
        Some(found)
    };
    text.lines().filter_map(line).collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn pids(own: &Path, stats: &mut Stats) {
    stats.pids_current = number(own, "pids.current").unwrap_or(0);
    stats.pids_limit = number(own, "pids.max").unwrap_or(u64::MAX);
}

fn v1_block(own: &Path, stats: &mut Stats) {
    let read = |name: &str| {
        // Groups below count as well, where the kernel can tell.
        std::fs::read_to_string(own.join(format!("blkio.throttle.{name}_recursive")))
            .or_else(|_| std::fs::read_to_string(own.join(format!("blkio.throttle.{name}"))))
            .unwrap_or_default()
    };
    stats.block = v1_block_use(&read("io_service_bytes"), &read("io_serviced"));
}

/// Lines such as `8:0 Read 4096`.
fn v1_block_use(bytes: &str, operations: &str) -> Vec<BlockUse> {
    let mut found: Vec<BlockUse> = Vec::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [name, operation, value] = fields[..] else { continue };
            let (Some(device), Ok(value)) = (device(name), value.parse::<u64>()) else { continue };
            let at = found.iter().position(|known| known.device == device).unwrap_or_else(|| {
                found.push(BlockUse { device, ..BlockUse::default() });
                found.len() - 1
            });
            match (operation, is_bytes) {
                ("Read", true) => found[at].read_bytes = value,
                ("Write", true) => found[at].write_bytes = value,
                ("Read", false) => found[at].reads = value,
                ("Write", false) => found[at].writes = value,
                _ => {}
            }
        }
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_the_use_of_each_device() {
        let expect = [
            BlockUse { device: (8, 0), read_bytes: 4096, write_bytes: 8192, reads: 1, writes: 2 },
            BlockUse { device: (253, 16), read_bytes: 512, write_bytes: 0, reads: 1, writes: 0 },
        ];
        let v2 = "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n253:16 rbytes=512 wbytes=0 rios=1 wios=0\n";
        assert_eq!(v2_block(v2), expect);
        let bytes =
            "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 1\n8:0 Total 12288\n253:16 Read 512\nTotal 12800\n";
        let operations = "8:0 Read 1\n8:0 Write 2\n253:16 Read 1\nTotal 4\n";
        assert_eq!(v1_block_use(bytes, operations), expect);
        assert_eq!(v2_block("nonsense\n8:x rbytes=1\n"), []);
        assert_eq!(v1_block_use("Total 0\n", ""), []);
    }
}

//! Translates limits into writes to the kernel's files.
//!
//! In: `Limits`. Out: for each controller, which file gets which text. Pure, so that it can be tested without the
//! controllers; the writing is done in `mod.rs`.

use crate::spec::{DeviceKind, DeviceRule, Limits};

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    /// Controller whose tree has the file.
    pub(super) controller: &'static str,
    /// Name of the file.
    pub(super) file: &'static str,
    /// What to write.
    pub(super) text: String,
    /// Whether a missing file is an error. Kernels without swap accounting or with newer schedulers lack some files;
    /// Docker warns about these and starts the container all the same.
    pub(super) required: bool,
}

fn write(controller: &'static str, file: &'static str, text: impl ToString, required: bool) -> Write {
    Write { controller, file, text: text.to_string(), required }
}

/// The writes for version 1.
pub(super) fn v1(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(bytes) = limits.memory_bytes {
        writes.push(write("memory", "memory.limit_in_bytes", bytes, true));
    }
    if let Some(bytes) = memory_and_swap(limits) {
        writes.push(write("memory", "memory.memsw.limit_in_bytes", bytes, false));
    }
    if let Some(bytes) = limits.memory_reservation_bytes {
        writes.push(write("memory", "memory.soft_limit_in_bytes", bytes, false));
    }
    if let Some(percent) = limits.memory_swappiness {
        writes.push(write("memory", "memory.swappiness", percent, false));
    }
    if limits.oom_kill_disable {
        writes.push(write("memory", "memory.oom_control", 1, false));
    }
    if let Some(period) = limits.cpu_period_us.filter(|period| *period > 0) {
        writes.push(write("cpu", "cpu.cfs_period_us", period, true));
    }
    if let Some(quota) = limits.cpu_quota_us.filter(|quota| *quota != 0) {
        writes.push(write("cpu", "cpu.cfs_quota_us", quota, true));
    }
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares > 0) {
        writes.push(write("cpu", "cpu.shares", shares, true));
    }
    cpuset(limits, &mut writes);
    if let Some(pids) = limits.pids_max {
        writes.push(write("pids", "pids.max", at_most(pids), true));
    }
    if let Some(weight) = limits.blkio_weight.filter(|weight| *weight > 0) {
        writes.push(write("blkio", "blkio.weight", weight, false));
        writes.push(write("blkio", "blkio.bfq.weight", weight, false));
    }
    writes
}

/// The writes for version 2.
pub(super) fn v2(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(bytes) = limits.memory_bytes {
        writes.push(write("memory", "memory.max", bytes, true));
    }
    if let Some(both) = memory_and_swap(limits) {
        let memory = i64::try_from(limits.memory_bytes.unwrap_or(0)).unwrap_or(i64::MAX);
        let swap = if both < 0 { "max".to_owned() } else { (both - memory).max(0).to_string() };
        writes.push(write("memory", "memory.swap.max", swap, false));
    }
    if let Some(bytes) = limits.memory_reservation_bytes {
        writes.push(write("memory", "memory.low", bytes, true));
    }
    let period = limits.cpu_period_us.filter(|period| *period > 0);
    let quota = limits.cpu_quota_us.filter(|quota| *quota != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        writes.push(write("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(100_000)), true));
    }
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares > 0) {
        // Source: runc, `ConvertCPUSharesToCgroupV2Value`: [2, 262144] onto [1, 10000].
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        writes.push(write("cpu", "cpu.weight", weight, true));
    }
    cpuset(limits, &mut writes);
    if let Some(pids) = limits.pids_max {
        writes.push(write("pids", "pids.max", at_most(pids), true));
    }
    if let Some(weight) = limits.blkio_weight.filter(|weight| *weight > 0) {
        // Source: runc, `ConvertBlkIOToIOWeightValue`: [10, 1000] onto [1, 10000].
        let io = 1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990;
        writes.push(write("io", "io.weight", format!("default {io}"), false));
        writes.push(write("io", "io.bfq.weight", weight, false));
    }
    writes
}

fn cpuset(limits: &Limits, writes: &mut Vec<Write>) {
    if !limits.cpuset_cpus.is_empty() {
        writes.push(write("cpuset", "cpuset.cpus", &limits.cpuset_cpus, true));
    }
    if !limits.cpuset_mems.is_empty() {
        writes.push(write("cpuset", "cpuset.mems", &limits.cpuset_mems, true));
    }
}

/// The limit of memory plus swap; -1 is none. Source: moby, `daemon_unix.go`: twice the memory when only that is given.
fn memory_and_swap(limits: &Limits) -> Option<i64> {
    let memory = limits.memory_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    match (limits.memory_swap_bytes, memory) {
        (Some(both), _) if both < 0 => Some(-1),
        (Some(both), _) if both > 0 => Some(both),
        (_, Some(memory)) if memory > 0 => Some(memory.saturating_mul(2)),
        _ => None,
    }
}

fn at_most(count: i64) -> String {
    if count > 0 { count.to_string() } else { "max".to_owned() }
}

/// The writes of device rules for version 1: file and text, in order.
pub(super) fn v1_devices(rules: &[DeviceRule]) -> Vec<(&'static str, String)> {
    rules
        .iter()
        .flat_map(|rule| {
            let file = if rule.allow { "devices.allow" } else { "devices.deny" };
            let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
            let mut access = String::new();
            for (wanted, letter) in [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')] {
                if wanted {
                    access.push(letter);
                }
            }
            let everything =
                rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none() && access.len() == 3;
            let kinds: &[char] = match rule.kind {
                _ if everything => &['a'],
                Some(DeviceKind::Char) => &['c'],
                Some(DeviceKind::Block) => &['b'],
                None => &['c', 'b'],
            };
            let tail = format!("{}:{} {access}", number(rule.major), number(rule.minor));
            kinds.iter().map(move |kind| (file, format!("{kind} {tail}"))).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(writes: &[Write]) -> Vec<String> {
        writes.iter().map(|write| format!("{}={}", write.file, write.text)).collect()
    }

    fn full() -> Limits {
        Limits {
            memory_bytes: Some(1 << 20),
            memory_reservation_bytes: Some(4096),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            cpu_shares: Some(1024),
            cpuset_cpus: "0-1".into(),
            pids_max: Some(64),
            blkio_weight: Some(1000),
            ..Limits::default()
        }
    }

    #[test]
    fn version_1_gets_its_own_files() {
        assert_eq!(
            texts(&v1(&full())),
            [
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=2097152",
                "memory.soft_limit_in_bytes=4096",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpu.shares=1024",
                "cpuset.cpus=0-1",
                "pids.max=64",
                "blkio.weight=1000",
                "blkio.bfq.weight=1000",
            ]
        );
    }

    #[test]
    fn version_2_gets_its_own_files() {
        assert_eq!(
            texts(&v2(&full())),
            [
                "memory.max=1048576",
                "memory.swap.max=1048576",
                "memory.low=4096",
                "cpu.max=50000 100000",
                "cpu.weight=39",
                "cpuset.cpus=0-1",
                "pids.max=64",
                "io.weight=default 10000",
                "io.bfq.weight=1000",
            ]
        );
    }

    #[test]
    fn no_limits_mean_no_writes() {
        assert!(v1(&Limits::default()).is_empty());
        assert!(v2(&Limits::default()).is_empty());
    }

    #[test]
    fn unlimited_is_said_in_each_versions_way() {
        let limits = Limits {
            memory_bytes: Some(1 << 20),
            memory_swap_bytes: Some(-1),
            pids_max: Some(-1),
            cpu_quota_us: Some(-1),
            ..Limits::default()
        };
        let expect = [
            "memory.limit_in_bytes=1048576",
            "memory.memsw.limit_in_bytes=-1",
            "cpu.cfs_quota_us=-1",
            "pids.max=max",
        ];
        assert_eq!(texts(&v1(&limits)), expect);
        let expect = ["memory.max=1048576", "memory.swap.max=max", "cpu.max=max 100000", "pids.max=max"];
        assert_eq!(texts(&v2(&limits)), expect);
    }

    #[test]
    fn device_rules_keep_their_order_and_kind() {
        let rule = |allow, kind, major, minor| DeviceRule {
            allow,
            kind,
            major,
            minor,
            read: true,
            write: true,
            mknod: true,
        };
        let rules = [
            rule(false, None, None, None),
            DeviceRule { read: false, write: false, ..rule(true, None, None, None) },
            rule(true, Some(DeviceKind::Char), Some(136), None),
            rule(true, Some(DeviceKind::Block), Some(8), Some(0)),
        ];
        let writes: Vec<String> =
            v1_devices(&rules).into_iter().map(|(file, text)| format!("{file}: {text}")).collect();
        assert_eq!(
            writes,
            [
                "devices.deny: a *:* rwm",
                "devices.allow: c *:* m",
                "devices.allow: b *:* m",
                "devices.allow: c 136:* rwm",
                "devices.allow: b 8:0 rwm",
            ]
        );
    }
}

//! Reads how much a container uses: CPU, memory, processes, block devices, interfaces.
//!
//! In: a container's cgroup, its network's counters, the machine's. Out: readings a second apart, each with the one
//! before. Never computes a percentage.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use docker::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats, Throttling,
};
use objects::Timestamp;
use runtime::cgroup::Cgroup;

use super::{Container, start};
use crate::engine::{Engine, Inner, now};
use crate::error::EngineError;
use crate::files::blocking;
use crate::watch::Status;

/// Between two readings. Source: moby, `daemon/stats/collector.go`.
const INTERVAL: Duration = Duration::from_secs(1);

/// How readings are wanted.
#[derive(Debug, Clone, Copy)]
pub struct StatsOptions {
    /// One after the other until the container is removed.
    pub stream: bool,
    /// One at once, without one before.
    pub one_shot: bool,
}

/// Readings of one container.
pub struct StatsStream {
    inner: Arc<Inner>,
    container: Arc<Container>,
    options: StatsOptions,
    before: (Timestamp, CpuStats),
    is_first: bool,
    is_over: bool,
}

impl Engine {
    /// How much a container uses. Of one that doesn't run, the figures are zero.
    pub fn stats(&self, container: &str, options: StatsOptions) -> Result<StatsStream, EngineError> {
        let container = self.inner.registry.find(container)?;
        if options.stream && options.one_shot {
            // Source: moby, `container_routes.go`, `getContainersStats`.
            return Err(EngineError::invalid("cannot have stream=true and one-shot=true"));
        }
        Ok(StatsStream {
            inner: Arc::clone(&self.inner),
            container,
            options,
            before: Default::default(),
            is_first: true,
            is_over: false,
        })
    }
}

impl StatsStream {
    /// The next reading, which may have to be waited for; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Stats>, EngineError> {
        if self.is_over {
            return Ok(None);
        }
        if !self.is_first {
            self.wait().await;
        }
        if matches!(self.container.status(), Status::Removed) {
            self.is_over = true;
            return Ok(None);
        }
        let mut stats = self.read().await?;
        // One reading is of use only with another before it.
        if self.is_first && !self.options.stream && !self.options.one_shot && !stats.read.is_zero() {
            self.before = (stats.read, stats.cpu_stats);
            self.wait().await;
            stats = self.read().await?;
        }
        self.is_first = false;
        self.is_over = !self.options.stream;
        (stats.preread, stats.precpu_stats) = std::mem::take(&mut self.before);
        self.before = (stats.read, stats.cpu_stats.clone());
        Ok(Some(stats))
    }

    /// Until the next reading, or until there is none.
    async fn wait(&self) {
        let mut phase = self.container.phase();
        let removed = phase.wait_for(|phase| phase.status == Status::Removed);
        // Either is a reason to look again.
        let _ = tokio::time::timeout(INTERVAL, removed).await;
    }

    async fn read(&self) -> Result<Stats, EngineError> {
        let record = self.container.record();
        let named = Stats { name: format!("/{}", record.name), id: record.id.clone(), ..Stats::default() };
        let Ok(running) = self.container.running() else { return Ok(named) };
        if record.run.status == Status::Restarting {
            return Ok(named);
        }
        let parent = start::cgroup_parent(&self.inner, &record);
        let pid = running.shim.pid();
        let has_network = record.host_config.network_mode != "host";
        blocking(move || {
            let cgroup = Cgroup::open(&parent, &record.id).and_then(|cgroup| cgroup.stats());
            // It has ended meanwhile.
            let Ok(cgroup) = cgroup else { return Ok(named) };
            let machine = Machine::read();
            Ok(Stats {
                networks: if has_network { networks(pid) } else { None },
                ..figures(named, &cgroup, &machine)
            })
        })
        .await
    }
}

/// What the whole machine has and uses.
struct Machine {
    cpu_ns: u64,
    cpus: u32,
    memory_bytes: u64,
}

impl Machine {
    fn read() -> Machine {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second();
        let (cpu_ns, cpus) = machine_cpu(&text("/proc/stat"), ticks);
        Machine { cpu_ns, cpus, memory_bytes: machine_memory(&text("/proc/meminfo")) }
    }
}

/// Nanoseconds of all CPUs, idle ones included, and how many there are.
/// Source: moby, `daemon/stats/collector_unix.go`, `getSystemCPUUsage`: seven fields, without those of guests.
fn machine_cpu(stat: &str, ticks_per_second: u64) -> (u64, u32) {
    let mut lines = stat.lines();
    let all = lines.next().unwrap_or_default();
    let ticks: u64 = all.split_whitespace().skip(1).take(7).filter_map(|text| text.parse::<u64>().ok()).sum();
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let cpus = lines.filter(is_cpu).count();
    (ticks * (1_000_000_000 / ticks_per_second.max(1)), u32::try_from(cpus).unwrap_or(0))
}

fn machine_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn figures(named: Stats, cgroup: &runtime::cgroup::Stats, machine: &Machine) -> Stats {
    Stats {
        read: now(),
        pids_stats: PidsStats { current: cgroup.pids_current, limit: cgroup.pids_limit },
        blkio_stats: block(&cgroup.block),
        cpu_stats: CpuStats {
            cpu_usage: CpuUsage {
                total_usage: cgroup.cpu_usage_ns,
                usage_in_kernelmode: cgroup.cpu_system_ns,
                usage_in_usermode: cgroup.cpu_user_ns,
            },
            system_cpu_usage: machine.cpu_ns,
            online_cpus: machine.cpus,
            throttling_data: Throttling {
                periods: cgroup.cpu_periods,
                throttled_periods: cgroup.cpu_throttled_periods,
                throttled_time: cgroup.cpu_throttled_ns,
            },
        },
        memory_stats: MemoryStats {
            usage: cgroup.memory_usage_bytes,
            max_usage: cgroup.memory_max_usage_bytes,
            stats: cgroup.memory_stat.iter().cloned().collect(),
            // Docker shows the machine's memory where there is no limit.
            limit: cgroup.memory_limit_bytes.min(machine.memory_bytes),
        },
        ..named
    }
}

fn block(devices: &[runtime::cgroup::BlockUse]) -> BlkioStats {
    let entries = |read: fn(&runtime::cgroup::BlockUse) -> u64,
                   write: fn(&runtime::cgroup::BlockUse) -> u64| {
        let both = devices.iter().flat_map(|device| {
            [("read", read(device)), ("write", write(device))].map(|(op, value)| BlkioEntry {
                major: device.device.0,
                minor: device.device.1,
                op: op.to_owned(),
                value,
            })
        });
        Some(both.collect())
    };
    BlkioStats {
        io_service_bytes_recursive: entries(|device| device.read_bytes, |device| device.write_bytes),
        io_serviced_recursive: entries(|device| device.reads, |device| device.writes),
        ..BlkioStats::default()
    }
}

/// The counters of the process's network, without its loopback; `None` if it has no other interface.
fn networks(pid: i32) -> Option<BTreeMap<String, NetworkStats>> {
    let found = interfaces(&fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?);
    (!found.is_empty()).then_some(found)
}

/// Source of the columns: Linux, `net/core/net-procfs.c`, `dev_seq_printf_stats`.
fn interfaces(text: &str) -> BTreeMap<String, NetworkStats> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let n: Vec<u64> = rest.split_whitespace().map(|text| text.parse().unwrap_or(0)).collect();
        let name = name.trim();
        (name != "lo" && n.len() >= 12).then(|| {
            let stats = NetworkStats {
                rx_bytes: n[0],
                rx_packets: n[1],
                rx_errors: n[2],
                rx_dropped: n[3],
                tx_bytes: n[8],
                tx_packets: n[9],
                tx_errors: n[10],
                tx_dropped: n[11],
            };
            (name.to_owned(), stats)
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_time_counts_all_cpus_and_no_guests() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\n";
        assert_eq!(machine_cpu(stat, 100), (28 * 10_000_000, 2));
        assert_eq!(machine_cpu("", 100), (0, 0));
        assert_eq!(machine_memory("MemTotal:       16 kB\nMemFree: 1 kB\n"), 16384);
    }

    #[test]
    fn interfaces_are_read_without_loopback() {
        let text = "Inter-|   Receive                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  eth0:    1016      12    1    2    0     0          0         0      826       9    3    4    0     0       0          0\n";
        let expect = NetworkStats {
            rx_bytes: 1016,
            rx_packets: 12,
            rx_errors: 1,
            rx_dropped: 2,
            tx_bytes: 826,
            tx_packets: 9,
            tx_errors: 3,
            tx_dropped: 4,
        };
        assert_eq!(interfaces(text), [("eth0".to_owned(), expect)].into());
        assert!(interfaces("nonsense").is_empty());
    }

    #[test]
    fn no_limit_shows_the_machines_memory() {
        let machine = Machine { cpu_ns: 5, cpus: 2, memory_bytes: 1000 };
        let of = |limit| {
            let cgroup = runtime::cgroup::Stats { memory_limit_bytes: limit, ..Default::default() };
            figures(Stats::default(), &cgroup, &machine).memory_stats.limit
        };
        assert_eq!((of(u64::MAX), of(10)), (1000, 10));
    }
}

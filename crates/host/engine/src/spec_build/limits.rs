//! Limits of `HostConfig` as the runtime wants them: Docker's zero is "no limit".

use docker::HostConfig;
use runtime::Limits;

pub(crate) fn build(host: &HostConfig) -> Limits {
    let positive = |value: i64| u64::try_from(value).ok().filter(|&value| value > 0);
    let mut limits = Limits {
        memory_bytes: positive(host.memory),
        memory_swap_bytes: (host.memory_swap != 0).then_some(host.memory_swap),
        memory_reservation_bytes: positive(host.memory_reservation),
        memory_swappiness: host.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
        oom_kill_disable: host.oom_kill_disable.unwrap_or(false),
        cpu_quota_us: (host.cpu_quota != 0).then_some(host.cpu_quota),
        cpu_period_us: positive(host.cpu_period),
        cpu_shares: positive(host.cpu_shares),
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        pids_max: host.pids_limit.filter(|&limit| limit != 0),
        blkio_weight: (host.blkio_weight != 0).then_some(host.blkio_weight),
    };
    if let Some(nano_cpus) = positive(host.nano_cpus) {
        limits.set_nano_cpus(nano_cpus);
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(build(&HostConfig::default()), Limits::default());
    }

    #[test]
    fn cpus_become_quota_and_period() {
        let limits = build(&HostConfig { nano_cpus: 1_500_000_000, ..Default::default() });
        assert_eq!((limits.cpu_quota_us, limits.cpu_period_us), (Some(150_000), Some(100_000)));
    }
}

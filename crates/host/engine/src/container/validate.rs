//! Refuses create and update requests that can't be honoured: wrong values in Docker's words, things we don't do by name.
//!
//! In: config and host config as merged, facts about this machine. Out: nothing, or the first refusal. Never changes a
//! value. Source of most texts: moby, `daemon/daemon_unix.go` and `daemon/container.go`.

use docker::{ContainerConfig, HealthcheckConfig, HostConfig, RestartPolicy};
use lifecycle::health::MINIMUM_DURATION;

use super::signal;
use crate::error::{EngineError, InvalidRequest};

/// 6 MiB. Source: moby, `daemon/daemon_unix.go`, `linuxMinMemory`.
const SMALLEST_MEMORY: i64 = 6 << 20;
const BILLION: i64 = 1_000_000_000;

type Check = Result<(), InvalidRequest>;

fn refuse_if(is_wrong: bool, text: impl Into<String>) -> Check {
    if is_wrong { Err(InvalidRequest(text.into())) } else { Ok(()) }
}

/// Checks everything about `config` that needs no look at the machine.
pub(crate) fn config(config: &ContainerConfig) -> Check {
    for pair in &config.env {
        refuse_if(pair.is_empty() || pair.starts_with('='), format!("invalid environment variable: {pair}"))?;
        refuse_if(pair.contains('\0'), "invalid environment variable: it holds a NUL byte")?;
    }
    let dir = &config.working_dir;
    refuse_if(
        !dir.is_empty() && !dir.starts_with('/'),
        format!("the working directory '{dir}' is invalid, it needs to be an absolute path"),
    )?;
    refuse_if(
        config.hostname.len() > 64 || config.hostname.contains(['\0', '/']),
        format!("invalid hostname format: {}", config.hostname),
    )?;
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal)?;
    }
    for port in config.exposed_ports.keys() {
        docker::port::expand(port)
            .map_err(|_| InvalidRequest(format!("invalid port specification: \"{port}\"")))?;
    }
    if let Some(check) = &config.healthcheck {
        healthcheck(check)?;
    }
    Ok(())
}

fn healthcheck(check: &HealthcheckConfig) -> Check {
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        refuse_if(
            value.0 != 0 && value < MINIMUM_DURATION,
            format!("{name} in Healthcheck cannot be less than 1ms"),
        )?;
    }
    refuse_if(check.retries < 0, "Retries in Healthcheck cannot be negative")?;
    match check.test.first().map(String::as_str) {
        None | Some("NONE" | "") => Ok(()),
        Some("CMD" | "CMD-SHELL") => {
            refuse_if(check.test.len() < 2, format!("missing command in Healthcheck test {}", check.test[0]))
        }
        Some(other) => {
            Err(InvalidRequest(format!("Unknown healthcheck type '{other}' (expected 'CMD' or 'CMD-SHELL')")))
        }
    }
}

/// Checks the host config; `cpus` is how many this machine has.
pub(crate) fn host_config(host: &HostConfig, cpus: usize) -> Result<(), EngineError> {
    unsupported(host)?;
    memory(host)?;
    cpu(host, cpus)?;
    modes(host)?;
    restart_policy(&host.restart_policy)?;
    refuse_if(
        host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no"),
        "can't create 'AutoRemove' container with restart policy",
    )?;
    let weight = host.blkio_weight;
    refuse_if(weight != 0 && !(10..=1000).contains(&weight), "Range of blkio weight is from 10 to 1000")?;
    let adj = host.oom_score_adj;
    refuse_if(
        !(-1000..=1000).contains(&adj),
        format!("Invalid value {adj}, range for oom score adj is [-1000, 1000]"),
    )?;
    refuse_if(host.shm_size < 0, "SHM size can not be less than 0")?;
    ports(host)?;
    extra_hosts(host)?;
    sysctls(host)?;
    ulimits(host)?;
    capabilities(host)?;
    for path in host.masked_paths.iter().chain(&host.readonly_paths).flatten() {
        refuse_if(!path.starts_with('/'), format!("invalid path `{path}`: it must be absolute"))?;
    }
    Ok(())
}

/// What Docker does and we don't: never accepted and dropped.
fn unsupported(host: &HostConfig) -> Result<(), EngineError> {
    let is_list = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let is_default_bridge = matches!(host.network_mode.as_str(), "" | "default" | "bridge");
    let asked = [
        // Elsewhere the client says the same at the network.
        ("HostConfig.Links", is_list(&host.links) && is_default_bridge),
        ("HostConfig.Cgroup", !host.cgroup.is_empty()),
        ("HostConfig.StorageOpt", host.storage_opt.as_ref().is_some_and(|map| !map.is_empty())),
        ("HostConfig.DeviceRequests", host.device_requests.as_ref().is_some_and(|list| !list.is_empty())),
        ("HostConfig.BlkioWeightDevice", !host.blkio_weight_device.is_empty()),
        ("HostConfig.BlkioDeviceReadBps", !host.blkio_device_read_bps.is_empty()),
        ("HostConfig.BlkioDeviceWriteBps", !host.blkio_device_write_bps.is_empty()),
        ("HostConfig.BlkioDeviceReadIOps", !host.blkio_device_read_iops.is_empty()),
        ("HostConfig.BlkioDeviceWriteIOps", !host.blkio_device_write_iops.is_empty()),
        ("HostConfig.CpuRealtimePeriod", host.cpu_realtime_period != 0),
        ("HostConfig.CpuRealtimeRuntime", host.cpu_realtime_runtime != 0),
        ("HostConfig.KernelMemory", host.kernel_memory > 0),
        ("HostConfig.KernelMemoryTCP", host.kernel_memory_tcp > 0),
        ("HostConfig.CpuCount", host.cpu_count != 0),
        ("HostConfig.CpuPercent", host.cpu_percent != 0),
        ("HostConfig.IOMaximumIOps", host.io_maximum_iops != 0),
        ("HostConfig.IOMaximumBandwidth", host.io_maximum_bandwidth != 0),
    ];
    if let Some((field, _)) = asked.into_iter().find(|(_, is_asked)| *is_asked) {
        return Err(EngineError::NotSupported(field.to_owned()));
    }
    refuse_if(
        !matches!(host.runtime.as_str(), "" | "runc" | "skep"),
        format!("unknown or invalid runtime name: {}", host.runtime),
    )?;
    refuse_if(
        !matches!(host.isolation.as_str(), "" | "default"),
        format!("invalid isolation '{}' on linux", host.isolation),
    )?;
    refuse_if(
        !matches!(host.volume_driver.as_str(), "" | "local"),
        format!("error looking up volume plugin {0}: plugin \"{0}\" not found", host.volume_driver),
    )?;
    Ok(())
}

fn memory(host: &HostConfig) -> Check {
    let (memory, swap, reservation) = (host.memory, host.memory_swap, host.memory_reservation);
    refuse_if(memory < 0 || (memory > 0 && memory < SMALLEST_MEMORY), "Minimum memory limit allowed is 6MB")?;
    refuse_if(
        memory > 0 && swap > 0 && swap < memory,
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    )?;
    refuse_if(
        memory == 0 && swap > 0,
        "You should always set the Memory limit when using Memoryswap limit, see usage",
    )?;
    if let Some(value) = host.memory_swappiness {
        refuse_if(
            value != -1 && !(0..=100).contains(&value),
            format!("Invalid value: {value}, valid memory swappiness range is 0-100"),
        )?;
    }
    refuse_if(
        reservation < 0 || (reservation > 0 && reservation < SMALLEST_MEMORY),
        "Minimum memory reservation allowed is 6MB",
    )?;
    refuse_if(
        memory > 0 && reservation > memory,
        "Minimum memory limit can not be less than memory reservation limit, see usage",
    )
}

fn cpu(host: &HostConfig, cpus: usize) -> Check {
    let nano = host.nano_cpus;
    refuse_if(
        nano > 0 && host.cpu_period > 0,
        "Conflicting options: Nano CPUs and CPU Period cannot both be set",
    )?;
    refuse_if(
        nano > 0 && host.cpu_quota > 0,
        "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
    )?;
    let most = i64::try_from(cpus).unwrap_or(i64::MAX).saturating_mul(BILLION);
    refuse_if(
        nano < 0 || nano > most,
        format!("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"),
    )?;
    refuse_if(
        host.cpu_shares < 0,
        format!("invalid CPU shares ({}): value must be a positive integer", host.cpu_shares),
    )?;
    refuse_if(
        host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period),
        "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
    )?;
    refuse_if(
        host.cpu_quota > 0 && host.cpu_quota < 1000,
        "CPU cfs quota can not be less than 1ms (i.e. 1000)",
    )?;
    for (what, text) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        let is_list =
            text.is_empty() || text.split(',').all(|part| docker::port::parse_range(part).is_some());
        refuse_if(!is_list, format!("Invalid value {text} for cpuset {what}"))?;
    }
    let highest =
        host.cpuset_cpus.split(',').filter_map(docker::port::parse_range).map(|(_, last)| last).max();
    refuse_if(
        highest.is_some_and(|last| usize::from(last) >= cpus),
        format!(
            "Requested CPUs are not available - requested {}, available: 0-{}",
            host.cpuset_cpus,
            cpus.saturating_sub(1)
        ),
    )
}

fn modes(host: &HostConfig) -> Check {
    let of_container = |mode: &str| mode.strip_prefix("container:").is_some_and(|id| !id.is_empty());
    let (ipc, pid) = (host.ipc_mode.as_str(), host.pid_mode.as_str());
    refuse_if(
        !matches!(ipc, "" | "none" | "private" | "shareable" | "host") && !of_container(ipc),
        format!("invalid IPC mode: {ipc}"),
    )?;
    refuse_if(!matches!(pid, "" | "host") && !of_container(pid), format!("invalid PID mode: {pid}"))?;
    refuse_if(
        !matches!(host.uts_mode.as_str(), "" | "host"),
        format!("invalid UTS mode: {}", host.uts_mode),
    )?;
    refuse_if(
        !matches!(host.userns_mode.as_str(), "" | "host"),
        format!("invalid userns mode: {}", host.userns_mode),
    )?;
    refuse_if(
        !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host"),
        format!("invalid cgroup namespace mode: {}", host.cgroupns_mode),
    )?;
    let parent = host.cgroup_parent.as_str();
    let is_inside = parent.split('/').all(|part| part != "..");
    refuse_if(
        !is_inside || parent.ends_with(".slice"),
        format!("cgroup-parent for cgroupfs cgroup should be a path without `..` and no slice: {parent}"),
    )?;
    refuse_if(
        of_container(&host.network_mode) && (!host.port_bindings.is_empty() || host.publish_all_ports),
        "conflicting options: port publishing and the container type network mode",
    )?;
    refuse_if(
        of_container(&host.network_mode) && host.extra_hosts.as_ref().is_some_and(|list| !list.is_empty()),
        "conflicting options: custom host-to-IP mapping and the network mode",
    )?;
    refuse_if(
        of_container(&host.network_mode) && !host.dns.is_empty(),
        "conflicting options: dns and the network mode",
    )
}

/// Source of the texts: moby, `api/types/container/hostconfig.go`, `ValidateRestartPolicy`.
pub(crate) fn restart_policy(policy: &RestartPolicy) -> Check {
    let retries = policy.maximum_retry_count;
    match policy.name.as_str() {
        "" => Ok(()),
        "no" | "always" | "unless-stopped" => {
            let negative = if retries < 0 { " and cannot be negative" } else { "" };
            refuse_if(
                retries != 0,
                format!(
                    "invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}"
                ),
            )
        }
        "on-failure" => {
            refuse_if(retries < 0, "invalid restart policy: maximum retry count cannot be negative")
        }
        other => Err(InvalidRequest(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

fn ports(host: &HostConfig) -> Check {
    for (port, bindings) in &host.port_bindings {
        let wrong = |text: &str| InvalidRequest(format!("invalid port specification: \"{text}\""));
        docker::port::expand(port).map_err(|_| wrong(port))?;
        for binding in bindings.iter().flatten() {
            let text = binding.host_port.as_str();
            if !text.is_empty() && docker::port::parse_range(text).is_none() {
                return Err(wrong(text));
            }
            let ip = &binding.host_ip;
            refuse_if(
                !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err(),
                format!("invalid IP address: {ip}"),
            )?;
        }
    }
    Ok(())
}

fn extra_hosts(host: &HostConfig) -> Check {
    for entry in host.extra_hosts.iter().flatten() {
        let Some((name, address)) = entry.split_once([':', '=']).filter(|(name, _)| !name.is_empty()) else {
            return Err(InvalidRequest(format!("bad format for add-host: \"{entry}\"")));
        };
        let address = address.trim_start_matches('[').trim_end_matches(']');
        refuse_if(name.contains(char::is_whitespace), format!("bad format for add-host: \"{entry}\""))?;
        refuse_if(
            address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err(),
            format!("invalid IP address in add-host: \"{address}\""),
        )?;
    }
    for server in &host.dns {
        refuse_if(server.parse::<std::net::IpAddr>().is_err(), format!("invalid IP address: {server}"))?;
    }
    let lines = host.dns_search.iter().chain(&host.dns_options);
    for text in lines {
        refuse_if(text.contains(['\n', '\0']), format!("invalid resolver setting: {text:?}"))?;
    }
    Ok(())
}

/// Only what belongs to a namespace of the container may be set. Source: runc, `configs/validate/validator.go`.
fn sysctls(host: &HostConfig) -> Check {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    for name in host.sysctls.iter().flat_map(|map| map.keys()) {
        let dotted = name.replace('/', ".");
        let is_ipc = IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
        let is_net = dotted.starts_with("net.");
        refuse_if(dotted.contains(".."), format!("invalid sysctl '{name}'"))?;
        refuse_if(!is_ipc && !is_net, format!("sysctl \"{name}\" is not in a separate kernel namespace"))?;
        refuse_if(
            is_ipc && host.ipc_mode == "host",
            format!("sysctl '{name}' not allowed in host ipc namespace"),
        )?;
        refuse_if(
            is_net && host.network_mode == "host",
            format!("sysctl '{name}' not allowed in host network namespace"),
        )?;
    }
    Ok(())
}

fn ulimits(host: &HostConfig) -> Check {
    for limit in &host.ulimits {
        refuse_if(
            runtime::rlimit_number(&limit.name).is_none(),
            format!("invalid ulimit type: {}", limit.name),
        )?;
        let (soft, hard) = (limit.soft, limit.hard);
        refuse_if(
            hard != -1 && (soft == -1 || soft > hard),
            format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"),
        )?;
        refuse_if(soft < -1 || hard < -1, format!("invalid ulimit {}: {soft}:{hard}", limit.name))?;
    }
    Ok(())
}

fn capabilities(host: &HostConfig) -> Check {
    for (field, list) in [("CapAdd", &host.cap_add), ("CapDrop", &host.cap_drop)] {
        for name in list.iter().flat_map(|words| words.iter()) {
            let is_known =
                name.eq_ignore_ascii_case("ALL") || runtime::defaults::capability_bit(name).is_some();
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            refuse_if(!is_known, format!("invalid {field}: unknown capability: \"{full}\""))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use docker::Nanos;

    fn check(host: HostConfig, expect: &str) {
        let text = host_config(&host, 2).err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(text, expect);
    }

    fn host() -> HostConfig {
        HostConfig::default()
    }

    #[test]
    fn an_empty_host_config_is_fine() {
        check(host(), "");
    }

    #[test]
    fn memory_limits_are_refused_in_dockers_words() {
        const MB: i64 = 1 << 20;
        check(HostConfig { memory: MB, ..host() }, "Minimum memory limit allowed is 6MB");
        check(
            HostConfig { memory: 10 * MB, memory_swap: 9 * MB, ..host() },
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        );
        check(
            HostConfig { memory_swap: 9 * MB, ..host() },
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
        check(HostConfig { memory: 10 * MB, memory_swap: -1, ..host() }, "");
        check(
            HostConfig { memory_swappiness: Some(101), ..host() },
            "Invalid value: 101, valid memory swappiness range is 0-100",
        );
        check(
            HostConfig { memory: 10 * MB, memory_reservation: 20 * MB, ..host() },
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }

    #[test]
    fn cpu_limits_are_refused_in_dockers_words() {
        check(
            HostConfig { nano_cpus: 3 * BILLION, ..host() },
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        );
        check(
            HostConfig { nano_cpus: 1, cpu_quota: 5000, ..host() },
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        );
        check(
            HostConfig { cpu_period: 10, ..host() },
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
        check(HostConfig { cpuset_cpus: "0,x".into(), ..host() }, "Invalid value 0,x for cpuset cpus");
        check(
            HostConfig { cpuset_cpus: "0-5".into(), ..host() },
            "Requested CPUs are not available - requested 0-5, available: 0-1",
        );
        check(HostConfig { cpuset_cpus: "0-1".into(), ..host() }, "");
    }

    #[test]
    fn restart_policies_are_checked() {
        let with = |name: &str, retries| HostConfig {
            restart_policy: RestartPolicy { name: name.into(), maximum_retry_count: retries },
            ..host()
        };
        check(with("on-failure", 3), "");
        check(
            with("always", 3),
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        );
        check(
            with("sometimes", 0),
            "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        );
        check(
            HostConfig { auto_remove: true, ..with("always", 0) },
            "can't create 'AutoRemove' container with restart policy",
        );
    }

    #[test]
    fn what_we_do_not_do_is_named() {
        check(
            HostConfig { links: Some(vec!["db".into()]), ..host() },
            "HostConfig.Links is not supported by this engine",
        );
        check(HostConfig { runtime: "kata".into(), ..host() }, "unknown or invalid runtime name: kata");
        check(HostConfig { ipc_mode: "magic".into(), ..host() }, "invalid IPC mode: magic");
        let sysctls = Some([("kernel.panic".to_owned(), "1".to_owned())].into());
        check(
            HostConfig { sysctls, ..host() },
            "sysctl \"kernel.panic\" is not in a separate kernel namespace",
        );
        check(
            HostConfig { extra_hosts: Some(vec!["a:1.2.3".into()]), ..host() },
            "invalid IP address in add-host: \"1.2.3\"",
        );
    }

    #[test]
    fn configs_are_checked() {
        let text = |c: ContainerConfig| config(&c).unwrap_err().to_string();
        let base = ContainerConfig::default;
        assert_eq!(
            text(ContainerConfig { env: vec!["=x".into()], ..base() }),
            "invalid environment variable: =x"
        );
        assert_eq!(
            text(ContainerConfig { working_dir: "tmp".into(), ..base() }),
            "the working directory 'tmp' is invalid, it needs to be an absolute path"
        );
        assert_eq!(
            text(ContainerConfig { stop_signal: "SIGWISH".into(), ..base() }),
            "invalid signal: SIGWISH"
        );
        let check = HealthcheckConfig { interval: Nanos(5), ..Default::default() };
        assert_eq!(
            text(ContainerConfig { healthcheck: Some(check), ..base() }),
            "Interval in Healthcheck cannot be less than 1ms"
        );
    }
}

//! The pure parts of creating a container: defaults that inspect shows, ports, whose namespaces it shares.
//!
//! In: configuration and host config of the request. Out: the same with defaults filled in, or Docker's refusals.

use docker::{ContainerConfig, HostConfig};

use crate::config::EngineConfig;
use crate::error::EngineError;

/// Source: moby, `daemon/config/config_linux.go`, `DefaultShmSize`.
pub(crate) const SHM_BYTES: i64 = 64 << 20;

/// Fills in what Docker shows for what was left open.
pub(crate) fn fill_defaults(host: &mut HostConfig, config: &EngineConfig) {
    if host.log_config.driver.is_empty() {
        host.log_config.driver.clone_from(&config.log_driver);
    }
    if host.log_config.driver == config.log_driver {
        for (key, value) in &config.log_options {
            host.log_config.config.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    for (value, default) in [
        (&mut host.network_mode, "bridge"),
        (&mut host.restart_policy.name, "no"),
        (&mut host.ipc_mode, "private"),
        (&mut host.cgroupns_mode, "private"),
        (&mut host.runtime, "skep"),
    ] {
        if value.is_empty() || value == "default" {
            *value = default.to_owned();
        }
    }
    if host.shm_size == 0 {
        host.shm_size = SHM_BYTES;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    host.memory_swappiness = host.memory_swappiness.filter(|value| *value != -1);
    host.oom_kill_disable.get_or_insert(false);
    let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    if host.privileged {
        host.masked_paths = Some(Vec::new());
        host.readonly_paths = Some(Vec::new());
    }
    host.masked_paths.get_or_insert_with(|| list(runtime::defaults::MASKED_PATHS));
    host.readonly_paths.get_or_insert_with(|| list(runtime::defaults::READONLY_PATHS));
}

/// What a container that shares another's network can't have of its own.
///
/// Source of the texts: moby, `runconfig/hostconfig_unix.go`, `validateNetMode`.
pub(crate) fn check_shared_network(config: &ContainerConfig, host: &HostConfig) -> Result<(), EngineError> {
    let is_shared = host.network_mode.starts_with("container:");
    if (is_shared || host.uts_mode == "host") && !config.hostname.is_empty() {
        let with = if is_shared { "the network mode" } else { "the UTS mode" };
        return Err(EngineError::invalid(format!("conflicting options: hostname and {with}")));
    }
    if is_shared && !config.mac_address.is_empty() {
        return Err(EngineError::invalid("conflicting options: mac-address and the network mode"));
    }
    if is_shared && !config.exposed_ports.is_empty() {
        return Err(EngineError::invalid(
            "conflicting options: port exposing and the container type network mode",
        ));
    }
    Ok(())
}

/// The security options we know; each must be one. Source of the texts: moby, `daemon/daemon_unix.go`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Security {
    pub(crate) seccomp: runtime::seccomp::Profile,
    pub(crate) no_new_privileges: bool,
}

/// Reads `HostConfig.SecurityOpt`.
pub(crate) fn security(host: &HostConfig) -> Result<Security, EngineError> {
    use runtime::seccomp::Profile;
    let mut security = Security::default();
    if host.privileged {
        security.seccomp = Profile::Unconfined;
    }
    for option in host.security_opt.iter().flatten() {
        if option == "no-new-privileges" {
            security.no_new_privileges = true;
            continue;
        }
        let Some((key, value)) = option.split_once(['=', ':']) else {
            return Err(EngineError::invalid(format!("invalid --security-opt 1: \"{option}\"")));
        };
        match (key, value) {
            ("no-new-privileges", "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = Profile::Unconfined,
            ("seccomp", "" | "builtin" | "default") => security.seccomp = Profile::Default,
            ("seccomp", _) => {
                return Err(EngineError::NotSupported("a seccomp profile of one's own".into()));
            }
            // Without AppArmor or SELinux in the kernel these change nothing, and with it we set no profile.
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("apparmor" | "label", _) => {
                return Err(EngineError::NotSupported(format!("security option `{option}`")));
            }
            _ => return Err(EngineError::invalid(format!("invalid --security-opt 2: \"{option}\""))),
        }
    }
    Ok(security)
}

/// Which ports are published: those of `PortBindings`, and with `-P` all that are exposed.
pub(crate) fn port_requests(
    config: &ContainerConfig,
    host: &HostConfig,
) -> Result<Vec<network::PortRequest>, EngineError> {
    let mut requests = Vec::new();
    let mut bound = std::collections::BTreeSet::new();
    for (key, bindings) in &host.port_bindings {
        let ports = read_ports(key)?;
        let count = ports.len();
        for (at, port) in ports.into_iter().enumerate() {
            for binding in bindings.iter().flatten() {
                requests.push(port_request(port, binding, at, count)?);
                bound.insert(port);
            }
        }
    }
    if host.publish_all_ports {
        for key in config.exposed_ports.keys() {
            for port in read_ports(key)?.into_iter().filter(|port| !bound.contains(port)) {
                requests.push(port_request(port, &docker::PortBinding::default(), 0, 1)?);
            }
        }
    }
    Ok(requests)
}

fn read_ports(key: &str) -> Result<Vec<docker::ContainerPort>, EngineError> {
    docker::port::expand(key)
        .map_err(|_| EngineError::invalid(format!("invalid port specification: \"{key}\"")))
}

/// The `at`-th of `count` container ports takes the `at`-th of as many host ports, or any of a range.
fn port_request(
    port: docker::ContainerPort,
    binding: &docker::PortBinding,
    at: usize,
    count: usize,
) -> Result<network::PortRequest, EngineError> {
    let wrong = || EngineError::invalid(format!("invalid port specification: \"{}\"", binding.host_port));
    let range = match binding.host_port.as_str() {
        "" | "0" => None,
        text => Some(docker::port::parse_range(text).ok_or_else(wrong)?),
    };
    let range = match range {
        Some((first, last)) if count > 1 && usize::from(last - first) + 1 == count => {
            let own = first + u16::try_from(at).map_err(|_| wrong())?;
            Some((own, own))
        }
        other => other,
    };
    let protocol = match port.protocol {
        docker::Protocol::Tcp => network::Protocol::Tcp,
        docker::Protocol::Udp => network::Protocol::Udp,
        docker::Protocol::Sctp => return Err(EngineError::NotSupported("publishing an SCTP port".into())),
    };
    let host_ip = match binding.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| EngineError::invalid(format!("invalid IP address: {text}")))?),
    };
    let (host_port, host_port_last) = range.unwrap_or((0, 0));
    Ok(network::PortRequest { protocol, container_port: port.port, host_ip, host_port, host_port_last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(options: &[&str]) -> HostConfig {
        let security_opt = Some(options.iter().map(|o| (*o).to_owned()).collect());
        HostConfig { security_opt, ..Default::default() }
    }

    #[test]
    fn security_options_are_read() {
        use runtime::seccomp::Profile;
        let read = security(&host(&["no-new-privileges", "seccomp=unconfined"])).unwrap();
        assert_eq!(read, Security { seccomp: Profile::Unconfined, no_new_privileges: true });
        assert_eq!(security(&host(&["no-new-privileges:false"])).unwrap(), Security::default());
        let text = |options: &[&str]| security(&host(options)).unwrap_err().to_string();
        assert_eq!(text(&["what"]), "invalid --security-opt 1: \"what\"");
        assert_eq!(text(&["what=1"]), "invalid --security-opt 2: \"what=1\"");
        assert_eq!(
            text(&["apparmor=mine"]),
            "security option `apparmor=mine` is not supported by this engine"
        );
    }
}

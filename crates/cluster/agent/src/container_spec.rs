//! Turns a task into the container that runs it.
//!
//! In: a task, its spec with placeholders filled in, its node. Out: the request the engine makes the container from.
//! Every field of the spec is either in it or was refused by the managers. Source: moby,
//! `daemon/cluster/executor/container/container.go`.

use std::collections::BTreeMap;

use docker::{
    ContainerConfig, ContainerCreateRequest, EndpointIpamConfig, EndpointSettings, HealthcheckConfig,
    HostConfig, LogConfig, Mount, NetworkingConfig, PortBinding, PortMap, Ulimit,
};
use objects::{ContainerSpec, GenericResource, NetworkAttachment, Privileges, PublishMode, Task};

use crate::placeholders::{ExpandError, NodeFacts, expand};

/// Says that a container belongs to a task; empty.
pub(crate) const TASK: &str = "com.docker.swarm.task";
/// The task's id.
pub(crate) const TASK_ID: &str = "com.docker.swarm.task.id";
/// The task's name.
pub(crate) const TASK_NAME: &str = "com.docker.swarm.task.name";
/// The node's id.
pub(crate) const NODE_ID: &str = "com.docker.swarm.node.id";
/// The service's id.
pub(crate) const SERVICE_ID: &str = "com.docker.swarm.service.id";
/// The service's name.
pub(crate) const SERVICE_NAME: &str = "com.docker.swarm.service.name";

/// Networks of every machine that a task may use in place of the bridge and of networks of the swarm.
const NODE_NETWORKS: [&str; 2] = ["host", "none"];

/// Why a task cannot become a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("task has no container spec")]
    NoContainer,
    #[error(transparent)]
    Placeholder(#[from] ExpandError),
    #[error("invalid custom seccomp profile")]
    SeccompProfile,
}

/// The request that makes the task's container.
pub(crate) fn request(task: &Task, node: &NodeFacts) -> Result<ContainerCreateRequest, SpecError> {
    let spec = task.spec.container_spec.as_ref().ok_or(SpecError::NoContainer)?;
    let spec = expand(spec, task, node)?;
    Ok(ContainerCreateRequest {
        name: task.name(),
        config: config(task, &spec, node),
        host_config: host_config(task, &spec)?,
        networking_config: NetworkingConfig { endpoints_config: endpoints(task) },
        ..ContainerCreateRequest::default()
    })
}

/// Seconds the task's process has between the stop signal and being killed; `None` is the engine's default.
pub(crate) fn grace_seconds(task: &Task) -> Option<i64> {
    let grace = task.spec.container_spec.as_ref()?.stop_grace_period?;
    // Rounded up: a grace of half a second is not none.
    Some(grace.0.max(0).saturating_add(999_999_999) / 1_000_000_000)
}

fn config(task: &Task, spec: &ContainerSpec, node: &NodeFacts) -> ContainerConfig {
    let mut env = spec.env.clone();
    env.extend(resource_variables(&task.generic_resources));
    let words = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone().into());
    ContainerConfig {
        image: spec.image.clone(),
        cmd: words(&spec.args),
        entrypoint: words(&spec.command),
        env,
        hostname: spec.hostname.clone(),
        user: spec.user.clone(),
        working_dir: spec.dir.clone(),
        labels: labels(task, spec, node),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: grace_seconds(task),
        healthcheck: spec.healthcheck.as_ref().map(|check| HealthcheckConfig {
            test: check.test.clone(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        exposed_ports: host_ports(task).map(|(port, _)| (port, Default::default())).collect(),
        ..ContainerConfig::default()
    }
}

/// The network that comes first: one of the swarm by its id, which no network of this machine can have.
fn network_mode(task: &Task) -> String {
    if let Some(first) = task.networks_attachments.first() {
        return first.network.to_string();
    }
    let of_node = task.spec.networks.iter().find(|network| NODE_NETWORKS.contains(&network.target.as_str()));
    of_node.map_or_else(|| "bridge".to_owned(), |network| network.target.clone())
}

/// The swarm's networks by id, with the addresses that the managers chose.
fn endpoints(task: &Task) -> BTreeMap<String, Option<EndpointSettings>> {
    let attachments = task.networks_attachments.iter();
    attachments.map(|attachment| (attachment.network.to_string(), Some(endpoint(task, attachment)))).collect()
}

fn endpoint(task: &Task, attachment: &NetworkAttachment) -> EndpointSettings {
    let asked = task.spec.networks.iter().find(|asked| asked.target == attachment.network.as_str());
    let address = |is_v6: bool| {
        let found = attachment.addresses.iter().find(|address| address.contains(':') == is_v6);
        found.and_then(|address| address.split('/').next()).unwrap_or_default().to_owned()
    };
    EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: address(false),
            ipv6_address: address(true),
            link_local_ips: Vec::new(),
        }),
        aliases: asked.filter(|asked| !asked.aliases.is_empty()).map(|asked| asked.aliases.clone()),
        driver_opts: asked
            .filter(|asked| !asked.driver_opts.is_empty())
            .map(|asked| asked.driver_opts.clone()),
        ..EndpointSettings::default()
    }
}

fn labels(task: &Task, spec: &ContainerSpec, node: &NodeFacts) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    // After the user's, so that nobody can pass a container off as another task's.
    labels.extend([
        (TASK.to_owned(), String::new()),
        (TASK_ID.to_owned(), task.id.to_string()),
        (TASK_NAME.to_owned(), task.name()),
        (NODE_ID.to_owned(), node.id.to_string()),
        (SERVICE_ID.to_owned(), task.service_id.to_string()),
        (SERVICE_NAME.to_owned(), task.internal.service_name.clone()),
    ]);
    labels
}

fn host_config(task: &Task, spec: &ContainerSpec) -> Result<HostConfig, SpecError> {
    let resources = task.spec.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.clone()).unwrap_or_default();
    let reserved = resources.and_then(|resources| resources.reservations.clone()).unwrap_or_default();
    let dns = spec.dns_config.clone().unwrap_or_default();
    let words = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone().into());
    Ok(HostConfig {
        memory: limits.memory_bytes,
        memory_reservation: reserved.memory_bytes,
        nano_cpus: limits.nano_cpus,
        pids_limit: (limits.pids > 0).then_some(limits.pids),
        ulimits: spec.ulimits.iter().map(ulimit).collect(),
        mounts: spec.mounts.iter().map(mount).collect(),
        group_add: (!spec.groups.is_empty()).then(|| spec.groups.clone()),
        network_mode: network_mode(task),
        port_bindings: host_ports(task)
            .map(|(port, binding)| (port, Some(vec![binding])))
            .collect::<PortMap>(),
        init: spec.init,
        cap_add: words(&spec.capability_add),
        cap_drop: words(&spec.capability_drop),
        oom_score_adj: spec.oom_score_adj,
        dns: dns.nameservers,
        dns_search: dns.search,
        dns_options: dns.options,
        extra_hosts: (!spec.hosts.is_empty())
            .then(|| spec.hosts.iter().flat_map(|line| hosts(line)).collect()),
        log_config: log_config(task),
        readonly_rootfs: spec.read_only,
        sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone()),
        security_opt: spec
            .privileges
            .as_ref()
            .map(security_options)
            .transpose()?
            .filter(|all| !all.is_empty()),
        ..HostConfig::default()
    })
}

/// Host-mode ports: the container's port and where it is bound.
fn host_ports(task: &Task) -> impl Iterator<Item = (String, PortBinding)> {
    task.internal.ports.iter().filter(|port| port.publish_mode == PublishMode::Host).map(|port| {
        let published = match port.published_port {
            0 => String::new(),
            port => port.to_string(),
        };
        let inside = format!("{}/{}", port.target_port, port.protocol.as_str());
        (inside, PortBinding { host_port: published, ..PortBinding::default() })
    })
}

/// `IP name…`, as the spec has it, as `name:IP` per name.
fn hosts(line: &str) -> Vec<String> {
    let mut words = line.split_whitespace();
    let Some(address) = words.next() else { return Vec::new() };
    words.map(|name| format!("{name}:{address}")).collect()
}

fn log_config(task: &Task) -> LogConfig {
    match &task.internal.log_driver {
        Some(driver) => LogConfig { driver: driver.name.clone(), config: driver.options.clone() },
        None => LogConfig::default(),
    }
}

fn ulimit(limit: &objects::Ulimit) -> Ulimit {
    Ulimit { name: limit.name.clone(), hard: limit.hard, soft: limit.soft }
}

fn mount(mount: &objects::Mount) -> Mount {
    Mount {
        kind: mount.kind.as_str().to_owned(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
        consistency: mount.consistency.clone(),
        bind_options: mount.bind_options.as_ref().map(|options| docker::BindOptions {
            propagation: options.propagation.clone(),
            non_recursive: options.non_recursive,
            create_mountpoint: options.create_mountpoint,
            read_only_non_recursive: options.read_only_non_recursive,
            read_only_force_recursive: options.read_only_force_recursive,
        }),
        volume_options: mount.volume_options.as_ref().map(|options| docker::VolumeOptions {
            no_copy: options.no_copy,
            labels: options.labels.clone(),
            subpath: options.subpath.clone(),
            driver_config: options.driver_config.as_ref().map(|driver| docker::mount::DriverConfig {
                name: driver.name.clone(),
                options: driver.options.clone(),
            }),
        }),
        image_options: mount
            .image_options
            .as_ref()
            .map(|options| docker::ImageOptions { subpath: options.subpath.clone() }),
        tmpfs_options: mount.tmpfs_options.as_ref().map(|options| docker::TmpfsOptions {
            size_bytes: options.size_bytes,
            mode: options.mode,
            options: options.options.clone(),
        }),
        cluster_options: None,
    }
}

fn security_options(privileges: &Privileges) -> Result<Vec<String>, SpecError> {
    let mut options = Vec::new();
    if privileges.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    if let Some(selinux) = &privileges.selinux_context {
        if selinux.disable {
            options.push("label=disable".to_owned());
        }
        let parts = [
            ("user", &selinux.user),
            ("role", &selinux.role),
            ("type", &selinux.kind),
            ("level", &selinux.level),
        ];
        options.extend(
            parts
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| format!("label={key}:{value}")),
        );
    }
    if let Some(seccomp) = &privileges.seccomp {
        match seccomp.mode.as_str() {
            "unconfined" => options.push("seccomp=unconfined".to_owned()),
            "custom" => {
                let profile =
                    docker::auth::decode_base64(&seccomp.profile).ok_or(SpecError::SeccompProfile)?;
                let profile = String::from_utf8(profile).map_err(|_| SpecError::SeccompProfile)?;
                options.push(format!("seccomp={profile}"));
            }
            _ => {}
        }
    }
    if privileges.app_armor.as_ref().is_some_and(|profile| profile.mode == "disabled") {
        options.push("apparmor=unconfined".to_owned());
    }
    Ok(options)
}

/// `DOCKER_RESOURCE_<KIND>=v1,v2` for every kind the task was given. Source: reference 3.
fn resource_variables(resources: &[GenericResource]) -> Vec<String> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in resources {
        if let Some(named) = &resource.named_resource_spec {
            values.entry(named.kind.to_uppercase()).or_default().push(named.value.clone());
        }
        if let Some(discrete) = &resource.discrete_resource_spec {
            values.entry(discrete.kind.to_uppercase()).or_default().push(discrete.value.to_string());
        }
    }
    values.into_iter().map(|(kind, values)| format!("DOCKER_RESOURCE_{kind}={}", values.join(","))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use objects::{Limit, NetworkAttachmentConfig, PortConfig, ResourceRequirements, TaskSpec};
    use std::sync::Arc;

    fn task(spec: ContainerSpec) -> Task {
        let limits = Limit { memory_bytes: 64 << 20, nano_cpus: 500_000_000, pids: 9 };
        let spec = TaskSpec {
            container_spec: Some(spec),
            resources: Some(ResourceRequirements { limits: Some(limits), reservations: None }),
            ..TaskSpec::default()
        };
        let mut task = Task {
            id: "tid".into(),
            slot: 2,
            service_id: "sid".into(),
            spec: Arc::new(spec),
            ..Task::default()
        };
        task.internal.service_name = "web".to_owned();
        task.internal.ports = vec![
            PortConfig {
                target_port: 80,
                published_port: 8080,
                publish_mode: PublishMode::Host,
                ..PortConfig::default()
            },
            PortConfig { target_port: 81, published_port: 8081, ..PortConfig::default() },
        ];
        task
    }

    #[test]
    fn names_labels_and_limits_are_those_of_the_task() {
        let spec = ContainerSpec {
            image: "nginx".to_owned(),
            labels: BTreeMap::from([
                (TASK_ID.to_owned(), "forged".to_owned()),
                ("a".to_owned(), "b".to_owned()),
            ]),
            hosts: vec!["10.0.0.1 one two".to_owned()],
            ..ContainerSpec::default()
        };
        let made = request(&task(spec), &NodeFacts { id: "nid".into(), ..NodeFacts::default() }).unwrap();
        assert_eq!(made.name, "web.2.tid");
        assert_eq!(made.config.labels[TASK_ID], "tid");
        assert_eq!(made.config.labels[NODE_ID], "nid");
        assert_eq!(made.config.labels["a"], "b");
        assert_eq!((made.host_config.memory, made.host_config.pids_limit), (64 << 20, Some(9)));
        assert_eq!(made.host_config.extra_hosts.unwrap(), ["one:10.0.0.1", "two:10.0.0.1"]);
        let bound: Vec<&String> = made.host_config.port_bindings.keys().collect();
        assert_eq!(bound, ["80/tcp"], "ingress ports are not the container's own");
    }

    #[test]
    fn networks_of_the_swarm_come_with_the_addresses_that_were_chosen() {
        let mut task = task(ContainerSpec::default());
        let mut spec = TaskSpec::clone(&task.spec);
        spec.networks = vec![NetworkAttachmentConfig {
            target: "n2".to_owned(),
            aliases: vec!["db".to_owned()],
            ..NetworkAttachmentConfig::default()
        }];
        task.spec = Arc::new(spec);
        let attachment = |id: &str, addresses: &[&str]| NetworkAttachment {
            network: id.into(),
            addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
        };
        task.networks_attachments =
            vec![attachment("n1", &["10.0.0.5/24"]), attachment("n2", &["10.0.1.7/24", "fd00::7/64"])];
        let made = request(&task, &NodeFacts::default()).unwrap();
        assert_eq!(made.host_config.network_mode, "n1");
        let endpoints = made.networking_config.endpoints_config;
        let back = endpoints["n2"].clone().unwrap();
        assert_eq!(back.aliases, Some(vec!["db".to_owned()]));
        let back = back.ipam_config.unwrap();
        assert_eq!((back.ipv4_address.as_str(), back.ipv6_address.as_str()), ("10.0.1.7", "fd00::7"));
        assert_eq!(endpoints["n1"].clone().unwrap().aliases, None);
    }

    #[test]
    fn a_task_without_a_container_spec_is_refused() {
        let task = Task::default();
        assert!(matches!(request(&task, &NodeFacts::default()), Err(SpecError::NoContainer)));
    }
}

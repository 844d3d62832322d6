//! Refuses specs that cannot work, in Docker's wording.
//!
//! In: a spec. Out: nothing, or the first error. Never looks other objects up: conflicts of names and ports are found
//! where the store is at hand. Source of texts and order: moby/swarmkit, `manager/controlapi/service.go`.

mod container;
mod network;
mod reference;
mod unsupported;

pub use network::network;
pub use reference::is_image_reference;

use std::collections::BTreeSet;

use crate::{
    ClusterSpec, Constraint, ConstraintError, EndpointSpec, Nanos, PublishMode, ResolutionMode, ServiceMode,
    ServiceSpec, TaskSpec, UpdateConfig,
};

/// Why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// It cannot work (400).
    #[error("{0}")]
    Invalid(String),
    /// A constraint has a wrong form (500, as Docker has it).
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// Nobody may ask for it (403).
    #[error("{0}")]
    Forbidden(String),
    /// It is fine for Docker, but not supported here (501).
    #[error("{0}")]
    Unsupported(String),
}

/// Longest name. Source: moby/swarmkit, `manager/controlapi/common.go`.
const MAX_NAME: usize = 63;
/// A thousandth of a CPU. Source: moby/swarmkit, `manager/controlapi/service.go`.
const MIN_NANO_CPUS: i64 = 1_000_000;
/// Least memory. Source: moby/swarmkit, `manager/controlapi/service.go`.
const MIN_MEMORY_BYTES: i64 = 4 * 1024 * 1024;

fn invalid<T>(text: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError::Invalid(text.into()))
}

/// Refuses a service that cannot work.
pub fn service(spec: &ServiceSpec) -> Result<(), SpecError> {
    mode(&spec.mode)?;
    unsupported::service(spec)?;
    name(&spec.name)?;
    task(&spec.task_template)?;
    update(spec.update_config.as_ref())?;
    update(spec.rollback_config.as_ref())?;
    endpoint(spec.endpoint_spec.as_ref())
}

/// Refuses a cluster spec that cannot work.
pub fn cluster(spec: &ClusterSpec) -> Result<(), SpecError> {
    if spec.name != "default" {
        return invalid("swarm spec must be named \"default\"");
    }
    // Source: moby/swarmkit, `ca/certificates.go` (an hour is the least time between two renewals).
    let expiry = spec.ca_config.node_cert_expiry;
    if expiry.0 != 0 && expiry < Nanos::from_secs(3600) {
        return invalid("minimum certificate expiry time must be 1h0m0s");
    }
    unsupported::cluster(spec)
}

/// Refuses a name that is not `alphanumerics[-_alphanumerics]` of at most 63 characters.
pub fn name(text: &str) -> Result<(), SpecError> {
    let is_edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() {
        return invalid("meta: name must be provided");
    }
    if !is_edge(text.chars().next()) || !is_edge(text.chars().next_back()) || !text.chars().all(is_inner) {
        return invalid("name must be valid as a DNS name component");
    }
    if text.len() > MAX_NAME {
        return invalid("name must be 63 characters or fewer");
    }
    Ok(())
}

fn mode(mode: &ServiceMode) -> Result<(), SpecError> {
    let set = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    if set.into_iter().filter(|is_set| *is_set).count() > 1 {
        return invalid("must specify only one service mode");
    }
    Ok(())
}

fn task(spec: &TaskSpec) -> Result<(), SpecError> {
    if let Some(resources) = &spec.resources {
        if let Some(limits) = &resources.limits {
            amounts(limits.nano_cpus, limits.memory_bytes)?;
        }
        if let Some(reservations) = &resources.reservations {
            amounts(reservations.nano_cpus, reservations.memory_bytes)?;
        }
    }
    let restart = spec.restart();
    if restart.delay().0 < 0 {
        return invalid("TaskSpec: restart-delay cannot be negative");
    }
    if restart.window().0 < 0 {
        return invalid("TaskSpec: restart-window cannot be negative");
    }
    Constraint::parse_all(spec.constraints())?;
    match &spec.container_spec {
        Some(container) => container::container(container),
        None => invalid("TaskSpec: missing runtime"),
    }
}

fn amounts(nano_cpus: i64, memory_bytes: i64) -> Result<(), SpecError> {
    if nano_cpus != 0 && nano_cpus < MIN_NANO_CPUS {
        let cpus = nano_cpus as f64 / 1e9;
        return invalid(format!("invalid cpu value {cpus}: Must be at least 0.001"));
    }
    if memory_bytes != 0 && memory_bytes < MIN_MEMORY_BYTES {
        return invalid(format!("invalid memory value {memory_bytes}: Must be at least 4MiB"));
    }
    Ok(())
}

fn update(config: Option<&UpdateConfig>) -> Result<(), SpecError> {
    let Some(config) = config else { return Ok(()) };
    if config.delay.0 < 0 {
        return invalid("TaskSpec: update-delay cannot be negative");
    }
    if config.monitor.0 < 0 {
        return invalid("TaskSpec: update-monitor cannot be negative");
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return invalid("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1");
    }
    Ok(())
}

fn endpoint(spec: Option<&EndpointSpec>) -> Result<(), SpecError> {
    let Some(spec) = spec else { return Ok(()) };
    let mut published = BTreeSet::new();
    for port in &spec.ports {
        if spec.mode == ResolutionMode::Dnsrr && port.publish_mode == PublishMode::Ingress {
            return invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
        }
        if port.target_port == 0 || port.target_port > 65_535 || port.published_port > 65_535 {
            // Docker accepts such a port and fails later on the node.
            return invalid(format!(
                "EndpointSpec: invalid port: published {}, target {}",
                port.published_port, port.target_port
            ));
        }
        if port.published_port != 0 && !published.insert((port.published_port, port.protocol)) {
            return invalid("EndpointSpec: duplicate published ports provided");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ContainerSpec, HealthConfig, Mount, PortConfig, ResourceRequirements, Resources, RestartPolicy,
    };

    fn valid() -> ServiceSpec {
        let container = ContainerSpec { image: "nginx:1".to_owned(), ..Default::default() };
        let task_template = TaskSpec { container_spec: Some(container), ..Default::default() };
        ServiceSpec { name: "web".to_owned(), task_template, ..Default::default() }
    }

    fn check(change: impl FnOnce(&mut ServiceSpec), expect: &str) {
        let mut spec = valid();
        change(&mut spec);
        let text = service(&spec).map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        assert_eq!(text, expect);
    }

    fn container(spec: &mut ServiceSpec) -> &mut ContainerSpec {
        spec.task_template.container_spec.as_mut().unwrap()
    }

    #[test]
    fn names_are_dns_components() {
        check(|_| {}, "ok");
        check(|spec| spec.name = "a-b__c9".to_owned(), "ok");
        check(|spec| spec.name.clear(), "meta: name must be provided");
        for name in ["-a", "a-", "a.b", "a b", "ä"] {
            check(|spec| spec.name = name.to_owned(), "name must be valid as a DNS name component");
        }
        check(|spec| spec.name = "a".repeat(64), "name must be 63 characters or fewer");
    }

    #[test]
    fn containers_are_refused_in_swarms_wording() {
        check(|spec| spec.task_template.container_spec = None, "TaskSpec: missing runtime");
        check(|spec| container(spec).image.clear(), "ContainerSpec: image reference must be provided");
        check(
            |spec| container(spec).image = "Nginx::x".to_owned(),
            "ContainerSpec: \"Nginx::x\" is not a valid repository/tag",
        );
        let mount = || Mount { target: "/data".to_owned(), ..Default::default() };
        check(
            |spec| container(spec).mounts = vec![mount(), mount()],
            "ContainerSpec: duplicate mount point: /data",
        );
        check(
            |spec| {
                container(spec).healthcheck =
                    Some(HealthConfig { interval: Nanos(10), ..Default::default() });
            },
            "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
        );
    }

    #[test]
    fn numbers_out_of_range_are_refused_in_swarms_wording() {
        let reserve = |nano_cpus, memory_bytes| {
            let reservations = Some(Resources { nano_cpus, memory_bytes, ..Default::default() });
            Some(ResourceRequirements { reservations, ..Default::default() })
        };
        check(
            |spec| spec.task_template.resources = reserve(100, 0),
            "invalid cpu value 0.0000001: Must be at least 0.001",
        );
        check(
            |spec| spec.task_template.resources = reserve(0, 1),
            "invalid memory value 1: Must be at least 4MiB",
        );
        check(
            |spec| {
                let policy = RestartPolicy { delay: Some(Nanos(-1)), ..Default::default() };
                spec.task_template.restart_policy = Some(policy);
            },
            "TaskSpec: restart-delay cannot be negative",
        );
        check(
            |spec| spec.update_config = Some(UpdateConfig { max_failure_ratio: 1.5, ..Default::default() }),
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        );
    }

    #[test]
    fn ports_may_be_published_once() {
        let port = || PortConfig { target_port: 80, published_port: 8080, ..Default::default() };
        let twice = EndpointSpec { ports: vec![port(), port()], ..Default::default() };
        check(|spec| spec.endpoint_spec = Some(twice), "EndpointSpec: duplicate published ports provided");
        let dnsrr = EndpointSpec { ports: vec![port()], mode: ResolutionMode::Dnsrr };
        check(
            |spec| spec.endpoint_spec = Some(dnsrr),
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        );
    }

    #[test]
    fn wrong_constraints_are_refused() {
        check(
            |spec| {
                let constraints = vec!["node.id~x".to_owned()];
                spec.task_template.placement = Some(crate::Placement { constraints, ..Default::default() });
            },
            "constraint expected one operator from ==, !=",
        );
    }
}

//! What a request of an older API version means: fields that version did not know are dropped, not refused.
//!
//! In: bodies and the request's version. Out: the same bodies with only what the version knew. Never adds a default of
//! its own. Source: moby, `api/server/router/swarm/helpers.go` `adjustForAPIVersion`, and
//! `api/server/router/container/container_routes.go` `postContainersCreate`.

use docker::{ApiVersion, ContainerCreateRequest};
use objects::ServiceSpec;

use crate::error::ApiError;
use crate::facts::HostFacts;
use crate::query::Query;

/// The `version` of an object to be updated. `noun` is `service`, `node` or `swarm`.
pub(crate) fn object_version(query: &Query, noun: &str) -> Result<u64, ApiError> {
    let text = query.text("version");
    text.parse().map_err(|error: std::num::ParseIntError| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        let cause = format!("strconv.ParseUint: parsing {text:?}: {why}");
        ApiError::invalid(format!("invalid {noun} version '{text}': {cause}"))
    })
}

/// Tells the client about members of its request that nobody reads.
pub(crate) fn unknown_warnings(unknown: &[String]) -> impl Iterator<Item = String> {
    unknown.iter().map(|path| format!("Unknown field `{path}` was ignored."))
}

/// Drops what a service of an older version cannot mean.
pub(crate) fn adjust_service(spec: &mut ServiceSpec, version: ApiVersion) {
    let older = |minor| version < ApiVersion::v1(minor);
    let task = &mut spec.task_template;
    if older(40)
        && let Some(placement) = &mut task.placement
    {
        placement.max_replicas = 0;
    }
    if older(41) {
        if let Some(limits) = task.resources.as_mut().and_then(|resources| resources.limits.as_mut()) {
            limits.pids = 0;
        }
        spec.mode.replicated_job = None;
        spec.mode.global_job = None;
    }
    let Some(container) = &mut task.container_spec else { return };
    if older(40) {
        container.sysctls.clear();
        for config in &mut container.configs {
            config.runtime = None;
        }
    }
    if older(41) {
        container.capability_add.clear();
        container.capability_drop.clear();
        container.ulimits.clear();
    }
    if older(44) {
        if let Some(check) = &mut container.healthcheck {
            check.start_interval = objects::Nanos::ZERO;
        }
        if let Some(privileges) = &mut container.privileges {
            privileges.seccomp = None;
            privileges.app_armor = None;
            privileges.no_new_privileges = false;
        }
    }
    if older(46) {
        container.oom_score_adj = 0;
        for mount in &mut container.mounts {
            if let Some(options) = &mut mount.tmpfs_options {
                options.options.clear();
            }
        }
    }
}

/// Refuses several networks at once from clients of a version that knew one.
///
/// Source: moby, `api/server/router/container/container_routes.go`.
pub(crate) fn check_networks(request: &ContainerCreateRequest, version: ApiVersion) -> Result<(), ApiError> {
    let networks = &request.networking_config.endpoints_config;
    if version >= ApiVersion::v1(44) || networks.len() < 2 {
        return Ok(());
    }
    let names = networks.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let text = format!("Container cannot be created with multiple network endpoints: {names}");
    Err(ApiError::invalid(text))
}

/// Drops what a container of an older version cannot mean on this machine.
pub(crate) fn adjust_container(
    request: &mut ContainerCreateRequest,
    version: ApiVersion,
    machine: &HostFacts,
) {
    let ContainerCreateRequest { config, host_config: host, networking_config: networking, .. } = request;
    let older = |minor| version < ApiVersion::v1(minor);
    if older(40) {
        host.kernel_memory_tcp = 0;
        if host.ipc_mode.is_empty() {
            // Before private became a choice of the client.
            host.ipc_mode = "shareable".to_owned();
        }
    }
    if older(41) && machine.cgroup_version == "1" && host.cgroupns_mode.is_empty() {
        // What such a client expects where cgroups are of version 1.
        host.cgroupns_mode = "host".to_owned();
    }
    if older(43) {
        host.annotations = None;
    }
    if older(44) {
        if let Some(check) = &mut config.healthcheck {
            check.start_interval = objects::Nanos::ZERO;
        }
    } else {
        // Deprecated by 1.44; the endpoint's own address is meant.
        host.kernel_memory = 0;
    }
    if older(48) {
        for endpoint in networking.endpoints_config.values_mut().flatten() {
            endpoint.gw_priority = 0;
        }
    }
    for mount in &mut host.mounts {
        adjust_mount(mount, version);
    }
}

fn adjust_mount(mount: &mut docker::Mount, version: ApiVersion) {
    let older = |minor| version < ApiVersion::v1(minor);
    if let Some(bind) = &mut mount.bind_options {
        if older(40) {
            bind.non_recursive = false;
        }
        if older(42) {
            bind.create_mountpoint = false;
        }
        if older(44) {
            bind.read_only_non_recursive = false;
            bind.read_only_force_recursive = false;
        }
    }
    if let Some(volume) = mount.volume_options.as_mut().filter(|_| older(45)) {
        volume.subpath.clear();
    }
    if let Some(tmpfs) = mount.tmpfs_options.as_mut().filter(|_| older(46)) {
        tmpfs.options.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_no_number_is_refused_in_dockers_words() {
        let check = |version: &str, expect: &str| {
            let query = Query::parse(&format!("version={version}")).unwrap();
            assert_eq!(object_version(&query, "node").unwrap_err().to_string(), expect);
        };
        check("x", "invalid node version 'x': strconv.ParseUint: parsing \"x\": invalid syntax");
        check("", "invalid node version '': strconv.ParseUint: parsing \"\": invalid syntax");
        let much = "99999999999999999999";
        check(
            much,
            &format!(
                "invalid node version '{much}': strconv.ParseUint: parsing \"{much}\": value out of range"
            ),
        );
    }

    #[test]
    fn only_old_clients_that_leave_it_open_get_the_hosts_cgroup_namespace_on_version_1() {
        let check = |minor, cgroup_version: &str, mode: &str, expect: &str| {
            let machine = HostFacts { cgroup_version: cgroup_version.to_owned(), ..HostFacts::default() };
            let mut request = ContainerCreateRequest::default();
            request.host_config.cgroupns_mode = mode.to_owned();
            adjust_container(&mut request, ApiVersion::v1(minor), &machine);
            assert_eq!(request.host_config.cgroupns_mode, expect, "1.{minor} on {cgroup_version}");
        };
        check(40, "1", "", "host");
        check(40, "1", "private", "private");
        check(40, "2", "", "");
        check(41, "1", "", "");
    }
}

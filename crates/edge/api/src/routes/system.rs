//! Routes of the daemon itself: ping, version, info, disk usage.
//!
//! In: requests. Out: what engine, images, swarm and daemon say about themselves. Never waits for any of them.

use std::collections::BTreeMap;

use docker::system::RegistryIndex;
use docker::{
    AddressPool, ApiVersion, Commit, ComponentVersion, DiskUsage, PluginsInfo, RegistryServiceConfig,
    Runtime, SwarmInfo, SwarmPeer, SystemInfo, SystemVersion, VersionPlatform,
};
use http::{HeaderValue, Method, header};

use crate::AppState;
use crate::answer::{Answer, Body, bytes_with, json};
use crate::call::Call;
use crate::clock;
use crate::error::{ApiError, as_go_writes};
use crate::route::{Route, serve};
use crate::state::DaemonInfo;

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/_ping", 24, ping, "is the daemon there, and which version does it speak"),
        serve!(HEAD "/_ping", 24, ping, "the same without a body"),
        serve!(GET "/version", 24, version, "versions of the daemon and its parts"),
        serve!(GET "/info", 24, info, "what the daemon knows about itself and its machine"),
        serve!(GET "/system/df", 25, disk_usage, "what images, containers and volumes take"),
    ]
}

/// Source: moby, `api/server/router/system/system_routes.go` `pingHandler`.
async fn ping(call: Call) -> Result<Answer, ApiError> {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = bytes_with(http::StatusCode::OK, plain, b"OK".to_vec());
    if call.parts.method == Method::HEAD {
        *response.body_mut() = Body::default();
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let headers = response.headers_mut();
    let no_store = HeaderValue::from_static("no-cache, no-store, must-revalidate");
    headers.insert(header::CACHE_CONTROL, no_store);
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    // The classic builder, which answers 501 by name: there is no BuildKit here.
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    let local = call.state.swarm.local_state();
    let role = match (local.state, local.control_available) {
        (agent::LocalNodeState::Inactive, _) => "",
        (_, true) => "/manager",
        (_, false) => "/worker",
    };
    let swarm = HeaderValue::try_from(format!("{}{role}", local.state.as_str())).expect("lower-case words");
    headers.insert("swarm", swarm);
    Ok(Answer::Http(response))
}

async fn version(call: Call) -> Result<Answer, ApiError> {
    let (daemon, host) = (call.state.daemon(), &call.state.host);
    let details = [
        ("ApiVersion", ApiVersion::MAX.to_string()),
        ("Arch", host.go_arch().to_owned()),
        ("BuildTime", daemon.build_time.clone()),
        ("Experimental", "false".to_owned()),
        ("GitCommit", daemon.git_commit.clone()),
        ("KernelVersion", host.kernel.clone()),
        ("MinAPIVersion", ApiVersion::MIN.to_string()),
        ("Os", "linux".to_owned()),
    ];
    let engine = ComponentVersion {
        name: "Engine".to_owned(),
        version: daemon.version.clone(),
        details: details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    };
    json(&SystemVersion {
        platform: VersionPlatform { name: "skep".to_owned() },
        components: vec![engine],
        version: daemon.version.clone(),
        api_version: ApiVersion::MAX.to_string(),
        min_api_version: ApiVersion::MIN.to_string(),
        git_commit: daemon.git_commit.clone(),
        os: "linux".to_owned(),
        arch: host.go_arch().to_owned(),
        kernel_version: host.kernel.clone(),
        build_time: daemon.build_time.clone(),
        ..SystemVersion::default()
    })
}

async fn info(call: Call) -> Result<Answer, ApiError> {
    let state = &call.state;
    let (daemon, host) = (state.daemon(), &state.host);
    let counts = state.engine.counts();
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let word = str::to_owned;
    json(&SystemInfo {
        id: daemon.id.clone(),
        containers: number(counts.running + counts.paused + counts.stopped),
        containers_running: number(counts.running),
        containers_paused: number(counts.paused),
        containers_stopped: number(counts.stopped),
        images: number(state.images.count()),
        driver: word("overlay2"),
        driver_status: vec![[word("Backing Filesystem"), word("overlayfs")]],
        plugins: plugins(),
        memory_limit: true,
        swap_limit: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: true,
        debug: daemon.is_debug,
        n_fd: open_files(),
        n_events_listener: number(state.engine.event_listeners()),
        system_time: clock::now().to_string(),
        logging_driver: daemon.log_driver.clone(),
        cgroup_driver: word("cgroupfs"),
        cgroup_version: host.cgroup_version.clone(),
        kernel_version: host.kernel.clone(),
        operating_system: host.system.clone(),
        os_version: host.system_version.clone(),
        os_type: word("linux"),
        architecture: host.machine.clone(),
        index_server_address: word("https://index.docker.io/v1/"),
        registry_config: registries(&daemon),
        n_cpu: host.cpus,
        mem_total: host.memory,
        docker_root_dir: daemon.data_root.clone(),
        name: daemon.name.clone(),
        labels: daemon.labels.clone(),
        server_version: daemon.version.clone(),
        runtimes: BTreeMap::from([(word("skep"), Runtime { path: word("skep"), ..Runtime::default() })]),
        default_runtime: word("skep"),
        swarm: swarm(state),
        live_restore_enabled: true,
        init_binary: String::new(),
        containerd_commit: Commit::default(),
        runc_commit: Commit::default(),
        security_options: vec![word("name=seccomp,profile=builtin"), word("name=cgroupns")],
        default_address_pools: pools(&daemon),
        warnings: (!daemon.warnings.is_empty()).then(|| daemon.warnings.clone()),
        ..SystemInfo::default()
    })
}

fn plugins() -> PluginsInfo {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
    PluginsInfo {
        volume: words(&["local"]),
        network: words(&["bridge", "host", "null"]),
        authorization: None,
        log: words(&["json-file", "none"]),
    }
}

fn pools(daemon: &DaemonInfo) -> Vec<AddressPool> {
    daemon.address_pools.iter().map(|(base, size)| AddressPool { base: base.clone(), size: *size }).collect()
}

fn registries(daemon: &DaemonInfo) -> RegistryServiceConfig {
    let (cidrs, hosts): (Vec<&String>, Vec<&String>) =
        daemon.insecure_registries.iter().partition(|entry| entry.contains('/'));
    let mut cidrs: Vec<String> = cidrs.into_iter().cloned().collect();
    // Loopback is always reached without verified TLS. Source: moby, `registry/config.go`.
    cidrs.extend(["::1/128".to_owned(), "127.0.0.0/8".to_owned()]);
    let index = |name: &str, secure, official, mirrors: &[String]| RegistryIndex {
        name: name.to_owned(),
        mirrors: mirrors.to_vec(),
        secure,
        official,
    };
    let hub = docker::reference::DEFAULT_DOMAIN;
    let mut index_configs: BTreeMap<String, RegistryIndex> =
        hosts.into_iter().map(|host| (host.clone(), index(host, false, false, &[]))).collect();
    index_configs.insert(hub.to_owned(), index(hub, true, true, &daemon.registry_mirrors));
    RegistryServiceConfig {
        insecure_registry_cidrs: cidrs,
        index_configs,
        mirrors: daemon.registry_mirrors.clone(),
        ..RegistryServiceConfig::default()
    }
}

/// Source: moby, `daemon/cluster/swarm.go` `Info`.
const TWO_MANAGERS: &str =
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides
         no fault tolerance, and poses a high risk to lose control over the cluster.
         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the
         Swarm for fault-tolerance.";

/// The `Swarm` part. A manager that cannot answer leaves the numbers out, as it does in dockerd.
fn swarm(state: &AppState) -> SwarmInfo {
    let local = state.swarm.local_state();
    let peer = |peer: &agent::Peer| SwarmPeer { node_id: peer.node_id.clone(), addr: peer.addr.clone() };
    let mut info = SwarmInfo {
        node_id: local.node_id,
        node_addr: local.node_addr,
        local_node_state: local.state.as_str().to_owned(),
        control_available: local.control_available,
        error: as_go_writes(local.error),
        remote_managers: (!local.remote_managers.is_empty())
            .then(|| local.remote_managers.iter().map(peer).collect()),
        ..SwarmInfo::default()
    };
    if !local.control_available {
        return info;
    }
    let Ok(manager) = state.swarm.manager() else { return info };
    let (nodes, managers) = manager.node_counts();
    info.nodes = i64::try_from(nodes).unwrap_or(i64::MAX);
    info.managers = i64::try_from(managers).unwrap_or(i64::MAX);
    if managers == 2 {
        info.warnings.push(TWO_MANAGERS.to_owned());
    }
    info.cluster = manager.cluster_info().ok();
    info
}

fn open_files() -> i64 {
    std::fs::read_dir("/proc/self/fd").map_or(-1, |files| i64::try_from(files.count()).unwrap_or(-1))
}

/// Source: moby, `api/server/router/system/system_routes.go` `getDiskUsage`.
async fn disk_usage(call: Call) -> Result<Answer, ApiError> {
    let kinds: Vec<&str> = call.query.all("type").collect();
    if let Some(kind) =
        kinds.iter().find(|kind| !matches!(**kind, "container" | "image" | "volume" | "build-cache"))
    {
        return Err(ApiError::invalid(format!("unknown object type: {kind}")));
    }
    let wanted = |kind: &str| kinds.is_empty() || kinds.contains(&kind);
    let mut usage = DiskUsage::default();
    if wanted("image") {
        let options = images::ListOptions { shared_size: true, containers: true, ..Default::default() };
        let list = call.state.images.list(&options).await?;
        usage.layers_size = list.iter().map(|image| image.size - image.shared_size.max(0)).sum();
        usage.images = Some(list);
    }
    if wanted("container") {
        usage.containers = Some(super::lists::all_with_size(&call.state).await?);
    }
    if wanted("volume") {
        usage.volumes = Some(super::volumes::all(&call.state).await?);
    }
    if wanted("build-cache") {
        usage.build_cache = Some(Vec::new());
    }
    json(&usage)
}

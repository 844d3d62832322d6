//! Shows everything about a container.

use std::collections::BTreeMap;

use docker::{
    ContainerInspect, EndpointSettings, GraphDriver, Health, HealthLog, NetworkSettings, PortBinding,
    PortMap, State,
};

use super::Container;
use super::record::{Record, Run};
use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::files::{self, blocking};
use crate::watch::Status;

impl Engine {
    /// Everything about a container; `size` counts its writable layer, which may take a while.
    pub async fn inspect(&self, container: &str, size: bool) -> Result<ContainerInspect, EngineError> {
        let container = self.inner.registry.find(container)?;
        let (size_rw, size_root_fs) = if size { sizes(&self.inner, &container).await? } else { (None, None) };
        let record = container.record();
        let exec_ids = self.inner.execs.of_container(&container.id);
        let graph_driver = graph_driver(&self.inner, &record).await;
        let dir = self.inner.roots.container(&record.id);
        let path_of = |name: &str| {
            let owner = record.host_config.network_mode.strip_prefix("container:");
            let dir = owner.map_or_else(|| dir.clone(), |owner| self.inner.roots.container(owner));
            let has_started = !record.run.started_at.is_zero();
            if has_started { dir.join(name).display().to_string() } else { String::new() }
        };
        let command = record.command();
        let log_path = match record.host_config.log_config.driver.as_str() {
            "json-file" => self.inner.roots.log(&record.id).display().to_string(),
            _ => String::new(),
        };
        Ok(ContainerInspect {
            id: record.id.clone(),
            created: record.created,
            path: command.first().cloned().unwrap_or_default(),
            args: command.get(1..).unwrap_or_default().to_vec(),
            state: state(&record.run),
            image: record.image_id.clone(),
            resolv_conf_path: path_of("resolv.conf"),
            hostname_path: path_of("hostname"),
            hosts_path: path_of("hosts"),
            log_path,
            name: format!("/{}", record.name),
            restart_count: i64::from(record.run.backoff.restarts()),
            driver: "overlay2".into(),
            platform: "linux".into(),
            mount_label: String::new(),
            process_label: String::new(),
            app_armor_profile: String::new(),
            exec_ids: (!exec_ids.is_empty()).then_some(exec_ids),
            graph_driver,
            size_rw,
            size_root_fs,
            mounts: mount_points(&self.inner, &record),
            network_settings: network_settings(&record),
            host_config: record.host_config,
            config: record.config,
        })
    }
}

/// Bytes of the writable layer, and of all layers together.
pub(crate) async fn sizes(
    inner: &Inner,
    container: &Container,
) -> Result<(Option<i64>, Option<i64>), EngineError> {
    let image = container.live().record.image_id.clone();
    let upper = inner.roots.overlay(&container.id).join("upper");
    let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let own = count(blocking(move || Ok(files::tree_size(&upper))).await?);
    // The image may have been removed by force: then only the layer is known.
    let below = inner.config.images.inspect(&image).await.map_or(0, |image| image.size);
    Ok((Some(own), Some(own + below)))
}

fn state(run: &Run) -> State {
    State {
        status: run.status.as_str().to_owned(),
        // A container that waits for its restart counts as running with Docker.
        running: matches!(run.status, Status::Running | Status::Paused | Status::Restarting),
        paused: run.status == Status::Paused,
        restarting: run.status == Status::Restarting,
        oom_killed: run.oom_killed,
        dead: false,
        pid: i64::from(run.pid.filter(|_| run.status.has_process()).unwrap_or(0)),
        exit_code: run.exit_code,
        error: run.error.clone(),
        started_at: run.started_at,
        finished_at: run.finished_at,
        health: run.health.as_ref().map(|health| Health {
            status: health.status().as_str().to_owned(),
            failing_streak: i64::from(health.failing_streak()),
            log: health
                .log()
                .iter()
                .map(|outcome| HealthLog {
                    start: outcome.start,
                    end: outcome.end,
                    exit_code: outcome.exit_code,
                    output: outcome.output.clone(),
                })
                .collect(),
        }),
    }
}

async fn graph_driver(inner: &Inner, record: &Record) -> GraphDriver {
    let overlay = inner.roots.overlay(&record.id);
    let layers = match record.image_id.parse() {
        Ok(id) => inner.config.images.image(&id).await.map(|image| image.layers).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let lower: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
    let show = |name: &str| overlay.join(name).display().to_string();
    let data = [
        ("ID", record.id.clone()),
        ("LowerDir", lower.join(":")),
        ("MergedDir", show("merged")),
        ("UpperDir", show("upper")),
        ("WorkDir", show("work")),
    ];
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    GraphDriver { data: Some(data), name: "overlay2".into() }
}

/// The mounts as clients see them.
pub(crate) fn mount_points(inner: &Inner, record: &Record) -> Vec<docker::MountPoint> {
    let volume_path = |name: &str| inner.roots.volume_data(name).display().to_string();
    record.mounts.iter().map(|mount| mount.to_point(volume_path)).collect()
}

/// The networks with what it was asked for and what it got.
pub(crate) fn endpoints(record: &Record) -> BTreeMap<String, EndpointSettings> {
    let mut networks = record.networks.clone();
    let Some(attachment) = &record.run.attachment else { return networks };
    for endpoint in attachment.endpoints.iter().filter(|endpoint| !endpoint.is_for_way_out) {
        let settings = networks.entry(endpoint.network_name.clone()).or_default();
        show_endpoint(settings, endpoint);
        if !matches!(endpoint.network_name.as_str(), "bridge" | "host" | "none") {
            let names = network::names_of_endpoint(&record.name, &record.id, attachment, endpoint);
            settings.dns_names = Some(names);
        }
    }
    networks
}

fn show_endpoint(settings: &mut EndpointSettings, endpoint: &network::Endpoint) {
    let show = |ip: Option<std::net::IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let (ipv4, ipv6) = (endpoint.ipv4(), endpoint.ipv6());
    settings.network_id.clone_from(&endpoint.network_id);
    settings.endpoint_id.clone_from(&endpoint.endpoint_id);
    settings.mac_address = endpoint.mac.clone().unwrap_or_default();
    settings.gateway = show(ipv4.and_then(|address| address.gateway));
    settings.ip_address = show(ipv4.map(|address| address.ip));
    settings.ip_prefix_len = ipv4.map_or(0, |address| i64::from(address.prefix));
    settings.ipv6_gateway = show(ipv6.and_then(|address| address.gateway));
    settings.global_ipv6_address = show(ipv6.map(|address| address.ip));
    settings.global_ipv6_prefix_len = ipv6.map_or(0, |address| i64::from(address.prefix));
}

fn network_settings(record: &Record) -> NetworkSettings {
    let networks = endpoints(record);
    // Docker repeats the default network's settings at the top.
    let main = networks.get("bridge").cloned().unwrap_or_default();
    NetworkSettings {
        sandbox_id: if record.run.status.has_process() { record.id.clone() } else { String::new() },
        sandbox_key: match record.run.pid.filter(|_| record.run.status.has_process()) {
            Some(pid) => format!("/proc/{pid}/ns/net"),
            None => String::new(),
        },
        ports: bound_ports(record),
        endpoint_id: main.endpoint_id,
        gateway: main.gateway,
        ip_address: main.ip_address,
        ip_prefix_len: main.ip_prefix_len,
        mac_address: main.mac_address,
        ipv6_gateway: main.ipv6_gateway,
        global_ipv6_address: main.global_ipv6_address,
        global_ipv6_prefix_len: main.global_ipv6_prefix_len,
        networks,
        ..Default::default()
    }
}

/// Exposed ports, and where those that are published were bound; nothing while it doesn't run.
fn bound_ports(record: &Record) -> PortMap {
    let mut ports = PortMap::new();
    let Some(attachment) = &record.run.attachment else { return ports };
    for port in record.config.exposed_ports.keys() {
        ports.insert(port.clone(), None);
    }
    for bound in &attachment.ports {
        let binding =
            PortBinding { host_ip: bound.host_ip.to_string(), host_port: bound.host_port.to_string() };
        let key = format!("{}/{}", bound.container_port, bound.protocol);
        ports.entry(key).or_default().get_or_insert_default().push(binding);
    }
    ports
}

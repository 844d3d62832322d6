//! Connects containers to networks and disconnects them, whether they run or not.
//!
//! In: a network, a container, what it asks for there. Out: its record; of a container that runs also its interfaces and
//! its `hosts`. One change of a container at a time, as with its start and its end.

use std::path::Path;
use std::sync::Arc;

use docker::EndpointSettings;
use network::{ConnectRequest, Endpoint, NetworkFacts, NetworkJoin, SandboxMode};

use crate::container::record::Record;
use crate::container::{Container, create_parts, networks, resolver};
use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::files;
use crate::spec_build::network_files;
use crate::swarm_networks;
use crate::watch::Status;

/// Source of these texts: moby, `runconfig/errors.go`.
const WITH_HOST: &str = "container cannot be disconnected from host network or connected to host network";
const WITH_NONE: &str =
    "container cannot be connected to multiple networks with one of the networks in private (none) mode";
const WITH_SHARED: &str = "container sharing network namespace with another container or host cannot be connected to any other network";

impl Engine {
    /// Connects a container to one network more.
    pub async fn network_connect(
        &self,
        network: &str,
        container: &str,
        settings: Option<EndpointSettings>,
    ) -> Result<(), EngineError> {
        let container = self.inner.registry.find(container)?;
        let mut settings = settings.unwrap_or_default();
        // One of a swarm may not be on this machine yet.
        let mut joins = [networks::join(network, &settings)?];
        let holds = swarm_networks::give_places(&self.inner, &container.record(), &mut joins, false).await?;
        let [join] = joins;
        let facts = networks::find(&self.inner, &join.network).await?;
        networks::check(&settings, &facts)?;
        settings.network_id.clone_from(&facts.id);
        let engine = self.clone();
        self.to_the_end(async move {
            let connected = connect(&engine.inner, &container, &facts, settings, join).await;
            drop(holds);
            connected
        })
        .await
    }

    /// Disconnects a container from a network.
    pub async fn network_disconnect(&self, network: &str, container: &str) -> Result<(), EngineError> {
        let facts = networks::find(&self.inner, network).await?;
        let container = self.inner.registry.find(container)?;
        let engine = self.clone();
        self.to_the_end(async move { disconnect(&engine.inner, &container, &facts).await }).await
    }
}

async fn connect(
    inner: &Inner,
    container: &Arc<Container>,
    facts: &NetworkFacts,
    settings: EndpointSettings,
    join: NetworkJoin,
) -> Result<(), EngineError> {
    let _turn = container.turn.lock().await;
    let record = container.record();
    check_removal(&record)?;
    check_modes(&record, facts)?;
    let links = networks::lines_of(inner, &facts.name, &settings)?;
    let attachment = match pid(container)? {
        None => None,
        Some(pid) => {
            let request = ConnectRequest {
                container_id: container.id.clone(),
                pid,
                join: NetworkJoin { network: facts.id.clone(), ..join },
                ports: create_parts::port_requests(&record.config, &record.host_config)?,
            };
            Some(inner.config.network.connect(request).await?)
        }
    };
    {
        let mut live = container.live();
        live.record.networks.insert(facts.name.clone(), settings);
        if attachment.is_some() {
            live.record.run.attachment.clone_from(&attachment);
        }
    }
    inner.save(container).await?;
    resolver::follow(inner, container).await;
    let endpoint = attachment.as_ref().and_then(|attachment| attachment.endpoint(&facts.id));
    if let Some(endpoint) = endpoint {
        let lines = network_files::own_lines(&record, endpoint) + &links;
        rewrite_hosts(inner, &record, |text| text + &lines);
        inner.events.endpoint(endpoint, "connect", &container.id);
    }
    inner.announce(container);
    Ok(())
}

async fn disconnect(
    inner: &Inner,
    container: &Arc<Container>,
    facts: &NetworkFacts,
) -> Result<(), EngineError> {
    let _turn = container.turn.lock().await;
    let record = container.record();
    check_removal(&record)?;
    if SandboxMode::of(&record.host_config.network_mode) == SandboxMode::Host || facts.driver == "host" {
        return Err(EngineError::invalid(WITH_HOST));
    }
    if !record.networks.contains_key(&facts.name) {
        return Err(EngineError::Refused(format!(
            "container {} is not connected to network {}",
            container.id, facts.name
        )));
    }
    let mut left = None;
    if let Some(pid) = pid(container)? {
        left = Some(inner.config.network.disconnect(&container.id, &facts.id, pid).await?);
    }
    {
        let mut live = container.live();
        live.record.networks.remove(&facts.name);
        if left.is_some() {
            live.record.run.attachment = left;
        }
    }
    inner.save(container).await?;
    resolver::follow(inner, container).await;
    let before = record.run.attachment.as_ref().and_then(|attachment| attachment.endpoint(&facts.id));
    if let Some(endpoint) = before {
        rewrite_hosts(inner, &record, |text| without_lines(&text, &record, endpoint));
        inner.events.endpoint(endpoint, "disconnect", &container.id);
    }
    inner.announce(container);
    Ok(())
}

/// A process in its network namespace, when it has one.
fn pid(container: &Container) -> Result<Option<i32>, EngineError> {
    if !container.status().has_process() {
        return Ok(None);
    }
    Ok(Some(container.running()?.shim.pid()))
}

fn check_removal(record: &Record) -> Result<(), EngineError> {
    if record.removing || matches!(record.run.status, Status::Removing | Status::Removed) {
        // Source: moby, `daemon/container_operations.go`, `errRemovalContainer`.
        return Err(EngineError::wrong_state(format!(
            "container {} is marked for removal and cannot be connected or disconnected to the network",
            record.id
        )));
    }
    Ok(())
}

/// Whether its network mode and the networks it is on let it join.
fn check_modes(record: &Record, facts: &NetworkFacts) -> Result<(), EngineError> {
    let mode = record.host_config.network_mode.as_str();
    let refuse = |text: &str| Err(EngineError::invalid(text));
    if mode.starts_with("container:") {
        return refuse(WITH_SHARED);
    }
    if SandboxMode::of(mode) == SandboxMode::Host || facts.driver == "host" {
        return refuse(WITH_HOST);
    }
    let is_on_none = record.networks.contains_key("none");
    if is_on_none || (facts.driver == "null" && !record.networks.is_empty()) {
        return refuse(WITH_NONE);
    }
    Ok(())
}

/// Changes a running container's `hosts` in place: it is mounted there. A failure costs the container its own name on
/// that network.
fn rewrite_hosts(inner: &Inner, record: &Record, change: impl FnOnce(String) -> String) {
    let path = inner.roots.container(&record.id).join("hosts");
    if let Err(error) = rewrite(&path, change) {
        tracing::warn!(container.id = %record.id, error = &error as &dyn std::error::Error, "hosts not changed");
    }
}

fn rewrite(path: &Path, change: impl FnOnce(String) -> String) -> Result<(), EngineError> {
    let text = std::fs::read_to_string(path).map_err(|source| EngineError::File {
        what: "read",
        path: path.to_owned(),
        source,
    })?;
    files::write_file(path, change(text).as_bytes(), 0o644)
}

fn without_lines(text: &str, record: &Record, endpoint: &Endpoint) -> String {
    let own = network_files::own_lines(record, endpoint);
    let is_own = |line: &str| own.lines().any(|own| own == line);
    text.lines().filter(|line| !is_own(line)).map(|line| format!("{line}\n")).collect()
}

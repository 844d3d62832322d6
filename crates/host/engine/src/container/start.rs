//! Starts a container: network, files, shim, and only then its program.
//!
//! In: a container that has no process. Out: one that has, with its record on disk before the program runs, so that a
//! crash at any moment leaves either nothing or something the next daemon adopts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shim::client::{RequestError, SpawnError, StartFailure};
use shim::{Launch, ShimSpec};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::mounts::MountFrom;
use super::record::Record;
use super::{Container, Running, attach, create_parts, networks, remove, resolver, supervise};
use crate::engine::{Engine, Inner, now};
use crate::error::EngineError;
use crate::files::{self, blocking};
use crate::health;
use crate::spec_build::{self, Shared, Surroundings, network_files};
use crate::swarm_networks::{self, Hold};
use crate::watch::Status;

/// Docker's words around what the runtime says about a program that can't be run.
const RUNC_PREFIX: &str =
    "runc create failed: unable to start container process: error during container init: ";

/// Between two attempts to start a container that waits for its swarm's network. chosen: machines that boot together find each
/// other within seconds.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Why a container is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Somebody asked for it: failures before are forgotten.
    Asked,
    /// Its restart policy.
    Policy,
}

impl Engine {
    /// Starts a container. One that runs already: [`EngineError::NotModified`].
    pub async fn start(&self, container: &str) -> Result<(), EngineError> {
        let container = self.inner.registry.find(container)?;
        let engine = self.clone();
        self.to_the_end(async move { start(&engine, &container, Cause::Asked).await }).await
    }
}

pub(crate) async fn start(
    engine: &Engine,
    container: &Arc<Container>,
    cause: Cause,
) -> Result<(), EngineError> {
    let _turn = container.turn.lock().await;
    match container.status() {
        Status::Running => return Err(EngineError::NotModified),
        Status::Paused => {
            return Err(EngineError::wrong_state("cannot start a paused container, try unpause instead"));
        }
        Status::Removing | Status::Removed => {
            return Err(EngineError::wrong_state("container is marked for removal and cannot be started"));
        }
        Status::Created | Status::Exited | Status::Restarting => {}
    }
    if engine.inner.shutdown.is_cancelled() {
        return Err(EngineError::ShuttingDown);
    }
    if let Some(waiting) = container.live().restart.take() {
        waiting.cancel();
    }
    match launch(&engine.inner, container, cause).await {
        Ok(running) => {
            supervise::spawn(engine, container, &running);
            health::spawn(engine, container, &running);
            Ok(())
        }
        Err(error) => {
            not_started(engine, container, &error).await;
            Err(error)
        }
    }
}

/// Starts a container as its restart policy wants. Where the swarm whose network it is on cannot be reached, as after a power cut
/// of all machines, it is tried again until it runs or somebody decides otherwise.
pub(crate) async fn start_by_policy(engine: Engine, container: Arc<Container>) {
    let mut wait = FIRST_WAIT;
    loop {
        match start(&engine, &container, Cause::Policy).await {
            Ok(()) | Err(EngineError::NotModified) => return,
            Err(error) => {
                tracing::warn!(container.id = %container.id, error = &error as &dyn std::error::Error, "not started");
                if !matches!(error, EngineError::NotAttached(_)) {
                    return;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = LONGEST_WAIT.min(wait * 2),
            () = engine.inner.shutdown.cancelled() => return,
        }
        let is_decided = container.live().record.run.stopped_by_hand;
        if container.status() != Status::Exited || is_decided {
            return;
        }
    }
}

/// Everything up to the running program.
async fn launch(inner: &Inner, container: &Arc<Container>, cause: Cause) -> Result<Running, EngineError> {
    let record = container.record();
    make_bind_sources(&record).await?;
    let shared = shared_namespaces(inner, &record)?;
    let image = record
        .image_id
        .parse()
        .map_err(|error: images::ParseDigestError| EngineError::Images(Box::new(error)))?;
    let image = inner.config.images.image(&image).await.map_err(super::create::lookup_error)?;
    // Places on networks of a swarm are needed from here on, though the container does not run yet.
    let (attachment, _holds) = attach_networks(inner, &record, shared, cause).await?;
    let around = Surroundings {
        roots: &inner.roots,
        layers: image.layers,
        attachment: attachment.as_ref(),
        shared,
        open_files: inner.config.open_files,
        cgroup_parent: cgroup_parent(inner, &record),
    };
    if let Err(error) = inner.cgroup_parents.note(&around.cgroup_parent) {
        tracing::warn!(error = &error as &dyn std::error::Error, "the parent of cgroups may be left behind");
    }
    write_files(inner, &record, attachment.as_ref())?;
    let spec = spec_build::build(&record, &around)?;
    let log = log_spec(inner, &record)?;
    let mut spec = ShimSpec::new(Launch::Container(Box::new(spec)), log, record.config.stdin_once);
    spec.resolver = resolver::spec(attachment.as_ref());
    let dir = inner.roots.shim(&record.id);
    let cleaned = dir.clone();
    blocking(move || files::remove_dir(&cleaned)).await?;
    if let Some(attachment) = attachment.as_ref().filter(|_| spec.resolver.is_some()) {
        resolver::write(inner, &record, attachment)?;
    }
    let shim =
        shim::client::spawn(&dir, &spec, Some(inner.shim_program.path())).await.map_err(spawn_error)?;
    let running =
        Running { shim, ended: Arc::new(watch::Sender::new(false)), over: CancellationToken::new() };
    // From here on clients attach to the shim itself; those that came before are connected now.
    container.live().running = Some(running.clone());
    attach::connect_pending(container, &running.shim).await;
    // Before the program looks anything up, what its networks hold for it is there.
    let plugged = inner.config.network.plug(&record.id, running.shim.pid().unsigned_abs()).await;
    plugged.map_err(|error| EngineError::Network(Box::new(network::AttachError::Apply(error))))?;
    run(inner, container, &running, attachment, cause).await?;
    Ok(running)
}

/// The record first, then the program.
async fn run(
    inner: &Inner,
    container: &Arc<Container>,
    running: &Running,
    attachment: Option<network::Attachment>,
    cause: Cause,
) -> Result<(), EngineError> {
    {
        let mut live = container.live();
        let started_at = now();
        let has_check = health::schedule(&live.record.config).is_some();
        networks::note_names(&mut live.record.networks, attachment.as_ref());
        let run = &mut live.record.run;
        run.status = Status::Running;
        run.pid = Some(running.shim.pid());
        run.started_at = started_at;
        run.exit_code = 0;
        run.error.clear();
        run.oom_killed = false;
        run.life.clone_from(&inner.life);
        run.went_with_machine = false;
        run.stop_by = None;
        run.attachment = attachment;
        if cause == Cause::Asked {
            run.stopped_by_hand = false;
            run.backoff = Default::default();
        }
        health::begin(run, has_check, started_at);
    }
    inner.save(container).await?;
    let started_at = running.shim.go().await.map_err(go_error)?;
    container.live().record.run.started_at = started_at;
    inner.config.images.set_running(&container.id, true);
    container.publish_phase(false);
    let attachment = container.live().record.run.attachment.clone();
    for endpoint in attachment.iter().flat_map(|attachment| &attachment.endpoints) {
        inner.events.endpoint(endpoint, "connect", &container.id);
    }
    inner.events.container(container, "start", &[]);
    inner.announce(container);
    Ok(())
}

/// Takes back what a failed start left, and notes why.
async fn not_started(engine: &Engine, container: &Arc<Container>, error: &EngineError) {
    let inner = &engine.inner;
    inner.config.network.release(&container.id).await;
    let auto_remove = {
        let mut live = container.live();
        live.pending.clear();
        live.running = None;
        let run = &mut live.record.run;
        run.pid = None;
        run.attachment = None;
        run.error = error_text(error);
        // Source: moby, `daemon/start.go`: whatever has no code of its own is 128.
        run.exit_code = match error {
            EngineError::Start { exit_code, .. } => *exit_code,
            _ => 128,
        };
        run.status = if run.finished_at.is_zero() { Status::Created } else { Status::Exited };
        live.record.host_config.auto_remove
    };
    let dir = inner.roots.shim(&container.id);
    if let Err(error) = blocking(move || files::remove_dir(&dir)).await {
        tracing::warn!(container.id = %container.id, error = &error as &dyn std::error::Error, "shim directory left");
    }
    inner.save_or_log(container).await;
    container.publish_phase(true);
    inner.announce(container);
    if auto_remove {
        remove::remove_or_retry(engine, container, true).await;
    }
}

/// The text with all its causes, as clients see it.
pub(crate) fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

fn spawn_error(error: SpawnError) -> EngineError {
    match error {
        SpawnError::Create(failure) => start_failure(failure),
        other => EngineError::Shim(Box::new(other)),
    }
}

fn go_error(error: RequestError) -> EngineError {
    match error {
        RequestError::Start(failure) => start_failure(failure),
        other => EngineError::Shim(Box::new(other)),
    }
}

fn start_failure(failure: StartFailure) -> EngineError {
    EngineError::Start {
        text: format!("{RUNC_PREFIX}{}: unknown", failure.message),
        exit_code: i64::from(failure.exit_code),
    }
}

/// `-v` makes missing sources; those of `--mount` must still be there.
async fn make_bind_sources(record: &Record) -> Result<(), EngineError> {
    for mount in &record.mounts {
        let MountFrom::Bind { path, create, .. } = &mount.source else { continue };
        let create = *create;
        files::look_at(Path::new(path), move |path| match create {
            true if !path.exists() => files::make_dir(path, 0o755),
            true => Ok(()),
            false => check_bind_source(path),
        })
        .await?;
    }
    Ok(())
}

/// The source of a `--mount` must be there. Blocks for as long as its file system does.
pub(crate) fn check_bind_source(path: &Path) -> Result<(), EngineError> {
    if path.exists() {
        return Ok(());
    }
    Err(EngineError::invalid(format!(
        "invalid mount config for type \"bind\": bind source path does not exist: {}",
        path.display()
    )))
}

fn shared_namespaces(inner: &Inner, record: &Record) -> Result<Shared, EngineError> {
    let pid_of = |mode: &str, what: &str| -> Result<Option<i32>, EngineError> {
        let Some(other) = mode.strip_prefix("container:") else { return Ok(None) };
        let other = inner.registry.find(other)?;
        let running = other.running().map_err(|_| {
            EngineError::wrong_state(format!("cannot join {what} of a non running container: {}", other.id))
        })?;
        Ok(Some(running.shim.pid()))
    };
    let host = &record.host_config;
    Ok(Shared {
        network: pid_of(&host.network_mode, "network")?,
        ipc: pid_of(&host.ipc_mode, "IPC")?,
        pid: pid_of(&host.pid_mode, "PID")?,
    })
}

pub(crate) fn cgroup_parent(inner: &Inner, record: &Record) -> String {
    match record.host_config.cgroup_parent.as_str() {
        "" => inner.config.cgroup_parent.clone(),
        own => format!("/{}", own.trim_start_matches('/')),
    }
}

async fn attach_networks(
    inner: &Inner,
    record: &Record,
    shared: Shared,
    cause: Cause,
) -> Result<(Option<network::Attachment>, Vec<Hold>), EngineError> {
    if shared.network.is_some() {
        return Ok((None, Vec::new()));
    }
    let mut joins = networks::joins(record)?;
    let holds = swarm_networks::give_places(inner, record, &mut joins, cause == Cause::Policy).await?;
    let request = network::AttachRequest {
        container_id: record.id.clone(),
        container_name: record.name.clone(),
        hostname: record.config.hostname.clone(),
        mode: network::SandboxMode::of(&record.host_config.network_mode),
        networks: joins,
        ports: create_parts::port_requests(&record.config, &record.host_config)?,
    };
    match inner.config.network.attach(request).await {
        Ok(attachment) => Ok((Some(attachment), holds)),
        Err(error @ network::AttachError::Unknown(_)) => {
            Err(EngineError::NotFound(format!("failed to set up container networking: {error}")))
        }
        Err(error) => Err(EngineError::Network(Box::new(error))),
    }
}

/// Three small files, written in place: a container that is started again keeps its bind mounts' targets.
fn write_files(
    inner: &Inner,
    record: &Record,
    attachment: Option<&network::Attachment>,
) -> Result<(), EngineError> {
    if record.host_config.network_mode.starts_with("container:") {
        return Ok(());
    }
    let dir = inner.roots.container(&record.id);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (dns, machine) = (resolver::daemon_dns(inner), read("/etc/resolv.conf"));
    let hosts = network_files::hosts(record, &read("/etc/hosts"), attachment);
    let hosts = hosts + &networks::link_lines(inner, record)?;
    let resolv = match resolver::spec(attachment) {
        Some(_) => network_files::resolv_conf_of_resolver(record, dns, &machine),
        None => network_files::resolv_conf(record, dns, &machine),
    };
    let hostname = format!("{}\n", record.config.hostname);
    for (name, text) in [("hosts", hosts), ("resolv.conf", resolv), ("hostname", hostname)] {
        files::write_file(&dir.join(name), text.as_bytes(), 0o644)?;
    }
    Ok(())
}

fn log_spec(inner: &Inner, record: &Record) -> Result<::logs::LogSpec, EngineError> {
    let subject = ::logs::LogSubject {
        id: &record.id,
        name: &record.name,
        image_name: record.image_name(),
        image_id: &record.image_id,
        labels: &record.config.labels,
        env: &record.config.env,
    };
    let log = &record.host_config.log_config;
    ::logs::log_spec(&log.driver, &log.config, &subject, inner.roots.log(&record.id))
        .map_err(|error| EngineError::invalid(format!("failed to initialize logging driver: {error}")))
}

//! Creates a container: all checks, its volumes, its directory, its record. Nothing runs yet.
//!
//! In: a create request. Out: an id and warnings, or Docker's refusal with nothing left behind. A crash before the record
//! is written leaves only what [`crate::adopt`] sweeps.

use std::path::Path;

use docker::{ContainerCreateRequest, ContainerCreateResponse};

use super::mounts::{self, Asked, MountFrom, MountRecord};
use super::record::{Record, Run};
use super::{Container, create_parts, merge, names, networks, start, validate};
use crate::engine::{Engine, Inner, fill_random, new_id, now};
use crate::error::EngineError;
use crate::files::{self, blocking};
use crate::state::Change;
use crate::volume;

/// Chosen: four thousand names and a number behind them; more tries mean something is wrong.
const NAME_TRIES: u32 = 100;

impl Engine {
    /// Creates a container from an image that is here.
    pub async fn create(
        &self,
        request: ContainerCreateRequest,
    ) -> Result<ContainerCreateResponse, EngineError> {
        let engine = self.clone();
        self.to_the_end(async move { create(&engine.inner, request).await }).await
    }
}

async fn create(
    inner: &Inner,
    request: ContainerCreateRequest,
) -> Result<ContainerCreateResponse, EngineError> {
    let wanted_name = match request.name.as_str() {
        "" => None,
        name => Some(names::check(name)?),
    };
    let image = find_image(inner, &request).await?;
    let id = new_id()?;
    let mut config = merge::merge(request.config.clone(), &image.config);
    merge::check_command(&config)?;
    let mut host = request.host_config.clone();
    let warnings = check(inner, &request, &config, &mut host)?;
    if config.network_disabled {
        host.network_mode = "none".into();
    }
    share_with(inner, &mut host)?;
    let networks = networks::read(inner, &host, &request.networking_config).await?;
    create_parts::port_requests(&config, &host)?;
    if config.hostname.is_empty() && !host.network_mode.starts_with("container:") {
        config.hostname = match host.network_mode.as_str() {
            "host" => machine_name(),
            _ => id[..12].to_owned(),
        };
    }
    let mounts = read_mounts(inner, &config, &host)?;
    for mount in &mounts {
        check_source(mount).await?;
    }
    let name = claim_name(inner, wanted_name, &id)?;
    let record = Record {
        id: id.clone(),
        name: name.clone(),
        created: now(),
        image_id: image.id.to_string(),
        config,
        host_config: host,
        networks,
        mounts,
        removing: false,
        removing_volumes: false,
        run: Run::default(),
    };
    match build(inner, record, &image).await {
        Ok(()) => Ok(ContainerCreateResponse { id, warnings }),
        Err(error) => {
            inner.registry.free_name(&name, &id);
            Err(error)
        }
    }
}

async fn find_image(inner: &Inner, request: &ContainerCreateRequest) -> Result<images::Image, EngineError> {
    let name = request.config.image.as_str();
    if name.is_empty() {
        return Err(EngineError::invalid("no image specified"));
    }
    let id = inner.config.images.resolve(name).map_err(lookup_error)?;
    let image = inner.config.images.image(&id).await.map_err(lookup_error)?;
    if !request.platform.is_empty() {
        let wanted = request
            .platform
            .parse::<images::Platform>()
            .map_err(|error| EngineError::invalid(error.to_string()))?;
        if wanted.os != image.platform.os || wanted.architecture != image.platform.architecture {
            return Err(EngineError::NoSuchImage(format!(
                "image with reference {name} was found but its platform ({}) does not match the specified platform ({wanted})",
                image.platform
            )));
        }
    }
    Ok(image)
}

/// The image store's refusals are the engine's.
pub(crate) fn lookup_error(error: images::LookupError) -> EngineError {
    match error {
        images::LookupError::NotFound { reference } => EngineError::NoSuchImage(reference),
        images::LookupError::InvalidReference(text) => EngineError::invalid(text),
        other => EngineError::Images(Box::new(other)),
    }
}

fn check(
    inner: &Inner,
    request: &ContainerCreateRequest,
    config: &docker::ContainerConfig,
    host: &mut docker::HostConfig,
) -> Result<Vec<String>, EngineError> {
    validate::config(config)?;
    create_parts::check_shared_network(&request.config, host)?;
    validate::host_config(host, inner.cpus)?;
    create_parts::security(host)?;
    create_parts::fill_defaults(host, &inner.config);
    // Docker checks names when a container is created, and values when it starts; we want both at once.
    let labels = std::collections::BTreeMap::new();
    let subject =
        ::logs::LogSubject { id: "", name: "", image_name: "", image_id: "", labels: &labels, env: &[] };
    ::logs::log_spec(&host.log_config.driver, &host.log_config.config, &subject, "/".into())
        .map_err(|error| EngineError::invalid(error.to_string()))?;
    let mut warnings = Vec::new();
    if host.network_mode == "host" && (!host.port_bindings.is_empty() || host.publish_all_ports) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned(),
        );
    }
    Ok(warnings)
}

/// Replaces `container:<name>` by the full id, so that a rename or a new container of that name changes nothing.
fn share_with(inner: &Inner, host: &mut docker::HostConfig) -> Result<(), EngineError> {
    for mode in [&mut host.network_mode, &mut host.ipc_mode, &mut host.pid_mode] {
        if let Some(other) = mode.strip_prefix("container:") {
            *mode = format!("container:{}", inner.registry.find(other)?.id);
        }
    }
    Ok(())
}

fn read_mounts(
    inner: &Inner,
    config: &docker::ContainerConfig,
    host: &docker::HostConfig,
) -> Result<Vec<MountRecord>, EngineError> {
    let mut from_others = Vec::new();
    for entry in host.volumes_from.iter().flatten() {
        let (other, mode) = entry.split_once(':').unwrap_or((entry, "rw"));
        if !matches!(mode, "rw" | "ro" | "z" | "Z") {
            return Err(EngineError::invalid(format!("invalid mode: {mode}")));
        }
        let mut theirs = inner.registry.find(other)?.record().mounts;
        for mount in &mut theirs {
            mount.writable &= mode != "ro";
            // Source: moby, `daemon/volumes.go`: what another container mounts is not filled from this one's image.
            if let MountFrom::Volume { no_copy, .. } = &mut mount.source {
                *no_copy = true;
            }
        }
        from_others.append(&mut theirs);
    }
    let none = std::collections::BTreeMap::new();
    let mounts = mounts::read(&Asked {
        binds: host.binds.as_deref().unwrap_or_default(),
        mounts: &host.mounts,
        tmpfs: host.tmpfs.as_ref().unwrap_or(&none),
        anonymous: config.volumes.iter().flat_map(|map| map.keys()).map(String::as_str).collect(),
        from_others,
    })?;
    Ok(mounts)
}

async fn check_source(mount: &MountRecord) -> Result<(), EngineError> {
    match &mount.source {
        MountFrom::Bind { path, create: false, .. } => {
            files::look_at(Path::new(path), start::check_bind_source).await
        }
        MountFrom::Volume { name, anonymous: false, driver, options, .. } => {
            if !matches!(driver.as_str(), "" | "local") {
                return Err(EngineError::invalid(format!(
                    "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
                )));
            }
            if let Some((option, _)) = options.first_key_value() {
                return Err(EngineError::NotSupported(format!("volume driver option `{option}`")));
            }
            volume::check_name(name)
        }
        _ => Ok(()),
    }
}

fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn claim_name(inner: &Inner, wanted: Option<String>, id: &str) -> Result<String, EngineError> {
    if let Some(name) = wanted {
        inner.registry.claim_name(&name, id)?;
        return Ok(name);
    }
    for attempt in 0..NAME_TRIES {
        let mut random = [0u8; 3];
        fill_random(&mut random)?;
        let name = objects::random_name(random, attempt);
        if inner.registry.claim_name(&name, id).is_ok() {
            return Ok(name);
        }
    }
    // Docker's way out as well: a name that can't be taken.
    let name = id[..12].to_owned();
    inner.registry.claim_name(&name, id)?;
    Ok(name)
}

/// Makes everything on disk; on an error takes it away again.
async fn build(inner: &Inner, mut record: Record, image: &images::Image) -> Result<(), EngineError> {
    let id = record.id.clone();
    let user = images::ContainerUse { container: id.clone(), is_running: false };
    inner.config.images.hold(&image.id, user).map_err(lookup_error)?;
    let prepared = match volume::prepare(inner, &id, &mut record.mounts, &image.layers).await {
        Ok(prepared) => prepared,
        Err(error) => {
            inner.config.images.release(&id).await;
            return Err(error);
        }
    };
    let mut prepared = prepared;
    let container = Container::new(record);
    let written = write(inner, &container, &mut prepared).await;
    if let Err(error) = written {
        volume::undo(inner, &id, &prepared).await;
        inner.config.images.release(&id).await;
        let dir = inner.roots.container(&id);
        if let Err(left) = blocking(move || files::remove_dir(&dir)).await {
            tracing::warn!(container.id = %id, error = &left as &dyn std::error::Error, "directory left behind");
        }
        return Err(error);
    }
    volume::keep(inner, &prepared).await;
    inner.registry.insert(std::sync::Arc::clone(&container));
    for volume in &prepared.made {
        inner.events.volume(volume, "create", &[]);
    }
    inner.events.container(&container, "create", &[]);
    inner.announce(&container);
    Ok(())
}

async fn write(
    inner: &Inner,
    container: &Container,
    prepared: &mut volume::Prepared,
) -> Result<(), EngineError> {
    let (dir, overlay) = (inner.roots.container(&container.id), inner.roots.overlay(&container.id));
    // A handful of mkdirs: cheaper here than on another thread. The container's root user enters through `merged`
    // only in its own mount namespace, so nobody else needs to.
    files::make_dir(&dir, 0o710)?;
    for part in ["upper", "work", "merged"] {
        files::make_dir(&overlay.join(part), if part == "upper" { 0o755 } else { 0o700 })?;
    }
    let mut changes = std::mem::take(&mut prepared.changes);
    changes.push(Change::put::<Record>(&container.id, &container.record()));
    Ok(inner.state.commit(changes).await?)
}

//! Volumes: which there are, who uses them, and their directories.
//!
//! In: requests of clients, and containers that come and go. Out: directories for mounts, and Docker's shapes. A
//! directory that no record knows is never removed, unless it is marked as ours and unfinished: it may be the only copy
//! of somebody's data.

pub(crate) mod copy_up;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use objects::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use self::copy_up::copy_up;
use crate::container::mounts::{MountFrom, MountRecord};
use crate::engine::{Inner, new_id, now};
use crate::error::EngineError;
use crate::files::{self, Roots, blocking};
use crate::state::{Change, Noun};

/// Marks a volume that its container's record doesn't know yet.
const UNFINISHED: &str = "unfinished";
/// Begins the name of a directory that is being deleted; no volume may be called so.
const TRASH: &str = ".trash-";
/// Source: moby, `volume/service/service.go`, `AnonymousLabel`.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// What is remembered of a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) labels: BTreeMap<String, String>,
    /// Set before its directory is taken away.
    #[serde(default)]
    pub(crate) removing: bool,
}

impl Noun for VolumeRecord {
    const TABLE: &'static str = "volumes";
    const FORMAT: u32 = 1;
}

struct Volume {
    record: VolumeRecord,
    /// Ids of containers that mount it.
    users: BTreeSet<String>,
    /// Held by whoever fills it from an image.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Volume {
    fn new(record: VolumeRecord, users: BTreeSet<String>) -> Self {
        Volume { record, users, turn: Arc::default() }
    }
}

/// All volumes of the engine.
#[derive(Default)]
pub(crate) struct Volumes {
    all: Mutex<BTreeMap<String, Volume>>,
}

/// Whether a volume was there before it was asked for.
enum Used {
    Existing,
    New(VolumeRecord),
}

impl Volumes {
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Volume>> {
        self.all.lock().expect("nothing panics while it holds this lock")
    }

    /// Makes a volume known that was read from disk.
    pub(crate) fn insert(&self, record: VolumeRecord) {
        self.all().insert(record.name.clone(), Volume::new(record, BTreeSet::new()));
    }

    /// Notes that a container mounts a volume that was read from disk.
    pub(crate) fn note_user(&self, name: &str, container: &str) {
        if let Some(volume) = self.all().get_mut(name) {
            volume.users.insert(container.to_owned());
        }
    }

    /// Uses the volume, making it known if it is not.
    fn use_or_add(
        &self,
        name: &str,
        container: Option<&str>,
        labels: BTreeMap<String, String>,
    ) -> Result<Used, EngineError> {
        let mut all = self.all();
        let users = container.map(str::to_owned).into_iter().collect();
        match all.get_mut(name) {
            Some(volume) if volume.record.removing => {
                Err(EngineError::wrong_state(format!("volume {name} is being removed")))
            }
            Some(volume) => {
                volume.users.extend(users);
                Ok(Used::Existing)
            }
            None => {
                let record = VolumeRecord { name: name.to_owned(), created: now(), labels, removing: false };
                all.insert(name.to_owned(), Volume::new(record.clone(), users));
                Ok(Used::New(record))
            }
        }
    }

    fn forget(&self, name: &str) {
        self.all().remove(name);
    }

    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.all().get(name).map(|volume| Arc::clone(&volume.turn)).unwrap_or_default()
    }

    /// Ends a container's use of all volumes; returns those it used.
    fn release(&self, container: &str) -> Vec<String> {
        let mut used = Vec::new();
        for (name, volume) in self.all().iter_mut() {
            if volume.users.remove(container) {
                used.push(name.clone());
            }
        }
        used
    }
}

/// Volumes that a container which is being created uses; undone unless it is kept.
pub(crate) struct Prepared {
    /// To be committed together with the container: records of its anonymous volumes.
    pub(crate) changes: Vec<Change>,
    /// Names of volumes that were made, for their events.
    pub(crate) made: Vec<String>,
    anonymous: Vec<String>,
}

/// Makes the volumes of a container that is being created, and fills empty ones from the image.
///
/// Gives anonymous volumes their names in `mounts`. `layers` are the image's, top first.
pub(crate) async fn prepare(
    inner: &Inner,
    container: &str,
    mounts: &mut [MountRecord],
    layers: &[std::path::PathBuf],
) -> Result<Prepared, EngineError> {
    let mut prepared = Prepared { changes: Vec::new(), made: Vec::new(), anonymous: Vec::new() };
    let outcome = prepare_each(inner, container, mounts, layers, &mut prepared).await;
    match outcome {
        Ok(()) => Ok(prepared),
        Err(error) => {
            undo(inner, container, &prepared).await;
            Err(error)
        }
    }
}

async fn prepare_each(
    inner: &Inner,
    container: &str,
    mounts: &mut [MountRecord],
    layers: &[std::path::PathBuf],
    prepared: &mut Prepared,
) -> Result<(), EngineError> {
    for mount in mounts {
        let destination = mount.destination.clone();
        let MountFrom::Volume { name, anonymous, no_copy, labels, subpath, .. } = &mut mount.source else {
            continue;
        };
        // One that has a name already is another container's, by `--volumes-from`.
        let is_new = name.is_empty();
        if is_new {
            *name = new_id()?;
        }
        if *anonymous && is_new {
            let record = make_anonymous(inner, container, name, labels).await?;
            prepared.anonymous.push(name.clone());
            prepared.changes.push(Change::put(name, &record));
            prepared.made.push(name.clone());
        } else if make_named(inner, Some(container), name, labels).await? {
            prepared.made.push(name.clone());
        }
        if !*no_copy && subpath.is_empty() && !layers.is_empty() {
            let (roots, name, container) = (inner.roots.clone(), name.clone(), container.to_owned());
            let layers = layers.to_vec();
            let turn = inner.volumes.turn(&name);
            let _turn = turn.lock().await;
            blocking(move || copy_up(&roots, &name, &container, &layers, &destination)).await?;
        }
        if !subpath.is_empty() {
            check_subpath(&inner.roots, name, subpath).await?;
        }
    }
    Ok(())
}

/// Looks inside the volume only, as the runtime does that mounts it later.
async fn check_subpath(roots: &Roots, name: &str, subpath: &str) -> Result<(), EngineError> {
    let (data, subpath) = (roots.volume_data(name), subpath.to_owned());
    blocking(move || {
        if runtime::find_below(&data, std::path::Path::new(&subpath)).is_err() {
            let path = data.join(subpath);
            return Err(EngineError::invalid(format!(
                "cannot access path {}: no such file or directory",
                path.display()
            )));
        }
        Ok(())
    })
    .await
}

/// A volume of the container alone: its directory is marked until the container's record is written.
async fn make_anonymous(
    inner: &Inner,
    container: &str,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<VolumeRecord, EngineError> {
    let mut labels = labels.clone();
    labels.insert(ANONYMOUS_LABEL.into(), String::new());
    match inner.volumes.use_or_add(name, Some(container), labels)? {
        Used::Existing => Err(EngineError::wrong_state(format!("volume {name} exists already"))),
        Used::New(record) => {
            let (roots, name) = (inner.roots.clone(), name.to_owned());
            blocking(move || {
                files::make_dir(&roots.volume(&name), 0o701)?;
                files::write_file(&roots.volume(&name).join(UNFINISHED), b"", 0o600)?;
                files::make_dir(&roots.volume_data(&name), 0o755)
            })
            .await?;
            Ok(record)
        }
    }
}

/// Makes sure that a named volume exists; true when it was made.
pub(crate) async fn make_named(
    inner: &Inner,
    container: Option<&str>,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<bool, EngineError> {
    check_name(name)?;
    let Used::New(record) = inner.volumes.use_or_add(name, container, labels.clone())? else {
        // Another request may have added it a moment ago; its directory is made by whoever comes first.
        let dir = inner.roots.volume_data(name);
        blocking(move || files::make_dir(&dir, 0o755)).await?;
        return Ok(false);
    };
    let (parent, dir) = (inner.roots.volume(name), inner.roots.volume_data(name));
    let made = async {
        inner.state.commit(vec![Change::put(name, &record)]).await?;
        blocking(move || {
            files::make_dir(&parent, 0o701)?;
            files::make_dir(&dir, 0o755)
        })
        .await
    };
    if let Err(error) = made.await {
        inner.volumes.forget(name);
        return Err(error);
    }
    Ok(true)
}

/// Source of rule and texts: moby, `volume/local/local.go`, `validateName`.
pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
    if name.len() == 1 {
        return Err(EngineError::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
        return Ok(());
    }
    Err(EngineError::invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

/// The container's record is written: its anonymous volumes are there to stay.
pub(crate) async fn keep(inner: &Inner, prepared: &Prepared) {
    for name in &prepared.anonymous {
        let mark = inner.roots.volume(name).join(UNFINISHED);
        if let Err(error) = std::fs::remove_file(&mark) {
            tracing::warn!(path = %mark.display(), %error, "mark of a new volume not removed");
        }
    }
}

/// The container was not created after all.
pub(crate) async fn undo(inner: &Inner, container: &str, prepared: &Prepared) {
    inner.volumes.release(container);
    for name in &prepared.anonymous {
        inner.volumes.forget(name);
        let dir = inner.roots.volume(name);
        if let Err(error) = blocking(move || files::remove_dir(&dir)).await {
            tracing::warn!(volume = %name, error = &error as &dyn std::error::Error, "volume left behind");
        }
    }
}

/// A container is gone: ends its use of volumes and removes the anonymous ones among `mounts` if `remove` says so.
pub(crate) async fn release(inner: &Inner, container: &str, mounts: &[MountRecord], remove: bool) {
    inner.volumes.release(container);
    if !remove {
        return;
    }
    for mount in mounts {
        let MountFrom::Volume { name, anonymous: true, .. } = &mount.source else { continue };
        match remove_volume(inner, name).await {
            // Another container uses it by `--volumes-from`.
            Ok(()) | Err(EngineError::VolumeInUse { .. } | EngineError::NoSuchVolume(_)) => {}
            Err(error) => {
                tracing::warn!(volume = %name, error = &error as &dyn std::error::Error, "volume not removed");
            }
        }
    }
}

/// Removes a volume that nobody uses, with its content.
pub(crate) async fn remove_volume(inner: &Inner, name: &str) -> Result<(), EngineError> {
    let record = {
        let mut all = inner.volumes.all();
        let volume = all.get_mut(name).ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))?;
        if !volume.users.is_empty() {
            let holders = volume.users.iter().cloned().collect();
            return Err(EngineError::VolumeInUse { name: name.to_owned(), holders });
        }
        volume.record.removing = true;
        volume.record.clone()
    };
    inner.state.commit(vec![Change::put(name, &record)]).await?;
    finish_removal(inner, name).await?;
    inner.events.volume(name, "destroy", &[]);
    Ok(())
}

/// Takes away a volume whose record says that it is being removed.
pub(crate) async fn finish_removal(inner: &Inner, name: &str) -> Result<(), EngineError> {
    let trash = inner.roots.volumes().join(format!("{TRASH}{}", new_id()?));
    let (dir, moved) = (inner.roots.volume(name), trash.clone());
    blocking(move || match std::fs::rename(&dir, &moved) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::File { what: "move volume", path: dir, source })
        }
        _ => Ok(()),
    })
    .await?;
    inner.state.commit(vec![Change::remove::<VolumeRecord>(name)]).await?;
    inner.volumes.forget(name);
    blocking(move || files::remove_dir(&trash)).await
}

/// After a start: finishes removals, and removes what a crash left of volumes that nobody was told of.
pub(crate) async fn sweep(inner: &Inner) -> Result<(), EngineError> {
    let half_removed: Vec<String> =
        inner.volumes.all().values().filter(|v| v.record.removing).map(|v| v.record.name.clone()).collect();
    for name in half_removed {
        finish_removal(inner, &name).await?;
    }
    let known: BTreeSet<String> = inner.volumes.all().keys().cloned().collect();
    let roots = inner.roots.clone();
    blocking(move || {
        for name in files::names_in(&roots.volumes())? {
            let path = roots.volumes().join(&name);
            let is_unfinished = path.join(UNFINISHED).exists();
            if name.starts_with(TRASH) || (!known.contains(&name) && is_unfinished) {
                files::remove_dir(&path)?;
            } else if !known.contains(&name) {
                tracing::warn!(path = %path.display(), "a directory that no volume record knows is left alone");
            } else {
                copy_up::sweep(&path)?;
            }
        }
        // The record comes first, so a crash may have left one without its directory.
        for name in &known {
            files::make_dir(&roots.volume_data(name), 0o755)?;
        }
        Ok(())
    })
    .await
}

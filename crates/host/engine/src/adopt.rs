//! Opens the engine on what an earlier one left: adopts what runs, takes in what ended, sweeps what nobody knows.
//!
//! In: the database, the exec root, the cgroup tree. Out: an engine whose records are true. All containers are looked at
//! at once, so that the API is there soon however many run. Never assumes that the last engine was stopped in order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::restart::starts_with_daemon;
use runtime::cgroup::Cgroup;
use shim::client::{Adopted, Ended, Handle, Program, SignalTarget};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cgroup_parents::CgroupParents;
use crate::config::EngineConfig;
use crate::container::record::Record;
use crate::container::registry::Registry;
use crate::container::start;
use crate::container::supervise::{self, End};
use crate::container::{Container, Running, remove, resolver, stop};
use crate::engine::{Engine, Inner, now};
use crate::error::EngineError;
use crate::events::Events;
use crate::exec::{self, Execs};
use crate::files::{self, Roots, blocking};
use crate::health;
use crate::machine;
use crate::shim_group::{self, ShimGroup};
use crate::state::State;
use crate::swarm_networks;
use crate::volume::{self, VolumeRecord, Volumes};
use crate::watch::{Announcer, Status};

/// Chosen: what takes longer (a shim that is just ending) goes on in the background.
const PATIENCE: Duration = Duration::from_millis(250);
/// How soon a shim that did not answer is asked again, and the longest pause. Chosen: it took five seconds before.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The machine went down with the container. Source: moby, `daemon/daemon.go`, `restore`.
const MACHINE_RESTARTED: i64 = 255;

/// What was found in the exec root and the cgroup tree before anything of ours was started.
struct Found {
    shims: BTreeSet<String>,
    execs: Vec<String>,
    cgroups: BTreeSet<String>,
    dirs: BTreeSet<String>,
}

impl Engine {
    /// Opens the engine and adopts what runs.
    ///
    /// The network must have been opened on the same machine and is still held: whoever calls this ends the hold once all
    /// wanted state is known. Only one engine may use a data root: a second one is refused by the database.
    pub async fn open(config: EngineConfig) -> Result<Engine, EngineError> {
        let roots = Roots::new(config.data_root.clone(), config.exec_root.clone());
        make_roots(&roots)?;
        let path = roots.database();
        let (state, containers, volumes) = blocking(move || {
            let state = State::open(&path)?;
            let (containers, volumes) = (state.load::<Record>()?, state.load::<VolumeRecord>()?);
            Ok((state, containers, volumes))
        })
        .await?;
        let shim_program = Program::open(&config.shim_exe);
        let cgroup_parents = CgroupParents::open(roots.cgroup_parents());
        let inner = Inner {
            config,
            shim_program,
            cgroup_parents,
            shim_group: ShimGroup::default(),
            roots,
            state,
            life: machine::life(),
            registry: Registry::default(),
            volumes: Volumes::default(),
            execs: Execs::default(),
            events: Events::new(),
            announcer: Announcer::new(),
            swarm_networks: swarm_networks::Slot::new(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        };
        let engine = Engine { inner: Arc::new(inner) };
        for (_, record) in volumes {
            engine.inner.volumes.insert(record);
        }
        for (_, record) in containers {
            know(&engine.inner, record);
        }
        let found = look(&engine.inner)?;
        engine.inner.tasks.spawn(shim_group::run(engine.clone()));
        keep_endpoints(&engine.inner, &found).await;
        volume::sweep(&engine.inner).await?;
        adopt_all(&engine, found).await;
        engine.inner.config.images.sweep().await;
        Ok(engine)
    }
}

fn make_roots(roots: &Roots) -> Result<(), EngineError> {
    // Containers' users pass through to their root and their volumes, and see nothing beside them.
    for (dir, mode) in [
        (roots.containers(), 0o711),
        (roots.volumes(), 0o701),
        (roots.shims(), 0o700),
        (roots.execs(), 0o700),
    ] {
        files::make_dir(&dir, mode)?;
    }
    Ok(())
}

/// Makes a container known from its record.
fn know(inner: &Inner, record: Record) {
    let (id, name) = (record.id.clone(), record.name.clone());
    if let Err(error) = inner.registry.claim_name(&name, &id) {
        // Two records of one name can't have been written by us; both stay reachable by id.
        tracing::error!(container.id = %id, error = &error as &dyn std::error::Error, "name is taken");
    }
    match record.image_id.parse::<images::ImageId>() {
        Ok(image) => {
            let user =
                images::ContainerUse { container: id.clone(), is_running: record.run.status.has_process() };
            if let Err(error) = inner.config.images.hold(&image, user) {
                tracing::error!(container.id = %id, error = &error as &dyn std::error::Error, "image is gone");
            }
        }
        Err(error) => tracing::error!(container.id = %id, %error, "image id of the record is damaged"),
    }
    for mount in &record.mounts {
        if let Some(volume) = mount.volume() {
            inner.volumes.note_user(volume, &id);
        }
    }
    inner.registry.insert(Container::new(record));
}

fn look(inner: &Inner) -> Result<Found, EngineError> {
    let cgroups = match Cgroup::list(&inner.config.cgroup_parent) {
        Ok(names) => names.into_iter().filter(|name| name != shim_group::NAME).collect(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cgroups can't be listed");
            BTreeSet::new()
        }
    };
    Ok(Found {
        shims: files::names_in(&inner.roots.shims())?.into_iter().collect(),
        execs: files::names_in(&inner.roots.execs())?,
        cgroups,
        dirs: files::names_in(&inner.roots.containers())?.into_iter().collect(),
    })
}

/// Before anything is started, and before the network sweeps: no address, port or link of a container that may run goes
/// to another one. Whoever takes in its end gives them back.
async fn keep_endpoints(inner: &Inner, found: &Found) {
    for container in inner.registry.all() {
        let (name, attachment) = {
            let live = container.live();
            let run = &live.record.run;
            let may_run = run.status.has_process() && found.shims.contains(&container.id);
            (live.record.name.clone(), run.attachment.clone().filter(|_| may_run))
        };
        if let Some(attachment) = attachment {
            inner.config.network.adopt(&container.id, &name, &attachment).await;
        }
    }
}

async fn adopt_all(engine: &Engine, found: Found) {
    let inner = &engine.inner;
    let containers = inner.registry.all();
    let known: BTreeSet<String> = containers.iter().map(|container| container.id.clone()).collect();
    let found = Arc::new(found);
    let mut work = Vec::new();
    for container in containers {
        let (engine, found) = (engine.clone(), Arc::clone(&found));
        work.push(inner.tasks.spawn(async move { adopt(&engine, &container, &found).await }));
    }
    work.push(inner.tasks.spawn(sweep(engine.clone(), Arc::clone(&found), known)));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for task in work {
        match tokio::time::timeout_at(deadline, task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "container not adopted"),
            Err(_) => tracing::info!("still adopting containers in the background"),
        }
    }
    // Execs after containers: they are looked up by container.
    for id in &found.execs {
        let (engine, id) = (engine.clone(), id.clone());
        inner.tasks.spawn(async move { exec::adopt::adopt(&engine, &id).await });
    }
}

/// Makes one container's record true, however long its shim takes to answer.
async fn adopt(engine: &Engine, container: &Arc<Container>, found: &Found) {
    let (mut pause, longest) = ASK_AGAIN;
    loop {
        let turn = container.turn.lock().await;
        let is_done = adopt_in_turn(engine, container, found).await;
        drop(turn);
        if is_done {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = longest.min(2 * pause),
            () = engine.inner.shutdown.cancelled() => return,
        }
    }
}

/// False when its shim does not answer: it runs, as far as anybody knows.
async fn adopt_in_turn(engine: &Engine, container: &Arc<Container>, found: &Found) -> bool {
    let inner = &engine.inner;
    let (status, removing) = {
        let live = container.live();
        (live.record.run.status, live.record.removing)
    };
    let has_dir = found.shims.contains(&container.id);
    if removing {
        leftovers(inner, container, has_dir, found).await;
        let with_volumes = container.live().record.removing_volumes;
        remove::remove_or_retry(engine, container, with_volumes).await;
        return true;
    }
    if !status.has_process() {
        leftovers(inner, container, has_dir, found).await;
        at_rest(engine, container, status).await;
        return true;
    }
    // A record of an older version says nothing of it.
    let is_of_now = container.live().record.run.life == inner.life;
    if !has_dir {
        leftovers(inner, container, false, found).await;
        supervise::take_in_turn(engine, container, machine_restarted(!is_of_now)).await;
        return true;
    }
    let dir = inner.roots.shim(&container.id);
    let adopted = tokio::select! {
        adopted = shim::client::adopt(&dir) => adopted,
        () = inner.shutdown.cancelled() => return true,
    };
    let ended = match adopted {
        Ok(Adopted::Running(shim)) => {
            go_on(engine, container, shim).await;
            return true;
        }
        Ok(Adopted::Exited(exit)) => Ended::Exited(exit),
        Ok(Adopted::Lost(lost)) => Ended::Lost(lost),
        Err(error) => {
            tracing::error!(container.id = %container.id, error = &error as &dyn std::error::Error, "shim not adopted");
            return false;
        }
    };
    let is_lost = matches!(ended, Ended::Lost(_));
    let mut end = supervise::end_of(container, ended).await;
    if is_lost && !is_of_now {
        // Its shim went with it.
        end = machine_restarted(true);
    }
    supervise::take_in_turn(engine, container, end).await;
    true
}

fn machine_restarted(went_with_machine: bool) -> End {
    let (exit_code, finished_at) = (MACHINE_RESTARTED, now());
    End { exit_code, oom_killed: false, finished_at, error: String::new(), went_with_machine }
}

/// It runs: everything goes on where it was.
async fn go_on(engine: &Engine, container: &Arc<Container>, shim: Handle) {
    let inner = &engine.inner;
    let running =
        Running { shim, ended: Arc::new(watch::Sender::new(false)), over: CancellationToken::new() };
    let paused = is_frozen(inner, container).await;
    {
        let mut live = container.live();
        live.running = Some(running.clone());
        // The last engine may have ended between the freezer and the record.
        live.record.run.status = if paused { Status::Paused } else { Status::Running };
        live.record.run.pid = Some(running.shim.pid());
        // The record was written a moment before its program ran; the shim knows better.
        if let Some(started_at) = running.shim.started_at() {
            live.record.run.started_at = started_at;
        }
    }
    if let Err(error) = inner.config.network.plug(&container.id, running.shim.pid().unsigned_abs()).await {
        tracing::warn!(container.id = %container.id, error = &error as &dyn std::error::Error, "an adopted container keeps the virtual addresses it had");
    }
    resolver::follow(inner, container).await;
    supervise::spawn(engine, container, &running);
    health::spawn(engine, container, &running);
    container.publish_phase(false);
    stop::finish(engine, container, running);
}

async fn is_frozen(inner: &Inner, container: &Container) -> bool {
    let parent = start::cgroup_parent(inner, &container.live().record);
    let name = container.id.clone();
    let looked = blocking(move || {
        Cgroup::open(&parent, &name)
            .map(|cgroup| cgroup.is_frozen())
            .map_err(|error| EngineError::Cgroup(Box::new(error)))
    });
    looked.await.unwrap_or_else(|error| {
        tracing::warn!(container.id = %container.id, error = &error as &dyn std::error::Error, "freezer not read");
        container.status() == Status::Paused
    })
}

/// Kills and removes what is left of a container that should have no process.
async fn leftovers(inner: &Inner, container: &Container, has_dir: bool, found: &Found) {
    if found.cgroups.contains(&container.id) {
        let parent = inner.config.cgroup_parent.clone();
        supervise::remove_cgroup(parent, container.id.clone()).await;
    }
    if has_dir {
        kill_shim(inner, &container.id).await;
    }
}

/// Ends whatever runs in a shim's directory and removes it.
async fn kill_shim(inner: &Inner, id: &str) {
    let dir = inner.roots.shim(id);
    match shim::client::adopt(&dir).await {
        Ok(Adopted::Running(shim)) => {
            // Refused only when it has ended already.
            let _ = shim.signal(libc::SIGKILL, SignalTarget::All).await;
            if let Ok(Ended::Lost(lost)) = tokio::time::timeout(health::KILLED_WAIT, shim.wait()).await {
                supervise::kill_lost(id, lost).await;
            }
        }
        Ok(Adopted::Lost(lost)) => supervise::kill_lost(id, lost).await,
        Ok(Adopted::Exited(_)) => {}
        Err(error) => {
            tracing::warn!(container.id = %id, error = &error as &dyn std::error::Error, "shim directory unreadable");
        }
    }
    if let Err(error) = blocking(move || files::remove_dir(&dir)).await {
        tracing::warn!(container.id = %id, error = &error as &dyn std::error::Error, "shim directory left");
    }
}

/// A container without a process: removed, started, or left alone.
async fn at_rest(engine: &Engine, container: &Arc<Container>, status: Status) {
    let (policy, run, auto_remove) = {
        let live = container.live();
        (live.record.restart_policy(), live.record.run.clone(), live.record.host_config.auto_remove)
    };
    if status == Status::Restarting {
        supervise::restart_later(engine, container, Duration::ZERO);
        return;
    }
    if run.finished_at.is_zero() {
        return;
    }
    if auto_remove {
        remove::remove_or_retry(engine, container, true).await;
    } else if starts_with_daemon(policy, run.stopped_by_hand, run.exit_code, run.backoff.restarts()) {
        engine.inner.tasks.spawn(start::start_by_policy(engine.clone(), Arc::clone(container)));
    }
}

/// Removes what belongs to no container: shims first, then cgroups, then directories.
async fn sweep(engine: Engine, found: Arc<Found>, known: BTreeSet<String>) {
    let inner = &engine.inner;
    for id in found.shims.difference(&known) {
        tracing::warn!(container.id = %id, "removing a shim that no record knows");
        kill_shim(inner, id).await;
    }
    for id in found.cgroups.difference(&known) {
        tracing::warn!(container.id = %id, "removing a cgroup that no record knows");
        supervise::remove_cgroup(inner.config.cgroup_parent.clone(), id.clone()).await;
    }
    for id in found.dirs.difference(&known) {
        let dir = inner.roots.container(id);
        if let Err(error) = blocking(move || files::remove_dir(&dir)).await {
            tracing::warn!(container.id = %id, error = &error as &dyn std::error::Error, "directory left behind");
        }
    }
}

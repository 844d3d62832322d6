//! The engine's handle and what all operations share.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use objects::Timestamp;
use shim::client::Program;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cgroup_parents::CgroupParents;
use crate::config::EngineConfig;
use crate::container::Container;
use crate::container::record::Record;
use crate::container::registry::Registry;
use crate::error::EngineError;
use crate::events::Events;
use crate::exec::Execs;
use crate::files::Roots;
use crate::shim_group::ShimGroup;
use crate::state::{Change, State};
use crate::swarm_networks;
use crate::volume::Volumes;
use crate::watch::{Announcer, ContainerState, StateChanges, Status};

/// The containers of this machine. Cheap to clone; every clone is the same engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What every operation works with.
pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) roots: Roots,
    /// What shims are executed from.
    pub(crate) shim_program: Program,
    pub(crate) cgroup_parents: CgroupParents,
    pub(crate) shim_group: ShimGroup,
    pub(crate) state: State,
    /// Of this machine, to tell it from those before.
    pub(crate) life: String,
    pub(crate) registry: Registry,
    pub(crate) volumes: Volumes,
    pub(crate) execs: Execs,
    pub(crate) events: Events,
    pub(crate) announcer: Announcer,
    pub(crate) swarm_networks: swarm_networks::Slot,
    /// Everything that runs on behalf of the engine.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the engine shuts down; containers go on.
    pub(crate) shutdown: CancellationToken,
    /// How many CPUs a container may be given.
    pub(crate) cpus: usize,
}

/// How many containers do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// With a process that isn't frozen.
    pub running: usize,
    /// With frozen processes.
    pub paused: usize,
    /// All others.
    pub stopped: usize,
}

impl Engine {
    /// Begins nothing more, and lets nobody wait for a container's end any longer: they are told
    /// [`EngineError::ShuttingDown`]. A stop that is under way is finished by the next engine. To be called before whoever
    /// serves requests is waited for; [`Engine::shutdown`] comes after.
    pub fn begin_shutdown(&self) {
        self.inner.shutdown.cancel();
    }

    /// As [`Engine::begin_shutdown`], and waits until nothing is under way: from then on the network's wanted state stays.
    /// [`Engine::shutdown`] comes after.
    pub async fn finish_work(&self) {
        self.begin_shutdown();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Stops the engine's own work. Containers keep running and are adopted by the next engine on the same roots; without
    /// any, nothing is left but what is on disk.
    pub async fn shutdown(&self) {
        self.finish_work().await;
        let inner = Arc::clone(&self.inner);
        // Fails only when the runtime is going down, and then dropping the state closes it as well.
        let _ = tokio::task::spawn_blocking(move || {
            inner.state.close();
            inner.cgroup_parents.remove_empty();
            inner.roots.remove_empty_exec_dirs();
        })
        .await;
    }

    /// The states of all containers, sorted by id.
    pub fn states(&self) -> Vec<Arc<ContainerState>> {
        self.inner.registry.all().iter().map(|container| Arc::new(container.state())).collect()
    }

    /// The state of one container, by id, name or id prefix.
    pub fn state(&self, container: &str) -> Option<Arc<ContainerState>> {
        self.inner.registry.find(container).ok().map(|container| Arc::new(container.state()))
    }

    /// A stream of states from now on. Subscribe first, then read [`Engine::states`], and nothing is missed.
    pub fn watch(&self) -> StateChanges {
        self.inner.announcer.subscribe()
    }

    /// The image store it was opened with.
    pub fn images(&self) -> &images::Store {
        &self.inner.config.images
    }

    /// The networks it was opened with.
    pub fn network(&self) -> &network::Network {
        &self.inner.config.network
    }

    /// How many containers do what, for `docker info`.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for container in self.inner.registry.all() {
            match container.status() {
                Status::Running | Status::Restarting => counts.running += 1,
                Status::Paused => counts.paused += 1,
                _ => counts.stopped += 1,
            }
        }
        counts
    }

    /// Runs work to its end even when whoever asked goes away: a half-done change is worse than a late one.
    pub(crate) async fn to_the_end<T, F>(&self, work: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, EngineError>> + Send + 'static,
    {
        if self.inner.shutdown.is_cancelled() {
            return Err(EngineError::ShuttingDown);
        }
        match self.inner.tasks.spawn(work).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(EngineError::ShuttingDown),
        }
    }
}

impl Inner {
    /// Writes a container's record as it is now; of one that is gone nothing is written.
    pub(crate) async fn save(&self, container: &Container) -> Result<(), EngineError> {
        let slot = self.state.reserve().await?;
        let written = {
            // Records are queued in the order in which they were true, whoever else writes this one.
            let live = container.live();
            if live.record.run.status == Status::Removed {
                return Err(EngineError::NoSuchContainer(container.id.clone()));
            }
            slot.send(vec![Change::put::<Record>(&container.id, &live.record)])
        };
        Ok(written.done().await?)
    }

    /// Writes a record whose loss would only cost a detail after a crash; true once it is on disk.
    pub(crate) async fn save_or_log(&self, container: &Container) -> bool {
        match self.save(container).await {
            Ok(()) => true,
            // It was removed meanwhile.
            Err(EngineError::NoSuchContainer(_)) => false,
            Err(error) => {
                tracing::error!(container.id = %container.id, error = &error as &dyn std::error::Error, "record not written");
                false
            }
        }
    }

    /// Tells everybody how the container is now.
    pub(crate) fn announce(&self, container: &Container) {
        self.announcer.announce(container.state());
    }
}

/// The time now.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// 64 random hex digits.
pub(crate) fn new_id() -> Result<String, EngineError> {
    let mut bytes = [0u8; 32];
    fill_random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Random bytes of the kernel.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), EngineError> {
    getrandom::fill(bytes).map_err(|error| EngineError::File {
        what: "read random bytes from",
        path: "getrandom".into(),
        source: std::io::Error::other(error.to_string()),
    })
}

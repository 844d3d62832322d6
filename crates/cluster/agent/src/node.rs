//! Membership of this node: init, leave, restart from disk.
//!
//! In: requests of the API, `swarm/state.json`. Out: a running manager and agent, or none. One request at a time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use engine::Engine;
use manager::{Manager, ManagerConfig};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::containers::{self, EngineContainers};
use crate::describe::describe;
use crate::keep_manager::{self, Standing};
use crate::link::LocalManager;
use crate::placeholders::NodeFacts;
use crate::reconcile::Agent;
use crate::requests::{InitRequest, JoinRequest, LocalNodeState, Peer, SwarmError};
use crate::state_file::Membership;
use crate::worker::WorkerFiles;
use crate::{found, requests};

/// What a [`SwarmNode`] needs to know about its machine.
#[derive(Clone)]
pub struct SwarmNodeConfig {
    /// `<data root>/swarm`.
    pub directory: PathBuf,
    /// Runs the containers.
    pub engine: Engine,
    /// Host name shown in `node ls`.
    pub hostname: String,
    /// Version of this program, shown as engine version.
    pub engine_version: String,
    /// The daemon's `--label`s (`key=value`).
    pub engine_labels: Vec<String>,
    /// The daemon's `--node-generic-resource`s.
    pub generic_resources: Vec<objects::GenericResource>,
    /// `--swarm-default-advertise-addr`.
    pub default_advertise_addr: Option<String>,
}

/// This node's part in a swarm. Cheap to clone.
#[derive(Clone)]
pub struct SwarmNode {
    inner: Arc<Inner>,
}

struct Inner {
    config: SwarmNodeConfig,
    /// Held while this node enters or leaves a swarm.
    turn: Semaphore,
    part: Mutex<Part>,
    /// Rung when a manager that was being opened is there, or will not come.
    settled: Notify,
}

/// This node's part.
#[derive(Default)]
struct Part {
    membership: Option<Membership>,
    manager: Option<Manager>,
    /// Why a member cannot do its part.
    error: String,
    running: Option<Running>,
}

/// What runs on behalf of a member.
struct Running {
    stopping: CancellationToken,
    tasks: JoinSet<()>,
}

/// The `Swarm` part of `GET /info` that is about this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalState {
    /// `inactive`, `pending`, `active`, `error` or `locked`.
    pub state: LocalNodeState,
    /// Empty when in no swarm.
    pub node_id: String,
    /// Advertised address without port; empty when in no swarm.
    pub node_addr: String,
    /// Whether a manager runs here and answers.
    pub control_available: bool,
    /// Why the state is `error`; else empty.
    pub error: String,
    /// Managers of the swarm.
    pub remote_managers: Vec<Peer>,
}

impl SwarmNode {
    /// Reads `state.json`; when this node is in a swarm, its manager and agent start in the background.
    ///
    /// The ports of the tasks it was running are published when this returns (a held network included). Fails only when
    /// the directory cannot be used; a damaged swarm state makes the node `error`.
    pub async fn open(config: SwarmNodeConfig) -> Result<Self, SwarmError> {
        let node = Self {
            inner: Arc::new(Inner {
                config,
                turn: Semaphore::new(1),
                part: Mutex::default(),
                settled: Notify::new(),
            }),
        };
        match Membership::load(&node.inner.config.directory) {
            Ok(None) => {
                // What a founding that was cut short left behind.
                Membership::wipe(&node.inner.config.directory)
                    .map_err(|error| requests::failed("clear the swarm's directory", error))?;
            }
            Ok(Some(membership)) => node.start(membership, None).await?,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the swarm's state cannot be used");
                node.part().error = requests::chain(&error);
            }
        }
        Ok(node)
    }

    fn part(&self) -> MutexGuard<'_, Part> {
        self.inner.part.lock().expect("nothing panics while it holds this lock")
    }

    /// Starts agent and manager of a member; `manager` is there already when the swarm was just founded.
    async fn start(&self, membership: Membership, manager: Option<Manager>) -> Result<(), SwarmError> {
        let config = &self.inner.config;
        let facts = NodeFacts { id: membership.node_id.as_str().into(), description: describe(config) };
        let files = WorkerFiles::open(config.directory.join("worker"))
            .map_err(|error| requests::failed("open the directory of this node's tasks", error))?;
        let containers = EngineContainers::new(config.engine.clone(), facts.clone());
        let agent = Agent::<_, LocalManager>::open(containers, files)
            .await
            .map_err(|error| requests::failed("read this node's tasks", error))?;
        let stopping = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (link, links) = watch::channel(None);
        tasks.spawn(agent.run(links, stopping.clone()));
        *self.part() = Part { membership: Some(membership.clone()), ..Part::default() };
        let manager_config = self.manager_config(&membership);
        let node = self.clone();
        let tell = move |standing| node.stand(standing, &membership, &facts, &link);
        if let Some(manager) = &manager {
            tell(Standing::Runs(manager.clone()));
        }
        tasks.spawn(keep_manager::keep(manager_config, manager, tell, stopping.clone()));
        self.part().running = Some(Running { stopping, tasks });
        Ok(())
    }

    /// Waits until the manager of a member is there or will not come; returns at once when nothing is awaited.
    pub async fn settled(&self) {
        loop {
            let rung = self.inner.settled.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if self.local_state().state != LocalNodeState::Pending {
                return;
            }
            rung.await;
        }
    }

    /// Shows a changed standing of this node's manager to requests and to the agent.
    fn stand(
        &self,
        standing: Standing,
        membership: &Membership,
        facts: &NodeFacts,
        link: &watch::Sender<Option<LocalManager>>,
    ) {
        let (manager, error) = match standing {
            Standing::Runs(manager) => (Some(manager), String::new()),
            Standing::IsDown(error) => (None, error),
        };
        link.send_replace(manager.clone().map(|manager| LocalManager {
            manager,
            node: facts.id.clone(),
            description: facts.description.clone(),
            address: membership.node_addr.clone(),
        }));
        let mut part = self.part();
        (part.manager, part.error) = (manager, error);
        drop(part);
        self.inner.settled.notify_waiters();
    }

    fn manager_config(&self, membership: &Membership) -> ManagerConfig {
        ManagerConfig {
            directory: self.inner.config.directory.join("raft"),
            node: membership.node_id.as_str().into(),
            raft_id: membership.raft_id,
            address: membership.control_addr.clone(),
        }
    }

    /// Founds a swarm with this node as its manager; returns the node's id.
    pub async fn init(&self, request: InitRequest) -> Result<String, SwarmError> {
        let _turn = self.turn().await?;
        if self.is_member() {
            return Err(SwarmError::AlreadyInSwarm);
        }
        let config = &self.inner.config;
        let draft = found::draft(&request, config)?;
        Membership::wipe(&config.directory)
            .map_err(|error| requests::failed("clear the swarm's directory", error))?;
        let membership = draft.membership.clone();
        let founded = self.found(draft).await;
        let manager = match founded {
            Ok(manager) => manager,
            Err(error) => {
                // Nothing of it is a swarm before `state.json` is there.
                if let Err(error) = Membership::wipe(&config.directory) {
                    tracing::warn!(%error, "a founding that failed left files behind");
                }
                return Err(error);
            }
        };
        let id = membership.node_id.clone();
        self.start(membership, Some(manager)).await?;
        Ok(id)
    }

    async fn found(&self, draft: found::Draft) -> Result<Manager, SwarmError> {
        let directory = &self.inner.config.directory;
        std::fs::DirBuilder::new()
            .recursive(true)
            .create(directory)
            .map_err(|error| requests::failed("make the swarm's directory", error))?;
        draft
            .files
            .save(&directory.join("certificates"))
            .map_err(|error| requests::failed("keep this node's certificate", error))?;
        let manager = Manager::found(self.manager_config(&draft.membership), draft.founding)
            .await
            .map_err(|error| requests::failed("found the swarm", error))?;
        if let Err(error) = draft.membership.save(directory) {
            manager.stop().await;
            return Err(requests::failed("keep this node's membership", error));
        }
        Ok(manager)
    }

    /// Joins a swarm.
    pub async fn join(&self, request: JoinRequest) -> Result<(), SwarmError> {
        let _turn = self.turn().await?;
        if self.is_member() {
            return Err(SwarmError::AlreadyInSwarm);
        }
        if request.remote_addrs.is_empty() {
            return Err(SwarmError::InvalidRequest {
                reason: "at least 1 RemoteAddr is required to join".to_owned(),
            });
        }
        if request.join_token.parse::<pki::JoinToken>().is_err() {
            return Err(SwarmError::InvalidRequest { reason: "invalid join token".to_owned() });
        }
        Err(SwarmError::Unsupported { reason: "joining a swarm is not supported by this version".to_owned() })
    }

    /// Leaves the swarm: removes its containers from this machine and its state from the disk.
    pub async fn leave(&self, force: bool) -> Result<(), SwarmError> {
        let _turn = self.turn().await?;
        if !self.is_member() {
            return Err(SwarmError::NotPartOfSwarm);
        }
        if !force {
            return Err(SwarmError::LeaveNeedsForce { warning: requests::LAST_MANAGER_LEAVES.to_owned() });
        }
        self.stop_running().await;
        let config = &self.inner.config;
        remove_everything(&config.engine).await?;
        Membership::wipe(&config.directory)
            .map_err(|error| requests::failed("remove the swarm's directory", error))?;
        *self.part() = Part::default();
        Ok(())
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, SwarmError> {
        self.inner.turn.acquire().await.map_err(|_| SwarmError::ManagerNotReady)
    }

    fn is_member(&self) -> bool {
        let part = self.part();
        part.membership.is_some() || !part.error.is_empty()
    }

    async fn stop_running(&self) {
        let (running, manager) = {
            let mut part = self.part();
            (part.running.take(), part.manager.take())
        };
        if let Some(mut running) = running {
            running.stopping.cancel();
            while let Some(ended) = running.tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a part of the swarm node ended badly");
                }
            }
        }
        // One that was opened while it was being stopped.
        let late = self.part().manager.take();
        for manager in manager.into_iter().chain(late) {
            manager.stop().await;
        }
    }

    /// What `GET /info` and the `Swarm` header of `/_ping` say about this node; never waits.
    #[must_use]
    pub fn local_state(&self) -> LocalState {
        let part = self.part();
        let state = match (&part.membership, &part.manager) {
            _ if !part.error.is_empty() => LocalNodeState::Error,
            (None, _) => LocalNodeState::Inactive,
            (Some(_), None) => LocalNodeState::Pending,
            (Some(_), Some(_)) => LocalNodeState::Active,
        };
        let Some(membership) = &part.membership else {
            return LocalState { state, error: part.error.clone(), ..LocalState::default() };
        };
        LocalState {
            state,
            node_id: membership.node_id.clone(),
            node_addr: membership.node_addr.clone(),
            control_available: part.manager.is_some(),
            error: part.error.clone(),
            remote_managers: vec![Peer {
                node_id: membership.node_id.clone(),
                addr: membership.control_addr.clone(),
            }],
        }
    }

    /// The manager on this node, or Docker's words why there is none (503).
    pub fn manager(&self) -> Result<Manager, SwarmError> {
        let part = self.part();
        match (&part.manager, &part.membership) {
            (Some(manager), _) => Ok(manager.clone()),
            (None, Some(_)) => Err(SwarmError::ManagerNotReady),
            (None, None) if !part.error.is_empty() => Err(SwarmError::ManagerNotReady),
            (None, None) => Err(SwarmError::NotInSwarm),
        }
    }

    /// Stops manager and agent; containers stay.
    pub async fn stop(&self) {
        self.inner.turn.close();
        self.stop_running().await;
    }
}

/// Takes the ports of all services away and removes every container of a task: nobody is left who would.
async fn remove_everything(engine: &Engine) -> Result<(), SwarmError> {
    engine.network().unpublish_all_services().await;
    let mut removals = JoinSet::new();
    for state in engine.states() {
        if state.labels.contains_key(crate::container_spec::TASK_ID) {
            let engine = engine.clone();
            removals.spawn(async move { containers::remove(&engine, &state.id).await });
        }
    }
    let mut failed = None;
    while let Some(removed) = removals.join_next().await {
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed = Some(requests::failed("remove the swarm's containers", error)),
            Err(error) => failed = Some(requests::failed("remove the swarm's containers", error)),
        }
    }
    failed.map_or(Ok(()), Err)
}

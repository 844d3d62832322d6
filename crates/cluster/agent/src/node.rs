//! Membership of this node: founding, joining, unlocking, leaving, restart from disk.
//!
//! ```text
//!             init, join                      promoted, demoted: by the certificate alone (`keep_manager`)
//!  inactive ────────────► pending ─► active ──────────────────────────────────────────────► leave, removed ─► inactive
//!                start ──► locked ─unlock─┘
//! ```
//!
//! In: requests of the API, what is on disk. Out: a running agent, sessions and a manager, or none. One request at a time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use engine::Engine;
use manager::Manager;
use objects::NodeRole;
use pki::{LockedKeyFile, NodeFiles, StoredKey, UnlockKey};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::attachments::Attachments;
use crate::containers::EngineContainers;
use crate::describe::describe;
use crate::dispatcher::Dispatcher;
use crate::keep_manager::Standing;
use crate::keys::Keys;
use crate::member::{Gate, Member, Running};
use crate::placeholders::NodeFacts;
use crate::publish_logs::LogSource;
use crate::reconcile::Agent;
use crate::requests::{self, SwarmError};
use crate::serving::Serving;
use crate::state_file::{Membership, MembershipFile};
use crate::ties::Ties;
use crate::worker::WorkerFiles;
use crate::{address, farewell};

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
    /// The daemon's `--label`s (`key=value`) at its start.
    pub engine_labels: Vec<String>,
    /// The daemon's `--node-generic-resource`s.
    pub generic_resources: Vec<objects::GenericResource>,
    /// `--swarm-default-advertise-addr`.
    pub default_advertise_addr: Option<String>,
    /// Reads the logs of this node's tasks.
    pub logs: Arc<dyn LogSource>,
}

/// This node's part in a swarm. Cheap to clone.
#[derive(Clone)]
pub struct SwarmNode {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: SwarmNodeConfig,
    /// Held while this node enters or leaves a swarm.
    turn: Semaphore,
    part: Mutex<Part>,
    /// The manager that runs here; changed while `part` is held, so that both say the same.
    manager: watch::Sender<Option<Manager>>,
    /// The daemon's labels as they are now.
    labels: watch::Sender<Vec<String>>,
    /// Rung when something that is waited for has happened, or will not.
    pub(crate) settled: Notify,
    /// Rung when the swarm has removed this node.
    removed: Notify,
    /// What runs for as long as the daemon does.
    caretaker: Mutex<JoinSet<()>>,
}

/// This node's part.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) membership: Option<MembershipFile>,
    /// Of a member whose keys are open.
    pub(crate) ties: Option<Ties>,
    /// Of one whose keys are not.
    pub(crate) locked: Option<LockedKeyFile>,
    /// Whether a manager has taken this node since it started.
    pub(crate) was_taken: bool,
    /// Why a member cannot do its part.
    pub(crate) error: String,
    /// Attempts to join, which may go on for longer than the one who asked waits.
    pub(crate) joining: Option<Joining>,
    /// The keys of a member, while they are open.
    pub(crate) keys: Option<Keys>,
    agent: Option<RunningAgent>,
    running: Option<Running>,
    watchers: JoinSet<()>,
}

/// An attempt to join.
pub(crate) struct Joining {
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: JoinSet<()>,
    /// Why it has not come about yet.
    pub(crate) trouble: String,
    /// Whether it goes on though nobody waits for it any more.
    pub(crate) goes_on: bool,
}

/// The agent at work.
struct RunningAgent {
    stopping: CancellationToken,
    tasks: JoinSet<()>,
    gate: watch::Sender<Option<Dispatcher>>,
    attachments: Attachments,
}

impl SwarmNode {
    /// Reads `state.json`; when this node is in a swarm, its agent starts, and what it needs to talk to the managers in
    /// the background.
    ///
    /// The ports of the tasks it was running are published when this returns (a held network included). Fails only when
    /// the directory cannot be used; a damaged swarm state makes the node `error`.
    pub async fn open(config: SwarmNodeConfig) -> Result<Self, SwarmError> {
        let labels = watch::Sender::new(config.engine_labels.clone());
        let node = Self {
            inner: Arc::new(Inner {
                config,
                turn: Semaphore::new(1),
                part: Mutex::default(),
                manager: watch::Sender::new(None),
                labels,
                settled: Notify::new(),
                removed: Notify::new(),
                caretaker: Mutex::default(),
            }),
        };
        node.caretaker().spawn(node.clone().clean_up_after_removal());
        let directory = &node.inner.config.directory;
        match Membership::load(directory) {
            Ok(None) => node.go_on_joining()?,
            Ok(Some(membership)) => node.reopen(membership).await?,
            Err(error) => node.show_error(&error),
        }
        Ok(node)
    }

    fn caretaker(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.inner.caretaker.lock().expect("nothing panics while it holds this lock")
    }

    pub(crate) fn part(&self) -> MutexGuard<'_, Part> {
        self.inner.part.lock().expect("nothing panics while it holds this lock")
    }

    pub(crate) fn show_error(&self, error: &(dyn std::error::Error + 'static)) {
        tracing::error!(error, "the swarm's state cannot be used");
        self.part().error = requests::chain(error);
        self.inner.settled.notify_waiters();
    }

    /// Goes on as the member that this node was.
    async fn reopen(&self, mut membership: Membership) -> Result<(), SwarmError> {
        let config = &self.inner.config;
        self.forget_unfinished();
        let is_moved = address::refresh(&mut membership, config.default_advertise_addr.as_deref()).await;
        if is_moved {
            tracing::info!(address = membership.node_addr, "this node has another address than before");
            membership
                .save(&config.directory)
                .map_err(|error| requests::failed("keep this node's membership", error))?;
        }
        let membership = MembershipFile::new(&config.directory, membership);
        self.start_agent(&membership).await?;
        let certificates = config.directory.join("certificates");
        match StoredKey::load(&certificates) {
            Ok(Some(StoredKey::Open(file))) => {
                self.start_open(&membership, Keys::new(certificates, file, None));
            }
            Ok(Some(StoredKey::Locked(locked))) => {
                tracing::warn!("this manager is locked: it needs its swarm's unlock key");
                self.part().locked = Some(locked);
            }
            Ok(None) => self.show_error(&MissingFile { what: "key" }),
            Err(error) => self.show_error(&error),
        }
        Ok(())
    }

    /// Starts what a member runs even when it can talk to nobody.
    pub(crate) async fn start_agent(&self, membership: &MembershipFile) -> Result<(), SwarmError> {
        let config = &self.inner.config;
        let known = membership.get();
        let description = describe(config, &self.inner.labels.borrow());
        let facts = NodeFacts { id: known.node_id.as_str().into(), description };
        let files = WorkerFiles::open(config.directory.join("worker"))
            .map_err(|error| requests::failed("open the directory of this node's tasks", error))?;
        let (gate, dispatcher) = watch::channel(None);
        let containers = EngineContainers::new(config.engine.clone(), facts);
        let attachments = Attachments::default();
        let agent = Agent::open(containers, files, Gate { dispatcher }, attachments.clone())
            .await
            .map_err(|error| requests::failed("read this node's tasks", error))?;
        let stopping = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(agent.run(stopping.clone()));
        let mut part = self.part();
        part.membership = Some(membership.clone());
        part.agent = Some(RunningAgent { stopping, tasks, gate, attachments });
        Ok(())
    }

    /// Starts everything else of a member whose keys are open and whose agent runs. A failure makes the node `error`.
    pub(crate) fn start_open(&self, membership: &MembershipFile, keys: Keys) {
        match self.member_on_disk(membership, keys) {
            Ok(member) => self.start_member(member, None),
            Err(error) => self.show_error(&error),
        }
    }

    /// The member whose files are on disk, and whose keys are open.
    pub(crate) fn member_on_disk(
        &self,
        membership: &MembershipFile,
        keys: Keys,
    ) -> Result<Member, SwarmError> {
        let directory = &self.inner.config.directory;
        let failed = |error| requests::failed("read this node's certificate", error);
        let files = NodeFiles::load(&directory.join("certificates"))
            .map_err(|error| requests::failed("read this node's certificate", error))?
            .ok_or_else(|| {
                requests::failed("read this node's certificate", MissingFile { what: "certificate" })
            })?;
        Member::new(directory, membership.clone(), keys, files).map_err(failed)
    }

    pub(crate) fn start_member(&self, member: Member, first: Option<Serving>) {
        let (ties, keys) = (member.premises.ties.clone(), member.premises.keys.clone());
        let tell = {
            let (node, ties) = (self.clone(), ties.clone());
            move |standing| node.stand(standing, &ties)
        };
        if let Some(serving) = &first {
            tell(Standing::Runs(serving.manager.clone()));
        }
        let running = member.start(self.inner.config.clone(), self.inner.labels.subscribe(), first, tell);
        let mut part = self.part();
        part.watchers.spawn(self.clone().watch_sessions(ties.clone()));
        part.watchers.spawn(self.clone().watch_removal(ties.clone()));
        if let Some(agent) = &part.agent {
            agent.gate.send_replace(Some(Dispatcher::new(ties.clone())));
        }
        (part.ties, part.keys) = (Some(ties), Some(keys));
        part.locked = None;
        part.running = Some(running);
    }

    /// The way to the managers, and the containers that wait for places on networks; `None` outside of a swarm.
    pub(crate) fn gate(&self) -> Option<(Gate, Attachments)> {
        let part = self.part();
        let agent = part.agent.as_ref()?;
        Some((Gate { dispatcher: agent.gate.subscribe() }, agent.attachments.clone()))
    }

    /// Notes that a manager took this node.
    async fn watch_sessions(self, ties: Ties) {
        // The sender lives in `ties`.
        let _ = ties.session.subscribe().wait_for(Option::is_some).await;
        self.part().was_taken = true;
        self.inner.settled.notify_waiters();
    }

    async fn watch_removal(self, ties: Ties) {
        ties.removed.cancelled().await;
        self.inner.removed.notify_one();
    }

    /// Shows a changed standing of this node's manager to requests and to the agent.
    fn stand(&self, standing: Standing, ties: &Ties) {
        let (manager, error) = match standing {
            Standing::Runs(manager) => (Some(manager), String::new()),
            Standing::IsDown(error) => (None, error),
            Standing::IsWorker | Standing::IsJoining => (None, String::new()),
        };
        let mut part = self.part();
        part.error = error;
        self.inner.manager.send_replace(manager.clone());
        drop(part);
        ties.own.send_replace(manager);
        self.inner.settled.notify_waiters();
    }

    /// Waits until it shows whether this member can do its part; returns at once when nothing is awaited.
    pub async fn settled(&self) {
        self.until(|node| node.local_state().state != requests::LocalNodeState::Pending).await;
    }

    /// Waits until `is_so`, looking whenever something has changed.
    pub(crate) async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let rung = self.inner.settled.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if is_so(self) {
                return;
            }
            rung.await;
        }
    }

    /// The manager that runs here, now and whenever that changes.
    #[must_use]
    pub fn managers(&self) -> watch::Receiver<Option<Manager>> {
        self.inner.manager.subscribe()
    }

    /// The manager that runs here at this moment.
    pub(crate) fn own_manager(&self) -> Option<Manager> {
        self.inner.manager.borrow().clone()
    }

    /// Takes the daemon's labels (`key=value`), which may be configured anew while it runs.
    pub fn set_labels(&self, labels: Vec<String>) {
        self.inner.labels.send_replace(labels);
    }

    /// Unlocks a locked manager, which starts in the background then.
    ///
    /// Errors: `NotLocked`, `MalformedUnlockKey`, `WrongUnlockKey`, `NotInSwarm`.
    pub async fn unlock(&self, request: requests::UnlockRequest) -> Result<(), SwarmError> {
        let _turn = self.turn().await?;
        let (locked, membership) = {
            let part = self.part();
            if part.membership.is_none() && part.error.is_empty() {
                return Err(SwarmError::NotInSwarm);
            }
            (part.locked.clone(), part.membership.clone())
        };
        let (Some(locked), Some(membership)) = (locked, membership) else {
            return Err(SwarmError::NotLocked);
        };
        let key: UnlockKey =
            request.unlock_key.parse().map_err(|pki::MalformedUnlockKey| SwarmError::MalformedUnlockKey)?;
        let file = locked.unlock(&key).map_err(|pki::WrongUnlockKey| SwarmError::WrongUnlockKey)?;
        let certificates = self.inner.config.directory.join("certificates");
        self.start_open(&membership, Keys::new(certificates, file, Some(key)));
        Ok(())
    }

    /// Leaves the swarm: removes its containers from this machine and its state from the disk.
    ///
    /// Errors: `NotPartOfSwarm`; without `force`, `LeaveLocked` and `LeaveNeedsForce` (a manager always needs it).
    pub async fn leave(&self, force: bool) -> Result<(), SwarmError> {
        let _turn = self.turn().await?;
        if !self.is_member() {
            return Err(SwarmError::NotPartOfSwarm);
        }
        if !force {
            self.may_leave()?;
        }
        let ties = self.part().ties.clone();
        if let Some(ties) = &ties {
            farewell::leave(ties, self.own_manager().as_ref()).await;
        }
        self.forget_everything().await
    }

    /// Refuses a departure that somebody should think about.
    fn may_leave(&self) -> Result<(), SwarmError> {
        let part = self.part();
        if part.locked.is_some() {
            return Err(SwarmError::LeaveLocked);
        }
        let is_manager = part.ties.as_ref().is_some_and(|ties| ties.credentials.role() == NodeRole::Manager);
        let warning = match self.own_manager() {
            Some(manager) => manager.may_leave().err().map(|warning| warning.to_string()),
            None => is_manager.then(|| requests::INACTIVE_MANAGER_LEAVES.to_owned()),
        };
        warning.map_or(Ok(()), |warning| Err(SwarmError::LeaveNeedsForce { warning }))
    }

    /// Stops everything, removes this node's containers, then its state.
    async fn forget_everything(&self) -> Result<(), SwarmError> {
        self.stop_running().await;
        let config = &self.inner.config;
        farewell::remove_containers(&config.engine).await?;
        Membership::wipe(&config.directory)
            .map_err(|error| requests::failed("remove the swarm's directory", error))?;
        *self.part() = Part::default();
        self.inner.settled.notify_waiters();
        Ok(())
    }

    /// Waits for the swarm to remove this node, and leaves nothing of it behind then.
    async fn clean_up_after_removal(self) {
        loop {
            self.inner.removed.notified().await;
            let Ok(_turn) = self.turn().await else { return };
            let is_removed = self.part().ties.as_ref().is_some_and(|ties| ties.removed.is_cancelled());
            if !is_removed {
                continue;
            }
            tracing::warn!("this node has been removed from the swarm: its tasks are stopped");
            if let Err(error) = self.forget_everything().await {
                self.show_error(&error);
            }
        }
    }

    pub(crate) async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, SwarmError> {
        self.inner.turn.acquire().await.map_err(|_| SwarmError::ManagerNotReady)
    }

    pub(crate) fn is_member(&self) -> bool {
        let part = self.part();
        part.membership.is_some() || part.joining.is_some() || !part.error.is_empty()
    }

    /// Stops everything of a member; containers go on.
    pub(crate) async fn stop_running(&self) {
        let joining = self.part().joining.take();
        if let Some(joining) = joining {
            joining.stopping.cancel();
            wait_for_all(joining.tasks, "joining the swarm").await;
        }
        let (agent, running, mut watchers) = {
            let mut part = self.part();
            (part.agent.take(), part.running.take(), std::mem::take(&mut part.watchers))
        };
        watchers.shutdown().await;
        if let Some(agent) = agent {
            agent.stop().await;
        }
        if let Some(running) = running {
            running.stop().await;
        }
        let mut part = self.part();
        (part.ties, part.keys) = (None, None);
        self.inner.manager.send_replace(None);
    }

    /// Announces that this node comes back, and stops the agent: from then on no container is started or stopped for the
    /// swarm. To be followed by [`Self::stop`].
    pub async fn stop_agent(&self) {
        self.inner.turn.close();
        let (ties, agent) = {
            let mut part = self.part();
            (part.ties.clone(), part.agent.take())
        };
        let Some(agent) = agent else { return };
        if let Some(ties) = &ties {
            farewell::hold(ties).await;
        }
        agent.stop().await;
    }

    /// Stops manager and agent; containers stay.
    pub async fn stop(&self) {
        self.stop_agent().await;
        let mut caretaker = std::mem::take(&mut *self.caretaker());
        caretaker.shutdown().await;
        self.stop_running().await;
    }
}

impl RunningAgent {
    async fn stop(self) {
        self.stopping.cancel();
        wait_for_all(self.tasks, "the agent").await;
    }
}

/// A file of a member that should be there.
#[derive(Debug, thiserror::Error)]
#[error("this node's {what} is missing; restore it, or leave the swarm with `--force` and join it again")]
struct MissingFile {
    what: &'static str,
}

async fn wait_for_all(mut tasks: JoinSet<()>, what: &'static str) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, what, "a part of the swarm node ended badly");
        }
    }
}

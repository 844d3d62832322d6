//! What the agent asks of the engine, and the engine's answers: the seam that its tests put a small fake into.
//!
//! In: tasks. Out: containers, their states, failures with the text that `service ps` shows. Never decides.

use std::future::Future;
use std::sync::Arc;

use docker::{ContainerCreateRequest, ContainerCreateResponse, PortMap};
use engine::{
    ContainerState, Engine, EngineError, ErrorKind, RemoveOptions, StateChange, StateChanges, Status,
    StopOptions,
};
use objects::{NodeId, PortConfig, PublishMode, Task, TaskId};
use tokio_util::task::TaskTracker;
use wire::Hidden;
use wire::session::Assignments;

use crate::container_spec::{self, NODE_ID, TASK_ID};
use crate::placeholders::NodeFacts;
use crate::pull::Puller;

/// A container of a task as it is now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) task: TaskId,
    pub(crate) state: Arc<ContainerState>,
}

/// What changed.
#[derive(Debug)]
pub(crate) enum Seen {
    /// This container is now so.
    Changed(Found),
    /// A container of no task, with this id, is now otherwise.
    Plain(String),
    /// Changes were missed: look at all containers.
    Missed,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    /// Docker's text, with its causes.
    pub(crate) text: String,
    /// Whether it may work a second later.
    pub(crate) is_passing: bool,
}

/// The containers of this machine, as the agent needs them.
pub(crate) trait Containers: Clone + Send + Sync + 'static {
    /// Follows changes; nothing from now on is missed.
    type Watch: Watch;

    /// Starts to follow.
    fn watch(&self) -> Self::Watch;
    /// All containers of this node's tasks.
    fn all(&self) -> Vec<Found>;
    /// The container of a task as it is at this moment.
    fn find(&self, task: &Task) -> Option<Arc<ContainerState>>;
    /// Pulls the task's image if it has to be; why not, when it could not be had.
    fn pull(&self, task: Arc<Task>, registry_auth: Hidden)
    -> impl Future<Output = Result<(), String>> + Send;
    /// Makes the container; one that is there already will do. What came of the pull explains a missing image.
    fn prepare(
        &self,
        task: Arc<Task>,
        pulled: Result<(), String>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Waits for the end of what `prepare` began and nobody waits for any more. Whoever calls it prepares nothing after.
    fn settle(&self) -> impl Future<Output = ()> + Send;
    /// Starts a container; one that runs already will do.
    fn start(&self, id: String) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Stops a container and waits for its end; `None` takes its own grace.
    fn stop(
        &self,
        id: String,
        grace_seconds: Option<i64>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Removes a container, running or not, with its anonymous volumes.
    fn remove(&self, id: String) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Host-mode ports of a running container with the numbers they got.
    fn ports(
        &self,
        id: String,
        task: Arc<Task>,
    ) -> impl Future<Output = Result<Vec<PortConfig>, Failure>> + Send;
    /// Passes on what a manager said of networks; when this returns, containers can be attached to them.
    fn networks(&self, told: Assignments) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A stream of changes.
pub(crate) trait Watch: Send + 'static {
    /// The next change; `None` when there will be none any more. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Seen>> + Send;
}

/// The engine of this machine.
#[derive(Clone)]
pub(crate) struct EngineContainers {
    engine: Engine,
    node: Arc<NodeFacts>,
    puller: Puller,
    /// Containers that are being made.
    creations: TaskTracker,
}

impl EngineContainers {
    pub(crate) fn new(engine: Engine, node: NodeFacts) -> Self {
        let puller = Puller::new(engine.images().clone());
        Self { engine, node: Arc::new(node), puller, creations: TaskTracker::new() }
    }

    /// The engine makes a container to the end even when nobody waits any more: what it has begun can be waited for.
    async fn create(&self, request: ContainerCreateRequest) -> Result<ContainerCreateResponse, EngineError> {
        let engine = self.engine.clone();
        let created = self.creations.spawn(async move { engine.create(request).await }).await;
        created.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(EngineError::ShuttingDown),
        })
    }
}

/// Follows the containers of one node's tasks.
pub(crate) struct EngineWatch {
    changes: StateChanges,
    node: NodeId,
}

impl Watch for EngineWatch {
    async fn next(&mut self) -> Option<Seen> {
        Some(match self.changes.next().await? {
            StateChange::Missed => Seen::Missed,
            StateChange::Changed(state) => {
                let id = state.id.clone();
                found(state, &self.node).map_or(Seen::Plain(id), Seen::Changed)
            }
        })
    }
}

fn found(state: Arc<ContainerState>, node: &NodeId) -> Option<Found> {
    let is_ours = state.labels.get(NODE_ID).is_some_and(|found| found == node.as_str());
    let task = state.labels.get(TASK_ID).filter(|_| is_ours)?;
    Some(Found { task: TaskId::from(task.as_str()), state })
}

impl Containers for EngineContainers {
    type Watch = EngineWatch;

    fn watch(&self) -> EngineWatch {
        EngineWatch { changes: self.engine.watch(), node: self.node.id.clone() }
    }

    fn all(&self) -> Vec<Found> {
        self.engine.states().into_iter().filter_map(|state| found(state, &self.node.id)).collect()
    }

    fn find(&self, task: &Task) -> Option<Arc<ContainerState>> {
        match &task.spec.network_attachment_spec {
            Some(attachment) => self.engine.state(&attachment.container_id),
            None => self.engine.state(&task.name()),
        }
    }

    async fn pull(&self, task: Arc<Task>, registry_auth: Hidden) -> Result<(), String> {
        match &task.spec.container_spec {
            Some(spec) => self.puller.pull(&spec.image, registry_auth.reveal()).await,
            None => Ok(()),
        }
    }

    async fn prepare(&self, task: Arc<Task>, pulled: Result<(), String>) -> Result<(), Failure> {
        for attachment in &task.networks_attachments {
            let checked = self.engine.network().check_encryption(attachment.network.as_str()).await;
            checked.map_err(|error| permanent(&error))?;
        }
        let request = container_spec::request(&task, &self.node).map_err(|error| permanent(&error))?;
        match self.create(request).await {
            Ok(_) => Ok(()),
            // Ours, unless it is on its way out or not made to the end; then the name is free soon.
            Err(EngineError::NameInUse { .. }) if self.find(&task).is_some_and(|state| is_there(&state)) => {
                Ok(())
            }
            Err(error @ EngineError::NameInUse { .. }) => {
                Err(Failure { is_passing: true, ..permanent(&error) })
            }
            // The engine only knows that there is no image; the pull knows why.
            Err(EngineError::NoSuchImage(reference)) => {
                let text = match pulled {
                    Err(cause) => format!("No such image: {reference}: {cause}"),
                    Ok(()) => format!("No such image: {reference}"),
                };
                Err(Failure { text, is_passing: false })
            }
            Err(error) => Err(failure(&error)),
        }
    }

    async fn settle(&self) {
        self.creations.close();
        self.creations.wait().await;
    }

    async fn start(&self, id: String) -> Result<(), Failure> {
        match self.engine.start(&id).await {
            Ok(()) | Err(EngineError::NotModified) => Ok(()),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn stop(&self, id: String, grace_seconds: Option<i64>) -> Result<(), Failure> {
        match self.engine.stop(&id, StopOptions { signal: None, timeout: grace_seconds }).await {
            Ok(()) | Err(EngineError::NotModified | EngineError::NoSuchContainer(_)) => Ok(()),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn remove(&self, id: String) -> Result<(), Failure> {
        remove(&self.engine, &id).await
    }

    async fn ports(&self, id: String, task: Arc<Task>) -> Result<Vec<PortConfig>, Failure> {
        let inspected = self.engine.inspect(&id, false).await.map_err(|error| failure(&error))?;
        Ok(bound(&inspected.network_settings.ports, &task))
    }

    async fn networks(&self, told: Assignments) -> Result<(), Failure> {
        self.engine.network().tell(&self.node.id, told).await.map_err(|error| permanent(&error))
    }
}

/// Removes a container as [`Containers::remove`] does.
pub(crate) async fn remove(engine: &Engine, id: &str) -> Result<(), Failure> {
    match engine.remove(id, RemoveOptions { force: true, volumes: true }).await {
        Ok(()) | Err(EngineError::NoSuchContainer(_)) => Ok(()),
        Err(error) => Err(failure(&error)),
    }
}

/// The task's host-mode ports with the numbers the engine bound them to.
fn bound(ports: &PortMap, task: &Task) -> Vec<PortConfig> {
    let host = task.internal.ports.iter().filter(|port| port.publish_mode == PublishMode::Host);
    host.filter_map(|port| {
        let bindings = ports.get(&format!("{}/{}", port.target_port, port.protocol.as_str()))?.as_ref()?;
        let published_port = bindings.iter().find_map(|binding| binding.host_port.parse().ok())?;
        Some(PortConfig { published_port, ..port.clone() })
    })
    .collect()
}

/// An engine's refusal; one that comes of a daemon going down says nothing about the task.
fn failure(error: &EngineError) -> Failure {
    Failure { is_passing: error.kind() == ErrorKind::Unavailable, ..permanent(error) }
}

fn permanent(error: &dyn std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    Failure { text, is_passing: false }
}

fn is_there(state: &ContainerState) -> bool {
    as_decided(Some(state)) != lifecycle::task::Container::Absent
}

/// A container's state as decisions see it.
pub(crate) fn as_decided(state: Option<&ContainerState>) -> lifecycle::task::Container<'_> {
    use lifecycle::task::Container;
    let Some(state) = state else { return Container::Absent };
    match state.status {
        Status::Created => Container::Created,
        Status::Running | Status::Paused | Status::Restarting => Container::Running { health: state.health },
        Status::Exited if state.went_with_machine => Container::Lost,
        Status::Exited => Container::Ended { exit_code: state.exit_code, cause: &state.error },
        Status::Removing | Status::Removed => Container::Absent,
    }
}

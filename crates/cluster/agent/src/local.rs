//! What the agent remembers of one task: what is wanted, what was observed, what is under way.

use std::sync::Arc;
use std::time::Duration;

use engine::{ContainerState, Status};
use lifecycle::task::{self, Operation, Step, View};
use objects::{ContainerStatus, PortConfig, PublishMode, Task, TaskState, TaskStatus, Timestamp};
use tokio_util::sync::CancellationToken;
use wire::Hidden;

use crate::attachments::Attachments;
use crate::containers::{Failure, as_decided};
use crate::worker::Kept;

/// How long a task that is stopped goes on after it left names and load balancing.
///
/// chosen: twice the half second within which every node follows (Docker: a fixed 2 s; source: moby,
/// `daemon/cluster/executor/container/controller.go`).
const DRAIN: Duration = Duration::from_secs(1);

/// The numbers of a running task's host ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Ports {
    #[default]
    Unknown,
    UnderWay,
    Known(Vec<PortConfig>),
}

/// One task on this node.
pub(crate) struct Local {
    pub(crate) task: Arc<Task>,
    /// The registry's credentials; in memory only.
    pub(crate) registry_auth: Hidden,
    pub(crate) status: TaskStatus,
    /// What the manager knows.
    pub(crate) reported: TaskState,
    pub(crate) container: Option<Arc<ContainerState>>,
    pub(crate) operation: Option<Operation>,
    pub(crate) cancel: CancellationToken,
    pub(crate) failure: Option<Failure>,
    pub(crate) was_unhealthy: bool,
    pub(crate) ports: Ports,
    /// Set when it left the assignments: its container goes.
    pub(crate) is_leaving: bool,
    pub(crate) is_being_removed: bool,
}

impl Local {
    pub(crate) fn new(
        task: Arc<Task>,
        registry_auth: Hidden,
        container: Option<Arc<ContainerState>>,
    ) -> Self {
        Self {
            status: task.status.clone(),
            reported: task.status.state,
            task,
            registry_auth,
            container,
            operation: None,
            cancel: CancellationToken::new(),
            failure: None,
            was_unhealthy: false,
            ports: Ports::Unknown,
            is_leaving: false,
            is_being_removed: false,
        }
    }

    /// What of it outlives the daemon.
    pub(crate) fn kept(&self) -> Kept {
        Kept { task: Arc::clone(&self.task), was_unhealthy: self.was_unhealthy }
    }

    /// Takes a newer version of the task; whether anything about it is to be kept on disk.
    pub(crate) fn take(&mut self, task: Arc<Task>, registry_auth: Hidden) -> bool {
        self.registry_auth = registry_auth;
        self.is_leaving = false;
        // A manager that is behind has nothing to say: what is wanted only grows.
        if task.desired_state < self.task.desired_state {
            return false;
        }
        self.reported = task.status.state;
        if task.status.state >= self.status.state {
            self.status = task.status.clone();
        }
        let is_news =
            task.desired_state != self.task.desired_state || task.internal.ports != self.task.internal.ports;
        self.task = task;
        is_news
    }

    /// The next step, by the state machine alone.
    pub(crate) fn next(&self, attachments: &Attachments) -> Step {
        if let Some(attachment) = &self.task.spec.network_attachment_spec {
            let is_held = attachments.is_held(&attachment.container_id);
            let (desired, observed) = (self.task.desired_state, self.status.state);
            return lifecycle::attachment::next(desired, observed, self.is_on_its_network(), is_held);
        }
        task::next(&View {
            desired: self.task.desired_state,
            observed: self.status.state,
            container: as_decided(self.container.as_deref()),
            operation: self.operation,
            failure: self
                .failure
                .as_ref()
                .map(|failure| task::Failure { text: &failure.text, is_passing: failure.is_passing }),
            was_unhealthy: self.was_unhealthy,
        })
    }

    /// Goes to a later state.
    pub(crate) fn become_state(
        &mut self,
        state: TaskState,
        message: Option<&str>,
        error: String,
        now: Timestamp,
    ) {
        self.failure = None;
        self.status.state = state;
        self.status.timestamp = now;
        self.status.err = error;
        if let Some(message) = message {
            self.status.message = message.to_owned();
        }
        self.note_container();
        tracing::debug!(task.id = %self.task.id, state = state.as_str(), error = self.status.err, "task");
    }

    /// Brings the status up to date with the container.
    pub(crate) fn note_container(&mut self) {
        if let Some(container) = &self.container {
            self.status.container_status = Some(ContainerStatus {
                container_id: container.id.clone(),
                pid: container.pid.map_or(0, i64::from),
                exit_code: container.exit_code,
            });
        }
        if let Ports::Known(ports) = &self.ports {
            self.status.port_status.ports.clone_from(ports);
        }
    }

    /// Whether its container runs.
    pub(crate) fn is_up(&self) -> bool {
        matches!(as_decided(self.container.as_deref()), task::Container::Running { .. })
    }

    /// Whether the container that this attachment stands for is on its network, or will be again by itself.
    fn is_on_its_network(&self) -> bool {
        let Some(container) = self.container.as_deref().filter(|_| self.is_up()) else { return false };
        let mut places = self.task.networks_attachments.iter();
        container.status == Status::Restarting
            || places.any(|place| container.networks.iter().any(|id| id == place.network.as_str()))
    }

    /// Whether the numbers of its host ports are to be asked for.
    pub(crate) fn needs_ports(&self) -> bool {
        self.status.state == TaskState::Running
            && self.is_up()
            && self.operation.is_none()
            && !self.is_leaving
            && self.ports == Ports::Unknown
            && self.has_host_ports()
    }

    fn has_host_ports(&self) -> bool {
        self.task.internal.ports.iter().any(|port| port.publish_mode == PublishMode::Host)
    }

    /// How long it still serves after everybody was told to turn to others: not at all where nobody was.
    pub(crate) fn drain(&self) -> Duration {
        let is_known = !self.task.networks_attachments.is_empty() && self.is_up();
        if is_known && self.task.desired_state > TaskState::Running { DRAIN } else { Duration::ZERO }
    }

    /// Whether the manager should hear of it now. That it runs is said with its ports.
    pub(crate) fn has_news(&self) -> bool {
        let is_held = self.status.state == TaskState::Running
            && self.is_up()
            && self.has_host_ports()
            && !matches!(self.ports, Ports::Known(_));
        self.status.state > self.reported && !is_held
    }
}

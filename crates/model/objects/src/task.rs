//! A task: one run of a service's container, on one node, once.
//!
//! In: what managers want and what agents observe. Out: the task with the newer of both. An observed state only ever
//! grows, and so does a desired one.

use std::sync::Arc;

use crate::json::{object, shape};
use crate::names::words;
use crate::{
    Driver, EndpointSpec, GenericResource, Labels, Nanos, Network, NetworkId, NodeId, PortConfig, ServiceId,
    TaskId, TaskSpec, Timestamp, Version,
};

object! {
    /// One run of a service's container.
    pub struct Task {
        /// A name given by a user; the usual one is [`Task::name`].
        pub name: String,
        /// The service; empty for an attachment of a plain container.
        #[serde(rename = "ServiceID")]
        pub service_id: ServiceId,
        /// Place among the replicas, from 1; zero for global services.
        pub slot: u64,
        /// The node; empty until the scheduler chose one.
        #[serde(rename = "NodeID")]
        pub node_id: NodeId,
        /// Networks of the swarm with the task's addresses, in the order of its interfaces; given before it is ASSIGNED.
        pub networks_attachments: Vec<NetworkAttachment>,
        /// Countable things the task was given.
        pub generic_resources: Vec<GenericResource>,
        /// Run of the job it belongs to.
        pub job_iteration: Option<Version>,
        always {
            /// Id of the task.
            #[serde(rename = "ID")]
            pub id: TaskId,
            /// Labels of the task object; not those of the service.
            pub labels: Labels,
            /// What should run; tasks of one service share it.
            pub spec: Arc<TaskSpec>,
            /// What was observed.
            pub status: TaskStatus,
            /// What is wanted.
            pub desired_state: TaskState,
            /// Cluster volumes; always null, as there are none yet.
            pub volumes: Option<Vec<serde_json::Value>>,
            /// What only managers and agents know.
            pub internal: TaskInternal,
        }
    }
}

shape! {
    /// What decisions about a task remember; never shown by the API.
    pub struct TaskInternal {
        /// Name of the service, for the name of the container.
        pub service_name: String,
        /// Counts the tasks of a slot: the newer one has the higher number, whatever the clocks of leaders say.
        pub generation: u64,
        /// Number of the service's spec that it was made from.
        pub spec_version: u64,
        /// The service's endpoint spec that it was made from.
        pub endpoint_spec: EndpointSpec,
        /// Published ports with their numbers; of them, those of host mode are the agent's to publish.
        pub ports: Vec<PortConfig>,
        /// Log driver with the cluster's default filled in; `None` is the node's.
        pub log_driver: Option<Driver>,
        /// When a manager took note of `status`.
        pub applied_at: Timestamp,
        /// When a manager took note of RUNNING; zero when it never ran.
        pub running_at: Timestamp,
        /// Set while the task waits at READY for its turn.
        pub start: Option<DelayedStart>,
        /// Earlier runs in the same slot (or on the same node, for global services).
        pub restarts: RestartHistory,
        /// Number of the rollout that made it; zero for tasks made otherwise.
        pub rollout: u64,
        /// Addresses that a plain container asks for on its network; any will do when there are none.
        pub asked_addresses: Vec<std::net::IpAddr>,
    }

    /// Why a task stays at READY.
    pub struct DelayedStart {
        always {
            /// Since when it waits; the limit for waiting for older tasks counts from here.
            pub since: Timestamp,
            /// Never starts earlier than this.
            pub delay: Nanos,
        }
    }

    /// Earlier runs in the same slot.
    pub struct RestartHistory {
        /// Restarts since the spec version changed.
        pub attempts: u64,
        /// The newest of them, oldest first.
        pub recent: Vec<Restart>,
    }

    /// One end of a task that was followed by a restart.
    pub struct Restart {
        always {
            /// When the replacement was made.
            pub at: Timestamp,
            /// Where the task had run.
            pub node: NodeId,
            /// Whether it had FAILED or was REJECTED.
            pub failed: bool,
        }
    }

    /// What was observed of a task.
    pub struct TaskStatus {
        /// The state in words.
        pub message: String,
        /// Why it failed, or why it cannot be placed.
        pub err: String,
        /// The container, once there is one.
        pub container_status: Option<ContainerStatus>,
        always {
            /// When it was observed.
            pub timestamp: Timestamp,
            /// How far it came.
            pub state: TaskState,
            /// Ports that the node published for it.
            pub port_status: PortStatus,
        }
    }

    /// The container of a task.
    #[derive(Eq)]
    pub struct ContainerStatus {
        always {
            /// Id of the container.
            #[serde(rename = "ContainerID")]
            pub container_id: String,
            /// Process id on its node; zero when it does not run.
            #[serde(rename = "PID")]
            pub pid: i64,
            /// Exit code; meaningful once the task ended.
            pub exit_code: i64,
        }
    }

    /// Ports that a node published for a task.
    pub struct PortStatus {
        /// The ports with their numbers.
        pub ports: Vec<PortConfig>,
    }

    /// A network of the swarm with a task's addresses on it. Docker's API shows the whole network in its place.
    pub struct NetworkAttachment {
        /// Addresses with prefix lengths, the one of IPv4 first.
        pub addresses: Vec<String>,
        always {
            /// The network.
            #[serde(rename = "NetworkID")]
            pub network: NetworkId,
        }
    }
}

words! {
    /// How far a task came, or should come. The order is the order of life.
    pub enum TaskState("invalid task state") {
        /// The object exists.
        #[default]
        New = "new",
        /// Ports and addresses are reserved.
        Pending = "pending",
        /// A node was chosen.
        Assigned = "assigned",
        /// The node took it.
        Accepted = "accepted",
        /// The node pulls the image and makes the container.
        Preparing = "preparing",
        /// The container could start.
        Ready = "ready",
        /// The container starts, or has not been healthy yet.
        Starting = "starting",
        /// The container runs and is healthy.
        Running = "running",
        /// It ended with exit code zero.
        Complete = "complete",
        /// It was stopped on request.
        Shutdown = "shutdown",
        /// It ended badly.
        Failed = "failed",
        /// It could not start.
        Rejected = "rejected",
        /// Only ever desired: stop it and forget it.
        Remove = "remove",
        /// Its node is gone.
        Orphaned = "orphaned",
    }
}

/// What a task stands for within its service: one of the replicas, or the one task of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotKey {
    /// Number of the replica, from 1.
    Slot(u64),
    /// The node that the task of a global service was made for.
    Node(NodeId),
}

impl TaskState {
    /// The number of the state in swarmkit's protocol (reference, 1.1).
    pub const fn number(self) -> u32 {
        match self {
            Self::New => 0,
            Self::Pending => 64,
            Self::Assigned => 192,
            Self::Accepted => 256,
            Self::Preparing => 320,
            Self::Ready => 384,
            Self::Starting => 448,
            Self::Running => 512,
            Self::Complete => 576,
            Self::Shutdown => 640,
            Self::Failed => 704,
            Self::Rejected => 768,
            Self::Remove => 800,
            Self::Orphaned => 832,
        }
    }

    /// Whether nothing more can happen to a task that was observed in this state.
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

impl Task {
    /// Name of the task and its container: `<service>.<slot>.<id>`, or `<service>.<node>.<id>` without a slot.
    pub fn name(&self) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        let service = &self.internal.service_name;
        match self.slot {
            0 => format!("{service}.{}.{}", self.node_id, self.id),
            slot => format!("{service}.{slot}.{}", self.id),
        }
    }

    /// Whether it stands for a plain container on a network of the swarm: it runs nothing itself.
    pub fn is_attachment(&self) -> bool {
        self.spec.network_attachment_spec.is_some()
    }

    /// What it stands for within its service.
    pub fn slot_key(&self) -> SlotKey {
        match self.slot {
            0 => SlotKey::Node(self.node_id.clone()),
            slot => SlotKey::Slot(slot),
        }
    }

    /// Whether managers want it to run, now or soon.
    pub fn is_wanted(&self) -> bool {
        self.desired_state <= TaskState::Running
    }

    /// Whether it ended, as far as was observed.
    pub fn is_terminal(&self) -> bool {
        self.status.state.is_terminal()
    }

    /// Whether it counts against the resources of its node: assigned and not ended.
    pub fn is_active(&self) -> bool {
        self.status.state >= TaskState::Assigned && !self.is_terminal() && !self.node_id.is_empty()
    }

    /// The task after `status` was reported at `now`, or `None` when that is no news.
    ///
    /// States never go back: a report of an earlier state is no news.
    pub fn observed(&self, status: TaskStatus, now: Timestamp) -> Option<Self> {
        let is_news = status.state > self.status.state
            || (status.state == self.status.state && !self.is_terminal() && status != self.status);
        if !is_news {
            return None;
        }
        let mut next = self.clone();
        if status.state != self.status.state || next.internal.applied_at.is_zero() {
            next.internal.applied_at = now;
        }
        if status.state == TaskState::Running && next.internal.running_at.is_zero() {
            next.internal.running_at = now;
        }
        next.status = status;
        Some(next)
    }

    /// The task with a desired state raised to `state`, or `None` when it is that high already.
    pub fn desired(&self, state: TaskState) -> Option<Self> {
        (state > self.desired_state).then(|| {
            let mut next = self.clone();
            next.desired_state = state;
            next
        })
    }

    /// As Docker's API shows it; `network` finds the networks that it is attached to.
    pub fn to_api(&self, network: impl Fn(&NetworkId) -> Option<Arc<Network>>) -> serde_json::Value {
        let mut value = crate::json::api_value(self);
        if self.networks_attachments.is_empty() {
            return value;
        }
        let shown = self.networks_attachments.iter().map(|attachment| {
            let gone = || Arc::new(Network { id: attachment.network.clone(), ..Network::default() });
            let found = network(&attachment.network).unwrap_or_else(gone);
            serde_json::json!({ "Network": found.to_api(), "Addresses": attachment.addresses })
        });
        let shown = serde_json::Value::Array(shown.collect());
        value.as_object_mut().expect("a task is an object").insert("NetworksAttachments".to_owned(), shown);
        value
    }

    /// Whether it keeps the addresses that it was given.
    pub fn holds_addresses(&self) -> bool {
        !self.networks_attachments.is_empty() && !self.is_terminal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_in_the_order_of_their_numbers() {
        use TaskState::*;
        let all = [
            New, Pending, Assigned, Accepted, Preparing, Ready, Starting, Running, Complete, Shutdown,
            Failed, Rejected, Remove, Orphaned,
        ];
        assert!(all.windows(2).all(|pair| pair[0] < pair[1] && pair[0].number() < pair[1].number()));
    }

    #[test]
    fn an_observed_state_never_goes_back() {
        let mut task = Task::default();
        task.status.state = TaskState::Running;
        let report = TaskStatus { state: TaskState::Starting, ..Default::default() };
        assert_eq!(task.observed(report, Timestamp(1)), None);
    }
}

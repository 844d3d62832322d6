//! What every task of a service should be: container, resources, restart policy, placement.
//!
//! In and out: Docker's `TaskSpec` with every field of API 1.51. Comparing two of them tells whether a task is outdated.

use std::collections::BTreeMap;

use crate::json::shape;
use crate::names::words;
use crate::{ContainerSpec, Driver, Nanos};

/// Restart delay when the spec has none. Source: moby/swarmkit, `api/defaults/service.go`.
pub const DEFAULT_RESTART_DELAY: Nanos = Nanos::from_secs(5);

shape! {
    /// What every task of a service should be.
    pub struct TaskSpec {
        /// The container to run.
        pub container_spec: Option<ContainerSpec>,
        /// A plugin to run; kept so that it can be refused.
        pub plugin_spec: Option<serde_json::Value>,
        /// An attachment of a plain container to a network of the swarm.
        pub network_attachment_spec: Option<NetworkAttachmentSpec>,
        /// Reservations and limits.
        pub resources: Option<ResourceRequirements>,
        /// What happens when a task ends.
        pub restart_policy: Option<RestartPolicy>,
        /// On which nodes tasks may run.
        pub placement: Option<Placement>,
        /// Networks of the task.
        pub networks: Vec<NetworkAttachmentConfig>,
        /// Log driver; `None` is the cluster's, else the node's.
        pub log_driver: Option<Driver>,
        /// `container`, `plugin` or `attachment`; empty is `container`.
        pub runtime: String,
        always {
            /// Counter that replaces all tasks when raised.
            pub force_update: u64,
        }
    }

    /// Attaches a plain container to a network of the swarm.
    pub struct NetworkAttachmentSpec {
        always {
            /// Id of the container.
            #[serde(rename = "ContainerID")]
            pub container_id: String,
        }
    }

    /// Reservations and limits of a task.
    pub struct ResourceRequirements {
        /// What a task may use at most.
        pub limits: Option<Limit>,
        /// What must be free on a node for the task.
        pub reservations: Option<Resources>,
    }

    /// What a task may use at most; zero is no limit.
    pub struct Limit {
        /// Billionths of a CPU.
        #[serde(rename = "NanoCPUs")]
        pub nano_cpus: i64,
        /// Bytes of memory.
        pub memory_bytes: i64,
        /// Number of processes.
        pub pids: i64,
    }

    /// What a node has, or a task reserves.
    pub struct Resources {
        /// Billionths of a CPU.
        #[serde(rename = "NanoCPUs")]
        pub nano_cpus: i64,
        /// Bytes of memory.
        pub memory_bytes: i64,
        /// Countable things such as GPUs.
        pub generic_resources: Vec<GenericResource>,
    }

    /// A countable thing, by name or by number; exactly one of the two is set.
    pub struct GenericResource {
        /// One named thing.
        pub named_resource_spec: Option<NamedGenericResource>,
        /// A number of like things.
        pub discrete_resource_spec: Option<DiscreteGenericResource>,
    }

    /// One named thing.
    pub struct NamedGenericResource {
        /// Kind, for example `gpu`.
        pub kind: String,
        /// Its name.
        pub value: String,
    }

    /// A number of like things.
    pub struct DiscreteGenericResource {
        /// Kind, for example `gpu`.
        pub kind: String,
        /// How many.
        pub value: i64,
    }

    /// What happens when a task ends.
    pub struct RestartPolicy {
        /// Wait before the replacement runs; `None` is 5 s.
        pub delay: Option<Nanos>,
        /// Restarts per slot; `None` and zero are unlimited.
        pub max_attempts: Option<u64>,
        /// Only restarts this recent count; `None` and zero count all.
        pub window: Option<Nanos>,
        always {
            /// After which ends a task is replaced.
            pub condition: RestartCondition,
        }
    }

    /// On which nodes tasks may run.
    pub struct Placement {
        /// Conditions such as `node.role==manager`; all must hold.
        pub constraints: Vec<String>,
        /// How tasks are spread over labels, outermost first.
        pub preferences: Vec<PlacementPreference>,
        /// Tasks of the service per node; zero is unlimited.
        pub max_replicas: u64,
        /// Platforms the image has; empty is any.
        pub platforms: Vec<Platform>,
    }

    /// One level of spreading.
    pub struct PlacementPreference {
        always {
            /// Spreads over the values of a label.
            pub spread: Option<SpreadOver>,
        }
    }

    /// Spreads over the values of a label.
    pub struct SpreadOver {
        /// `node.labels.X` or `engine.labels.X`.
        pub spread_descriptor: String,
    }

    /// A machine architecture and an operating system; an empty part is any.
    #[derive(Eq)]
    pub struct Platform {
        /// For example `x86_64`, or `amd64` in images.
        pub architecture: String,
        /// For example `linux`.
        #[serde(rename = "OS")]
        pub os: String,
    }

    /// A network that a task is attached to.
    pub struct NetworkAttachmentConfig {
        /// Id or name of the network.
        pub target: String,
        /// Further names of the task on it.
        pub aliases: Vec<String>,
        /// Options for the driver.
        pub driver_opts: BTreeMap<String, String>,
    }
}

words! {
    /// After which ends a task is replaced.
    pub enum RestartCondition("invalid RestartCondition:") {
        /// After every end.
        #[default]
        Any = "any",
        /// After every end but COMPLETE.
        OnFailure = "on-failure",
        /// Never.
        None = "none",
    }
}

impl TaskSpec {
    /// Conditions on nodes; empty when there are none.
    pub fn constraints(&self) -> &[String] {
        self.placement.as_ref().map_or(&[], |placement| &placement.constraints)
    }

    /// What must be free on a node; `None` when nothing is reserved.
    pub fn reservations(&self) -> Option<&Resources> {
        self.resources.as_ref()?.reservations.as_ref()
    }

    /// The restart policy with its defaults.
    pub fn restart(&self) -> RestartPolicy {
        self.restart_policy.clone().unwrap_or_default()
    }
}

impl RestartPolicy {
    /// Wait before the replacement runs.
    pub fn delay(&self) -> Nanos {
        self.delay.unwrap_or(DEFAULT_RESTART_DELAY)
    }

    /// Restarts per slot; zero is unlimited.
    pub fn max_attempts(&self) -> u64 {
        self.max_attempts.unwrap_or(0)
    }

    /// Only restarts this recent count; zero counts all.
    pub fn window(&self) -> Nanos {
        self.window.unwrap_or(Nanos::ZERO)
    }
}

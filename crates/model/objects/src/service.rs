//! A service: what a user wants to run, how often, and how it is updated and reached.
//!
//! In and out: Docker's `Service` and `ServiceSpec` with every field of API 1.51. What decisions remember between steps
//! (spec versions, the running rollout) lives in [`ServiceInternal`], so that a new leader goes on where the old stopped.

use crate::json::{object, shape};
use crate::names::words;
use crate::{Labels, Nanos, NetworkAttachmentConfig, NetworkId, ServiceId, TaskSpec, Timestamp, Version};

/// Monitor time when no update config is given. Source: moby/swarmkit, `api/defaults/service.go`.
pub const DEFAULT_MONITOR: Nanos = Nanos::from_secs(5);

object! {
    /// A service with what the swarm made of it.
    pub struct Service {
        /// The spec before the newest update; what a rollback returns to.
        pub previous_spec: Option<ServiceSpec>,
        /// How the newest update goes; `None` when it replaced nothing.
        pub update_status: Option<UpdateStatus>,
        /// Progress of a job.
        pub job_status: Option<JobStatus>,
        always {
            /// Id of the service.
            #[serde(rename = "ID")]
            pub id: ServiceId,
            /// What the user asked for.
            pub spec: ServiceSpec,
            /// Ports and addresses it got.
            pub endpoint: Endpoint,
            /// What only the managers know.
            pub internal: ServiceInternal,
        }
    }
}

shape! {
    /// What decisions about a service remember; never shown by the API.
    pub struct ServiceInternal {
        /// Which spec this is; tasks carry the number of the spec they were made from.
        pub spec_version: u64,
        /// The number of `previous_spec`.
        pub previous_spec_version: u64,
        /// The highest number given out, so that a number never means two specs.
        pub last_spec_version: u64,
        /// Counts accepted updates and rollbacks; tasks made by one carry its number.
        pub rollout: u64,
        /// Slots that were dirty when rollout number `rollout` began; the base of the failure ratio.
        pub rollout_slots: u64,
        hidden {
            /// The registry's credentials that came with `spec`, as the API's header has them; empty for none.
            pub registry_auth: String,
            /// The same of `previous_spec`.
            pub previous_registry_auth: String,
        }
    }

    /// What a user asked a service to be.
    pub struct ServiceSpec {
        /// Unique name.
        pub name: String,
        /// How tasks are replaced on an update; `None` is the default of 1 at a time.
        pub update_config: Option<UpdateConfig>,
        /// The same for a rollback.
        pub rollback_config: Option<UpdateConfig>,
        /// Networks in the place where API versions before 1.25 had them.
        pub networks: Vec<NetworkAttachmentConfig>,
        /// How the service is reached.
        pub endpoint_spec: Option<EndpointSpec>,
        always {
            /// Labels of the service; changing them replaces nothing.
            pub labels: Labels,
            /// What every task should be.
            pub task_template: TaskSpec,
            /// How many tasks there should be.
            pub mode: ServiceMode,
        }
    }

    /// How many tasks there should be; exactly one is set in a valid spec.
    pub struct ServiceMode {
        /// A number of tasks.
        pub replicated: Option<ReplicatedService>,
        /// One task per suitable node.
        pub global: Option<GlobalService>,
        /// A number of tasks that each complete once.
        pub replicated_job: Option<ReplicatedJob>,
        /// One task per suitable node that completes once.
        pub global_job: Option<GlobalJob>,
    }

    /// A number of tasks.
    pub struct ReplicatedService {
        /// How many; `None` is 1.
        pub replicas: Option<u64>,
    }

    /// One task per suitable node.
    pub struct GlobalService {}

    /// A number of tasks that each complete once.
    pub struct ReplicatedJob {
        /// How many at the same time; `None` is 1.
        pub max_concurrent: Option<u64>,
        /// How many in total; `None` is `max_concurrent`.
        pub total_completions: Option<u64>,
    }

    /// One task per suitable node that completes once.
    pub struct GlobalJob {}

    /// How tasks are replaced.
    pub struct UpdateConfig {
        /// Wait after each replaced slot.
        pub delay: Nanos,
        /// How long a new task is watched for failure; zero is 5 s in effect.
        pub monitor: Nanos,
        always {
            /// Slots replaced at the same time; zero is all.
            pub parallelism: u64,
            /// What happens when too many new tasks fail.
            pub failure_action: FailureAction,
            /// Share of slots that may fail, 0 to 1.
            pub max_failure_ratio: f32,
            /// Whether the old task stops before or after the new one runs.
            pub order: UpdateOrder,
        }
    }

    /// How the newest update of a service goes.
    pub struct UpdateStatus {
        /// When it began.
        pub started_at: Option<Timestamp>,
        /// When it ended; only for the completed states.
        pub completed_at: Option<Timestamp>,
        /// The state in words.
        pub message: String,
        always {
            /// Where it is.
            pub state: UpdateState,
        }
    }

    /// Progress of a job.
    pub struct JobStatus {
        always {
            /// Counts the runs of the job.
            pub job_iteration: Version,
            /// When the newest run began.
            pub last_execution: Timestamp,
        }
    }

    /// How a service is reached.
    pub struct EndpointSpec {
        /// Ports to publish.
        pub ports: Vec<PortConfig>,
        always {
            /// How names of the service resolve.
            pub mode: ResolutionMode,
        }
    }

    /// A port of a service.
    pub struct PortConfig {
        /// A name for people.
        pub name: String,
        /// Port in the container.
        pub target_port: u32,
        /// Port on the nodes; zero asks for a free one.
        pub published_port: u32,
        always {
            /// Protocol of both.
            pub protocol: PortProtocol,
            /// Who listens.
            pub publish_mode: PublishMode,
        }
    }

    /// Ports and addresses a service got.
    pub struct Endpoint {
        /// The ports with their published numbers.
        pub ports: Vec<PortConfig>,
        /// The service's address on each of its networks.
        #[serde(rename = "VirtualIPs")]
        pub virtual_ips: Vec<EndpointVirtualIp>,
        always {
            /// The spec this was made from.
            pub spec: EndpointSpec,
        }
    }

    /// The service's address on a network.
    pub struct EndpointVirtualIp {
        /// The network.
        #[serde(rename = "NetworkID")]
        pub network_id: NetworkId,
        /// The address with its prefix length.
        pub addr: String,
    }
}

words! {
    /// What happens when too many new tasks fail.
    pub enum FailureAction("unrecognized update failure action") {
        /// The update stops until somebody updates again.
        #[default]
        Pause = "pause",
        /// The update goes on.
        Continue = "continue",
        /// The service returns to its previous spec.
        Rollback = "rollback",
    }

    /// Whether the old task stops before or after the new one runs.
    pub enum UpdateOrder("unrecognized update order") {
        /// Old one first.
        #[default]
        StopFirst = "stop-first",
        /// New one first.
        StartFirst = "start-first",
    }

    /// Where an update is.
    pub enum UpdateState("unrecognized update state") {
        /// Tasks are being replaced.
        #[default]
        Updating = "updating",
        /// It stopped because of failures.
        Paused = "paused",
        /// All tasks were replaced.
        Completed = "completed",
        /// Tasks are being replaced by those of the previous spec.
        RollbackStarted = "rollback_started",
        /// The rollback stopped because of failures.
        RollbackPaused = "rollback_paused",
        /// All tasks are of the previous spec.
        RollbackCompleted = "rollback_completed",
    }

    /// How names of a service resolve.
    pub enum ResolutionMode("unrecognized endpoint mode") {
        /// To one virtual address.
        #[default]
        Vip = "vip",
        /// To the addresses of all tasks.
        Dnsrr = "dnsrr",
    }

    /// Protocol of a port.
    pub enum PortProtocol("unrecognized port protocol") {
        /// TCP.
        #[default]
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// SCTP.
        Sctp = "sctp",
    }

    /// Who listens on a published port.
    pub enum PublishMode("unrecognized publish mode") {
        /// Every node, for all tasks.
        #[default]
        Ingress = "ingress",
        /// The node of each task, for that task.
        Host = "host",
    }
}

impl UpdateConfig {
    /// What holds when a spec has no config: one at a time, pause on failure.
    ///
    /// Source: moby/swarmkit, `api/defaults/service.go`.
    pub fn when_absent() -> Self {
        Self { parallelism: 1, monitor: DEFAULT_MONITOR, ..Self::default() }
    }

    /// How long a new task is watched.
    pub fn monitor(&self) -> Nanos {
        if self.monitor.0 > 0 { self.monitor } else { DEFAULT_MONITOR }
    }
}

impl ServiceMode {
    /// A replicated mode.
    pub fn replicas(count: u64) -> Self {
        Self { replicated: Some(ReplicatedService { replicas: Some(count) }), ..Self::default() }
    }

    /// The global mode.
    pub fn global() -> Self {
        Self { global: Some(GlobalService {}), ..Self::default() }
    }

    /// Docker's word for the mode, as in the `mode` filter.
    pub fn as_str(&self) -> &'static str {
        if self.global.is_some() {
            "global"
        } else if self.replicated_job.is_some() {
            "replicated-job"
        } else if self.global_job.is_some() {
            "global-job"
        } else {
            "replicated"
        }
    }
}

impl ServiceSpec {
    /// How many tasks a replicated service should have; `None` for other modes.
    pub fn replicas(&self) -> Option<u64> {
        match &self.mode {
            ServiceMode { replicated: Some(mode), .. } => Some(mode.replicas.unwrap_or(1)),
            ServiceMode { global: None, replicated_job: None, global_job: None, .. } => Some(1),
            _ => None,
        }
    }

    /// Whether there should be one task per node.
    pub fn is_global(&self) -> bool {
        self.mode.global.is_some()
    }

    /// The ports to publish; empty without an endpoint spec.
    pub fn ports(&self) -> &[PortConfig] {
        self.endpoint_spec.as_ref().map_or(&[], |endpoint| &endpoint.ports)
    }

    /// The networks that its tasks are attached to: those of the task template, else those in the old place.
    pub fn networks(&self) -> &[NetworkAttachmentConfig] {
        let of_tasks = &self.task_template.networks;
        if of_tasks.is_empty() { &self.networks } else { of_tasks }
    }

    /// Whether it publishes a port on every node.
    pub fn needs_ingress(&self) -> bool {
        self.ports().iter().any(|port| port.publish_mode == PublishMode::Ingress)
    }

    /// How its names resolve.
    pub fn resolution(&self) -> ResolutionMode {
        self.endpoint_spec.as_ref().map(|endpoint| endpoint.mode).unwrap_or_default()
    }

    /// How an update replaces tasks, with defaults.
    pub fn update(&self) -> UpdateConfig {
        self.update_config.clone().unwrap_or_else(UpdateConfig::when_absent)
    }

    /// How a rollback replaces tasks, with defaults.
    pub fn rollback(&self) -> UpdateConfig {
        self.rollback_config.clone().unwrap_or_else(UpdateConfig::when_absent)
    }
}

impl Service {
    /// A service that was never written, of the first spec version.
    pub fn new(id: ServiceId, spec: ServiceSpec) -> Self {
        let internal = ServiceInternal { spec_version: 1, last_spec_version: 1, ..Default::default() };
        Self { id, spec, internal, ..Self::default() }
    }

    /// The service after a user's update: the old spec becomes the previous one, the update status is cleared.
    ///
    /// The same spec again joins the update that is under way. Source: moby/swarmkit,
    /// `manager/orchestrator/update/updater.go` (`Supervisor.Update`).
    pub fn updated(&self, spec: ServiceSpec) -> Self {
        let mut next = self.clone();
        let state = self.update_status.as_ref().map(|status| status.state);
        if state == Some(UpdateState::Updating) && spec == self.spec {
            return next;
        }
        next.previous_spec = Some(std::mem::replace(&mut next.spec, spec));
        next.internal.previous_registry_auth.clone_from(&self.internal.registry_auth);
        next.internal.previous_spec_version = self.internal.spec_version;
        next.internal.last_spec_version += 1;
        next.internal.spec_version = next.internal.last_spec_version;
        next.begin_rollout();
        next.update_status = None;
        next
    }

    /// The service after a user's rollback: the two specs swap, so that a second rollback undoes the first.
    ///
    /// `None` when there is no previous spec.
    pub fn rolled_back(&self, now: Timestamp) -> Option<Self> {
        let mut next = self.returned(now, "manually requested rollback")?;
        next.previous_spec = Some(self.spec.clone());
        next.internal.previous_registry_auth.clone_from(&self.internal.registry_auth);
        next.internal.previous_spec_version = self.internal.spec_version;
        Some(next)
    }

    /// The service after a failed update: the previous spec is current again, and there is none to roll back to.
    ///
    /// `None` when there is no previous spec.
    pub fn returned(&self, now: Timestamp, message: &str) -> Option<Self> {
        let mut next = self.clone();
        next.spec = next.previous_spec.take()?;
        next.internal.registry_auth = std::mem::take(&mut next.internal.previous_registry_auth);
        next.internal.spec_version = self.internal.previous_spec_version;
        next.internal.previous_spec_version = 0;
        next.begin_rollout();
        next.update_status = Some(UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: Some(now),
            completed_at: None,
            message: message.to_owned(),
        });
        Some(next)
    }

    fn begin_rollout(&mut self) {
        self.internal.rollout += 1;
        self.internal.rollout_slots = 0;
    }

    /// As Docker's API shows it.
    pub fn to_api(&self) -> serde_json::Value {
        crate::json::api_value(self)
    }
}

impl ServiceSpec {
    /// The spec as it is stored: what Docker fills in on every request is filled in.
    ///
    /// Source: moby, `daemon/cluster/convert/service.go`.
    pub fn normalised(mut self) -> Self {
        let replicas = self.replicas();
        if let Some(replicas) = replicas {
            self.mode =
                ServiceMode { replicated: Some(ReplicatedService { replicas: Some(replicas) }), ..self.mode };
        }
        if self.task_template.runtime.is_empty() && self.task_template.container_spec.is_some() {
            self.task_template.runtime = "container".to_owned();
        }
        self
    }

    /// The spec with the defaults that hold for absent parts, as `insertDefaults` shows it.
    ///
    /// Source: moby/swarmkit, `api/defaults/service.go`.
    pub fn with_defaults(mut self) -> Self {
        let task = &mut self.task_template;
        if let Some(container) = &mut task.container_spec {
            container.stop_grace_period.get_or_insert(Nanos::from_secs(10));
            container.dns_config.get_or_insert_default();
        }
        task.resources.get_or_insert_default();
        let restart = task.restart_policy.get_or_insert_default();
        restart.delay.get_or_insert(crate::DEFAULT_RESTART_DELAY);
        restart.max_attempts.get_or_insert(0);
        task.placement.get_or_insert_default();
        self.update_config.get_or_insert_with(UpdateConfig::when_absent);
        self.rollback_config.get_or_insert_with(UpdateConfig::when_absent);
        self.endpoint_spec.get_or_insert_default();
        self.normalised()
    }
}

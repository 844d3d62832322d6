//! A node: a machine of the swarm.
//!
//! In and out: Docker's `Node` with every field of API 1.51.

use ipnet::IpNet;

use crate::json::{object, shape};
use crate::names::words;
use crate::{Labels, NetworkAttachment, NodeId, Platform, Resources, Timestamp};

object! {
    /// A machine of the swarm.
    pub struct Node {
        /// Only managers have it.
        pub manager_status: Option<ManagerStatus>,
        always {
            /// Id of the node.
            #[serde(rename = "ID")]
            pub id: NodeId,
            /// What a user asked for.
            pub spec: NodeSpec,
            /// What the node says of itself.
            pub description: NodeDescription,
            /// Whether it is there.
            pub status: NodeStatus,
            /// What only the managers know.
            pub internal: NodeInternal,
        }
    }
}

shape! {
    /// What managers remember about a node; never shown by the API.
    pub struct NodeInternal {
        /// Its number among the managers that vote; zero for a worker.
        pub raft_id: u64,
        /// The certificate it was given last, PEM, with what stands between it and the root.
        pub certificate: String,
        /// When it was given.
        pub certified_at: Timestamp,
        /// When it runs out.
        pub certified_until: Timestamp,
        /// Address of its data path, without a port, when it is not `status.addr`; else empty.
        pub data_path_addr: String,
        /// Whether the managers want the node to get a new certificate; cleared when it was given one.
        pub must_renew: bool,
        /// The role its certificate says; follows `spec.role`.
        pub certified_role: NodeRole,
        /// Since when `status.state` is what it is.
        pub status_since: Timestamp,
        /// While it is DOWN: its tasks stay until then, as it may be back. Zero is at once.
        pub tasks_move_at: Timestamp,
        /// Its own addresses on the ingress network, while there is one.
        pub ingress: Option<NetworkAttachment>,
        /// Networks that its machine has by itself: routes, addresses, resolvers. No network of the swarm overlaps them.
        pub own_networks: Vec<IpNet>,
        /// Names what its kernel holds of encrypted networks: a random number, another one when that was lost. Zero: its kernel
        /// cannot encrypt.
        pub encryption_generation: u64,
    }

    /// What a user asked a node to be.
    pub struct NodeSpec {
        /// A name for people; usually empty, the host name is shown.
        pub name: String,
        always {
            /// Labels that constraints see as `node.labels.X`.
            pub labels: Labels,
            /// Whether it takes part in managing.
            pub role: NodeRole,
            /// Whether it gets tasks.
            pub availability: Availability,
        }
    }

    /// What a node says of itself.
    pub struct NodeDescription {
        /// Its host name.
        pub hostname: String,
        always {
            /// Architecture and operating system.
            pub platform: Platform,
            /// What it has.
            pub resources: Resources,
            /// Its engine.
            pub engine: EngineDescription,
            /// What it trusts.
            #[serde(rename = "TLSInfo")]
            pub tls_info: TlsInfo,
        }
    }

    /// A node's engine.
    pub struct EngineDescription {
        /// Its version.
        pub engine_version: String,
        /// Labels that constraints see as `engine.labels.X`.
        pub labels: Labels,
        /// Drivers it has.
        pub plugins: Vec<PluginDescription>,
    }

    /// A driver that a node has.
    pub struct PluginDescription {
        /// `Network`, `Volume`, `Log` …
        #[serde(rename = "Type")]
        pub kind: String,
        /// Name, with or without a tag.
        pub name: String,
    }

    /// What a node or the cluster trusts.
    pub struct TlsInfo {
        /// The root certificate, PEM.
        pub trust_root: String,
        /// Its subject, DER in base 64.
        pub cert_issuer_subject: String,
        /// Its public key, DER in base 64.
        pub cert_issuer_public_key: String,
    }

    /// Whether a node is there.
    pub struct NodeStatus {
        /// Why, in words.
        pub message: String,
        /// Its address as the managers see it.
        pub addr: String,
        always {
            /// Whether it is there.
            pub state: NodeState,
        }
    }

    /// A manager among the managers.
    pub struct ManagerStatus {
        /// Whether it leads.
        pub leader: bool,
        /// Where the other managers reach it, `ip:port`.
        pub addr: String,
        always {
            /// Whether the leader reaches it.
            pub reachability: Reachability,
        }
    }
}

words! {
    /// Whether a node takes part in managing.
    pub enum NodeRole("invalid Role:") {
        /// It only runs tasks.
        #[default]
        Worker = "worker",
        /// It also manages.
        Manager = "manager",
    }

    /// Whether a node gets tasks.
    pub enum Availability("invalid Availability:") {
        /// It gets tasks.
        #[default]
        Active = "active",
        /// It keeps its tasks and gets no new ones.
        Pause = "pause",
        /// Its tasks are moved away.
        Drain = "drain",
    }

    /// Whether a node is there.
    pub enum NodeState("invalid node state") {
        /// Not known, for example after a change of leader.
        #[default]
        Unknown = "unknown",
        /// It is gone.
        Down = "down",
        /// It is there.
        Ready = "ready",
        /// It left on purpose and may return.
        Disconnected = "disconnected",
    }

    /// Whether the leader reaches a manager.
    pub enum Reachability("invalid reachability") {
        /// Not known yet.
        #[default]
        Unknown = "unknown",
        /// No.
        Unreachable = "unreachable",
        /// Yes.
        Reachable = "reachable",
    }
}

impl Node {
    /// Whether the scheduler may give it new tasks.
    pub fn is_available(&self) -> bool {
        self.status.state == NodeState::Ready && self.spec.availability == Availability::Active
    }

    /// Whether tasks that run on it must go elsewhere now.
    ///
    /// A node of unknown state keeps its tasks: after a change of leader nobody has heard from it yet. One that is DOWN
    /// keeps them until `internal.tasks_move_at`.
    pub fn must_be_left(&self, now: Timestamp) -> bool {
        self.is_lost(now) || self.spec.availability == Availability::Drain
    }

    /// Whether nobody waits for it any more: it is DOWN, and was not back in time.
    pub fn is_lost(&self, now: Timestamp) -> bool {
        self.status.state == NodeState::Down && self.internal.tasks_move_at <= now
    }

    /// As Docker's API shows it.
    pub fn to_api(&self) -> serde_json::Value {
        crate::json::api_value(self)
    }
}

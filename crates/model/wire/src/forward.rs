//! Writes of the swarm that a manager hands to the leader: one variant per operation, and what each gives.
//!
//! In and out: JSON between managers. An operation carries everything that the one who was asked decided (ids included),
//! so that sending it twice does what sending it once does. Never carries a decision about the store: that is the
//! leader's.

use ipnet::IpNet;
use objects::{
    Availability, ClusterSpec, NetworkId, NetworkSpec, NodeDescription, NodeId, NodeRole, NodeSpec,
    ServiceId, ServiceSpec, TaskId, TaskStatus,
};
use serde::{Deserialize, Serialize};

use crate::attach::AttachRequest;
use crate::session::SessionId;
use crate::{Callers, Hidden, Method};

/// Has the leader do an operation. Answered once it is committed.
pub struct Forward;

impl Method for Forward {
    const NAME: &'static str = "managers/forward";
    const CALLERS: Callers = Callers::Manager;
    type Request = Forwarding;
    type Response = Forwarded;
}

/// What a manager asks the leader to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forwarding {
    /// The operation.
    pub operation: Operation,
    /// Whether it may have been done before, by an attempt whose answer was lost: then what it wants to make may be
    /// there already.
    #[serde(default)]
    pub again: bool,
}

/// What the leader did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forwarded {
    /// What it gave.
    pub outcome: Outcome,
    /// Whoever has applied this index of the log sees it.
    pub applied: u64,
}

/// What `POST /services/create` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedService {
    /// The new service's id.
    #[serde(rename = "ID")]
    pub id: ServiceId,
    /// Texts for the user, possibly none.
    #[serde(rename = "Warnings", default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Where an update takes the registry's credentials from when it brings none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistryAuthFrom {
    /// From the stored spec: `registryAuthFrom=spec`, and the default.
    #[default]
    Spec,
    /// From the spec before that: `registryAuthFrom=previous-spec`.
    PreviousSpec,
}

/// An update as `POST /services/{id}/update` carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceUpdate {
    /// The version the caller read: `version=`.
    pub version: u64,
    /// The wanted spec; ignored with `rollback`.
    pub spec: ServiceSpec,
    /// The `X-Registry-Auth` header as it came (base64 URL of JSON), if there was one.
    #[serde(default)]
    pub registry_auth: Option<Hidden>,
    /// Used when `registry_auth` is `None`.
    #[serde(default)]
    pub registry_auth_from: RegistryAuthFrom,
    /// Go back to the previous spec instead: `rollback=previous`.
    #[serde(default)]
    pub rollback: bool,
}

/// What `POST /swarm/update` asks for besides the spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterUpdate {
    /// `rotateWorkerToken=1`.
    pub rotate_worker_token: bool,
    /// `rotateManagerToken=1`.
    pub rotate_manager_token: bool,
    /// `rotateManagerUnlockKey=1`.
    pub rotate_manager_unlock_key: bool,
}

/// A node that says who it is when it opens a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeOpens {
    /// The node.
    pub node: NodeId,
    /// What it says of itself.
    pub description: NodeDescription,
    /// Its address, without a port.
    pub address: String,
    /// Address of its data path, when it is another.
    #[serde(default)]
    pub data_path_address: Option<String>,
    /// The session, which its end is told by.
    pub session: SessionId,
    /// Networks that its machine has by itself.
    #[serde(default)]
    pub own_networks: Vec<IpNet>,
    /// Names what its kernel holds of encrypted networks; zero: it cannot encrypt.
    #[serde(default)]
    pub encryption_generation: u64,
    /// How far the node's clock is ahead of the manager's, in milliseconds; negative when it is behind.
    #[serde(default)]
    pub clock_offset_ms: i64,
}

/// States of tasks, as one node told them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReports {
    /// The node that told them.
    pub node: NodeId,
    /// Task and state, in the order they were told.
    pub statuses: Vec<(TaskId, TaskStatus)>,
}

/// A request for a first certificate, with the token that allows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirstCertificate {
    /// The id that the node gets.
    pub node: NodeId,
    /// Certificate request, PEM.
    pub csr: String,
    /// `SWMTKN-1-…`; decides the role.
    pub token: Hidden,
    /// Whether the node gets tasks.
    pub availability: Availability,
    /// Its address, without a port.
    pub address: String,
    /// Its host name.
    pub hostname: String,
}

/// A request for another certificate by a node that has proved its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextCertificate {
    /// The node.
    pub node: NodeId,
    /// Certificate request, PEM.
    pub csr: String,
}

/// A manager that wants to take part in consensus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    /// Its node.
    pub node: NodeId,
    /// Its number in the log; never zero, never used before.
    pub raft_id: u64,
    /// Where the others reach it, `host:port`.
    pub address: String,
}

/// A certificate and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// The node.
    pub node: NodeId,
    /// The role that the certificate says.
    pub role: NodeRole,
    /// The certificate and what links it to the root, PEM.
    pub chain: String,
}

/// A write of the swarm. The leader alone does it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Makes a service.
    CreateService {
        /// The id it gets.
        id: ServiceId,
        /// What it is to be.
        spec: Box<ServiceSpec>,
        /// The `X-Registry-Auth` header as it came.
        registry_auth: Option<Hidden>,
    },
    /// Replaces the spec of a service, or rolls it back.
    UpdateService {
        /// Id, name or id prefix.
        reference: String,
        /// To what.
        update: Box<ServiceUpdate>,
    },
    /// Removes a service.
    RemoveService {
        /// Id, name or id prefix.
        reference: String,
    },
    /// Makes a network.
    CreateNetwork {
        /// The id it gets.
        id: NetworkId,
        /// What it is to be.
        spec: Box<NetworkSpec>,
    },
    /// Removes a network that nobody uses.
    RemoveNetwork {
        /// Id, name or id prefix.
        reference: String,
    },
    /// Replaces the spec of a node.
    UpdateNode {
        /// Id, host name or id prefix.
        reference: String,
        /// The version the caller read.
        version: u64,
        /// To what.
        spec: NodeSpec,
    },
    /// Removes a node.
    RemoveNode {
        /// Id, host name or id prefix.
        reference: String,
        /// Even when it is not down.
        force: bool,
    },
    /// Replaces the spec of the cluster and rotates what is asked for.
    UpdateCluster {
        /// The version the caller read.
        version: u64,
        /// To what.
        spec: Box<ClusterSpec>,
        /// What to rotate.
        update: ClusterUpdate,
        /// Id of the request, drawn anew by whoever was asked.
        #[serde(default)]
        request: String,
    },
    /// A node is there, with this description and address.
    OpenSession(Box<NodeOpens>),
    /// Gives a plain container a place on a network.
    Attach {
        /// Id of the task that stands for it, if there is none yet.
        id: TaskId,
        /// Where the container is.
        node: NodeId,
        /// The container and the network.
        request: AttachRequest,
    },
    /// States of tasks of any nodes.
    Observe {
        /// Per node.
        reports: Vec<NodeReports>,
    },
    /// Lets a node in.
    Issue(Box<FirstCertificate>),
    /// Gives a node another certificate.
    Renew(NextCertificate),
    /// Takes a manager into consensus.
    JoinRaft(NewMember),
    /// Takes a manager out of consensus.
    LeaveRaft {
        /// Its node.
        node: NodeId,
        /// Even when that loses the quorum.
        force: bool,
    },
    /// Writes nothing: whoever waits for the index of its answer has everything acknowledged before.
    Barrier,
}

/// What an operation gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is committed.
    Done,
    /// The service is made.
    Created(CreatedService),
    /// The service is changed.
    Updated {
        /// Texts for the user, possibly none.
        warnings: Vec<String>,
    },
    /// The place is made, or was there.
    Attached {
        /// The task that stands for the container.
        task: TaskId,
    },
    /// The certificate is made.
    Certified(Certified),
}

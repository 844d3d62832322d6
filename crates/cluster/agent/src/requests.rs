//! What the API hands to and gets from a [`SwarmNode`](crate::SwarmNode): requests, state, errors.
//!
//! Requests deserialise straight from the bodies of `POST /swarm/init` and `/swarm/join`.

use objects::{Availability, ClusterSpec};
use serde::Deserialize;

/// Body of `POST /swarm/init`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InitRequest {
    /// `host:port`, `interface:port` or either alone; empty means `0.0.0.0:2377`.
    pub listen_addr: String,
    /// The same for the address that others are told; empty means: the only one there is.
    pub advertise_addr: String,
    /// Address or interface of the data path; empty means the advertised one.
    pub data_path_addr: String,
    /// VXLAN port; 0 means 4789.
    pub data_path_port: u32,
    /// Keep the state, make this node the only manager.
    pub force_new_cluster: bool,
    /// The cluster's settings; missing fields take Docker's defaults.
    pub spec: ClusterSpec,
    /// Lock the managers' storage with a key.
    pub auto_lock_managers: bool,
    /// Of this node.
    pub availability: Availability,
    /// Networks to cut overlays from; empty means 10.0.0.0/8.
    pub default_addr_pool: Vec<String>,
    /// Prefix length of an overlay's network; 0 means 24.
    pub subnet_size: u32,
}

/// Body of `POST /swarm/join`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinRequest {
    /// As in [`InitRequest`].
    pub listen_addr: String,
    /// As in [`InitRequest`].
    pub advertise_addr: String,
    /// As in [`InitRequest`].
    pub data_path_addr: String,
    /// Managers to ask; only the first is used.
    pub remote_addrs: Vec<String>,
    /// `SWMTKN-1-…`.
    pub join_token: String,
    /// Of this node.
    pub availability: Availability,
}

/// `LocalNodeState` of `GET /info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalNodeState {
    /// In no swarm.
    #[default]
    Inactive,
    /// In one, not ready yet.
    Pending,
    /// In one.
    Active,
    /// In one whose state on this machine cannot be used.
    Error,
    /// In one whose storage is locked.
    Locked,
}

impl LocalNodeState {
    /// Docker's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Error => "error",
            Self::Locked => "locked",
        }
    }
}

/// A manager known to this node.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Peer {
    /// Its node id.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// `host:port` of its control port.
    pub addr: String,
}

/// Why a request about this node's membership was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// 503: in no swarm, and a manager is needed.
    #[error(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
    )]
    NotInSwarm,
    /// 503: the manager is not up yet, or could not start.
    #[error(
        "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
    )]
    ManagerNotReady,
    /// 503: init or join on a member.
    #[error(
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one."
    )]
    AlreadyInSwarm,
    /// 503: leave on a node that is no member.
    #[error("This node is not part of a swarm")]
    NotPartOfSwarm,
    /// 503: leave without force on a manager.
    #[error("{warning}")]
    LeaveNeedsForce {
        /// Docker's text.
        warning: String,
    },
    /// 400: an address, pool or other value of the request is wrong.
    #[error("{reason}")]
    InvalidRequest {
        /// Docker's text.
        reason: String,
    },
    /// 501: valid, but not what this version does.
    #[error("{reason}")]
    Unsupported {
        /// What exactly.
        reason: String,
    },
    /// 500: the disk, the log or the authority failed.
    #[error("{doing}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a last manager is told when it leaves without force.
/// Source: reference 4.4 (moby, `daemon/cluster/swarm.go` `Leave`).
pub(crate) const LAST_MANAGER_LEAVES: &str = "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ";

/// An operation that failed for a cause of the machine.
pub(crate) fn failed(
    doing: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> SwarmError {
    SwarmError::Failed { doing, source: Box::new(source) }
}

/// A request whose values are wrong.
pub(crate) fn invalid(error: impl std::error::Error) -> SwarmError {
    SwarmError::InvalidRequest { reason: chain(&error) }
}

/// A request that is fine, but not for this version.
pub(crate) fn unsupported(reason: &str) -> SwarmError {
    SwarmError::Unsupported { reason: reason.to_owned() }
}

/// A request that a manager's rules refuse.
pub(crate) fn refused(error: manager::ManagerError) -> SwarmError {
    match error.code() {
        manager::Code::Unimplemented => SwarmError::Unsupported { reason: error.to_string() },
        manager::Code::InvalidArgument => SwarmError::InvalidRequest { reason: error.to_string() },
        _ => failed("check the swarm's settings", error),
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

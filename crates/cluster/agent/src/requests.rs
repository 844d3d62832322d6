//! What the API hands to and gets from a [`SwarmNode`](crate::SwarmNode): requests, state, errors.
//!
//! Requests deserialise straight from the bodies of `POST /swarm/init` and `/swarm/join`.

use objects::{Availability, ClusterSpec};
use serde::{Deserialize, Serialize};
use wire::Hidden;

/// Body of `POST /swarm/init`. A member that is `null` is a missing one: so clients write an empty list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InitRequest {
    /// `host:port`, `interface:port` or either alone; empty means `0.0.0.0:2377`.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub listen_addr: String,
    /// The same for the address that others are told; empty means: the only one there is.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub advertise_addr: String,
    /// Address or interface of the data path; empty means the advertised one.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub data_path_addr: String,
    /// VXLAN port; 0 means 4789.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub data_path_port: u32,
    /// Keep the state, make this node the only manager.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub force_new_cluster: bool,
    /// The cluster's settings; missing fields take Docker's defaults.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub spec: ClusterSpec,
    /// Lock the managers' storage with a key.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub auto_lock_managers: bool,
    /// Of this node.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub availability: Availability,
    /// Networks to cut overlays from; empty means 10.0.0.0/8.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub default_addr_pool: Vec<String>,
    /// Prefix length of an overlay's network; 0 means 24.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub subnet_size: u32,
}

/// Body of `POST /swarm/join`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinRequest {
    /// As in [`InitRequest`].
    #[serde(deserialize_with = "docker::null_as_default")]
    pub listen_addr: String,
    /// As in [`InitRequest`].
    #[serde(deserialize_with = "docker::null_as_default")]
    pub advertise_addr: String,
    /// As in [`InitRequest`].
    #[serde(deserialize_with = "docker::null_as_default")]
    pub data_path_addr: String,
    /// Managers to ask; only the first is used.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub remote_addrs: Vec<String>,
    /// `SWMTKN-1-…`.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub join_token: Hidden,
    /// Of this node.
    #[serde(deserialize_with = "docker::null_as_default")]
    pub availability: Availability,
}

/// Body of `POST /swarm/unlock`.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UnlockRequest {
    /// `SWMKEY-1-…`.
    pub unlock_key: String,
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
    /// 503: a member without a manager of its own was asked for what only managers know.
    #[error(
        "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."
    )]
    IsWorker,
    /// 503: the storage of this manager waits for its key.
    #[error(
        "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it."
    )]
    Locked,
    /// 503: leave without force on a locked manager.
    #[error("Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.")]
    LeaveLocked,
    /// 409: unlock on a node that is not locked.
    #[error("swarm is not locked")]
    NotLocked,
    /// 401: a key that is not this manager's.
    #[error("swarm could not be unlocked: invalid key provided")]
    WrongUnlockKey,
    /// 400: not of the form of an unlock key.
    #[error("invalid key string")]
    MalformedUnlockKey,
    /// 503: the node was away for so long that its certificate ran out, and no manager renewed it yet.
    #[error("Swarm certificates have expired. To replace them, leave the swarm and join again.")]
    CertificatesExpired,
    /// 503: joining takes longer than a client waits; it goes on.
    #[error(
        "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node."
    )]
    JoinTimeout,
    /// A manager of the swarm refused; the status follows from its code.
    #[error("rpc error: code = {code:?} desc = {message}")]
    Refused {
        /// The class.
        code: manager::Code,
        /// Docker's text.
        message: String,
    },
    /// 500: the manager that was asked is not of the swarm that the token is for.
    #[error("remote CA does not match fingerprint. Expected: {expected}")]
    ForeignRoot {
        /// Digest of the root's certificate in hex, as the token has it.
        expected: String,
    },
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

/// What is said to a manager that leaves without force while it is of no use itself.
/// Source: reference 4.4 (moby, `daemon/cluster/swarm.go` `Leave`).
pub(crate) const INACTIVE_MANAGER_LEAVES: &str = "You are attempting to leave the swarm on a node that is participating as a manager. Doing so may lose the consensus of your cluster. The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.";

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

/// A request that a manager's rules refuse.
pub(crate) fn refused(error: manager::ManagerError) -> SwarmError {
    match error.code() {
        manager::Code::Unimplemented => SwarmError::Unsupported { reason: error.to_string() },
        manager::Code::InvalidArgument => SwarmError::InvalidRequest { reason: error.to_string() },
        _ => failed("check the swarm's settings", error),
    }
}

/// The time now.
pub(crate) fn now() -> objects::Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    objects::Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_what_older_clients_write_for_nothing() {
        // Source: docker CLI 20.10, `swarm init`.
        let body = r#"{"ListenAddr":"0.0.0.0:2377","DataPathPort":0,"Spec":null,"DefaultAddrPool":null,"SubnetSize":0}"#;
        let request: InitRequest = serde_json::from_str(body).unwrap();
        assert!(request.default_addr_pool.is_empty() && request.listen_addr == "0.0.0.0:2377");
        let request: JoinRequest =
            serde_json::from_str(r#"{"RemoteAddrs":null,"Availability":null}"#).unwrap();
        assert!(request.remote_addrs.is_empty());
    }
}

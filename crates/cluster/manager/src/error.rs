//! What can go wrong in an operation on the swarm, with Docker's wording.
//!
//! Errors that Docker's clients see with gRPC's prefix keep it in their text (`rpc error: code = … desc = …`), because
//! scripts match on it. `code` says the class; the API alone turns it into an HTTP status.

use control::request::{self, RequestError};
use store::{ApplyError, FindError};

/// The class of a [`ManagerError`], by the names gRPC gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request itself is wrong (400).
    InvalidArgument,
    /// The state of the swarm forbids it (400).
    FailedPrecondition,
    /// No such object (404).
    NotFound,
    /// Another object has that name or port (409).
    AlreadyExists,
    /// The caller may not touch that object (403).
    PermissionDenied,
    /// Not something this swarm does (501).
    Unimplemented,
    /// Try again later (503).
    Unavailable,
    /// Everything else, a version conflict among them (500).
    Unknown,
}

/// Why an operation on the swarm was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Nothing has this id, name or id prefix, or too much has.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A request that the swarm's state or rules refuse.
    #[error("rpc error: code = {code:?} desc = {refused}", code = refused.code())]
    Refused {
        /// Docker's text and its class.
        refused: RequestError,
    },
    /// The cluster's spec is refused.
    #[error("rpc error: code = InvalidArgument desc = {reason}")]
    InvalidCluster {
        /// Docker's text.
        reason: &'static str,
    },
    /// Valid, but not what this version does.
    #[error("rpc error: code = Unimplemented desc = {what} not supported yet")]
    Unsupported {
        /// What exactly, with its verb.
        what: &'static str,
    },
    /// The cluster's spec can only be called `default`.
    #[error("swarm spec must be named \"default\"")]
    ClusterName,
    /// The `X-Registry-Auth` header has more than fits a service.
    #[error("rpc error: code = InvalidArgument desc = registry credentials of {bytes} bytes are too large")]
    AuthTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A node reports on a task that is not its own.
    #[error("rpc error: code = PermissionDenied desc = cannot update a task not assigned this node")]
    NotYourTask {
        /// Id of the task.
        task: objects::TaskId,
    },
    /// A node that the swarm does not know, or not any more.
    #[error("rpc error: code = NotFound desc = node not found")]
    UnknownNode {
        /// Its id.
        node: objects::NodeId,
    },
    /// A filter nobody knows, or a value that it does not take.
    #[error(transparent)]
    Filter(#[from] docker::filters::FilterError),
    /// More than 1.5 MiB in one change.
    #[error("rpc error: code = Unknown desc = raft: raft message is too large and can't be sent")]
    TooLarge,
    /// The object kept changing under the operation.
    #[error("rpc error: code = Unknown desc = update out of sequence")]
    OutOfSequence,
    /// The manager stops.
    #[error(
        "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
    )]
    Stopping,
    /// The store refused what was proposed.
    #[error("rpc error: code = Unknown desc = {0}")]
    Store(ApplyError),
    /// The log did not take it.
    #[error("rpc error: code = Unknown desc = the swarm's log failed")]
    Log(#[source] raft::ProposeError),
    /// The log cannot be opened.
    #[error("open the swarm's log")]
    Open(#[from] raft::OpenError),
    /// The log has no cluster in it.
    #[error("the swarm's log has no cluster; leave the swarm with `--force` and initialise it again")]
    NoCluster,
    /// The authority failed to make a key or certificate.
    #[error("rpc error: code = Unknown desc = the swarm's certificate authority failed")]
    Authority(#[from] pki::PkiError),
}

/// Why a manager can do nothing more: its log has stopped.
#[derive(Debug, thiserror::Error)]
#[error("the swarm's manager has stopped and is being started again")]
pub struct ManagerFailed(#[source] pub(crate) raft::ProposeError);

impl From<RequestError> for ManagerError {
    fn from(refused: RequestError) -> Self {
        match refused {
            // Docker looks names up itself, outside of the call that gets the prefix.
            RequestError::Find(error) => Self::Find(error),
            refused => Self::Refused { refused },
        }
    }
}

impl From<raft::ProposeError> for ManagerError {
    fn from(error: raft::ProposeError) -> Self {
        match error {
            raft::ProposeError::Refused(ApplyError::OutOfSequence { .. }) => Self::OutOfSequence,
            raft::ProposeError::Refused(ApplyError::NameConflict { name, .. }) => {
                Self::Refused { refused: RequestError::NameConflict { name } }
            }
            raft::ProposeError::Refused(refused) => Self::Store(refused),
            raft::ProposeError::TooLarge { .. } => Self::TooLarge,
            error => Self::Log(error),
        }
    }
}

impl ManagerError {
    /// The class of the error.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Find(FindError::NotFound { .. }) | Self::UnknownNode { .. } => Code::NotFound,
            Self::Find(FindError::Ambiguous { .. })
            | Self::InvalidCluster { .. }
            | Self::AuthTooLarge { .. }
            | Self::ClusterName
            | Self::Filter(_) => Code::InvalidArgument,
            Self::Refused { refused } => of_request(refused.code()),
            Self::NotYourTask { .. } => Code::PermissionDenied,
            Self::Unsupported { .. } => Code::Unimplemented,
            Self::Stopping => Code::Unavailable,
            Self::OutOfSequence
            | Self::TooLarge
            | Self::Store(_)
            | Self::Log(_)
            | Self::Open(_)
            | Self::NoCluster
            | Self::Authority(_) => Code::Unknown,
        }
    }
}

fn of_request(code: request::Code) -> Code {
    match code {
        request::Code::InvalidArgument => Code::InvalidArgument,
        request::Code::FailedPrecondition => Code::FailedPrecondition,
        request::Code::NotFound => Code::NotFound,
        request::Code::AlreadyExists => Code::AlreadyExists,
        request::Code::Unimplemented => Code::Unimplemented,
        request::Code::Unknown => Code::Unknown,
    }
}

//! What can go wrong in an operation on the swarm, with Docker's wording.
//!
//! Errors that Docker's clients see with gRPC's prefix keep it in their text (`rpc error: code = … desc = …`), because
//! scripts match on it. `code` says the class; the API alone turns it into an HTTP status.

use control::request::{self, RequestError};
use store::{ApplyError, FindError};
use wire::Refusal;

pub use wire::Code;

/// What the prefix of errors that came over gRPC begins with.
const PREFIX: &str = "rpc error: code = ";

/// What a manager with a former log is told; it is known by this text.
pub(crate) const FORMER_LOG: &str = "the manager's log is of before the swarm was founded anew";

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
    /// The network's name is taken. Docker looks it up itself: the text has no prefix.
    #[error("network with name {name} already exists")]
    NetworkExists {
        /// The name.
        name: String,
    },
    /// The cluster's spec is refused.
    #[error("rpc error: code = InvalidArgument desc = {reason}")]
    InvalidCluster {
        /// Docker's text.
        reason: String,
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
    /// A container that gets no addresses on a network.
    #[error("rpc error: code = ResourceExhausted desc = {reason}")]
    NoPlace {
        /// Why.
        reason: String,
    },
    /// A node that the swarm does not know, or not any more.
    #[error("rpc error: code = NotFound desc = node not found")]
    UnknownNode {
        /// Its id.
        node: objects::NodeId,
    },
    /// A node that was removed from the swarm.
    #[error("rpc error: code = PermissionDenied desc = {}", rpc::ServerOptions::REMOVED)]
    RemovedNode,
    /// A session that this manager does not serve, or not any more.
    /// Source: reference 5.
    #[error("rpc error: code = InvalidArgument desc = session invalid")]
    UnknownSession,
    /// A node that opens sessions again and again.
    #[error(
        "rpc error: code = Unavailable desc = node {node} exceeded rate limit count of node registration attempts"
    )]
    TooManySessions {
        /// Its id.
        node: objects::NodeId,
    },
    /// A join token of another swarm, of an earlier time, or made up.
    /// Source: reference 4.3.
    #[error("rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster")]
    InvalidToken,
    /// A machine whose clock is so far off that it would not take the certificate it asks for.
    #[error("rpc error: code = FailedPrecondition desc = {off}")]
    Clock {
        /// Whose, and how far.
        off: ClockOff,
    },
    /// A manager whose address does not lead back to it.
    #[error(
        "rpc error: code = Unavailable desc = could not connect to prospective new cluster member using its advertised address {address}"
    )]
    MemberUnreachable {
        /// What it gave as its address.
        address: String,
        /// What happened there.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A role that cannot change now.
    #[error("rpc error: code = FailedPrecondition desc = {0}")]
    Role(membership::RoleError),
    /// A node that is no manager, and never was asked to be one.
    #[error("rpc error: code = PermissionDenied desc = node {node} is not a manager of the swarm")]
    NotAManager {
        /// Its id.
        node: objects::NodeId,
    },
    /// A manager whose log ended when the swarm was founded anew without it: it has to begin another one.
    #[error("rpc error: code = FailedPrecondition desc = {FORMER_LOG}")]
    FormerLog {
        /// Its node.
        node: objects::NodeId,
    },
    /// The root is being replaced, or cannot be, or a request for a certificate is wrong.
    #[error("rpc error: code = {code:?} desc = {reason}")]
    Trust {
        /// Its class.
        code: Code,
        /// Docker's text.
        reason: String,
    },
    /// Raft did not take a manager in, or out.
    #[error("rpc error: code = Unavailable desc = the swarm's managers were not changed")]
    Members(#[source] raft::MemberError),
    /// Nobody certified a node: the authority outside of the swarm failed.
    #[error("rpc error: code = Unavailable desc = the certificate was not signed")]
    Signing(#[source] pki::SignError),
    /// A filter nobody knows, or a value that it does not take.
    #[error(transparent)]
    Filter(#[from] docker::filters::FilterError),
    /// More than 1.5 MiB in one change.
    #[error("rpc error: code = Unknown desc = raft: raft message is too large and can't be sent")]
    TooLarge,
    /// The object kept changing under the operation.
    #[error("rpc error: code = Unknown desc = update out of sequence")]
    OutOfSequence,
    /// Nobody can commit anything: too few managers reach each other. Source: reference 4.1.
    #[error(
        "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
    )]
    NoLeader,
    /// This manager does not lead; it is asked by another one that believed so.
    #[error("rpc error: code = Unavailable desc = this manager is not the leader of the swarm")]
    NotLeader {
        /// Where the leader is, if that is known.
        leader: Option<String>,
    },
    /// The leader took longer than a request may.
    #[error("rpc error: code = DeadlineExceeded desc = context deadline exceeded")]
    TooSlow,
    /// What the leader, or another manager, refused.
    #[error("{text}")]
    Elsewhere {
        /// Its class.
        code: Code,
        /// Its text, as that one would show it itself.
        text: String,
    },
    /// The manager stops, or has not caught up with the swarm yet.
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
    /// The log is of another swarm than the node is in.
    #[error(
        "the log in this directory is of the swarm {found}, this node is in {expected}; restore the swarm directory as a whole"
    )]
    ForeignLog {
        /// What the log says.
        found: objects::ClusterId,
        /// What the node's certificate says.
        expected: objects::ClusterId,
    },
    /// The authority failed to make a key or certificate.
    #[error("rpc error: code = Unknown desc = the swarm's certificate authority failed")]
    Authority(#[from] pki::PkiError),
}

/// A clock that is too far from this manager's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock of {machine} is {} {} the managers'; set it and try again",
    span(*.offset_ms),
    if *.offset_ms > 0 { "ahead of" } else { "behind" }
)]
pub struct ClockOff {
    /// Host name and address, or id.
    pub machine: String,
    /// How far it is ahead; negative when it is behind.
    pub offset_ms: i64,
}

/// A span as people say it: rounded to the largest unit that it fills twice.
fn span(milliseconds: i64) -> String {
    let seconds = (milliseconds.unsigned_abs() + 500) / 1000;
    let whole = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", whole(60)),
        7_200..172_800 => format!("{} h", whole(3_600)),
        _ => format!("{} d", whole(86_400)),
    }
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
            RequestError::NetworkExists { name } => Self::NetworkExists { name },
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

impl From<Refusal> for ManagerError {
    fn from(refusal: Refusal) -> Self {
        Self::Elsewhere { code: refusal.code, text: refusal.message }
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
            | Self::UnknownSession
            | Self::InvalidToken
            | Self::Filter(_) => Code::InvalidArgument,
            Self::Refused { refused } => of_request(refused.code()),
            Self::NetworkExists { .. } => Code::AlreadyExists,
            Self::Elsewhere { code, .. } | Self::Trust { code, .. } => *code,
            Self::NotYourTask { .. } | Self::NotAManager { .. } | Self::RemovedNode => Code::PermissionDenied,
            Self::Clock { .. } | Self::Role(_) | Self::FormerLog { .. } => Code::FailedPrecondition,
            Self::Stopping
            | Self::NotLeader { .. }
            | Self::Members(_)
            | Self::Signing(_)
            | Self::TooManySessions { .. }
            | Self::MemberUnreachable { .. } => Code::Unavailable,
            Self::NoPlace { .. } => Code::ResourceExhausted,
            Self::TooSlow => Code::DeadlineExceeded,
            Self::OutOfSequence
            | Self::NoLeader
            | Self::TooLarge
            | Self::Store(_)
            | Self::Log(_)
            | Self::Open(_)
            | Self::NoCluster
            | Self::ForeignLog { .. }
            | Self::Authority(_) => Code::Unknown,
        }
    }

    /// The error for another manager, which shows the text as it is.
    pub(crate) fn for_manager(&self) -> Refusal {
        let leader = match self {
            Self::NotLeader { leader } => leader.clone(),
            _ => None,
        };
        Refusal { code: self.code(), message: chain(self), leader }
    }

    /// The error for a node, which puts the prefix before the text itself.
    #[must_use]
    pub fn for_node(&self) -> Refusal {
        let refusal = self.for_manager();
        let bare = refusal.message.strip_prefix(PREFIX).and_then(|rest| rest.split_once(" desc = "));
        let message = bare.map_or_else(|| refusal.message.clone(), |(_, text)| text.to_owned());
        Refusal { message, ..refusal }
    }
}

/// An error with its causes: they do not travel as values.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn of_request(code: request::Code) -> Code {
    match code {
        request::Code::InvalidArgument => Code::InvalidArgument,
        request::Code::FailedPrecondition => Code::FailedPrecondition,
        request::Code::NotFound => Code::NotFound,
        request::Code::PermissionDenied => Code::PermissionDenied,
        request::Code::AlreadyExists => Code::AlreadyExists,
        request::Code::Unimplemented => Code::Unimplemented,
        request::Code::Unknown => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_named_with_the_way_and_the_span() {
        for (offset_ms, text) in [
            (86_399_998, "24 h ahead of"),
            (-86_399_998, "24 h behind"),
            (-119_600, "2 min behind"),
            (9 * 86_400_000, "9 d ahead of"),
        ] {
            let off = ClockOff { machine: "n4 (10.0.0.4)".to_owned(), offset_ms };
            let expected =
                format!("the clock of n4 (10.0.0.4) is {text} the managers'; set it and try again");
            assert_eq!(off.to_string(), expected);
        }
    }
}

//! The way from one manager's log to another's: what a caller of this crate has to provide.
//!
//! Bodies are this crate's own encoding; a transport only carries them. It has to be authenticated: whoever can call
//! [`Consensus::answer`](crate::Consensus::answer) can change the swarm's state.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

/// A member of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its number in the log; never zero, never used again for another manager.
    pub raft_id: u64,
    /// Where other managers reach it, `host:port`.
    pub address: String,
}

/// What a call is about. A transport may use it as the name of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// Entries. At most a few MiB.
    Append,
    /// Proof that the leader lives. Frequent and small; doing it twice does no harm.
    Beat,
    /// May I lead?
    Vote,
    /// Would you let me lead?
    PreVote,
    /// Lead instead of me.
    Transfer,
    /// Are you there, and is the leader gone? Small and rare.
    Probe,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Append, Self::Beat, Self::Vote, Self::PreVote, Self::Transfer, Self::Probe];

    /// A name to route by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Beat => "beat",
            Self::Vote => "vote",
            Self::PreVote => "pre-vote",
            Self::Transfer => "transfer",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection was closed or refused by the member's machine: its process has most likely died.
    #[error("the connection is closed")]
    Closed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing was heard: the machine or the way to it is gone, or slow.
    #[error("no answer")]
    Silent(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The member answered that it does not talk to this manager.
    #[error("the call was refused")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The body of a snapshot on its way: pieces of at most 1 MiB.
pub type SnapshotStream = BoxStream<'static, io::Result<Bytes>>;

/// Carries calls to other managers.
pub trait Transport: Send + Sync + 'static {
    /// Calls [`Consensus::answer`](crate::Consensus::answer) of `to` and gives its answer. Dropping the future cancels
    /// the call. Calls to one member are independent: none waits for another's answer.
    fn call(
        &self,
        to: &Member,
        call: Call,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>>;

    /// Calls [`Consensus::answer_snapshot`](crate::Consensus::answer_snapshot) of `to`. Has no time limit of its own:
    /// it is given up when nothing moves.
    fn snapshot(
        &self,
        to: &Member,
        header: Bytes,
        body: SnapshotStream,
    ) -> BoxFuture<'static, Result<Bytes, CallError>>;
}

/// The transport of a manager that has nobody to call: every call fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTransport;

#[derive(Debug, thiserror::Error)]
#[error("this manager has no way to others")]
struct Alone;

impl Transport for NoTransport {
    fn call(
        &self,
        _: &Member,
        _: Call,
        _: Bytes,
        _: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        Box::pin(async { Err(CallError::Silent(Alone.into())) })
    }

    fn snapshot(
        &self,
        _: &Member,
        _: Bytes,
        _: SnapshotStream,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        Box::pin(async { Err(CallError::Silent(Alone.into())) })
    }
}

//! Carries raft's calls over `rpc`, in both directions.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use raft::{Call, CallError, Member, SnapshotStream, Transport};
use rpc::{Caller, Router, Upload};
use wire::managers::{
    RAFT_APPEND, RAFT_BEAT, RAFT_PRE_VOTE, RAFT_PROBE, RAFT_SNAPSHOT, RAFT_TRANSFER, RAFT_VOTE,
};
use wire::{Code, RawMethod, Refusal};

use crate::manager::Manager;

/// How long a snapshot may take. chosen: the largest swarms' over the slowest links that can hold a manager; raft itself
/// gives up sooner when nothing moves.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(600);

/// The manager that last refused to take part in this one's consensus: it may know of a swarm that was founded anew.
#[derive(Clone, Default)]
pub(crate) struct Refuser(Arc<Mutex<Option<String>>>);

impl Refuser {
    /// Its address (`host:port`), once.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().expect("nothing panics while holding it").take()
    }

    fn note(&self, address: String, error: &rpc::CallError) {
        if let rpc::CallError::Refused(refusal) = error
            && matches!(refusal.code, Code::FailedPrecondition | Code::PermissionDenied)
        {
            *self.0.lock().expect("nothing panics while holding it") = Some(address);
        }
    }
}

/// Raft's way to other managers.
pub(crate) struct RpcTransport {
    client: rpc::Client,
    refuser: Refuser,
}

impl RpcTransport {
    pub(crate) fn new(client: rpc::Client, refuser: Refuser) -> Self {
        Self { client, refuser }
    }
}

fn method(call: Call) -> RawMethod {
    match call {
        Call::Append => RAFT_APPEND,
        Call::Beat => RAFT_BEAT,
        Call::Vote => RAFT_VOTE,
        Call::PreVote => RAFT_PRE_VOTE,
        Call::Transfer => RAFT_TRANSFER,
        Call::Probe => RAFT_PROBE,
    }
}

impl Transport for RpcTransport {
    fn call(
        &self,
        to: &Member,
        call: Call,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let (client, address, refuser) = (self.client.clone(), to.address.clone(), self.refuser.clone());
        async move {
            let answer = match call {
                Call::Beat => client.small(&address, method(call), body, timeout).await,
                _ => client.raw(&address, method(call), body, timeout).await,
            };
            answer.inspect_err(|error| refuser.note(address, error)).map_err(into_raft)
        }
        .boxed()
    }

    fn snapshot(
        &self,
        to: &Member,
        header: Bytes,
        body: SnapshotStream,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let (client, address) = (self.client.clone(), to.address.clone());
        async move {
            let sent = client.upload(&address, RAFT_SNAPSHOT, header, body, SNAPSHOT_WITHIN).await;
            sent.map_err(into_raft)
        }
        .boxed()
    }
}

fn into_raft(error: rpc::CallError) -> CallError {
    match error {
        rpc::CallError::Unreachable { .. } if is_closed(&error) => CallError::Closed(error.into()),
        rpc::CallError::Unreachable { .. } | rpc::CallError::TimedOut { .. } => {
            CallError::Silent(error.into())
        }
        error => CallError::Refused(error.into()),
    }
}

/// Whether the other machine answered that nobody is there, or its process let go of the connection.
fn is_closed(error: &rpc::CallError) -> bool {
    let rpc::CallError::Unreachable { source, .. } = error else { return false };
    matches!(
        source.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// Adds what raft answers.
pub(crate) fn routes(manager: &Manager, router: Router) -> Router {
    let router = Call::ALL.into_iter().fold(router, |router, call| {
        let manager = manager.clone();
        router.raw(method(call), move |_: Caller, body: Bytes| {
            let manager = manager.clone();
            async move { manager.inner.consensus.answer(call, body).await.map_err(refused) }
        })
    });
    let manager = manager.clone();
    router.upload(RAFT_SNAPSHOT, move |_: Caller, header: Bytes, body: Upload| {
        let manager = manager.clone();
        let body = body.map(|piece| piece.map_err(io::Error::other)).boxed();
        async move { manager.inner.consensus.answer_snapshot(header, body).await.map_err(refused) }
    })
}

fn refused(error: raft::AnswerError) -> Refusal {
    let code = match &error {
        raft::AnswerError::Epoch { .. } | raft::AnswerError::OtherMember { .. } => Code::FailedPrecondition,
        raft::AnswerError::Malformed(_) | raft::AnswerError::CutOff(_) => Code::InvalidArgument,
        raft::AnswerError::Disk(_) | raft::AnswerError::Stopped(_) => Code::Unavailable,
    };
    Refusal::new(code, error.to_string())
}

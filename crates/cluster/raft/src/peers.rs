//! The way to other managers, as openraft sees it: its requests as messages over the [`Link`].
//!
//! In: openraft's requests. Out: the other's answer, or that it cannot be reached, which openraft retries or gives up on by
//! itself.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use openraft::base::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{AnyError, BasicNode};

use crate::command::{TypeConfig, Vote};
use crate::encoding::{DecodeError, PlacedMembers, StoredVote};
use crate::link::Link;
use crate::messages::{self, Candidacy, Envelope, SnapshotAnswer, SnapshotHead};
use crate::runtime::{self, Instant};
use crate::snapshot::{Pieces, SnapshotBody};
use crate::tempo;
use crate::timing;
use crate::transport::{Call, CallError, SnapshotStream};

/// Makes [`Peer`]s.
#[derive(Clone)]
pub(crate) struct Peers(pub(crate) Arc<Link>);

/// One other manager.
pub(crate) struct Peer {
    link: Arc<Link>,
    to: u64,
    address: String,
    /// Whether it carries heartbeats only.
    beats: bool,
}

/// Why a peer gave no usable answer.
#[derive(Debug, thiserror::Error)]
enum PeerError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("encode the request")]
    Encode(#[from] serde_json::Error),
    #[error("read the answer")]
    Decode(#[from] DecodeError),
}

fn unreachable(error: &PeerError) -> Unreachable<TypeConfig> {
    Unreachable::new(&AnyError::error(Chain(error)))
}

/// An error with its causes, for openraft, which keeps a text only.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, to: u64, node: &BasicNode) -> Peer {
        Peer { link: Arc::clone(&self.0), to, address: node.addr.clone(), beats: false }
    }

    async fn new_heartbeat_client(&mut self, to: u64, node: &BasicNode) -> Peer {
        Peer { beats: true, ..self.new_client(to, node).await }
    }
}

impl Peer {
    async fn call<T>(
        &self,
        call: Call,
        body: Result<bytes::Bytes, serde_json::Error>,
        timeout: Duration,
        read: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, PeerError> {
        let answer = self.link.call(self.to, &self.address, call, body?, timeout).await?;
        let (_, content) = Envelope::read(&answer)?;
        Ok(read(content)?)
    }

    fn envelope(&self) -> Envelope {
        self.link.envelope(self.to)
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotBody;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = self.envelope().append(&request);
        // openraft's limit is the heartbeat's also for entries, which may have to wait for a disk.
        let timeout = if self.beats { tempo::stretched(option.hard_ttl()) } else { timing::APPEND };
        let sent = Instant::now();
        let call = if self.beats { Call::Beat } else { Call::Append };
        let answer = self.call(call, body, timeout, messages::read_append_answer).await;
        let (answer, promises) = answer.map_err(|error| RPCError::Unreachable(unreachable(&error)))?;
        if promises {
            self.link.lease.answered(StoredVote::of(&request.vote), self.to, sent);
        }
        Ok(answer)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = self.envelope().seal(&Candidacy::of(&request, self.link.gone()));
        let answer = self
            .call(Call::Vote, body, tempo::stretched(option.hard_ttl()), messages::read_vote_answer)
            .await;
        answer.map_err(|error| RPCError::Unreachable(unreachable(&error)))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = self.envelope().seal(&Candidacy::of(&request, None));
        let answer = self
            .call(Call::PreVote, body, tempo::stretched(option.hard_ttl()), messages::read_vote_answer)
            .await;
        answer.map_err(|error| RPCError::Unreachable(unreachable(&error)))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotBody>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let head = SnapshotHead {
            vote: StoredVote::of(&vote),
            at: messages::place(snapshot.meta.last_log_id),
            members: PlacedMembers::of(&snapshot.meta.last_membership),
            bytes: snapshot.snapshot.bytes,
        };
        let sending = async {
            let header = self.envelope().seal(&head)?;
            let body = stream(snapshot.snapshot);
            let answer = self.link.snapshot(self.to, &self.address, header, body).await?;
            let (_, content) = Envelope::read(&answer)?;
            let answer: SnapshotAnswer = messages::read(content)?;
            Ok::<_, PeerError>(SnapshotResponse::new(answer.vote.into_vote()))
        };
        let (sending, cancel) = (std::pin::pin!(sending), std::pin::pin!(cancel));
        match futures_util::future::select(sending, cancel).await {
            futures_util::future::Either::Left((answer, _)) => {
                answer.map_err(|error| StreamingError::Unreachable(unreachable(&error)))
            }
            futures_util::future::Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.link.lease.surrender(StoredVote::of(request.from_leader()).term);
        let body = messages::transfer(self.envelope(), &request);
        let answer = self
            .call(Call::Transfer, body, tempo::stretched(option.hard_ttl()), messages::read_transfer_answer)
            .await;
        let accepted = answer.map_err(|error| RPCError::Unreachable(unreachable(&error)))?;
        let expected = request.last_log_id().copied();
        Ok(if accepted { Ok(()) } else { Err(TransferLeaderError::LogNotFlushed { expected, actual: None }) })
    }
}

/// A snapshot's pieces, each read when it is asked for.
fn stream(body: SnapshotBody) -> SnapshotStream {
    enum Reading {
        Begin(SnapshotBody),
        Go(Pieces),
        End,
    }
    futures_util::stream::unfold(Reading::Begin(body), |reading| async {
        let read = runtime::blocking(move || {
            let mut pieces = match reading {
                Reading::Begin(body) => match body.pieces() {
                    Ok(pieces) => pieces,
                    Err(error) => return Some((Err(std::io::Error::other(error)), Reading::End)),
                },
                Reading::Go(pieces) => pieces,
                Reading::End => return None,
            };
            match pieces.next() {
                Ok(piece) => piece.map(|piece| (Ok(piece.into()), Reading::Go(pieces))),
                Err(error) => Some((Err(std::io::Error::other(error)), Reading::End)),
            }
        });
        read.await.unwrap_or_else(|error| Some((Err(error), Reading::End)))
    })
    .boxed()
}

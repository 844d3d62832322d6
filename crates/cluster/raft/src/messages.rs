//! What managers' logs say to each other.
//!
//! ```text
//!  1 byte   8 bytes, BE  8 bytes, BE  8 bytes, BE  rest
//!  version  epoch        sender       receiver     the call: JSON, or for entries a JSON head and entries
//!  version  epoch        sender       receiver     the answer: JSON
//! ```
//!
//! In: openraft's requests and answers, or bytes. Out: the other. A message of another epoch, or for another manager, is
//! told apart before its content is looked at.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::command::{LogId, TypeConfig};
use crate::encoding::{self, DecodeError, PlacedMembers, Position, StoredVote, split_number};

/// The newest format of a message, and so far the only one.
const VERSION: u8 = 1;

/// Who talks to whom, in which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) epoch: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: StoredVote,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Position>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    committed: Option<Position>,
}

/// The answer to entries.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AppendAnswer {
    Success,
    /// It arrived at a manager that is there, and waits for its disk.
    Waiting,
    Partial {
        last: Option<Position>,
    },
    Conflict,
    HigherVote {
        vote: StoredVote,
    },
}

/// A wish to lead, or the question whether it would be granted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Candidacy {
    pub(crate) vote: StoredVote,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<Position>,
    #[serde(default)]
    pub(crate) transfer: bool,
    /// The leader whose process is gone, as the candidate and a quorum have seen: its lease does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gone: Option<StoredVote>,
}

#[derive(Serialize, Deserialize)]
struct VoteAnswer {
    vote: StoredVote,
    granted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Position>,
}

#[derive(Serialize, Deserialize)]
struct Transfer {
    from: StoredVote,
    to: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Position>,
}

#[derive(Serialize, Deserialize)]
struct TransferAnswer {
    accepted: bool,
}

/// Asks a manager whether it lives and, if a leader is named, whether that one's process is gone.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// A leader answers only after that time, or when it no longer leads: whoever asks notices the end of its process by
    /// the end of the connection.
    #[serde(default)]
    pub(crate) linger_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) suspect: Option<StoredVote>,
}

/// The answer to a probe.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ProbeAnswer {
    /// The suspect's machine refused or closed a connection, or its log has stopped, and it still is the leader that this
    /// manager knows.
    pub(crate) gone: bool,
    /// This manager's log has stopped: its disk failed.
    #[serde(default)]
    pub(crate) stopped: bool,
    /// The last entry this manager has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<Position>,
}

/// What a snapshot is of.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) vote: StoredVote,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Position>,
    pub(crate) members: PlacedMembers,
    /// Size of the body.
    pub(crate) bytes: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotAnswer {
    pub(crate) vote: StoredVote,
}

impl Envelope {
    /// A message with this content.
    pub(crate) fn seal<T: Serialize>(self, content: &T) -> Result<Bytes, serde_json::Error> {
        let mut message = self.open_message();
        serde_json::to_writer(&mut message, content)?;
        Ok(message.into())
    }

    fn open_message(self) -> Vec<u8> {
        let mut message = vec![VERSION];
        for number in [self.epoch, self.from, self.to] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message
    }

    /// Splits a message.
    pub(crate) fn read(message: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let (version, rest) = message.split_first().ok_or(DecodeError::Short)?;
        if *version != VERSION {
            return Err(DecodeError::TooNew { found: *version, known: VERSION });
        }
        let (epoch, rest) = split_number(rest)?;
        let (from, rest) = split_number(rest)?;
        let (to, rest) = split_number(rest)?;
        Ok((Self { epoch, from, to }, rest))
    }

    pub(crate) fn append(
        self,
        request: &AppendEntriesRequest<TypeConfig>,
    ) -> Result<Bytes, serde_json::Error> {
        let head = serde_json::to_vec(&AppendHead {
            vote: StoredVote::of(&request.vote),
            after: place(request.prev_log_id),
            committed: place(request.leader_commit),
        })?;
        let mut message = self.open_message();
        push(&mut message, &head);
        for entry in &request.entries {
            push(&mut message, &encoding::encode_entry(entry)?);
        }
        Ok(message.into())
    }
}

fn push(message: &mut Vec<u8>, part: &[u8]) {
    message.extend_from_slice(&(part.len() as u64).to_be_bytes());
    message.extend_from_slice(part);
}

fn pull<'m>(message: &mut &'m [u8]) -> Result<&'m [u8], DecodeError> {
    let (length, rest) = split_number(message)?;
    let length = usize::try_from(length).map_err(|_| DecodeError::Short)?;
    let (part, rest) = rest.split_at_checked(length).ok_or(DecodeError::Short)?;
    *message = rest;
    Ok(part)
}

pub(crate) fn read<T: DeserializeOwned>(content: &[u8]) -> Result<T, DecodeError> {
    Ok(serde_json::from_slice(content)?)
}

pub(crate) fn read_append(mut content: &[u8]) -> Result<AppendEntriesRequest<TypeConfig>, DecodeError> {
    let head: AppendHead = read(pull(&mut content)?)?;
    let mut entries = Vec::new();
    while !content.is_empty() {
        entries.push(encoding::decode_entry(pull(&mut content)?)?);
    }
    Ok(AppendEntriesRequest {
        vote: head.vote.into_vote(),
        prev_log_id: head.after.map(Position::into_log_id),
        leader_commit: head.committed.map(Position::into_log_id),
        entries,
    })
}

/// The answer to a heartbeat that waits behind entries for the disk.
pub(crate) fn waiting_answer(envelope: Envelope) -> Result<Bytes, serde_json::Error> {
    envelope.seal(&AppendAnswer::Waiting)
}

pub(crate) fn append_answer(
    envelope: Envelope,
    answer: &AppendEntriesResponse<TypeConfig>,
) -> Result<Bytes, serde_json::Error> {
    envelope.seal(&match answer {
        AppendEntriesResponse::Success => AppendAnswer::Success,
        AppendEntriesResponse::PartialSuccess(last) => AppendAnswer::Partial { last: place(*last) },
        AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
        AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote { vote: StoredVote::of(vote) },
    })
}

/// What openraft is told, and whether the follower has promised to help nobody else to lead.
pub(crate) fn read_append_answer(
    content: &[u8],
) -> Result<(AppendEntriesResponse<TypeConfig>, bool), DecodeError> {
    Ok(match read(content)? {
        AppendAnswer::Success => (AppendEntriesResponse::Success, true),
        AppendAnswer::Waiting => (AppendEntriesResponse::Success, false),
        AppendAnswer::Partial { last } => {
            (AppendEntriesResponse::PartialSuccess(last.map(Position::into_log_id)), true)
        }
        AppendAnswer::Conflict => (AppendEntriesResponse::Conflict, true),
        AppendAnswer::HigherVote { vote } => (AppendEntriesResponse::HigherVote(vote.into_vote()), false),
    })
}

impl Candidacy {
    pub(crate) fn of(request: &VoteRequest<TypeConfig>, gone: Option<StoredVote>) -> Self {
        Self {
            vote: StoredVote::of(&request.vote),
            last: place(request.last_log_id),
            transfer: request.leadership_transfer,
            gone,
        }
    }

    pub(crate) fn into_request(self) -> VoteRequest<TypeConfig> {
        VoteRequest {
            vote: self.vote.into_vote(),
            last_log_id: self.last.map(Position::into_log_id),
            leadership_transfer: self.transfer,
        }
    }
}

pub(crate) fn vote_answer(
    envelope: Envelope,
    answer: &VoteResponse<TypeConfig>,
) -> Result<Bytes, serde_json::Error> {
    envelope.seal(&VoteAnswer {
        vote: StoredVote::of(&answer.vote),
        granted: answer.vote_granted,
        last: place(answer.last_log_id),
    })
}

pub(crate) fn read_vote_answer(content: &[u8]) -> Result<VoteResponse<TypeConfig>, DecodeError> {
    let answer: VoteAnswer = read(content)?;
    let last = answer.last.map(Position::into_log_id);
    Ok(VoteResponse::new(answer.vote.into_vote(), last, answer.granted))
}

pub(crate) fn transfer(
    envelope: Envelope,
    request: &TransferLeaderRequest<TypeConfig>,
) -> Result<Bytes, serde_json::Error> {
    envelope.seal(&Transfer {
        from: StoredVote::of(request.from_leader()),
        to: *request.to_node_id(),
        last: place(request.last_log_id().copied()),
    })
}

pub(crate) fn read_transfer(content: &[u8]) -> Result<TransferLeaderRequest<TypeConfig>, DecodeError> {
    let request: Transfer = read(content)?;
    let last = request.last.map(Position::into_log_id);
    Ok(TransferLeaderRequest::new(request.from.into_vote(), request.to, last))
}

pub(crate) fn transfer_answer(envelope: Envelope, accepted: bool) -> Result<Bytes, serde_json::Error> {
    envelope.seal(&TransferAnswer { accepted })
}

pub(crate) fn read_transfer_answer(content: &[u8]) -> Result<bool, DecodeError> {
    Ok(read::<TransferAnswer>(content)?.accepted)
}

pub(crate) fn place(log_id: Option<LogId>) -> Option<Position> {
    log_id.map(Position::of)
}

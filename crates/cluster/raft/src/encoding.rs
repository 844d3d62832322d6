//! How entries, votes and positions look, on disk inside their seal and on the wire: shapes of our own.
//!
//! ```text
//!  8 bytes, BE  8 bytes, BE  8 bytes, BE  1 byte  rest
//!  term         node         index        kind    nothing, or JSON: members, or the command as it was proposed
//! ```
//!
//! Everything but an entry is JSON. In: openraft's values or bytes. Out: the other. Never guesses: what it does not know
//! is refused.

use std::collections::{BTreeMap, BTreeSet};

use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload, Membership};
use serde::{Deserialize, Serialize};

use crate::command::{Command, Entry, LogId, StoredMembership, TypeConfig, Vote};

/// Bytes of an entry before its payload.
const ENTRY_HEADER_BYTES: usize = 25;

const BLANK: u8 = 0;
const MEMBERS: u8 = 1;
const COMMAND: u8 = 2;

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("it is cut off")]
    Short,
    #[error("it has format {found}, newest known is {known}")]
    TooNew { found: u8, known: u8 },
    #[error("an entry has the unknown kind {kind}")]
    Kind { kind: u8 },
    #[error("it does not parse")]
    Json(#[from] serde_json::Error),
    #[error("its membership is not one")]
    Membership,
}

/// Place of an entry: the term and node of the leader that made it, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) index: u64,
}

/// Who may become leader, and who is being replaced.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct StoredMembers {
    /// One set, or two during a change.
    voters: Vec<BTreeSet<u64>>,
    /// Address of every member.
    addresses: BTreeMap<u64, String>,
}

/// Members and the entry that made them so.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct PlacedMembers {
    at: Option<Position>,
    members: StoredMembers,
}

/// A vote, or a leader if it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredVote {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) committed: bool,
}

pub(crate) fn encode_entry(entry: &Entry) -> Result<Vec<u8>, serde_json::Error> {
    let at = Position::of(entry.log_id);
    let members;
    let (kind, payload): (u8, &[u8]) = match &entry.payload {
        EntryPayload::Blank => (BLANK, &[]),
        EntryPayload::Membership(membership) => {
            members = serde_json::to_vec(&StoredMembers::of(membership))?;
            (MEMBERS, &members)
        }
        EntryPayload::Normal(command) => (COMMAND, &command.encoded),
    };
    let mut bytes = Vec::with_capacity(ENTRY_HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&at.term.to_be_bytes());
    bytes.extend_from_slice(&at.node.to_be_bytes());
    bytes.extend_from_slice(&at.index.to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

pub(crate) fn decode_entry(bytes: &[u8]) -> Result<Entry, DecodeError> {
    let (at, kind, payload) = split_entry(bytes)?;
    let payload = match kind {
        BLANK => EntryPayload::Blank,
        MEMBERS => {
            EntryPayload::Membership(serde_json::from_slice::<StoredMembers>(payload)?.into_membership()?)
        }
        COMMAND => EntryPayload::Normal(Command::decode(payload)?),
        kind => return Err(DecodeError::Kind { kind }),
    };
    Ok(Entry { log_id: at.into_log_id(), payload })
}

/// An entry's place, without building its payload.
pub(crate) fn position_of_entry(bytes: &[u8]) -> Result<Position, DecodeError> {
    split_entry(bytes).map(|(at, _, _)| at)
}

fn split_entry(bytes: &[u8]) -> Result<(Position, u8, &[u8]), DecodeError> {
    let (term, rest) = split_number(bytes)?;
    let (node, rest) = split_number(rest)?;
    let (index, rest) = split_number(rest)?;
    let (kind, payload) = rest.split_first().ok_or(DecodeError::Short)?;
    Ok((Position { term, node, index }, *kind, payload))
}

/// The big-endian number that `bytes` begins with, and what follows it.
pub(crate) fn split_number(bytes: &[u8]) -> Result<(u64, &[u8]), DecodeError> {
    let (number, rest) = bytes.split_first_chunk().ok_or(DecodeError::Short)?;
    Ok((u64::from_be_bytes(*number), rest))
}

/// An entry that makes `members` all there is: the first one of them with a vote, alone.
pub(crate) fn lone_membership(at: Position, node: u64, address: String) -> Entry {
    let nodes = BTreeMap::from([(node, BasicNode { addr: address })]);
    let membership = Membership::new(vec![BTreeSet::from([node])], nodes)
        .expect("one voter whose address is given is a membership");
    Entry { log_id: at.into_log_id(), payload: EntryPayload::Membership(membership) }
}

impl StoredVote {
    pub(crate) fn of(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term(), node: *vote.leader_id.node_id(), committed: vote.committed }
    }

    pub(crate) fn into_vote(self) -> Vote {
        if self.committed {
            Vote::new_committed(self.term, self.node)
        } else {
            Vote::new(self.term, self.node)
        }
    }
}

impl Position {
    pub(crate) fn of(log_id: LogId) -> Self {
        Self { term: log_id.leader_id.term(), node: *log_id.leader_id.node_id(), index: log_id.index }
    }

    pub(crate) fn into_log_id(self) -> LogId {
        type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;
        LogId { leader_id: LeaderId::new(self.term, self.node).to_committed(), index: self.index }
    }
}

impl StoredMembers {
    fn of(membership: &Membership<u64, BasicNode>) -> Self {
        Self {
            voters: membership.get_joint_config().clone(),
            addresses: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
        }
    }

    fn into_membership(self) -> Result<Membership<u64, BasicNode>, DecodeError> {
        let nodes: BTreeMap<u64, BasicNode> =
            self.addresses.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
        Membership::new(self.voters, nodes).map_err(|_| DecodeError::Membership)
    }
}

impl PlacedMembers {
    pub(crate) fn of(stored: &StoredMembership) -> Self {
        Self { at: stored.log_id().map(Position::of), members: StoredMembers::of(stored.membership()) }
    }

    pub(crate) fn into_stored(self) -> Result<StoredMembership, DecodeError> {
        if self.members.voters.is_empty() {
            return Ok(StoredMembership::default());
        }
        Ok(StoredMembership::new(self.at.map(Position::into_log_id), self.members.into_membership()?))
    }
}

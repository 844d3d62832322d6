//! How entries, votes and positions look on disk: a version byte, a checksum, JSON in shapes of our own.
//!
//! ```text
//!  1 byte   4 bytes, big endian   rest
//!  version  CRC-32 of the rest    JSON
//! ```
//!
//! In: openraft's values or bytes. Out: the other. Refuses what it does not know or what is damaged, never guesses.

use std::collections::{BTreeMap, BTreeSet};

use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload, Membership};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::checksum::crc32;
use crate::command::{Command, Entry, LogId, StoredMembership, TypeConfig, Vote};

/// The newest record format, and so far the only one.
const VERSION: u8 = 1;

/// Bytes before the JSON.
const HEADER_BYTES: usize = 5;

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the record is cut off")]
    Short,
    #[error("the record has format {found}, newest known is {VERSION}")]
    TooNew { found: u8 },
    #[error("the record does not match its checksum")]
    Checksum,
    #[error("the record does not parse")]
    Json(#[from] serde_json::Error),
    #[error("the record's membership is not one")]
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
pub(crate) struct Members {
    /// One set, or two during a change.
    voters: Vec<BTreeSet<u64>>,
    /// Address of every member.
    addresses: BTreeMap<u64, String>,
}

/// Members and the entry that made them so.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct PlacedMembers {
    at: Option<Position>,
    members: Members,
}

#[derive(Serialize, Deserialize)]
struct StoredVote {
    term: u64,
    node: u64,
    committed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredPayload<T> {
    Blank,
    Members(Members),
    Command(T),
}

#[derive(Serialize, Deserialize)]
struct StoredEntry<T> {
    at: Position,
    payload: StoredPayload<T>,
}

/// Any of our shapes as a record.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut record = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut record, value)?;
    record[0] = VERSION;
    let sum = crc32(&record[HEADER_BYTES..]);
    record[1..HEADER_BYTES].copy_from_slice(&sum.to_be_bytes());
    Ok(record)
}

/// A record as one of our shapes.
pub(crate) fn decode<T: DeserializeOwned>(record: &[u8]) -> Result<T, DecodeError> {
    Ok(serde_json::from_slice(body(record)?)?)
}

fn body(record: &[u8]) -> Result<&[u8], DecodeError> {
    let (header, body) = record.split_at_checked(HEADER_BYTES).ok_or(DecodeError::Short)?;
    if header[0] != VERSION {
        return Err(DecodeError::TooNew { found: header[0] });
    }
    if header[1..] != crc32(body).to_be_bytes() {
        return Err(DecodeError::Checksum);
    }
    Ok(body)
}

pub(crate) fn encode_entry(entry: &Entry) -> Result<Vec<u8>, serde_json::Error> {
    let payload = match &entry.payload {
        EntryPayload::Blank => StoredPayload::Blank,
        EntryPayload::Membership(members) => StoredPayload::Members(Members::of(members)),
        EntryPayload::Normal(command) => {
            let json = std::str::from_utf8(&command.encoded).expect("JSON is UTF-8");
            StoredPayload::Command(serde_json::from_str::<&RawValue>(json)?)
        }
    };
    encode(&StoredEntry { at: Position::of(entry.log_id), payload })
}

pub(crate) fn decode_entry(record: &[u8]) -> Result<Entry, DecodeError> {
    let stored: StoredEntry<&RawValue> = serde_json::from_slice(body(record)?)?;
    let payload = match stored.payload {
        StoredPayload::Blank => EntryPayload::Blank,
        StoredPayload::Members(members) => EntryPayload::Membership(members.into_membership()?),
        StoredPayload::Command(json) => EntryPayload::Normal(Command::decode(json.get().as_bytes())?),
    };
    Ok(Entry { log_id: stored.at.into_log_id(), payload })
}

/// Checks a record without building its command; gives its place.
pub(crate) fn check_entry(record: &[u8]) -> Result<Position, DecodeError> {
    let stored: StoredEntry<&RawValue> = serde_json::from_slice(body(record)?)?;
    Ok(stored.at)
}

pub(crate) fn encode_vote(vote: &Vote) -> Result<Vec<u8>, serde_json::Error> {
    encode(&StoredVote {
        term: vote.leader_id.term(),
        node: *vote.leader_id.node_id(),
        committed: vote.committed,
    })
}

pub(crate) fn decode_vote(record: &[u8]) -> Result<Vote, DecodeError> {
    let stored: StoredVote = decode(record)?;
    Ok(if stored.committed {
        Vote::new_committed(stored.term, stored.node)
    } else {
        Vote::new(stored.term, stored.node)
    })
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

impl Members {
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
        Self { at: stored.log_id().map(Position::of), members: Members::of(stored.membership()) }
    }

    pub(crate) fn into_stored(self) -> Result<StoredMembership, DecodeError> {
        if self.members.voters.is_empty() {
            return Ok(StoredMembership::default());
        }
        Ok(StoredMembership::new(self.at.map(Position::into_log_id), self.members.into_membership()?))
    }
}

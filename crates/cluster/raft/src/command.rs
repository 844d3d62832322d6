//! What one log entry carries: writes, and the time they were decided at.
//!
//! A command is encoded once, by whoever proposes it, so that the size is known before anything waits and the log's
//! writer only copies bytes. Also declares the types openraft is used with.

use std::fmt;
use std::sync::Arc;

use objects::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use store::{ApplyError, Change, Write};

/// The most one proposal may weigh, encoded.
///
/// Source: swarmkit, `manager/state/raft/raft.go` (`MaxTransactionBytes` 1.5 MiB).
pub const MAX_PROPOSAL_BYTES: usize = 1536 * 1024;

openraft::declare_raft_types!(
    /// The types openraft is used with.
    pub(crate) TypeConfig:
        D = Command,
        R = Response,
        NodeId = u64,
        Node = openraft::BasicNode,
        AsyncRuntime = crate::runtime::Runtime,
);

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;

/// The content of a command, as it is encoded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Proposal {
    /// When it was decided; the store stamps objects with it on every manager.
    pub(crate) now: Timestamp,
    pub(crate) writes: Vec<Write>,
}

/// A proposal with its encoding.
#[derive(Clone)]
pub(crate) struct Command {
    pub(crate) proposal: Arc<Proposal>,
    /// JSON of `proposal`.
    pub(crate) encoded: Arc<[u8]>,
}

impl Command {
    pub(crate) fn new(now: Timestamp, writes: Vec<Write>) -> Result<Self, serde_json::Error> {
        let proposal = Proposal { now, writes };
        let encoded = serde_json::to_vec(&proposal)?.into();
        Ok(Self { proposal: Arc::new(proposal), encoded })
    }

    pub(crate) fn decode(encoded: &[u8]) -> Result<Self, serde_json::Error> {
        let proposal = serde_json::from_slice(encoded)?;
        Ok(Self { proposal: Arc::new(proposal), encoded: encoded.into() })
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} writes in {} bytes", self.proposal.writes.len(), self.encoded.len())
    }
}

// openraft asks for both because it would let a transport send its types as they are. Neither is used.
impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.proposal.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let proposal = Proposal::deserialize(deserializer)?;
        Self::new(proposal.now, proposal.writes).map_err(serde::de::Error::custom)
    }
}

/// What applying an entry gave; `None` for entries without a command.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Response {
    #[serde(skip)]
    pub(crate) applied: Option<Result<Vec<Change>, ApplyError>>,
}

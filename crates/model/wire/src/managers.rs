//! What managers say to each other: consensus, membership, proofs of life.
//!
//! Raft's own messages have an encoding of their own ([`RawMethod`]); `raft` alone reads them.

use objects::NodeId;
use serde::{Deserialize, Serialize};

use crate::session::{Done, SessionId};
use crate::{Callers, Method, RawMethod};

/// Entries of a leader.
pub const RAFT_APPEND: RawMethod = RawMethod { name: "raft/append", callers: Callers::Manager };
/// A leader's heartbeat: a small call, mostly a datagram.
pub const RAFT_BEAT: RawMethod = RawMethod { name: "raft/beat", callers: Callers::Manager };
/// A candidate asks for a vote.
pub const RAFT_VOTE: RawMethod = RawMethod { name: "raft/vote", callers: Callers::Manager };
/// A manager asks whether it would get a vote.
pub const RAFT_PRE_VOTE: RawMethod = RawMethod { name: "raft/pre-vote", callers: Callers::Manager };
/// A leader hands its place over.
pub const RAFT_TRANSFER: RawMethod = RawMethod { name: "raft/transfer", callers: Callers::Manager };
/// A manager asks another one whether it is there; the answer may be held back while all is well.
pub const RAFT_PROBE: RawMethod = RawMethod { name: "raft/probe", callers: Callers::Manager };
/// A whole state machine, streamed: an upload without a limit of size.
pub const RAFT_SNAPSHOT: RawMethod = RawMethod { name: "raft/snapshot", callers: Callers::Manager };

impl AliveRequest {
    /// Whether it tells of signs of life alone.
    #[must_use]
    pub fn proves_only(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty() && self.holds.is_empty() && self.left.is_empty()
    }
}

/// Asks the leader to take a manager into the consensus. Answered once it is a member.
///
/// Open to every node: one that is a manager no more learns here that its log is of before.
pub struct JoinRaft;

impl Method for JoinRaft {
    const NAME: &'static str = "managers/join";
    const CALLERS: Callers = Callers::Node;
    type Request = JoinRaftRequest;
    type Response = JoinedRaft;
}

/// Who wants to take part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinRaftRequest {
    /// The manager; it is the caller.
    pub node: NodeId,
    /// Where the others reach it, `host:port`; an unspecified host stands for where the call came from.
    pub address: String,
    /// Its number among the members, which it has chosen itself at random and keeps for the life of its log. Asking
    /// again with the same number is asking for the same thing, with another address perhaps.
    pub raft_id: u64,
    /// Which log it has; zero from an older version.
    pub epoch: u64,
}

/// What a new member needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinedRaft {
    /// Which swarm's log this is: a log of another epoch is refused.
    pub epoch: u64,
    /// All members, itself included.
    pub members: Vec<RaftMember>,
}

/// A member of the consensus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RaftMember {
    /// Its number.
    pub raft_id: u64,
    /// Its node.
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
}

/// Asks the leader to take a manager out of the consensus. Answered once it is out.
pub struct LeaveRaft;

impl Method for LeaveRaft {
    const NAME: &'static str = "managers/leave";
    const CALLERS: Callers = Callers::Manager;
    type Request = LeaveRaftRequest;
    type Response = Done;
}

/// Who leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaveRaftRequest {
    /// The manager; it is the caller.
    pub node: NodeId,
    /// Its number among the members.
    pub raft_id: u64,
}

/// Tells the leader what a manager has seen of nodes since the last time.
pub struct Alive;

impl Method for Alive {
    const NAME: &'static str = "managers/alive";
    const CALLERS: Callers = Callers::Manager;
    type Request = AliveRequest;
    type Response = AliveAnswer;
}

/// What a manager has seen of nodes. Times are ages in milliseconds when the call was made: clocks may differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AliveRequest {
    /// Nodes that proved to be alive, or that hold a session that was used.
    pub proofs: Vec<Seen>,
    /// Sessions that were opened.
    pub opened: Vec<Seen>,
    /// Sessions that were closed without a goodbye.
    pub closed: Vec<Seen>,
    /// Daemons that stop on purpose and come back.
    pub holds: Vec<Held>,
    /// Nodes that left the swarm.
    pub left: Vec<Seen>,
}

/// When something of a node was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// Which node.
    pub node: NodeId,
    /// In which session.
    pub session: SessionId,
    /// How long ago.
    pub age_ms: u64,
}

/// A node that announced a pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// Which node.
    pub node: NodeId,
    /// In which session.
    pub session: SessionId,
    /// How much longer it may be silent.
    pub for_ms: u64,
}

/// What the leader answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AliveAnswer {
    /// The leader's term: proofs are told again to a new leader.
    pub term: u64,
}

/// Asks who is there and how it is: the leader's check of an address before it takes a manager in.
pub struct Health;

impl Method for Health {
    const NAME: &'static str = "managers/health";
    const CALLERS: Callers = Callers::Manager;
    type Request = HealthRequest;
    type Response = Healthy;
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthRequest {
    /// Its number among the members; `None` while it is none.
    pub raft_id: Option<u64>,
}

/// Who answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthy {
    /// Its node.
    pub node: NodeId,
    /// Its number among the members; `None` while it is none.
    pub raft_id: Option<u64>,
    /// How far it has applied the log.
    pub applied_index: u64,
    /// Which log it has: a new member opens its own as one of this epoch.
    pub epoch: u64,
    /// Whether the one who asks is a member, as far as this one knows.
    pub knows_you: bool,
}

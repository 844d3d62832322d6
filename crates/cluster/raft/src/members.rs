//! Who takes part in the log: what is known about it, and changing it one member at a time.
//!
//! In: the wish to add, promote, move or remove one manager. Out: a committed change, or why not. Never decides who should
//! be a member; that is the caller's, who also guards the quorum.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{BasicNode, ChangeMembers};
use tokio::sync::watch;

use crate::command::TypeConfig;
use crate::consensus::Consensus;
use crate::keeper::View;
use crate::runtime;
use crate::tempo;
use crate::timing;
use crate::transport::Member;

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Where other managers reach it, `host:port`.
    pub address: String,
    /// Whether it takes part in elections and in the quorum; a learner only copies.
    pub is_voter: bool,
    /// On the leader: whether it answers. On others, only what they know first-hand: true for themselves and for a leader
    /// that is heard from, false for the rest.
    pub is_reachable: bool,
}

/// The members as one manager sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// By number.
    pub members: BTreeMap<u64, MemberState>,
    /// Who leads, if this manager knows one that has spoken to it, or was answered by a quorum, within an election timeout.
    pub leader: Option<u64>,
    /// Counts elections.
    pub term: u64,
    /// Whether the last change of members is still under way.
    pub is_changing: bool,
}

impl Members {
    /// The numbers of those that take part in the quorum.
    pub fn voters(&self) -> impl Iterator<Item = u64> + '_ {
        self.members.iter().filter(|(_, member)| member.is_voter).map(|(id, _)| *id)
    }

    /// One of them, as calls name it.
    #[must_use]
    pub fn member(&self, raft_id: u64) -> Option<Member> {
        self.members.get(&raft_id).map(|member| Member { raft_id, address: member.address.clone() })
    }
}

/// How far a member has copied the log; known to the leader only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last entry that it has.
    pub matched: Option<u64>,
    /// How long ago the leader sent the last message that it answered.
    pub last_contact: Option<Duration>,
}

/// Why the members were not changed.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// This manager does not lead: nothing has changed.
    #[error("this manager is not the leader")]
    NotLeader,
    /// Another change is under way: nothing has changed.
    #[error("another change of the swarm's managers is under way")]
    Busy,
    /// There is no such member: nothing has changed.
    #[error("the log has no member {raft_id:x}")]
    Unknown {
        /// Which.
        raft_id: u64,
    },
    /// The number is taken by a member with another address: nothing has changed.
    #[error("member {raft_id:x} exists with another address")]
    Exists {
        /// Which.
        raft_id: u64,
    },
    /// It would leave the log without a voter: nothing has changed.
    #[error("the last voter cannot be removed")]
    LastVoter,
    /// The new voter did not copy the log in time: it stays a learner.
    #[error("member {raft_id:x} has not copied the log after {waited_ms} ms")]
    Behind {
        /// Which.
        raft_id: u64,
        /// How long was waited.
        waited_ms: u64,
    },
    /// It was not committed in time, or leadership was lost: it may happen yet.
    #[error("the change of the swarm's managers was not committed in time")]
    Unsure,
    /// The log stopped, or its disk failed.
    #[error("the replicated log has stopped")]
    Stopped(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why leadership was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// This manager does not lead.
    #[error("this manager is not the leader")]
    NotLeader,
    /// There is no voter that could take over, or not the one that was named.
    #[error("no other manager can take over")]
    NoTarget,
    /// The other did not take over in time; this manager leads on, or an election decides.
    #[error("the other manager did not take over within {waited_ms} ms")]
    TimedOut {
        /// How long was waited.
        waited_ms: u64,
    },
    /// The log stopped, or its disk failed.
    #[error("the replicated log has stopped")]
    Stopped(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The other voter that should lead next: it answers, and has most of the log.
pub(crate) fn successor(view: &View) -> Option<u64> {
    let members = view.members();
    let matched = view.data.borrow_watched().replication.clone().unwrap_or_default();
    members
        .members
        .iter()
        .filter(|(id, member)| **id != view.link.this && member.is_voter && member.is_reachable)
        .map(|(id, _)| *id)
        .max_by_key(|id| matched.get(id).copied().flatten())
}

impl Consensus {
    /// Makes `member` copy the log without a vote; returns when that is committed, not when it has copied anything.
    ///
    /// Nothing happens when it is a member with this address already. Leader only.
    pub async fn add_learner(&self, member: Member) -> Result<(), MemberError> {
        let raft_id = member.raft_id;
        match self.known(raft_id).await? {
            Some(known) if known.address == member.address => return self.must_lead(),
            Some(_) => return Err(MemberError::Exists { raft_id }),
            None => {}
        }
        let node = BasicNode { addr: member.address };
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(raft_id, node)]))).await
    }

    /// Gives a learner a vote once it has copied the log, for which it has 20 s. Nothing happens when it has one.
    /// Leader only.
    pub async fn promote(&self, raft_id: u64) -> Result<(), MemberError> {
        match self.known(raft_id).await? {
            None => return Err(MemberError::Unknown { raft_id }),
            Some(known) if known.is_voter => return self.must_lead(),
            Some(_) => {}
        }
        self.must_lead()?;
        let caught_up = runtime::timeout(timing::CATCH_UP, self.catch_up(raft_id)).await;
        let waited_ms = timing::millis(timing::CATCH_UP);
        caught_up.map_err(|_| MemberError::Behind { raft_id, waited_ms })??;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([raft_id]))).await
    }

    /// Waits until a member has what the leader has now.
    async fn catch_up(&self, raft_id: u64) -> Result<(), MemberError> {
        let mut data = self.view.data.clone();
        let goal = data.borrow_watched().last_log;
        loop {
            self.must_lead()?;
            let matched = {
                let data = data.borrow_watched();
                data.replication.as_ref().and_then(|all| all.get(&raft_id).copied()).flatten()
            };
            if matched >= goal {
                return Ok(());
            }
            if data.changed().await.is_err() {
                return Err(MemberError::Stopped(LogStopped.into()));
            }
        }
    }

    /// Takes a member out of the log. Nothing happens when it is no member. Leader only.
    ///
    /// A leader cannot remove itself: asked to, it hands over and answers [`MemberError::NotLeader`], so that the new
    /// leader is asked next.
    pub async fn remove(&self, raft_id: u64) -> Result<(), MemberError> {
        let Some(known) = self.known(raft_id).await? else { return self.must_lead() };
        self.must_lead()?;
        if known.is_voter && known.voters == 1 {
            return Err(MemberError::LastVoter);
        }
        if raft_id == self.view.link.this {
            return match self.transfer(None).await {
                Ok(()) | Err(TransferError::NotLeader) => Err(MemberError::NotLeader),
                Err(TransferError::Stopped(source)) => Err(MemberError::Stopped(source)),
                Err(TransferError::NoTarget | TransferError::TimedOut { .. }) => Err(MemberError::Unsure),
            };
        }
        let ids = BTreeSet::from([raft_id]);
        self.change(if known.is_voter {
            ChangeMembers::RemoveVoters(ids)
        } else {
            ChangeMembers::RemoveNodes(ids)
        })
        .await
    }

    /// Says that a member is reached at another address from now on. Leader only.
    pub async fn set_address(&self, raft_id: u64, address: String) -> Result<(), MemberError> {
        match self.known(raft_id).await? {
            None => return Err(MemberError::Unknown { raft_id }),
            Some(known) if known.address == address => return self.must_lead(),
            Some(_) => {}
        }
        let node = BasicNode { addr: address };
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(raft_id, node)]))).await
    }

    /// What a member is by the last entry of the log that says so, committed or not.
    async fn known(&self, raft_id: u64) -> Result<Option<Known>, MemberError> {
        let known = self.raft.with_raft_state(move |state| {
            let effective = state.membership_state.effective();
            let address = effective.membership().get_node(&raft_id)?.addr.clone();
            let voters: Vec<u64> = effective.voter_ids().collect();
            Some(Known { address, is_voter: voters.contains(&raft_id), voters: voters.len() })
        });
        known.await.map_err(|fatal| MemberError::Stopped(fatal.into()))
    }

    fn must_lead(&self) -> Result<(), MemberError> {
        let standing = self.view.standing();
        if standing.is_leader && standing.has_quorum { Ok(()) } else { Err(MemberError::NotLeader) }
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), MemberError> {
        self.must_lead()?;
        // It goes on when nobody waits any more: half a change is worse than one too many.
        let raft = self.raft.clone();
        let changing = runtime::spawn(async move { raft.change_membership(change, false).await });
        let Ok(changed) = runtime::timeout(timing::CHANGE, changing).await else {
            return Err(MemberError::Unsure);
        };
        match changed.map_err(|error| MemberError::Stopped(error.into()))? {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(MemberError::Stopped(fatal.into())),
            Err(RaftError::APIError(error)) => Err(into_member_error(error)),
        }
    }

    /// Hands leadership to the voter `to`, or to the one that has most of the log; returns when another leads.
    pub async fn transfer(&self, to: Option<u64>) -> Result<(), TransferError> {
        let standing = self.view.standing();
        if !standing.is_leader {
            return Err(TransferError::NotLeader);
        }
        let members = self.view.members();
        let is_fit = |id: &u64| {
            *id != self.view.link.this
                && members.members.get(id).is_some_and(|to| to.is_voter && to.is_reachable)
        };
        let to = to.or_else(|| successor(&self.view)).filter(is_fit).ok_or(TransferError::NoTarget)?;
        let handed_over = async {
            let mut server = self.view.server.clone();
            let handing = self.raft.trigger().transfer_leader(to).await;
            handing.map_err(|fatal| TransferError::Stopped(fatal.into()))?;
            loop {
                {
                    let server = server.borrow_watched();
                    if server.current_leader.is_some_and(|leader| leader != server.id) {
                        return Ok(());
                    }
                }
                if server.changed().await.is_err() {
                    return Err(TransferError::Stopped(LogStopped.into()));
                }
            }
        };
        let limit = tempo::stretched(timing::HANDOVER);
        let waited_ms = timing::millis(limit);
        let done = runtime::timeout(limit, handed_over).await;
        done.map_err(|_| TransferError::TimedOut { waited_ms })?
    }

    /// The members, now and whenever they change.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Members> {
        self.members.clone()
    }

    /// How far each member has come; empty unless this manager leads.
    #[must_use]
    pub fn progress(&self) -> BTreeMap<u64, Progress> {
        let data = self.view.data.borrow_watched();
        let (Some(matched), Some(beats)) = (&data.replication, &data.heartbeat) else {
            return BTreeMap::new();
        };
        let progress = matched.iter().map(|(id, matched)| {
            let beat = beats.get(id).copied().flatten();
            let last_contact = beat.map(|at| tempo::stretched(at.into_inner().elapsed()));
            (*id, Progress { matched: matched.map(|at| at.index), last_contact })
        });
        progress.collect()
    }

    /// Who leads, as [`Members::leader`] says.
    #[must_use]
    pub fn leader(&self) -> Option<Member> {
        self.view.members().member(self.view.leader()?)
    }

    /// How long ago a leader that this manager followed then spoke to it; zero on a leader with a quorum, `None` before the
    /// first time. A manager that is no member any more gets answers, but no leader speaks to it.
    #[must_use]
    pub fn last_contact_with_leader(&self) -> Option<Duration> {
        let standing = self.view.standing();
        if !standing.is_leader {
            return self.view.link.led().map(|(_, at)| at.elapsed());
        }
        if standing.has_quorum {
            return Some(Duration::ZERO);
        }
        self.view
            .data
            .borrow_watched()
            .last_quorum_acked
            .map(|at| tempo::stretched(at.into_inner().elapsed()))
    }
}

/// A member as the log has it.
struct Known {
    address: String,
    is_voter: bool,
    /// How many there are.
    voters: usize,
}

/// The log ended while something was waited for.
#[derive(Debug, thiserror::Error)]
#[error("the log has stopped")]
struct LogStopped;

fn into_member_error(error: ClientWriteError<TypeConfig>) -> MemberError {
    match error {
        ClientWriteError::ForwardToLeader(_) => MemberError::NotLeader,
        ClientWriteError::LogEntryDiscarded(_) | ClientWriteError::PreconditionFailed(_) => {
            MemberError::Unsure
        }
        ClientWriteError::ChangeMembershipError(error) => match error {
            ChangeMembershipError::EmptyMembership(_) => MemberError::LastVoter,
            ChangeMembershipError::LearnerNotFound(missing) => {
                MemberError::Unknown { raft_id: missing.node_id }
            }
            _ => MemberError::Busy,
        },
    }
}

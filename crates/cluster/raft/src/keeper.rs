//! Watches the log on this manager's behalf: who leads, whether this manager may speak for the swarm, who is reachable,
//! and whether its disk is fit to lead with.
//!
//! In: openraft's metrics, the [`Link`], the writer's pace, time. Out: [`Standing`] and [`Members`] for whoever waits for
//! them; a handover when the disk of the leader is slow; the second half of a change of members that was left half done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::metrics::{RaftDataMetrics, RaftMetrics, RaftServerMetrics};
use openraft::type_config::alias::WatchReceiverOf;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{ChangeMembers, Raft, ServerState};
use tokio::sync::watch;

use crate::command::{LogId, TypeConfig};
use crate::encoding::StoredVote;
use crate::link::Link;
use crate::machine::Machine;
use crate::members::{self, MemberState, Members};
use crate::messages::Probe;
use crate::runtime::{self, Instant};
use crate::tempo;
use crate::timing;
use crate::transport::CallError;
use crate::writer::Pace;

/// What this manager may do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) term: u64,
    /// It was elected and knows of no other.
    pub(crate) is_leader: bool,
    /// A quorum has answered within the lease.
    pub(crate) has_quorum: bool,
    /// Its store has everything of the leaders before it.
    pub(crate) is_ready: bool,
}

impl Standing {
    /// Whether it may decide for the swarm.
    pub(crate) fn leads(self) -> bool {
        self.is_leader && self.has_quorum && self.is_ready
    }
}

type ServerMetrics = WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>;
type AllMetrics = WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>;
type DataMetrics = WatchReceiverOf<TypeConfig, RaftDataMetrics<TypeConfig>>;

/// Looks at the log; cheap to clone.
#[derive(Clone)]
pub(crate) struct View {
    /// Changes with every message; the only place that tells state and term of the same moment.
    pub(crate) all: AllMetrics,
    pub(crate) server: ServerMetrics,
    pub(crate) data: DataMetrics,
    pub(crate) applied: watch::Receiver<Option<LogId>>,
    pub(crate) link: Arc<Link>,
}

impl View {
    /// What this manager may do at this moment, not at the last look.
    pub(crate) fn standing(&self) -> Standing {
        let all = self.all.borrow_watched();
        let term = all.current_term;
        let is_leader = all.state == ServerState::Leader;
        let is_ready = self.applied.borrow().is_some_and(|at| at.leader_id.term == term);
        Standing { term, is_leader, has_quorum: is_leader && self.has_quorum(&all), is_ready }
    }

    fn has_quorum(&self, all: &RaftMetrics<TypeConfig>) -> bool {
        if all.membership_config.membership().voter_ids().all(|id| id == self.link.this) {
            return true;
        }
        let acked = all.last_quorum_acked;
        acked.is_some_and(|acked| acked.into_inner().elapsed() < timing::ELECTION_MAX)
    }

    /// Whether this manager leads, has everything that was acknowledged before, and nobody else can lead at this moment.
    pub(crate) fn may_read(&self) -> bool {
        if !self.standing().leads() {
            return false;
        }
        let all = self.all.borrow_watched();
        let voters = all.membership_config.membership().get_joint_config();
        let is_alone = voters.iter().all(|set| set.iter().eq([&self.link.this]));
        is_alone || self.link.lease.holds(StoredVote::of(&all.vote), voters.iter())
    }

    /// Whether `leader` is the one that this manager has acknowledged last.
    pub(crate) fn follows(&self, leader: StoredVote) -> bool {
        StoredVote::of(&self.server.borrow_watched().vote) == leader
    }

    /// Whether the leader that this manager follows is gone, its process or its log: looks, and remembers what it saw.
    pub(crate) async fn sees_the_end_of(&self, leader: StoredVote) -> bool {
        if leader.node == self.link.this || !self.follows(leader) {
            return false;
        }
        let heard = self.link.heard(leader.node);
        let answer = self.link.probe(leader.node, Probe::default(), timing::PROBE).await;
        let is_over = match answer {
            Ok(answer) => answer.stopped,
            Err(CallError::Closed(_)) => self.link.heard(leader.node) == heard,
            Err(CallError::Silent(_) | CallError::Refused(_)) => false,
        };
        let gone = is_over && self.follows(leader);
        if gone {
            self.link.set_gone(leader);
        }
        gone
    }

    /// Who leads, if it is this manager with a quorum or one that speaks to it.
    pub(crate) fn leader(&self) -> Option<u64> {
        let (leader, vote) = {
            let server = self.server.borrow_watched();
            (server.current_leader?, StoredVote::of(&server.vote))
        };
        let is_there = if leader == self.link.this {
            self.standing().has_quorum
        } else {
            let spoke = self.link.led().filter(|(speaker, _)| *speaker == vote);
            spoke.is_some_and(|(_, at)| at.elapsed() < tempo::stretched(timing::ELECTION_MAX * 2))
        };
        is_there.then_some(leader)
    }

    /// When what this manager is told by others is too old to count, if nothing more comes: its quorum, another manager, or
    /// its leader.
    fn contact_ends(&self) -> Option<Instant> {
        if !self.standing().is_leader {
            return self.link.led().map(|(_, at)| at + tempo::stretched(timing::ELECTION_MAX * 2));
        }
        let data = self.data.borrow_watched();
        let quorum = data.last_quorum_acked.map(|at| (at.into_inner() + timing::ELECTION_MAX).real());
        let beats = data.heartbeat.iter().flatten().filter(|(id, _)| **id != self.link.this);
        let members =
            beats.filter_map(|(_, at)| Some((at.as_ref()?.into_inner() + timing::ELECTION_MAX * 2).real()));
        members.chain(quorum).min()
    }

    pub(crate) fn members(&self) -> Members {
        let leader = self.leader();
        let standing = self.standing();
        let beats = self.data.borrow_watched().heartbeat.clone().unwrap_or_default();
        let server = self.server.borrow_watched();
        let (config, this) = (&server.membership_config, server.id);
        let voters: Vec<u64> = config.membership().voter_ids().collect();
        let is_reachable = |id: u64| {
            let answered = beats.get(&id).copied().flatten();
            let answered = answered.is_some_and(|at| at.into_inner().elapsed() < timing::ELECTION_MAX * 2);
            id == this || leader == Some(id) || (standing.is_leader && answered)
        };
        let members = config.membership().nodes().map(|(id, node)| {
            let (address, is_voter) = (node.addr.clone(), voters.contains(id));
            (*id, MemberState { address, is_voter, is_reachable: is_reachable(*id) })
        });
        let members: BTreeMap<u64, MemberState> = members.collect();
        let is_joint = config.membership().get_joint_config().len() > 1;
        let is_changing = is_joint || *config != server.committed_membership_config;
        Members { members, leader, term: server.vote.leader_id.term, is_changing }
    }
}

/// What the keeper works with.
pub(crate) struct Keeper {
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) view: View,
    pub(crate) pace: Arc<Pace>,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) members: watch::Sender<Members>,
    pub(crate) disk: DiskWatch,
    /// When the round trips to the others were measured.
    pub(crate) measured: Option<Instant>,
    /// Since when a change of members has been half done.
    pub(crate) halfway: Option<(LogId, Instant)>,
}

/// Counts slow commits.
#[derive(Debug, Default)]
pub(crate) struct DiskWatch {
    slow: u32,
    seen: u64,
    handed_over: Option<Instant>,
}

impl DiskWatch {
    /// Whether another manager should lead.
    fn is_unfit(&mut self, pace: &Pace) -> bool {
        let (took, commits) = pace.commit_time();
        if commits != self.seen {
            self.seen = commits;
            self.slow = if took >= timing::SLOW_COMMIT { self.slow + 1 } else { 0 };
        }
        let is_slow = self.slow >= timing::SLOW_COMMITS || took >= timing::STUCK_COMMIT;
        let waits = self.handed_over.is_some_and(|at| at.elapsed() < timing::HANDOVER_AGAIN);
        if is_slow && !waits {
            self.handed_over = Some(Instant::now());
            self.slow = 0;
            return true;
        }
        false
    }
}

impl Keeper {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            self.look().await;
            if !self.wait(&mut stop).await {
                return;
            }
        }
    }

    /// Waits for the next reason to look; `false` when it is time to end.
    async fn wait(&mut self, stop: &mut watch::Receiver<bool>) -> bool {
        let is_settled = self.is_settled();
        let next = self.next_look(is_settled);
        let tick = async {
            match next {
                Some(at) => runtime::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let (server, applied) = (&mut self.view.server, &mut self.view.applied);
        let readied = async {
            if is_settled {
                std::future::pending::<()>().await;
            }
            if applied.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            stopped = stop.wait_for(|stop| *stop) => { drop(stopped); false }
            changed = server.changed() => changed.is_ok(),
            () = readied => true,
            () = tick => true,
        }
    }

    /// Whether it is not elected, or leads.
    fn is_settled(&self) -> bool {
        let is_elected = self.view.server.borrow_watched().state == ServerState::Leader;
        !is_elected || self.standing.borrow().leads()
    }

    /// When something may have changed by time passing; what messages change is seen by then, too.
    fn next_look(&self, is_settled: bool) -> Option<Instant> {
        let members = self.members.borrow();
        // One manager alone has nobody to watch.
        if members.members.len() <= 1 && is_settled {
            return None;
        }
        let now = Instant::now();
        let soon = now + timing::LOOK;
        let leads = members.leader == Some(self.view.link.this);
        let misses_one = leads && members.members.values().any(|member| !member.is_reachable);
        let writes = leads && (self.pace.is_busy() || self.pace.commit_time().1 != self.disk.seen);
        if !is_settled || misses_one || writes || members.leader.is_none() || members.is_changing {
            return Some(soon);
        }
        let measure = self.measured.map_or(now, |at| at + self.measure_every(&members));
        let end = self.view.contact_ends().unwrap_or(soon);
        // Not at once again when it is over: what is over shows as a change.
        Some(measure.min(end).max(soon).on_the_beat())
    }

    async fn look(&mut self) {
        let standing = self.view.standing();
        let members = self.view.members();
        self.measure(&members);
        let addresses = members.members.iter().map(|(id, member)| (*id, member.address.clone())).collect();
        self.view.link.set_addresses(addresses);
        self.members.send_if_modified(|before| replace(before, members));
        self.standing.send_if_modified(|before| replace(before, standing));
        if !standing.is_leader {
            self.halfway = None;
            self.disk.slow = 0;
            return;
        }
        if self.disk.is_unfit(&self.pace)
            && let Some(to) = members::successor(&self.view)
        {
            tracing::warn!(to, "this manager's disk is slow: another manager should lead");
            // A stopped log needs no successor from here.
            drop(self.raft.trigger().transfer_leader(to).await);
        }
        self.complete_change();
    }

    /// Measures the round trips to the other voters from time to time, and lets openraft's clock follow them.
    fn measure(&mut self, members: &Members) {
        let link = &self.view.link;
        let others: Vec<u64> = members.voters().filter(|id| *id != link.this).collect();
        if self.measured.is_some_and(|at| at.elapsed() < self.measure_every(members)) {
            return;
        }
        self.measured = Some(Instant::now());
        tempo::adapt(link.this, link.round_trip(others.iter().copied()));
        for id in others {
            let link = Arc::clone(link);
            // It ends by itself, and its result is kept by the link.
            drop(runtime::spawn(async move { link.measure(id).await }));
        }
    }

    fn measure_every(&self, members: &Members) -> Duration {
        let link = &self.view.link;
        let others = members.voters().filter(|id| *id != link.this);
        match members.leader {
            // It may be for want of time that there is none.
            None => timing::MEASURE / 4,
            Some(_) if link.knows_round_trips(others) => timing::MEASURE_AGAIN,
            Some(_) => timing::MEASURE,
        }
    }

    /// A leader that died between the two halves of a change leaves it to the next one.
    fn complete_change(&mut self) {
        let joint = {
            let server = self.view.server.borrow_watched();
            let config = &server.membership_config;
            let is_joint = config.membership().get_joint_config().len() > 1;
            let is_committed = *config == server.committed_membership_config;
            config.log_id().filter(|_| is_joint && is_committed)
        };
        let Some(joint) = joint else {
            self.halfway = None;
            return;
        };
        match self.halfway {
            Some((at, since)) if at == joint => {
                if since.elapsed() >= timing::COMPLETE_AFTER {
                    self.halfway = Some((joint, Instant::now()));
                    let raft = self.raft.clone();
                    // Whether it worked shows in the metrics; if not, it is tried again.
                    drop(runtime::spawn(async move {
                        let flat = ChangeMembers::AddVoterIds(std::collections::BTreeSet::new());
                        drop(raft.change_membership(flat, false).await);
                    }));
                }
            }
            _ => self.halfway = Some((joint, Instant::now())),
        }
    }
}

fn replace<T: PartialEq>(before: &mut T, now: T) -> bool {
    let changed = *before != now;
    if changed {
        *before = now;
    }
    changed
}

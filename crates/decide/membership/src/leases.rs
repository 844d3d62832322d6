//! Decides which nodes are there: the failure detector.
//!
//! In: proofs of life, sessions that open and close, announced holds, the store, the time. Out: judgements that become
//! node statuses, and when to judge again. Every manager notes what it hears; only the leader judges.
//!
//! - A closed session raises suspicion: DOWN after 1.8 s without a sign of life, and tasks may move 0.4 s later.
//! - Silence counts beyond 3.5 s. A hold is an announced silence.
//! - A judge who comes late was stalled himself: everybody gets a fresh lease.
//! - When half or more of ten or more nodes fall silent within one lease, their tasks stay for up to a minute.

use std::collections::BTreeMap;

use objects::{Nanos, NodeId, NodeState, Timestamp};
use store::Store;

use crate::lease::{Court, Lease, Session};
use crate::mass::Fallen;
use crate::{Judgement, LeaseTimes, Moment};

/// The longest hold that is granted. chosen: twice what a daemon announces when it restarts.
pub const LONGEST_HOLD: Nanos = Nanos::from_secs(60);

/// How long tasks stay at most when many nodes fall silent at once. chosen: a switch restarts within a minute.
pub const MASS_HOLD: Nanos = Nanos::from_secs(60);

/// What was heard of every node.
#[derive(Debug, Clone)]
pub struct Leases {
    times: LeaseTimes,
    nodes: BTreeMap<NodeId, Lease>,
    leads_since: Moment,
    /// When a judgement may be due; never later than one is. `None` before anything is known.
    due: Option<Moment>,
    /// When the judge was last called: being called much more than a pulse later means that this manager was stalled.
    judged_at: Option<Moment>,
}

impl Leases {
    /// Nothing heard yet.
    pub fn new(times: LeaseTimes) -> Self {
        let leads_since = Moment(i64::MIN);
        Self { times, nodes: BTreeMap::new(), leads_since, due: None, judged_at: None }
    }

    /// The spans in use.
    pub fn times(&self) -> LeaseTimes {
        self.times
    }

    /// Changes the spans: the cluster's heartbeat period was changed. Every node gets a fresh lease.
    pub fn set_times(&mut self, times: LeaseTimes, now: Moment) {
        if self.times != times {
            self.times = times;
            self.manager_stalled(now);
        }
    }

    /// This manager leads from now on; call it once, before the first [`Leases::judge`].
    ///
    /// What it heard as a follower counts, but nobody is judged before the other managers had the time of a suspicion to
    /// pass on what they heard. A node of which it never heard gets two leases. Nothing is written.
    pub fn lead(&mut self, store: &Store, now: Moment) {
        self.leads_since = now;
        self.nodes.retain(|id, _| store.node(id).is_some());
        for node in store.nodes() {
            let lease = self.nodes.entry(node.id.clone()).or_insert_with(|| Lease::granted(now));
            if !lease.is_heard {
                lease.heard = now;
            }
            lease.shown = node.status.state;
            lease.down = None;
        }
        self.due = Some(now);
        self.judged_at = Some(now);
    }

    /// A session opened at `at`, with any manager. Call it before READY is written.
    ///
    /// `session` must differ for every opening, with whichever manager. A hold ends.
    pub fn opened(&mut self, node: &NodeId, session: &str, at: Moment) {
        let lease = self.lease(node, at);
        lease.hear(at);
        lease.session = Session::Open(session.to_owned());
        lease.hold_until = None;
        lease.has_left = false;
        self.judge_news(node, at);
    }

    /// A proof of life arrived at `at`, with any manager.
    pub fn proof(&mut self, node: &NodeId, at: Moment) {
        self.lease(node, at).hear(at);
        self.judge_news(node, at);
    }

    /// A session ended at `at` without a goodbye. One that is not the newest of its node says nothing; `None` is any: the
    /// connections of a manager were reset.
    pub fn closed(&mut self, node: &NodeId, session: Option<&str>, at: Moment) {
        let times = self.times;
        let lease = self.lease(node, at);
        let is_newest = match &lease.session {
            Session::Open(newest) => session.is_none_or(|session| session == newest),
            Session::NotKnown => true,
            Session::Closed { .. } => false,
        };
        if is_newest {
            lease.session = Session::Closed { at };
            let due = lease.due(&times);
            self.judge_by(due);
        }
    }

    /// The node's daemon announced at `at` that it stops and will be back within `span`; see [`LONGEST_HOLD`].
    pub fn hold(&mut self, node: &NodeId, span: Nanos, at: Moment) {
        let lease = self.lease(node, at);
        lease.hear(at);
        lease.hold_until = Some(at + span.clamp(Nanos::ZERO, LONGEST_HOLD));
    }

    /// The node said at `at` that it leaves the swarm: it is down at the next judgement, and its tasks move at once.
    pub fn left(&mut self, node: &NodeId, at: Moment) {
        let lease = self.lease(node, at);
        lease.has_left = true;
        lease.hold_until = None;
        lease.session = Session::Closed { at };
        self.judge_by(at);
    }

    /// This manager did not run for a while, or could not be reached: every node gets a fresh lease.
    pub fn manager_stalled(&mut self, now: Moment) {
        let is_down = |lease: &Lease| lease.down.is_some() || lease.shown == NodeState::Down;
        self.nodes.values_mut().filter(|lease| !is_down(lease)).for_each(|lease| lease.renew(now));
        self.judge_by(now);
    }

    /// When to judge next, at most a pulse after the last time; ask again after every note that was taken.
    ///
    /// `None` before anything is known. Mostly there is nothing to judge then: being called in time is how a judge knows
    /// that it was not stalled.
    pub fn wake_at(&self) -> Option<Moment> {
        let due = self.due?;
        Some(self.judged_at.map_or(due, |at| due.min(at + self.times.pulse)))
    }

    /// What is to be written now; `wall` is `now` on the clock of the store.
    ///
    /// Also judges itself: one that comes much later than it asked for was stalled. A judgement is repeated until the
    /// store agrees, so a write that was refused needs no care.
    pub fn judge(&mut self, store: &Store, now: Moment, wall: Timestamp) -> Vec<Judgement> {
        let last = self.judged_at.replace(now).unwrap_or(now);
        // A pulse later than it asked for. What arrived meanwhile has not been looked at either.
        if now.since(last) > self.times.pulse + self.times.pulse {
            self.manager_stalled(now);
        }
        if self.due.is_some_and(|due| due > now) {
            return Vec::new();
        }
        self.nodes.retain(|id, _| store.node(id).is_some());
        for node in store.nodes() {
            self.nodes.entry(node.id.clone()).or_insert_with(|| Lease::granted(now)).see(node, now);
        }
        let court = Court { times: &self.times, leads_since: self.leads_since, now, wall };
        let standings = self.nodes.values().map(|lease| lease.standing(&court));
        let fallen = Fallen::count(standings, self.times.silence);
        let mut judgements = Vec::new();
        // Even when nothing is due: whether many fell together is asked again while tasks wait for the answer.
        let mut due = now + self.times.silence;
        for (node, lease) in store.nodes().zip(self.nodes.values_mut()) {
            judgements.extend(lease.judge(node, &court, &fallen));
            due = lease.next(&court).map_or(due, |at| at.min(due));
        }
        if !judgements.is_empty() {
            due = due.min(now + self.times.pulse);
        }
        self.due = Some(due);
        judgements
    }

    fn lease(&mut self, node: &NodeId, at: Moment) -> &mut Lease {
        self.nodes.entry(node.clone()).or_insert_with(|| Lease::granted(at))
    }

    /// A sign of life of a node that is not shown as ready is news.
    fn judge_news(&mut self, node: &NodeId, at: Moment) {
        if self.nodes.get(node).is_some_and(|lease| lease.shown != NodeState::Ready || lease.down.is_some()) {
            self.judge_by(at);
        }
    }

    fn judge_by(&mut self, at: Moment) {
        self.due = Some(self.due.map_or(at, |known| known.min(at)));
    }
}

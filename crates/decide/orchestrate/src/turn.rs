//! What the decisions of one step share: the time, ids, and what they report back.
//!
//! Never outlives a step.

use std::collections::BTreeMap;

use objects::{IdSource, Nanos, ServiceId, SlotKey, TaskId, Timestamp};

/// What to look at again at some time: one slot, or with `None` the whole service.
pub type WakeKey = (ServiceId, Option<SlotKey>);

/// Why something was decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// A task ended or lost its node, and was replaced.
    Restarted {
        /// The service.
        service: ServiceId,
        /// The old task.
        old: TaskId,
        /// The new task.
        new: TaskId,
    },
    /// An update or rollback changed its state.
    Rollout {
        /// The service.
        service: ServiceId,
        /// As in the service's update status.
        message: String,
    },
}

/// What the decisions of one step share.
#[derive(Debug)]
pub struct Turn<'t> {
    /// The time of the step.
    pub now: Timestamp,
    /// Ids for new tasks.
    pub ids: &'t mut IdSource,
    /// How many tasks may still be made in this step.
    pub budget: usize,
    /// Services that want more tasks than the budget allowed.
    pub unfinished: Vec<ServiceId>,
    /// When to look again at what.
    pub wakes: BTreeMap<WakeKey, Timestamp>,
    /// Why, for logs.
    pub reasons: Vec<Reason>,
}

impl<'t> Turn<'t> {
    /// A turn at `now` that may make `budget` tasks.
    pub fn new(now: Timestamp, ids: &'t mut IdSource, budget: usize) -> Self {
        Self { now, ids, budget, unfinished: Vec::new(), wakes: BTreeMap::new(), reasons: Vec::new() }
    }

    /// When `span` after `since` is over, if that is to come.
    ///
    /// What began in the future began on the clock of a leader that was wrong, and is over: nobody knows how long ago it was,
    /// and to wait until a clock has come that far could take any time.
    pub(crate) fn ends(&self, since: Timestamp, span: Nanos) -> Option<Timestamp> {
        Some(since + span).filter(|at| since <= self.now && *at > self.now)
    }

    /// Asks to look at `key` at `at`, or earlier when that was asked for before.
    pub(crate) fn wake(&mut self, key: WakeKey, at: Timestamp) {
        self.wakes.entry(key).and_modify(|known| *known = at.min(*known)).or_insert(at);
    }
}

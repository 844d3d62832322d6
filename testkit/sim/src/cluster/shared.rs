//! What the parts of a world know of each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use membership::Moment;
use objects::{Nanos, NodeId, Timestamp};

use crate::cluster::history::History;
use crate::cluster::manager::Manager;
use crate::cluster::net::Net;
use crate::cluster::time::{Machine, Time};

/// What a wall clock says when the world begins.
const BEGINNING: Timestamp = Timestamp::from_secs(1_800_000_000);

/// Everything that is not inside one machine.
pub struct Shared {
    pub(crate) time: Time,
    pub(crate) net: Net,
    pub(crate) nodes: Vec<NodeId>,
    history: Mutex<History>,
    running: Mutex<BTreeMap<Machine, Arc<Manager>>>,
    skew: Mutex<BTreeMap<Machine, Nanos>>,
    faults: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic ends the world")
}

impl Shared {
    pub(crate) fn new(time: Time, nodes: Vec<NodeId>) -> Self {
        Self {
            net: Net::new(time.clone()),
            time,
            nodes,
            history: Mutex::default(),
            running: Mutex::default(),
            skew: Mutex::default(),
            faults: Mutex::new(true),
        }
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    /// The manager's process on a machine.
    pub(crate) fn manager(&self, machine: Machine) -> Option<Arc<Manager>> {
        lock(&self.running).get(&machine).cloned()
    }

    /// Where managers run.
    pub(crate) fn managers(&self) -> Vec<Machine> {
        lock(&self.running).keys().copied().collect()
    }

    pub(crate) fn set_manager(&self, machine: Machine, manager: Option<Arc<Manager>>) {
        let before = match manager {
            Some(manager) => lock(&self.running).insert(machine, manager),
            None => lock(&self.running).remove(&machine),
        };
        drop(before);
    }

    /// Whether bad things still happen by themselves.
    pub(crate) fn has_faults(&self) -> bool {
        *lock(&self.faults)
    }

    pub(crate) fn end_faults(&self) {
        *lock(&self.faults) = false;
        lock(&self.skew).clear();
    }

    /// What the wall clock of a machine says.
    pub(crate) fn wall(&self, machine: Machine) -> Timestamp {
        let skew = lock(&self.skew).get(&machine).copied().unwrap_or_default();
        BEGINNING + nanos(self.time.now()) + skew
    }

    pub(crate) fn set_skew(&self, machine: Machine, skew: Nanos) {
        lock(&self.skew).insert(machine, skew);
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment(nanos(self.time.now()).0)
    }
}

pub(crate) fn nanos(span: Duration) -> Nanos {
    Nanos(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}

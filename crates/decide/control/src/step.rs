//! The one composition of decisions: nodes, services, slots, ports, addresses, placement, in one draft.
//!
//! In: the store and what is dirty. Out: one transaction, and when to look again.

use std::collections::BTreeSet;
use std::sync::Arc;

use objects::{IdSource, ServiceId, SlotKey, Task, TaskId, TaskState, Timestamp};
use orchestrate::Turn;
use store::{Draft, Kind, Store, Write};

use crate::dirty::{Key, Look};
use crate::{Dirty, addresses};

/// Tasks that one step makes at most; the rest follows in the next step.
///
/// chosen: about 1.5 MiB of log entry, which is what Swarm allows one proposal to have.
const MAX_NEW_TASKS: usize = 1000;

/// What a step wants.
#[derive(Debug, Default)]
pub struct Decision {
    /// One transaction; empty when there is nothing to do.
    pub writes: Vec<Write>,
    /// When to step again even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Why, for logs and for answers to "why is this task pending".
    pub reasons: Vec<Reason>,
}

/// Why something was decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// No node takes the task.
    NoNode {
        /// The task.
        task: TaskId,
        /// As in the task's status.
        because: String,
    },
    /// The service cannot have its ports; it keeps those it has.
    NoPort {
        /// The service.
        service: ServiceId,
        /// Who is in the way.
        because: String,
    },
    /// Somebody waits for an address.
    NoAddress {
        /// The node, service or task.
        of: String,
        /// As in the task's status.
        because: String,
    },
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

impl From<orchestrate::Reason> for Reason {
    fn from(reason: orchestrate::Reason) -> Self {
        match reason {
            orchestrate::Reason::Restarted { service, old, new } => Self::Restarted { service, old, new },
            orchestrate::Reason::Rollout { service, message } => Self::Rollout { service, message },
        }
    }
}

/// Decides what to write now.
///
/// Cost follows what is dirty, not the size of the swarm; an idle step costs nothing. The caller proposes the writes as
/// one transaction and, once it is committed or refused, passes the changes to [`Dirty::note`] and steps again. When the
/// transaction was refused (`update out of sequence`) there are no changes, and the next step decides anew about the
/// same objects: nothing else needs to be done. Do not step while a transaction of an earlier step is under way.
pub fn step(store: &Store, dirty: &mut Dirty, now: Timestamp, ids: &mut IdSource) -> Decision {
    let mut look = dirty.take(store, now);
    let mut draft = store.draft();
    let mut turn = Turn::new(now, ids, MAX_NEW_TASKS);
    let mut reasons = Vec::new();
    addresses::wake_starved(dirty, &mut look);
    addresses::to_nodes(&mut draft, dirty, &look, &mut reasons);
    look_at_nodes(&mut draft, dirty, &look, &mut turn);
    look_at_services(&mut draft, dirty, &mut look, &mut turn, &mut reasons);
    for (key, at) in std::mem::take(&mut turn.wakes) {
        let key = match key {
            (service, None) => Key::Service(service),
            (service, Some(slot)) => Key::Slot(service, slot),
        };
        dirty.set_timer(key, Some(at));
    }
    for service in std::mem::take(&mut turn.unfinished) {
        dirty.look_again(service);
    }
    reasons.extend(std::mem::take(&mut turn.reasons).into_iter().map(Reason::from));
    schedule_waiting(&mut draft, dirty, &mut look, now, &mut reasons);
    dirty.addresses.forget_assumed();
    let writes = guard(draft, now);
    dirty.remember(look, &writes);
    let wake_at = if dirty.is_waiting_for_a_step() { Some(now) } else { dirty.next_alarm() };
    Decision { writes, wake_at, reasons }
}

fn look_at_nodes(draft: &mut Draft<'_>, dirty: &mut Dirty, look: &Look, turn: &mut Turn<'_>) {
    for id in &look.nodes {
        let again = orchestrate::node(draft, id, turn);
        dirty.set_timer(Key::Node(id.clone()), again);
    }
}

fn look_at_services(
    draft: &mut Draft<'_>,
    dirty: &mut Dirty,
    look: &mut Look,
    turn: &mut Turn<'_>,
    reasons: &mut Vec<Reason>,
) {
    for id in look.services.clone() {
        let id = &id;
        give_ports(draft, id, reasons);
        addresses::to_service(draft, dirty, look, id, reasons);
        dirty.set_timer(Key::Service(id.clone()), None);
        orchestrate::service(draft, id, turn);
    }
    for (service, slot) in &look.slots {
        // The whole service was looked after already.
        if !look.services.contains(service) {
            dirty.set_timer(Key::Slot(service.clone(), slot.clone()), None);
            orchestrate::slot(draft, service, slot, turn);
        }
    }
}

/// Gives a service the ports of its spec, when it does not have them: after a rollback that the swarm decided.
fn give_ports(draft: &mut Draft<'_>, id: &ServiceId, reasons: &mut Vec<Reason>) {
    let Some(service) = draft.service(id).filter(|service| !allocate::is_allocated(service)).cloned() else {
        return;
    };
    match allocate::endpoint(draft.store(), &service) {
        Ok(endpoint) => draft.put_service(objects::Service { endpoint, ..(*service).clone() }),
        Err(error) => reasons.push(Reason::NoPort { service: id.clone(), because: error.to_string() }),
    }
}

/// Places the tasks that this step made, and those that wait and may have a chance now.
fn schedule_waiting(
    draft: &mut Draft<'_>,
    dirty: &mut Dirty,
    look: &mut Look,
    now: Timestamp,
    reasons: &mut Vec<Reason>,
) {
    let mut waiting: BTreeSet<TaskId> = std::mem::take(&mut look.waiting);
    waiting.extend(draft.touched_tasks().filter_map(|(_, after)| after).map(|task| task.id.clone()));
    if waiting.is_empty() && look.freed.is_empty() {
        return;
    }
    let mut looked = waiting.clone();
    addresses::to_tasks(draft, dirty, look, &mut waiting, (now, reasons));
    looked.extend(waiting.iter().cloned());
    for (before, after) in draft.touched_tasks() {
        dirty.loads.assume_task(before.map(Arc::as_ref), after.map(Arc::as_ref));
    }
    let outcome = schedule::place(draft, &mut dirty.loads, waiting.iter().cloned(), now);
    dirty.loads.forget_assumed();
    dirty.remember_unplaced(draft, &waiting, &outcome.unplaced);
    reasons.extend(
        outcome.unplaced.into_iter().map(|task| Reason::NoNode { task: task.task, because: task.because }),
    );
    look.waiting = looked;
}

/// The writes of a draft. Tasks are only made or stopped for the spec, and placed on or taken from the node, that were
/// read: a node that is back just now keeps what it has.
fn guard(mut draft: Draft<'_>, now: Timestamp) -> Vec<Write> {
    let mut read: BTreeSet<(Kind, String)> = BTreeSet::new();
    for (before, after) in draft.touched_tasks() {
        let Some(after) = after else { continue };
        debug_assert!(is_sane(after), "{after:?}");
        if before.is_none_or(|before| before.desired_state != after.desired_state) {
            read.insert((Kind::Service, after.service_id.to_string()));
        }
        let was_active = before.is_some_and(|before| before.is_active());
        let is_left = || draft.node(&after.node_id).is_some_and(|node| node.must_be_left(now));
        if was_active != after.is_active() || (was_active && !after.is_wanted() && is_left()) {
            read.insert((Kind::Node, after.node_id.to_string()));
        }
    }
    for (kind, id) in &read {
        draft.check(*kind, id);
    }
    draft.into_writes()
}

/// What every decided task must be: placed tasks have a node, and a task is REMOVE only as a wish.
fn is_sane(task: &Task) -> bool {
    let has_node = !task.node_id.is_empty();
    (task.status.state < TaskState::Assigned || has_node || task.is_terminal())
        && task.status.state != TaskState::Remove
        && (task.slot > 0 || matches!(task.slot_key(), SlotKey::Node(_)))
}

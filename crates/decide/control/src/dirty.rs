//! What changed since the last step, and what a step would otherwise work out again each time.
//!
//! In: the changes of every commit. Out: which slots, services, nodes and tasks the next step looks at. All of it can be
//! rebuilt from the store with [`Dirty::everything`]; nothing here is a second source of truth.

use std::collections::{BTreeMap, BTreeSet};

use allocate::Addresses;
use objects::{
    Cluster, NetworkId, Node, NodeId, Service, ServiceId, SlotKey, Task, TaskId, TaskState, Timestamp,
    UpdateState,
};
use schedule::{Loads, Unplaced};
use store::{Change, Draft, Kind, Object, Store, Write};

use crate::queue::{self, Group, Queue};
use crate::starved::{Starved, Waiter};

/// Something to look at again at some time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Service(ServiceId),
    Slot(ServiceId, SlotKey),
    Node(NodeId),
}

/// What a step looks at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    pub(crate) services: BTreeSet<ServiceId>,
    pub(crate) slots: BTreeSet<(ServiceId, SlotKey)>,
    pub(crate) nodes: BTreeSet<NodeId>,
    pub(crate) waiting: BTreeSet<TaskId>,
    /// Networks on which an address became free.
    pub(crate) freed: BTreeSet<NetworkId>,
    /// Nodes that may get their address on ingress now.
    pub(crate) meshed: BTreeSet<NodeId>,
    /// Whether the ingress network is another one now.
    pub(crate) mesh_is_new: bool,
}

impl Look {
    fn is_empty(&self) -> bool {
        let has_addresses = !self.freed.is_empty() || !self.meshed.is_empty() || self.mesh_is_new;
        self.services.is_empty()
            && self.slots.is_empty()
            && self.nodes.is_empty()
            && self.waiting.is_empty()
            && !has_addresses
    }

    pub(crate) fn add(&mut self, key: Key) {
        match key {
            Key::Service(id) => drop(self.services.insert(id)),
            Key::Slot(id, slot) => drop(self.slots.insert((id, slot))),
            Key::Node(id) => drop(self.nodes.insert(id)),
        }
    }

    fn merge(&mut self, other: Self) {
        self.services.extend(other.services);
        self.slots.extend(other.slots);
        self.nodes.extend(other.nodes);
        self.waiting.extend(other.waiting);
        self.freed.extend(other.freed);
        self.meshed.extend(other.meshed);
        self.mesh_is_new |= other.mesh_is_new;
    }
}

/// What the next step looks at, and when it should come.
#[derive(Debug, Default)]
pub struct Dirty {
    /// Set until the first step has read the whole store.
    is_new: bool,
    look: Look,
    pub(crate) loads: Loads,
    /// Which addresses are taken.
    pub(crate) addresses: Addresses,
    /// Who waits for an address.
    pub(crate) starved: Starved,
    /// Services with a rollout under way: every change of their tasks matters to it.
    rolling: BTreeSet<ServiceId>,
    global: BTreeSet<ServiceId>,
    /// Tasks that no node takes.
    unplaced: Queue,
    timers: BTreeMap<Key, Timestamp>,
    alarms: BTreeSet<(Timestamp, Key)>,
    /// When the last step was.
    stepped_at: Timestamp,
    /// What the last step wrote and has not been seen committed.
    awaited: BTreeMap<(Kind, String), Option<Object>>,
    /// What the last step looked at.
    looked: Look,
}

impl Dirty {
    /// Everything is dirty: after a start, or a change of leader.
    pub fn everything() -> Self {
        Self { is_new: true, ..Self::default() }
    }

    /// Takes note of one change of a commit. Call it for every change of every commit, in order.
    pub fn note(&mut self, change: &Change) {
        if self.is_new {
            return;
        }
        let key = (change.kind, change.id.clone());
        if self.awaited.get(&key).is_some_and(|expected| is_same(expected.as_ref(), change.after.as_ref())) {
            self.awaited.remove(&key);
        }
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        match change.kind {
            Kind::Task => {
                self.note_task(before.and_then(Object::as_task), after.and_then(Object::as_task));
            }
            Kind::Service => {
                let id = ServiceId::from(change.id.as_str());
                let (before, after) =
                    (before.and_then(Object::as_service), after.and_then(Object::as_service));
                let freed = self.addresses.note_service(before.map(AsRef::as_ref), after.map(AsRef::as_ref));
                self.look.freed.extend(freed);
                self.note_service(&id, after);
            }
            Kind::Node => {
                let id = NodeId::from(change.id.as_str());
                self.note_node(&id, before.and_then(Object::as_node), after.and_then(Object::as_node));
            }
            Kind::Cluster => self.note_cluster(before, after),
            Kind::Network => {
                let is_ingress = |object: &Object| object.as_network().is_some_and(|it| it.spec.ingress);
                self.look.mesh_is_new |= before.or(after).is_some_and(is_ingress);
                self.look.freed.insert(change.id.as_str().into());
            }
            Kind::Secret | Kind::Config => {}
        }
    }

    /// Whether the next step has nothing to look at before its `wake_at`.
    pub fn is_clean(&self) -> bool {
        !self.is_new && self.look.is_empty() && self.awaited.is_empty()
    }

    /// Whether what is kept between steps is what the store would give: a check for tests, as slow as the store is large.
    pub fn is_true_to(&self, store: &Store) -> bool {
        self.is_new || (self.loads == Loads::of(store) && self.addresses == Addresses::of(store))
    }

    /// Whether the last step left work for the next one.
    pub(crate) fn is_waiting_for_a_step(&self) -> bool {
        !self.look.is_empty()
    }

    fn note_task(&mut self, before: Option<&std::sync::Arc<Task>>, after: Option<&std::sync::Arc<Task>>) {
        self.loads.note_task(before.map(AsRef::as_ref), after.map(AsRef::as_ref));
        let freed = self.addresses.note_task(before.map(AsRef::as_ref), after.map(AsRef::as_ref));
        self.look.freed.extend(freed);
        let Some(task) = after.or(before) else { return };
        if self.rolling.contains(&task.service_id) {
            self.look.services.insert(task.service_id.clone());
        } else {
            self.look.slots.insert((task.service_id.clone(), task.slot_key()));
        }
        // A task that is about to stop no longer counts as a replica of its node, but keeps its ports and memory.
        let room = |task: &std::sync::Arc<Task>| (task.is_active(), task.is_active() && task.is_wanted());
        let before_room = before.map_or((false, false), room);
        if before_room > after.map_or((false, false), room) {
            self.look.waiting.extend(self.unplaced.firsts_for_room().cloned());
        }
        if !after.is_some_and(|task| is_waiting(task)) {
            self.unplaced.remove(&task.id);
            self.starved.remove(&Waiter::Task(task.id.clone()));
        } else if !self.unplaced.contains(&task.id) {
            self.look.waiting.insert(task.id.clone());
        }
    }

    fn note_service(&mut self, id: &ServiceId, after: Option<&std::sync::Arc<Service>>) {
        self.look.services.insert(id.clone());
        set(&mut self.rolling, id, after.is_some_and(|service| is_rolling(service)));
        set(&mut self.global, id, after.is_some_and(|service| service.spec.is_global()));
    }

    fn note_node(
        &mut self,
        id: &NodeId,
        before: Option<&std::sync::Arc<Node>>,
        after: Option<&std::sync::Arc<Node>>,
    ) {
        self.loads.note_node(id, after);
        let freed = self.addresses.note_node(before.map(AsRef::as_ref), after.map(AsRef::as_ref));
        self.look.freed.extend(freed);
        let is_same = match (before, after) {
            (Some(before), Some(after)) => {
                before.spec == after.spec
                    && before.description == after.description
                    && before.status.state == after.status.state
                    && before.status.addr == after.status.addr
                    && before.internal.tasks_move_at == after.internal.tasks_move_at
            }
            _ => false,
        };
        if !is_same {
            self.look.nodes.insert(id.clone());
        }
    }

    fn note_cluster(&mut self, before: Option<&Object>, after: Option<&Object>) {
        let history = |object: Option<&Object>| match object {
            Some(Object::Cluster(cluster)) => Cluster::clone(cluster).spec.task_history(),
            _ => None,
        };
        if history(before) != history(after) {
            // Seldom enough to look at everything again.
            *self = Self::everything();
        }
    }

    /// What this step looks at. Afterwards nothing is dirty.
    pub(crate) fn take(&mut self, store: &Store, now: Timestamp) -> Look {
        if now < self.stepped_at {
            // The clock was set back: the alarms are on the clock of before.
            *self = Self::everything();
        }
        let is_everything = self.is_new;
        if is_everything {
            self.rebuild(store);
        }
        if !self.awaited.is_empty() {
            // The last decision was refused as a whole: decide about the same objects again.
            self.awaited.clear();
            let looked = std::mem::take(&mut self.looked);
            self.look.merge(looked);
        }
        while let Some((at, key)) = self.alarms.first().cloned().filter(|(at, _)| *at <= now) {
            self.alarms.remove(&(at, key.clone()));
            self.timers.remove(&key);
            self.look.add(key);
        }
        self.stepped_at = now;
        let mut look = std::mem::take(&mut self.look);
        if !is_everything {
            self.look_through_nodes(store, &mut look);
        }
        look
    }

    /// What a changed node makes dirty: the slots of its tasks, of global services, and tasks that wait for a node.
    fn look_through_nodes(&self, store: &Store, look: &mut Look) {
        for id in &look.nodes {
            // A service that is looked after as a whole includes its slots.
            let tasks = store.tasks_on_node(id).filter(|task| !look.services.contains(&task.service_id));
            look.slots.extend(tasks.map(|task| (task.service_id.clone(), task.slot_key())));
            let slot = SlotKey::Node(id.clone());
            look.slots.extend(self.global.iter().map(|service| (service.clone(), slot.clone())));
            look.services.extend(self.global.intersection(&self.rolling).cloned());
        }
        if !look.nodes.is_empty() {
            look.waiting.extend(self.unplaced.firsts().cloned());
        }
    }

    fn rebuild(&mut self, store: &Store) {
        *self = Self { loads: Loads::of(store), addresses: Addresses::of(store), ..Self::default() };
        self.look.mesh_is_new = true;
        self.look.nodes.extend(store.nodes().map(|node| node.id.clone()));
        for service in store.services() {
            self.note_service(&service.id, Some(service));
        }
        for (service, tasks) in store.tasks_by_service() {
            // Services that are gone are found by what they left.
            self.look.services.insert(service.clone());
            self.look.waiting.extend(tasks.filter(|task| is_waiting(task)).map(|task| task.id.clone()));
        }
    }

    /// Remembers what a step did until it is committed or refused.
    pub(crate) fn remember(&mut self, looked: Look, writes: &[Write]) {
        // Without a write nothing can be refused: what was looked at need not be kept.
        self.looked = if writes.is_empty() { Look::default() } else { looked };
        self.awaited = writes
            .iter()
            .filter_map(|write| {
                let expected = match write {
                    Write::Create(object) | Write::Update { object, .. } => Some(object.clone()),
                    Write::Remove { .. } => None,
                    Write::Check { .. } => return None,
                };
                let (kind, id) = write.target();
                Some(((kind, id.to_owned()), expected))
            })
            .collect();
    }

    /// Takes note of what a placement left over of the tasks that it looked at. Others of their groups follow in the next
    /// step: some, where one found a node, and all, where the reason is another one now.
    pub(crate) fn remember_unplaced(
        &mut self,
        draft: &Draft<'_>,
        looked: &BTreeSet<TaskId>,
        unplaced: &[Unplaced],
    ) {
        let left: BTreeSet<&TaskId> = unplaced.iter().map(|task| &task.task).collect();
        let mut placed: BTreeMap<Group, usize> = BTreeMap::new();
        for id in looked {
            if let Some(group) = self.unplaced.remove(id)
                && !left.contains(id)
            {
                *placed.entry(group).or_default() += 1;
            }
        }
        let mut stale = BTreeSet::new();
        for one in unplaced {
            let Some(task) = draft.task(&one.task) else { continue };
            let group = queue::group(task);
            // A new task has none yet, and says nothing of the others.
            let reason = draft.store().task(&one.task).map_or("", |known| known.status.err.as_str());
            if !reason.is_empty() && reason != one.because {
                stale.insert(group.clone());
            }
            self.unplaced.insert(one.task.clone(), group, one.needs_room);
        }
        for (group, count) in placed {
            // Twice as many each time: one event may have made room for many.
            self.look.waiting.extend(self.unplaced.of_group(&group).take(2 * count).cloned());
        }
        for group in &stale {
            let others = self.unplaced.of_group(group).filter(|id| !looked.contains(*id));
            self.look.waiting.extend(others.cloned());
        }
    }

    /// Looks at `key` again at `at`; replaces an earlier wish for the same key.
    pub(crate) fn set_timer(&mut self, key: Key, at: Option<Timestamp>) {
        if let Some(old) = self.timers.remove(&key) {
            self.alarms.remove(&(old, key.clone()));
        }
        if let Some(at) = at {
            self.timers.insert(key.clone(), at);
            self.alarms.insert((at, key));
        }
    }

    /// Looks at a service again in the next step.
    pub(crate) fn look_again(&mut self, id: ServiceId) {
        self.look.services.insert(id);
    }

    /// When the next timer is due.
    pub(crate) fn next_alarm(&self) -> Option<Timestamp> {
        self.alarms.first().map(|(at, _)| *at)
    }
}

/// Whether a task waits for a node.
fn is_waiting(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.is_wanted()
}

fn set(services: &mut BTreeSet<ServiceId>, id: &ServiceId, is_in: bool) {
    if is_in {
        services.insert(id.clone());
    } else {
        services.remove(id);
    }
}

/// Whether changes of the service's tasks matter to a rollout.
fn is_rolling(service: &Service) -> bool {
    service
        .update_status
        .as_ref()
        .is_some_and(|status| matches!(status.state, UpdateState::Updating | UpdateState::RollbackStarted))
}

/// Whether a committed object is the one that was decided, apart from what the store stamps.
fn is_same(expected: Option<&Object>, found: Option<&Object>) -> bool {
    match (expected, found) {
        (None, None) => true,
        (Some(Object::Task(expected)), Some(Object::Task(found))) => {
            expected.status == found.status
                && expected.desired_state == found.desired_state
                && expected.node_id == found.node_id
                && expected.internal == found.internal
                && expected.networks_attachments == found.networks_attachments
        }
        (Some(Object::Node(expected)), Some(Object::Node(found))) => {
            expected.internal.ingress == found.internal.ingress
        }
        (Some(Object::Service(expected)), Some(Object::Service(found))) => {
            Service { meta: found.meta, ..(**expected).clone() } == **found
        }
        _ => false,
    }
}

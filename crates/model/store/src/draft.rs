//! Writes to be: an overlay over the store that later reads of the same decision see.
//!
//! In: objects that a decision makes, changes or removes. Out: one write per object, each with the version that was
//! read. Never changes the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use objects::{Cluster, Node, NodeId, Service, ServiceId, SlotKey, Task, TaskId};

use crate::{Kind, Object, Store, Write};

/// Writes to be, over a store.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    store: &'a Store,
    tasks: BTreeMap<TaskId, Option<Arc<Task>>>,
    services: BTreeMap<ServiceId, Option<Arc<Service>>>,
    /// Nodes as they will be; [`Draft::node`] tells how they are.
    nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Tasks that the store does not have yet.
    made: BTreeMap<(ServiceId, SlotKey), BTreeSet<TaskId>>,
    checked: BTreeSet<(Kind, String)>,
    /// What was touched, in the order of the first touch.
    order: Vec<Touched>,
}

#[derive(Debug, Clone)]
enum Touched {
    Task(TaskId),
    Service(ServiceId),
    Node(NodeId),
}

impl<'a> Draft<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self {
            store,
            tasks: BTreeMap::new(),
            services: BTreeMap::new(),
            nodes: BTreeMap::new(),
            made: BTreeMap::new(),
            checked: BTreeSet::new(),
            order: Vec::new(),
        }
    }

    /// The store below, without the pending writes.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The cluster.
    pub fn cluster(&self) -> Option<&'a Arc<Cluster>> {
        self.store.cluster()
    }

    /// A node, as it is in the store.
    pub fn node(&self, id: &NodeId) -> Option<&'a Arc<Node>> {
        self.store.node(id)
    }

    /// A service, with the pending writes.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        match self.services.get(id) {
            Some(written) => written.as_ref(),
            None => self.store.service(id),
        }
    }

    /// A task, with the pending writes.
    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        match self.tasks.get(id) {
            Some(written) => written.as_ref(),
            None => self.store.task(id),
        }
    }

    /// All tasks of a slot, with the pending writes.
    pub fn tasks_in_slot(&self, service: &ServiceId, slot: &SlotKey) -> Vec<Arc<Task>> {
        self.slot(service, slot).cloned().collect()
    }

    /// As [`Draft::tasks_in_slot`], for those who only look.
    pub fn slot(&self, service: &ServiceId, slot: &SlotKey) -> impl Iterator<Item = &Arc<Task>> {
        let made = if self.made.is_empty() { None } else { self.made.get(&(service.clone(), slot.clone())) };
        let stored = self.store.tasks_in_slot(service, slot).filter_map(|task| self.now(task));
        stored.chain(made.into_iter().flatten().filter_map(|id| self.task(id)))
    }

    /// A task of the store, with the pending writes.
    fn now<'s>(&'s self, task: &'s Arc<Task>) -> Option<&'s Arc<Task>> {
        if self.tasks.is_empty() { Some(task) } else { self.task(&task.id) }
    }

    /// All tasks of a service, with the pending writes; those made in this draft come last.
    pub fn tasks_of_service(&self, service: &ServiceId) -> Vec<Arc<Task>> {
        let first = (service.clone(), SlotKey::Slot(0));
        let made = self.made.range(first..).take_while(|(key, _)| key.0 == *service).flat_map(|(_, ids)| ids);
        let stored = self.store.tasks_of_service(service).filter_map(|task| self.now(task));
        stored.chain(made.filter_map(|id| self.task(id))).cloned().collect()
    }

    /// One of the tasks of a service that this draft makes.
    pub fn one_made(&self, service: &ServiceId) -> Option<&Arc<Task>> {
        let first = (service.clone(), SlotKey::Slot(0));
        let (_, ids) = self.made.range(first..).next().filter(|(key, _)| key.0 == *service)?;
        ids.iter().find_map(|id| self.task(id))
    }

    /// Every task that this draft makes, changes or removes: as it is in the store, and as it will be.
    pub fn touched_tasks(&self) -> impl Iterator<Item = (Option<&Arc<Task>>, Option<&Arc<Task>>)> {
        self.tasks.iter().map(|(id, after)| (self.store.task(id), after.as_ref()))
    }

    /// Makes or changes a task.
    ///
    /// A changed task keeps its slot, and its service.
    pub fn put_task(&mut self, task: Task) {
        let id = task.id.clone();
        if self.store.task(&id).is_none() {
            self.made.entry((task.service_id.clone(), task.slot_key())).or_default().insert(id.clone());
        }
        if self.tasks.insert(id.clone(), Some(Arc::new(task))).is_none() {
            self.order.push(Touched::Task(id));
        }
    }

    /// Changes a task; does nothing when there is no such task. It keeps its slot, and its service.
    pub fn change_task(&mut self, id: &TaskId, change: impl FnOnce(&mut Task)) {
        if let Some(Some(task)) = self.tasks.get_mut(id) {
            return change(Arc::make_mut(task));
        }
        let Some(mut task) = self.task(id).map(|task| Task::clone(task)) else { return };
        change(&mut task);
        self.put_task(task);
    }

    /// Removes a task.
    pub fn remove_task(&mut self, id: &TaskId) {
        if self.tasks.insert(id.clone(), None).is_none() {
            self.order.push(Touched::Task(id.clone()));
        }
    }

    /// Makes or changes a service.
    pub fn put_service(&mut self, service: Service) {
        let id = service.id.clone();
        if self.services.insert(id.clone(), Some(Arc::new(service))).is_none() {
            self.order.push(Touched::Service(id));
        }
    }

    /// Changes a node.
    pub fn put_node(&mut self, node: Node) {
        let id = node.id.clone();
        if self.nodes.insert(id.clone(), Arc::new(node)).is_none() {
            self.order.push(Touched::Node(id));
        }
    }

    /// Lets the whole draft be refused when the object is written by somebody else first.
    pub fn check(&mut self, kind: Kind, id: &str) {
        self.checked.insert((kind, id.to_owned()));
    }

    /// Whether there will be a write of the service, which checks its version by itself.
    fn writes_service(&self, id: &str) -> bool {
        self.services.get(id).is_some_and(|written| written.as_ref() != self.store.services.get(id))
    }

    /// One write per touched object, in the order of the first touch.
    pub fn into_writes(self) -> Vec<Write> {
        let mut writes = Vec::with_capacity(self.order.len() + self.checked.len());
        for (kind, id) in &self.checked {
            let is_written = *kind == Kind::Service && self.writes_service(id);
            if let Some(object) = self.store.get(*kind, id).filter(|_| !is_written) {
                let read_version = object.meta().version;
                writes.push(Write::Check { kind: *kind, id: id.clone(), read_version });
            }
        }
        for touched in &self.order {
            let (kind, id, new) = match touched {
                Touched::Task(id) => (Kind::Task, id.as_str(), self.tasks[id].clone().map(Object::Task)),
                Touched::Service(id) => {
                    (Kind::Service, id.as_str(), self.services[id].clone().map(Object::Service))
                }
                Touched::Node(id) => {
                    (Kind::Node, id.as_str(), Some(Object::Node(Arc::clone(&self.nodes[id]))))
                }
            };
            writes.extend(write(self.store.get(kind, id), new));
        }
        writes
    }
}

/// The write that leads from one state of an object to another.
fn write(old: Option<Object>, new: Option<Object>) -> Option<Write> {
    match (old, new) {
        (None, None) => None,
        (None, Some(object)) => Some(Write::Create(object)),
        (Some(old), None) => Some(Write::remove(old)),
        (Some(old), Some(object)) if old == object => None,
        (Some(old), Some(object)) => Some(Write::Update { object, read_version: old.meta().version }),
    }
}

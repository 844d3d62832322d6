//! Table and property tests of the decisions about tasks, over a small world that does what it is told.

mod dirtiness;
mod restarts;
mod rollouts;
mod scaling;

use std::sync::Arc;

use objects::{
    Cluster, ClusterSpec, ContainerSpec, IdSource, Nanos, Node, NodeState, Service, ServiceId, ServiceMode,
    ServiceSpec, Task, TaskSpec, TaskState, TaskStatus, Timestamp, UpdateStatus,
};
use store::{Store, Write};

use crate::{Reason, Turn};

/// A store, a clock, and agents that obey.
pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) now: Timestamp,
    pub(super) wake_at: Option<Timestamp>,
    /// When the nodes are to be judged again.
    pub(super) judged_again_at: Option<Timestamp>,
    pub(super) reasons: Vec<Reason>,
    ids: IdSource,
}

pub(super) fn spec(mode: ServiceMode) -> ServiceSpec {
    let container = ContainerSpec { image: "web:1".to_owned(), ..Default::default() };
    let task_template = TaskSpec { container_spec: Some(container), ..Default::default() };
    ServiceSpec { name: "web".to_owned(), mode, task_template, ..Default::default() }
}

pub(super) fn with_image(spec: &ServiceSpec, image: &str) -> ServiceSpec {
    let mut spec = spec.clone();
    spec.task_template.container_spec.as_mut().unwrap().image = image.to_owned();
    spec
}

impl Bench {
    pub(super) fn new(nodes: &[&str]) -> Self {
        let cluster =
            Cluster { id: "c".into(), spec: ClusterSpec::default().with_defaults(), ..Cluster::default() };
        let mut bench = Self {
            store: Store::new(),
            now: Timestamp::from_secs(1_000_000),
            wake_at: None,
            judged_again_at: None,
            reasons: Vec::new(),
            ids: IdSource::from_seed([3; 32]),
        };
        bench.write(vec![Write::Create(cluster.into())]);
        for id in nodes {
            let mut node = Node { id: (*id).into(), ..Node::default() };
            node.status.state = NodeState::Ready;
            bench.write(vec![Write::Create(node.into())]);
        }
        bench
    }

    pub(super) fn write(&mut self, writes: Vec<Write>) {
        self.store.apply(self.store.applied() + 1, self.now, &writes).unwrap();
    }

    pub(super) fn id(&self) -> ServiceId {
        "svc".into()
    }

    /// Makes the service, or updates it.
    pub(super) fn ask(&mut self, spec: ServiceSpec) {
        let write = match self.store.service(&self.id()) {
            None => Write::Create(Service::new(self.id(), spec).into()),
            Some(service) => Write::update(service.updated(spec)),
        };
        self.write(vec![write]);
        self.decide();
    }

    pub(super) fn service(&self) -> Arc<Service> {
        Arc::clone(self.store.service(&self.id()).unwrap())
    }

    pub(super) fn status(&self) -> Option<UpdateStatus> {
        self.service().update_status.clone()
    }

    /// Decides until there is nothing to write.
    pub(super) fn decide(&mut self) {
        for _ in 0..50 {
            let mut draft = self.store.draft();
            let mut turn = Turn::new(self.now, &mut self.ids, usize::MAX);
            let judged = self.store.nodes().map(|node| crate::node(&mut draft, &node.id, &mut turn));
            self.judged_again_at = judged.flatten().min();
            crate::service(&mut draft, &"svc".into(), &mut turn);
            self.wake_at = turn.wakes.values().min().copied();
            self.reasons.append(&mut turn.reasons);
            let writes = draft.into_writes();
            if writes.is_empty() {
                return;
            }
            self.write(writes);
        }
        panic!("the decisions never come to rest");
    }

    pub(super) fn pass(&mut self, time: Nanos) {
        self.now = self.now + time;
        self.decide();
    }

    pub(super) fn tasks(&self) -> Vec<Arc<Task>> {
        let mut tasks: Vec<_> = self.store.tasks_of_service(&self.id()).cloned().collect();
        tasks.sort_by_key(|task| (task.slot, task.internal.generation));
        tasks
    }

    pub(super) fn wanted(&self) -> Vec<Arc<Task>> {
        self.tasks().into_iter().filter(|task| task.is_wanted()).collect()
    }

    /// The slots with a wanted task.
    pub(super) fn slots(&self) -> Vec<u64> {
        self.wanted().iter().map(|task| task.slot).collect()
    }

    pub(super) fn report(&mut self, task: &Task, state: TaskState) {
        let task = self.store.task(&task.id).unwrap();
        let status = TaskStatus { state, timestamp: self.now, ..TaskStatus::default() };
        let observed = task.observed(status, self.now).unwrap();
        self.write(vec![Write::update(observed)]);
        self.decide();
    }

    /// Puts all waiting tasks on nodes in turn, and lets every task reach what is wanted of it, `ends` excepted.
    pub(super) fn obey(&mut self) {
        for _ in 0..20 {
            let mut writes = Vec::new();
            let nodes: Vec<_> = self.store.nodes().map(|node| node.id.clone()).collect();
            for (position, task) in self.tasks().into_iter().enumerate() {
                let state = match (task.is_terminal(), task.desired_state) {
                    (true, _) => continue,
                    (false, TaskState::Ready) => TaskState::Ready,
                    (false, TaskState::Running) => TaskState::Running,
                    (false, _) => TaskState::Shutdown,
                };
                let status = TaskStatus { state, timestamp: self.now, ..TaskStatus::default() };
                let Some(mut next) = task.observed(status, self.now) else { continue };
                if state == task.status.state {
                    continue;
                }
                if next.node_id.is_empty() {
                    next.node_id = nodes[position % nodes.len()].clone();
                }
                writes.push(Write::update(next));
            }
            if writes.is_empty() {
                return;
            }
            self.write(writes);
            self.decide();
        }
        panic!("the tasks never come to rest");
    }

    pub(super) fn change_node(&mut self, id: &str, change: impl FnOnce(&mut Node)) {
        let mut node = Node::clone(self.store.node(&id.into()).unwrap());
        change(&mut node);
        self.write(vec![Write::update(node)]);
        self.decide();
    }
}

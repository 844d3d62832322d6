//! What one node was told, and what it has to be told next.
//!
//! In: the store. Out: complete or incremental assignments. Cost follows the tasks of the node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use objects::{ConfigId, NetworkId, NodeId, SecretId, Task, TaskId, TaskState};
use store::Store;
use wire::session::{Assigned, Assignment, Assignments, Config, Removed, Secret};

use crate::networks::{self, Marks};

/// What one node was told in its session.
#[derive(Debug, Clone)]
pub struct Told {
    node: NodeId,
    tasks: BTreeMap<TaskId, Arc<Task>>,
    granted: Granted,
    networks: BTreeSet<NetworkId>,
}

/// What the tasks of a node are granted. Content never changes under its id.
#[derive(Debug, Clone, Default)]
struct Granted {
    secrets: BTreeSet<SecretId>,
    configs: BTreeSet<ConfigId>,
}

impl Told {
    /// Everything that `node` should know, for the start of a session; and the memory of it.
    pub fn everything(store: &Store, node: &NodeId) -> (Self, Assignments) {
        let mut told = Self {
            node: node.clone(),
            tasks: BTreeMap::new(),
            granted: Granted::default(),
            networks: BTreeSet::new(),
        };
        let (all, _) = told.difference(store, &Marks::default());
        (told, Assignments::Complete(all))
    }

    /// What is different since the node was last told; `None` when it knows all. `marks` say what may be different on its
    /// networks; whatever was marked has to be in the store already.
    ///
    /// The node's own reports are no news to it.
    pub fn news(&mut self, store: &Store, marks: &Marks) -> Option<Assignments> {
        let (update, remove) = self.difference(store, marks);
        let is_news = update != Assigned::default() || remove != Removed::default();
        is_news.then_some(Assignments::Incremental { update, remove })
    }

    /// The networks that the node was told of. From the store that it was told on, every change of them has to be marked.
    pub fn networks(&self) -> &BTreeSet<NetworkId> {
        &self.networks
    }

    /// What is new or different, and what is gone. Afterwards the node counts as told.
    fn difference(&mut self, store: &Store, marks: &Marks) -> (Assigned, Removed) {
        let (mut update, mut remove) = (Assigned::default(), Removed::default());
        let mut tasks = BTreeMap::new();
        for task in store.tasks_on_node(&self.node).filter(|task| is_assigned(task)) {
            if self.tasks.get(&task.id).is_none_or(|known| is_news(known, task)) {
                update.tasks.push(assignment(store, task));
            }
            tasks.insert(task.id.clone(), Arc::clone(task));
        }
        remove.tasks.extend(self.tasks.keys().filter(|id| !tasks.contains_key(*id)).cloned());
        let granted = Granted::of(store, tasks.values());
        update
            .secrets
            .extend(granted.secrets.difference(&self.granted.secrets).filter_map(|id| secret(store, id)));
        update
            .configs
            .extend(granted.configs.difference(&self.granted.configs).filter_map(|id| config(store, id)));
        remove.secrets.extend(self.granted.secrets.difference(&granted.secrets).cloned());
        remove.configs.extend(self.granted.configs.difference(&granted.configs).cloned());
        (self.tasks, self.granted) = (tasks, granted);
        self.look_at_networks(store, marks, &mut update, &mut remove);
        (update, remove)
    }

    fn look_at_networks(
        &mut self,
        store: &Store,
        marks: &Marks,
        update: &mut Assigned,
        remove: &mut Removed,
    ) {
        let used = networks::networks_of_node(store, &self.node);
        for network in used.iter().filter_map(|id| store.network(id)) {
            let touched = marks.networks.get(&network.id);
            let is_whole = marks.all || touched.is_some_and(|touched| touched.all);
            if is_whole || !self.networks.contains(&network.id) {
                update.networks.push(networks::view(store, network));
            } else if let Some(touched) = touched {
                update.network_news.push(networks::news(store, network, touched));
            }
        }
        remove.networks.extend(self.networks.difference(&used).cloned());
        self.networks = used;
    }
}

impl Granted {
    /// What these tasks need as long as they have not ended, as far as the store has it.
    fn of<'a>(store: &Store, tasks: impl Iterator<Item = &'a Arc<Task>>) -> Self {
        let mut granted = Self::default();
        let live = tasks.filter(|task| !task.is_terminal());
        for container in live.filter_map(|task| task.spec.container_spec.as_ref()) {
            let secrets = container.secrets.iter().map(|reference| &reference.secret_id);
            granted.secrets.extend(secrets.filter(|id| store.secret(id).is_some()).cloned());
            let configs = container.configs.iter().map(|reference| &reference.config_id);
            granted.configs.extend(configs.filter(|id| store.config(id).is_some()).cloned());
        }
        granted
    }
}

/// Whether a node learns about a task: only once the scheduler gave it to the node for good.
fn is_assigned(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned
}

/// Whether the node has anything to do about a change.
fn is_news(known: &Arc<Task>, task: &Arc<Task>) -> bool {
    let is_same_spec = Arc::ptr_eq(&known.spec, &task.spec) || known.spec == task.spec;
    !Arc::ptr_eq(known, task)
        && (!is_same_spec
            || known.desired_state != task.desired_state
            || known.internal.ports != task.internal.ports
            || known.networks_attachments != task.networks_attachments
            || known.generic_resources != task.generic_resources)
}

fn assignment(store: &Store, task: &Arc<Task>) -> Assignment {
    let service = store.service(&task.service_id);
    let registry_auth = service.map(|service| service.internal.registry_auth.as_str()).unwrap_or_default();
    Assignment { task: Arc::clone(task), registry_auth: registry_auth.into() }
}

fn secret(store: &Store, id: &SecretId) -> Option<Secret> {
    let spec = &store.secret(id)?.spec;
    Some(Secret { id: id.clone(), name: spec.name.clone(), data: spec.data.0.as_str().into() })
}

fn config(store: &Store, id: &ConfigId) -> Option<Config> {
    let spec = &store.config(id)?.spec;
    Some(Config { id: id.clone(), name: spec.name.clone(), data: spec.data.0.clone() })
}

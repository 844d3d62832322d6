//! Tasks: look up and list, with every filter of the API.
//!
//! In: a reference or filters. Out: the API's JSON. Never writes.

use std::collections::BTreeSet;
use std::sync::Arc;

use docker::filters::{FilterError, Filters};
use objects::{NodeId, ServiceId, Task, TaskState};
use serde_json::Value;
use store::Store;

use crate::error::ManagerError;
use crate::manager::Manager;

const KNOWN: [&str; 8] =
    ["_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"];

/// Filters with their references resolved.
struct Wanted<'a> {
    filters: &'a Filters,
    services: Option<BTreeSet<ServiceId>>,
    nodes: Option<BTreeSet<NodeId>>,
    states: Option<BTreeSet<TaskState>>,
    up_to_date: Option<bool>,
}

impl Manager {
    /// One task by id or id prefix, as the API's JSON.
    pub fn task(&self, reference: &str) -> Result<Value, ManagerError> {
        let store = self.view()?;
        let task = store.find_task(reference)?;
        Ok(task.to_api(|id| store.network(id).cloned()))
    }

    /// Tasks that pass the filters (desired-state, id, label, name, node, service, runtime, `_up-to-date`).
    pub fn tasks(&self, filters: &Filters) -> Result<Vec<Value>, ManagerError> {
        let store = self.view()?;
        let wanted = Wanted::new(&store, filters)?;
        let found: Vec<&Arc<Task>> = match &wanted.services {
            // The usual question is about one service: its tasks are indexed.
            Some(services) => services.iter().flat_map(|service| store.tasks_of_service(service)).collect(),
            None => store.tasks().collect(),
        };
        // Source: moby, `daemon/cluster/tasks.go` `GetTasks`: attachments are not shown.
        let found = found.into_iter().filter(|task| !task.is_attachment() && wanted.has(&store, task));
        Ok(found.map(|task| task.to_api(|id| store.network(id).cloned())).collect())
    }
}

impl<'a> Wanted<'a> {
    fn new(store: &Store, filters: &'a Filters) -> Result<Self, ManagerError> {
        filters.validate(&KNOWN)?;
        let services = filters.get("service").map(|text| Ok(store.find_service(text)?.id.clone()));
        let services: BTreeSet<ServiceId> = services.collect::<Result<_, ManagerError>>()?;
        let nodes = filters.get("node").map(|text| Ok(store.find_node(text)?.id.clone()));
        let nodes: BTreeSet<NodeId> = nodes.collect::<Result<_, ManagerError>>()?;
        let states: BTreeSet<TaskState> =
            filters.get("desired-state").map(state).collect::<Result<_, _>>()?;
        Ok(Self {
            filters,
            services: filters.contains("service").then_some(services),
            nodes: filters.contains("node").then_some(nodes),
            states: filters.contains("desired-state").then_some(states),
            up_to_date: filters.boolean("_up-to-date")?,
        })
    }

    fn has(&self, store: &Store, task: &Task) -> bool {
        let service = store.service(&task.service_id);
        let filters = self.filters;
        filters.matches_prefix("id", task.id.as_str())
            && filters.matches_prefix("name", &task.name())
            && filters.matches_exactly("runtime", "container")
            && self.services.as_ref().is_none_or(|services| services.contains(&task.service_id))
            && self.nodes.as_ref().is_none_or(|nodes| nodes.contains(&task.node_id))
            && self.states.as_ref().is_none_or(|states| states.contains(&task.desired_state))
            && (!filters.contains("label")
                || service.is_some_and(|service| filters.matches_labels("label", &service.spec.labels)))
            && self.up_to_date.is_none_or(|wanted| {
                service.is_some_and(|service| {
                    let node = store.node(&task.node_id).map(|node| &**node);
                    orchestrate::is_outdated(service, task, node) != wanted
                })
            })
    }
}

fn state(text: &str) -> Result<TaskState, FilterError> {
    let refused = || FilterError::OfSwarm { field: "desired-state", value: text.to_owned() };
    serde_json::from_value(Value::String(text.to_lowercase())).map_err(|_| refused())
}

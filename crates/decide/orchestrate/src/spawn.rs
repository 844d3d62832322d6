//! Makes the object of a new task.
//!
//! In: the service, the slot, the wanted state. Out: a task that waits for the scheduler. Never decides whether.

use std::sync::Arc;

use objects::{Service, SlotKey, Task, TaskInternal, TaskSpec, TaskState, TaskStatus};
use store::Draft;

use crate::Turn;

/// Message of a task that has its ports and waits for a node. Source: moby/swarmkit, `manager/allocator/network.go`.
const PENDING_MESSAGE: &str = "pending task scheduling";

/// A new task of `service` in `slot`, in the draft already.
///
/// It is PENDING: its ports were given to its service, and there is nothing else to allocate.
pub(crate) fn spawn(
    draft: &mut Draft<'_>,
    service: &Service,
    slot: &SlotKey,
    turn: &mut Turn<'_>,
    change: impl FnOnce(&mut Task),
) -> Task {
    let (number, node_id) = match slot {
        SlotKey::Slot(number) => (*number, objects::NodeId::default()),
        SlotKey::Node(node) => (0, node.clone()),
    };
    let cluster_driver = || draft.cluster().and_then(|cluster| cluster.spec.task_defaults.log_driver.clone());
    let log_driver = service.spec.task_template.log_driver.clone().or_else(cluster_driver);
    let mut task = Task {
        id: turn.ids.next(),
        service_id: service.id.clone(),
        slot: number,
        node_id,
        spec: shared_spec(draft, service),
        status: TaskStatus {
            timestamp: turn.now,
            state: TaskState::Pending,
            message: PENDING_MESSAGE.to_owned(),
            ..Default::default()
        },
        desired_state: TaskState::Running,
        internal: TaskInternal {
            service_name: service.spec.name.clone(),
            generation: 1 + newest_generation(draft, service, slot),
            spec_version: service.internal.spec_version,
            endpoint_spec: service.spec.endpoint_spec.clone().unwrap_or_default(),
            ports: service.endpoint.ports.clone(),
            log_driver,
            applied_at: turn.now,
            ..Default::default()
        },
        ..Default::default()
    };
    change(&mut task);
    turn.budget = turn.budget.saturating_sub(1);
    draft.put_task(task.clone());
    task
}

/// The spec for a new task, shared with a sibling when there is one of the same version.
fn shared_spec(draft: &Draft<'_>, service: &Service) -> Arc<TaskSpec> {
    let version = service.internal.spec_version;
    let sibling = draft.one_made(&service.id).or_else(|| {
        let mut siblings = draft.store().tasks_of_service(&service.id);
        siblings.next()
    });
    match sibling {
        Some(sibling)
            if sibling.internal.spec_version == version && *sibling.spec == service.spec.task_template =>
        {
            Arc::clone(&sibling.spec)
        }
        _ => Arc::new(service.spec.task_template.clone()),
    }
}

/// The highest number among the tasks of a slot; zero in an empty one.
fn newest_generation(draft: &Draft<'_>, service: &Service, slot: &SlotKey) -> u64 {
    let tasks = draft.tasks_in_slot(&service.id, slot);
    tasks.iter().map(|task| task.internal.generation).max().unwrap_or(0)
}

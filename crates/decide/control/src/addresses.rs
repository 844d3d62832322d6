//! The part of a step that gives addresses: to nodes on ingress, to services their VIPs, to tasks their attachments.
//!
//! In: what the step looks at, and where addresses became free. Out: objects with addresses in the draft. Whoever gets none is
//! told why and waits for one without being in anybody's way.

use std::collections::BTreeSet;
use std::sync::Arc;

use allocate::AttachError;
use objects::{Node, NodeId, Service, ServiceId, Task, TaskId, TaskState, Timestamp};
use store::Draft;

use crate::dirty::{Dirty, Look};
use crate::starved::Waiter;
use crate::step::Reason;

/// Nodes and services that wait on networks where an address became free are looked at. Tasks have their turn when these have
/// what they get.
pub(crate) fn wake_starved(dirty: &Dirty, look: &mut Look) {
    for waiter in look.freed.iter().flat_map(|network| dirty.starved.on(network)) {
        match waiter {
            Waiter::Node(id) => drop(look.meshed.insert(id)),
            Waiter::Service(id) => drop(look.services.insert(id)),
            Waiter::Task(_) => {}
        }
    }
}

/// Gives the nodes that are looked at their own addresses on the ingress network.
pub(crate) fn to_nodes(draft: &mut Draft<'_>, dirty: &mut Dirty, look: &Look, reasons: &mut Vec<Reason>) {
    let ids: BTreeSet<NodeId> = match look.mesh_is_new {
        true => draft.store().nodes().map(|node| node.id.clone()).collect(),
        false => look.nodes.union(&look.meshed).cloned().collect(),
    };
    for id in ids {
        let waiter = Waiter::Node(id.clone());
        let Some(node) = draft.node(&id).cloned() else {
            dirty.starved.remove(&waiter);
            continue;
        };
        match allocate::node_address(&mut dirty.addresses, draft.store(), &node) {
            Ok(None) => dirty.starved.remove(&waiter),
            Ok(Some(own)) => {
                dirty.starved.remove(&waiter);
                let mut next = Node::clone(&node);
                next.internal.ingress = Some(own);
                draft.put_node(next);
            }
            Err(full) => {
                reasons.push(Reason::NoAddress { of: id.to_string(), because: full.to_string() });
                dirty.starved.insert(waiter, full.id);
            }
        }
    }
}

/// Gives a service the virtual addresses that its spec asks for, and takes those that it does not.
pub(crate) fn to_service(
    draft: &mut Draft<'_>,
    dirty: &mut Dirty,
    look: &mut Look,
    id: &ServiceId,
    reasons: &mut Vec<Reason>,
) {
    let waiter = Waiter::Service(id.clone());
    let Some(service) = draft.service(id).cloned() else { return dirty.starved.remove(&waiter) };
    let (vips, missing) = allocate::virtual_ips(&mut dirty.addresses, draft.store(), &service);
    dirty.starved.remove(&waiter);
    if let Some(error) = missing {
        reasons.push(Reason::NoAddress { of: id.to_string(), because: error.to_string() });
        if let Some(network) = error.network() {
            dirty.starved.insert(waiter, network.clone());
        }
    }
    if vips == service.endpoint.virtual_ips {
        return;
    }
    let mut next = Service::clone(&service);
    next.endpoint.virtual_ips = vips;
    draft.put_service(next);
    // Its tasks may have waited for nothing else.
    let tasks = draft.store().tasks_of_service(id).filter(|task| is_unattached(task));
    look.waiting.extend(tasks.map(|task| task.id.clone()));
}

/// Gives addresses to the tasks that this step made, to those that are looked at, and to those that waited where one became
/// free. Whoever gets none leaves `waiting`: without addresses a task is not to be placed.
pub(crate) fn to_tasks(
    draft: &mut Draft<'_>,
    dirty: &mut Dirty,
    look: &Look,
    waiting: &mut BTreeSet<TaskId>,
    turn: (Timestamp, &mut Vec<Reason>),
) {
    let (now, reasons) = turn;
    for network in &look.freed {
        for waiter in dirty.starved.on(network) {
            let Waiter::Task(id) = waiter else { continue };
            match attach(draft, dirty, &id) {
                Ok(()) => drop(waiting.insert(id)),
                // Nobody else gets one there either.
                Err(error) if error.network() == Some(network) => break,
                Err(error) => wait(draft, dirty, (&id, error), now, reasons),
            }
        }
    }
    let is_candidate = |id: &&TaskId| draft.task(id).is_some_and(|task| is_unattached(task));
    let candidates: Vec<TaskId> = waiting.iter().filter(is_candidate).cloned().collect();
    for id in candidates {
        if let Err(error) = attach(draft, dirty, &id) {
            waiting.remove(&id);
            wait(draft, dirty, (&id, error), now, reasons);
        }
    }
}

/// Gives a task what it needs; does nothing for one that waits for no address.
fn attach(draft: &mut Draft<'_>, dirty: &mut Dirty, id: &TaskId) -> Result<(), AttachError> {
    let Some(task) = draft.task(id).filter(|task| is_unattached(task)).cloned() else { return Ok(()) };
    let service = draft.service(&task.service_id).cloned();
    let attachments = allocate::attachments(&mut dirty.addresses, draft.store(), service.as_deref(), &task)?;
    dirty.starved.remove(&Waiter::Task(id.clone()));
    if !attachments.is_empty() {
        draft.change_task(id, |task| task.networks_attachments = attachments);
    }
    Ok(())
}

/// Lets a task wait for an address on the network that has none.
fn wait(
    draft: &mut Draft<'_>,
    dirty: &mut Dirty,
    (id, error): (&TaskId, AttachError),
    now: Timestamp,
    reasons: &mut Vec<Reason>,
) {
    if let Some(task) = draft.task(id).cloned() {
        explain(draft, &task, &error, now);
    }
    reasons.push(Reason::NoAddress { of: id.to_string(), because: error.to_string() });
    match error.network() {
        Some(network) => dirty.starved.insert(Waiter::Task(id.clone()), network.clone()),
        None => dirty.starved.remove(&Waiter::Task(id.clone())),
    }
}

/// Whether a task waits to be placed and has no addresses, which it may need.
pub(crate) fn is_unattached(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.is_wanted() && task.networks_attachments.is_empty()
}

/// Tells in the task's status why it waits; one that says so already is not written again.
fn explain(draft: &mut Draft<'_>, task: &Arc<Task>, error: &AttachError, now: Timestamp) {
    let because = error.to_string();
    if task.status.err != because {
        draft.change_task(&task.id, |task| {
            task.status.err = because;
            task.status.timestamp = now;
        });
    }
}

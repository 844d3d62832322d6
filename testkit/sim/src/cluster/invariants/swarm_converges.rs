//! A healed swarm becomes what was asked for: its managers are those that should be, all replicas are the same, all nodes
//! are ready, every service has its tasks, and machines run exactly those.

use std::sync::PoisonError;

use objects::{Availability, NodeRole, NodeState, TaskState};
use store::Store;

use crate::cluster::shared::Shared;
use crate::cluster::world::Hardware;

pub(crate) fn check(shared: &Shared, machines: &[Hardware]) -> Result<(), String> {
    let store = shared.history().store.clone();
    for (machine, node) in shared.nodes.iter().enumerate() {
        let node = store.node(node).ok_or_else(|| format!("machine {machine} is no node"))?;
        if node.status.state != NodeState::Ready || node.spec.availability != Availability::Active {
            let (name, status, session) = (&node.description.hostname, &node.status, shared.managers());
            return Err(format!(
                "node {name} is {status:?}, {:?}; managers run on {session:?}",
                node.spec.role
            ));
        }
        match (shared.manager(machine), node.spec.role) {
            (None, NodeRole::Worker) => {}
            (None, NodeRole::Manager) => return Err(format!("manager {machine} is not up")),
            (Some(manager), NodeRole::Worker) => {
                let certified = node.internal.certified_role;
                let members = manager.log.members().borrow().clone();
                return Err(format!(
                    "machine {machine} still manages: certified {certified:?}, sees {members:?}"
                ));
            }
            (Some(manager), NodeRole::Manager) => {
                let members = manager.log.members().borrow().clone();
                let voters = store.nodes().filter(|node| node.spec.role == NodeRole::Manager).count();
                let is_voter = members.voters().any(|id| id == manager.raft_id);
                if members.leader.is_none() || !is_voter || members.voters().count() != voters {
                    let managers = store.nodes().filter(|node| node.spec.role == NodeRole::Manager);
                    let managers: Vec<_> =
                        managers.map(|node| (&node.description.hostname, &node.internal)).collect();
                    return Err(format!("manager {machine} of {managers:?} sees {members:?}"));
                }
                if !same(&manager.log.read(), &store) {
                    return Err(format!("the replica of manager {machine} is not what was committed"));
                }
            }
        }
    }
    crate::invariants::at_rest(&store)?;
    for (machine, hardware) in machines.iter().enumerate() {
        let running = hardware.kept.lock().unwrap_or_else(PoisonError::into_inner).containers.clone();
        let wanted = store
            .tasks_on_node(&shared.nodes[machine])
            .filter(|task| task.is_wanted() && task.status.state == TaskState::Running);
        let wanted = wanted.map(|task| task.id.clone()).collect();
        if running != wanted {
            return Err(format!("machine {machine} runs {running:?}, wanted are {wanted:?}"));
        }
    }
    Ok(())
}

/// Whether two stores hold the same objects.
fn same(one: &Store, other: &Store) -> bool {
    one.nodes().eq(other.nodes())
        && one.services().eq(other.services())
        && one.tasks().eq(other.tasks())
        && one.cluster() == other.cluster()
}

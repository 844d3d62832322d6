//! Decides whether a task is of an old spec and has to be replaced (reference, 2.3).
//!
//! In: a service, one of its tasks, and the task's node. Out: yes or no. The filter `_up-to-date` asks the same.

use objects::{Constraint, EndpointSpec, Node, Placement, Service, Task, TaskSpec};

/// Whether `task` has to be replaced for the current spec of `service`.
///
/// Labels, replicas and update settings of the service never outdate a task. Changed constraints do not either while the
/// task's node satisfies them.
pub fn is_outdated(service: &Service, task: &Task, node: Option<&Node>) -> bool {
    if task.internal.spec_version == service.internal.spec_version {
        return false;
    }
    let spec = &service.spec.task_template;
    if !has_same_endpoint(service, task) {
        return true;
    }
    if *task.spec == *spec {
        return false;
    }
    !(differs_in_constraints_only(&task.spec, spec) && satisfies(node, spec))
}

fn has_same_endpoint(service: &Service, task: &Task) -> bool {
    match &service.spec.endpoint_spec {
        Some(spec) => *spec == task.internal.endpoint_spec,
        None => task.internal.endpoint_spec == EndpointSpec::default(),
    }
}

fn differs_in_constraints_only(old: &TaskSpec, new: &TaskSpec) -> bool {
    let without = |spec: &TaskSpec| {
        let mut spec = spec.clone();
        if let Some(placement) = &mut spec.placement {
            placement.constraints.clear();
        }
        spec.placement = spec.placement.filter(|placement| *placement != Placement::default());
        spec
    };
    without(old) == without(new)
}

/// Whether `node` satisfies all constraints; a missing node satisfies none.
pub(crate) fn satisfies(node: Option<&Node>, spec: &TaskSpec) -> bool {
    let Some(node) = node else { return false };
    // Specs are validated before they are stored; a constraint that does not parse is satisfied by no node.
    Constraint::parse_all(spec.constraints())
        .is_ok_and(|constraints| constraints.iter().all(|constraint| constraint.is_satisfied_by(node)))
}

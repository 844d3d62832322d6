//! Spreads the tasks of a group over nodes: evenly over the branches of labels, then to the least loaded node.
//!
//! In: the nodes that the filters let through. Out: one node per call, until none can take another task. A call costs
//! O(log nodes), however many nodes there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use objects::{Node, NodeId};

use crate::demand::Demand;
use crate::filter::refuse;
use crate::loads::{Load, Loads};

/// What nodes are ranked by; the smallest wins: failures, tasks of the service, all tasks, id.
pub(crate) type Rank = (u64, u64, u64, NodeId);

/// Recent failures that make a node less welcome, and how recent.
///
/// Source: moby/swarmkit, `manager/scheduler/nodeinfo.go` (`maxFailures`, `monitorFailures`).
pub(crate) const MANY_FAILURES: u64 = 5;

/// Failures per node, only of nodes with many.
pub(crate) type Failures = BTreeMap<NodeId, u64>;

/// The rank of a node for a group.
pub(crate) fn rank(demand: &Demand, failures: &Failures, id: &NodeId, load: &Load) -> Rank {
    let failed = failures.get(id).copied().unwrap_or(0);
    (failed, load.of_service(&demand.weight.service), load.tasks, id.clone())
}

/// Nodes, split by the values of labels.
pub(crate) enum Branch {
    /// Nodes that are alike.
    Nodes(BinaryHeap<Reverse<Rank>>),
    /// Branches by their number of tasks of the service, then the label's value.
    Values { order: BinaryHeap<Reverse<(u64, String)>>, branches: BTreeMap<String, Branch> },
}

impl Branch {
    /// Splits the nodes by the labels of `demand.spread`, from the `level`-th on.
    pub(crate) fn grow(
        demand: &Demand,
        failures: &Failures,
        level: usize,
        nodes: Vec<(&NodeId, &Load)>,
    ) -> Self {
        let Some(descriptor) = demand.spread.get(level) else {
            return Self::Nodes(
                nodes.into_iter().map(|(id, load)| Reverse(rank(demand, failures, id, load))).collect(),
            );
        };
        let mut by_value: BTreeMap<String, Vec<(&NodeId, &Load)>> = BTreeMap::new();
        for (id, load) in nodes {
            let value = load.node.as_ref().map_or("", |node| label(node, descriptor));
            by_value.entry(value.to_owned()).or_default().push((id, load));
        }
        let (mut order, mut branches) = (BinaryHeap::new(), BTreeMap::new());
        for (value, nodes) in by_value {
            let tasks = nodes.iter().map(|(_, load)| load.of_service(&demand.weight.service)).sum();
            order.push(Reverse((tasks, value.clone())));
            branches.insert(value, Self::grow(demand, failures, level + 1, nodes));
        }
        Self::Values { order, branches }
    }

    /// Takes the node for the next task and assumes the task there; `None` when no node can take another one.
    pub(crate) fn take(&mut self, demand: &Demand, failures: &Failures, loads: &mut Loads) -> Option<NodeId> {
        match self {
            Self::Nodes(heap) => {
                while let Some(Reverse((.., id))) = heap.pop() {
                    let Some(load) = loads.get(&id) else { continue };
                    if refuse(demand, load).is_some() {
                        continue;
                    }
                    loads.assume(&id, &demand.weight);
                    let load = loads.get(&id).expect("the node is known");
                    heap.push(Reverse(rank(demand, failures, &id, load)));
                    return Some(id);
                }
                None
            }
            // A branch that cannot take its share is dropped; the rest go on evenly.
            Self::Values { order, branches } => {
                while let Some(Reverse((tasks, value))) = order.pop() {
                    let branch = branches.get_mut(&value).expect("every value has a branch");
                    if let Some(id) = branch.take(demand, failures, loads) {
                        order.push(Reverse((tasks + 1, value)));
                        return Some(id);
                    }
                }
                None
            }
        }
    }
}

/// The value of the label that a descriptor names; empty when the node lacks it.
fn label<'a>(node: &'a Node, descriptor: &str) -> &'a str {
    let is_engine = descriptor.get(..1).is_some_and(|first| first.eq_ignore_ascii_case("e"));
    let (labels, prefix) = if is_engine {
        (&node.description.engine.labels, "engine.labels.")
    } else {
        (&node.spec.labels, "node.labels.")
    };
    labels.get(&descriptor[prefix.len()..]).map_or("", String::as_str)
}

//! Picks the least loaded node for each task of a group that is not spread over labels.
//!
//! In: the loads of the nodes. Out: one node per call, the one with the smallest rank, until none can take another task.
//! A small group looks at few nodes, however many there are: those without a task of the service come first, and the
//! order of loads has them already.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use objects::NodeId;

use crate::demand::Demand;
use crate::filter::refuse;
use crate::loads::{Loads, Place};
use crate::spread::{Failures, Rank, rank};

/// How far the nodes were looked at.
#[derive(Debug, Default)]
pub(crate) struct Pick {
    /// The last node of the walk over those that have no task of the service.
    walked: Option<Place>,
    is_walk_over: bool,
    /// What the walk left out: nodes that have one, or failed often.
    rest: BinaryHeap<Reverse<Rank>>,
}

impl Pick {
    /// Takes the node for the next task and assumes the task there; `None` when no node can take another one.
    pub(crate) fn take(&mut self, demand: &Demand, failures: &Failures, loads: &mut Loads) -> Option<NodeId> {
        if let Some(id) = self.walk(demand, failures, loads) {
            loads.assume(&id, &demand.weight);
            return Some(id);
        }
        while let Some(Reverse((.., id))) = self.rest.pop() {
            if loads.get(&id).is_none_or(|load| refuse(demand, load).is_some()) {
                continue;
            }
            loads.assume(&id, &demand.weight);
            let load = loads.get(&id).expect("the node is known");
            self.rest.push(Reverse(rank(demand, failures, &id, load)));
            return Some(id);
        }
        None
    }

    /// The next node that has no task of the service and did not fail often: no other one has a smaller rank.
    ///
    /// A node that was taken moves up in the order, is met again and goes to the rest then.
    fn walk(&mut self, demand: &Demand, failures: &Failures, loads: &Loads) -> Option<NodeId> {
        while !self.is_walk_over {
            let Some((place, load)) = loads.next(self.walked.as_ref()) else {
                self.is_walk_over = true;
                break;
            };
            self.walked = Some(place.clone());
            // What refuses a task of the group now refuses it until the group is placed.
            if refuse(demand, load).is_some() {
                continue;
            }
            let id = &place.1;
            let rank = rank(demand, failures, id, load);
            if (rank.0, rank.1) == (0, 0) {
                return Some(id.clone());
            }
            self.rest.push(Reverse(rank));
        }
        None
    }
}

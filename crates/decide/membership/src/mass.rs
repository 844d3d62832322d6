//! Tells the loss of many nodes at once from the loss of a few: a switch that restarts is no reason to move everything.
//!
//! In: which nodes are up, and when the others fell silent. Out: whether a node fell together with half of the swarm.

use objects::Nanos;

use crate::Moment;

/// Swarms below this size move at once. chosen: in a smaller one, half of the nodes is what one rack loses.
const SMALLEST_MASS: usize = 10;

/// How a node stands, for the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Heard, or silent by announcement.
    Up,
    /// Silent since then, whether it was judged already or not.
    Fallen(Moment),
    /// Left, or down since long ago.
    Out,
}

/// Nodes that are up, and when the others fell silent.
#[derive(Debug)]
pub(crate) struct Fallen {
    up: usize,
    /// Sorted.
    falls: Vec<Moment>,
    /// Falls that are no further apart belong together.
    span: Nanos,
}

impl Fallen {
    pub(crate) fn count(standings: impl Iterator<Item = Standing>, span: Nanos) -> Self {
        let (mut up, mut falls) = (0, Vec::new());
        for standing in standings {
            match standing {
                Standing::Up => up += 1,
                Standing::Fallen(at) => falls.push(at),
                Standing::Out => {}
            }
        }
        falls.sort_unstable();
        Self { up, falls, span }
    }

    /// Whether half or more of the nodes that were up fell silent within one span of a node that did at `at`.
    pub(crate) fn is_mass(&self, at: Moment) -> bool {
        let first = self.falls.partition_point(|fall| at.since(*fall) > self.span);
        let end = self.falls.partition_point(|fall| fall.since(at) <= self.span);
        let were_up = self.up + self.falls.len() - first;
        were_up >= SMALLEST_MASS && 2 * (end - first) >= were_up
    }
}

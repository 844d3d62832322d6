//! Says why no node takes a task, in Swarm's words (reference, section 3).
//!
//! In: how often each filter refused. Out: one line for people; `docker service ps` shows it.

use std::collections::BTreeMap;

use crate::filter::Filter;

/// How often each filter refused a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    counts: BTreeMap<Filter, usize>,
}

impl Refusals {
    pub(crate) fn count(&mut self, filter: Filter) {
        *self.counts.entry(filter).or_default() += 1;
    }

    /// Whether a task that ends may change the answer.
    pub(crate) fn is_about_capacity(&self) -> bool {
        self.counts.keys().any(|filter| filter.is_about_capacity())
    }

    /// The reasons, most frequent first.
    pub(crate) fn reasons(&self) -> String {
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts.sort_by_key(|(filter, count)| (std::cmp::Reverse(**count), **filter));
        counts.into_iter().map(|(filter, count)| reason(*filter, *count)).collect::<Vec<_>>().join("; ")
    }

    /// The error of a task that may go anywhere.
    pub(crate) fn no_suitable_node(&self) -> String {
        if self.counts.is_empty() {
            return "no suitable node".to_owned();
        }
        format!("no suitable node ({})", self.reasons())
    }
}

fn reason(filter: Filter, count: usize) -> String {
    let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
    match filter {
        Filter::Ready => format!("{nodes} not available for new tasks"),
        Filter::Resource => format!("insufficient resources on {nodes}"),
        Filter::Plugin => format!("missing plugin on {nodes}"),
        Filter::Encryption => format!("no ESP for encrypted networks in the kernel of {nodes}"),
        Filter::Constraint => format!("scheduling constraints not satisfied on {nodes}"),
        Filter::Platform => format!("unsupported platform on {nodes}"),
        Filter::HostPort => format!("host-mode port already in use on {nodes}"),
        Filter::MaxReplicas => "max replicas per node limit exceed".to_owned(),
    }
}

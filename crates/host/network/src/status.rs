//! What the network's thread knows and doubts about the kernel's side.
//!
//! In: events of the kernel. Out: what has to be looked at or rebuilt. Changes nothing itself.

use std::collections::BTreeSet;
use std::time::Instant;

use netlink::watch::{Event, Subject};
use netplan::StuckFlows;

use crate::kernel::{Kernel, VETH_PREFIX};
use crate::wanted::Wanted;

/// What is known about the kernel's side.
pub(crate) struct Status {
    /// While true, no rule is written.
    pub(crate) is_held: bool,
    /// The table may not be what it should be.
    pub(crate) rules_doubtful: bool,
    /// Links of containers may have lost the bridge.
    pub(crate) links_doubtful: bool,
    /// Another table's chains changed.
    pub(crate) foreign_doubtful: bool,
    /// Leftovers of an earlier daemon were looked for.
    pub(crate) is_swept: bool,
    /// The table was removed on purpose: nothing is to be repaired.
    pub(crate) is_closed: bool,
    /// When a repair may be tried.
    pub(crate) not_before: Instant,
    /// Connections to forget once the rules allow it.
    pub(crate) stuck: Vec<StuckFlows>,
    /// Forward chains of others already warned about.
    pub(crate) foreign: BTreeSet<String>,
}

impl Status {
    /// Held, and sure of nothing.
    pub(crate) fn held() -> Self {
        Self {
            is_held: true,
            rules_doubtful: true,
            links_doubtful: true,
            foreign_doubtful: true,
            is_swept: false,
            is_closed: false,
            not_before: Instant::now(),
            stuck: Vec::new(),
            foreign: BTreeSet::new(),
        }
    }

    /// True when the kernel is to be kept as wanted.
    pub(crate) fn is_serving(&self) -> bool {
        !self.is_held && !self.is_closed
    }

    /// Notes what an event makes doubtful.
    pub(crate) fn judge(&mut self, kernel: &mut Kernel, wanted: &Wanted, event: &Event) {
        match event {
            Event::Rules { table, is_structure, .. } => {
                if table == kernel.table() {
                    self.rules_doubtful = true;
                } else if *is_structure {
                    self.foreign_doubtful = true;
                }
            }
            Event::Link(link) if kernel.wants_bridge(&link.name) => {
                if !link.is_up || kernel.bridge_index(&link.name) != Some(link.index) {
                    kernel.doubt_bridge(&link.name);
                }
            }
            Event::Link(link) if link.name.starts_with(VETH_PREFIX) => {
                let ours = wanted.interfaces().find(|interface| interface.host_name == link.name);
                let is_loose = |bridge: &str| link.master != kernel.bridge_index(bridge);
                if ours.is_some_and(|interface| is_loose(&interface.bridge)) {
                    self.links_doubtful = true;
                }
            }
            Event::Link(_) => {}
            Event::LinkGone(link) => kernel.doubt_bridge(&link.name),
            Event::AddressGone(address) => kernel.doubt_address(address.index, address.ip),
            Event::Lost(Subject::Rules) => {
                self.rules_doubtful = true;
                self.foreign_doubtful = true;
            }
            Event::Lost(Subject::Links) => {
                self.links_doubtful = true;
                kernel.doubt_bridges();
            }
        }
    }
}

//! Decides what has to change in the kernel when published ports or their backends change.
//!
//! In: the wanted backends of a port, at any time and in any order. Out: the ports that differ from what was taken last,
//! and the tracked connections that would stay stuck. Cost follows what changed, not how much is published. Never knows
//! who owns a port.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::port::{Backend, HostPort, Protocol};

/// Wanted ports, and what changed since [`Published::take_changes`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    wanted: BTreeMap<HostPort, Vec<Backend>>,
    /// What was there at the last `take_changes`, of ports touched since.
    before: BTreeMap<HostPort, Option<Vec<Backend>>>,
}

/// A port whose backends changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortChange {
    /// The port.
    pub host: HostPort,
    /// Its backends before; `None` when it was not published.
    pub before: Option<Vec<Backend>>,
    /// Its backends now; `None` when it is published no more. Empty: published, and every connection is refused.
    pub after: Option<Vec<Backend>>,
}

/// Tracked connections to forget because they would go on to the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StuckFlows {
    /// Packets to a port that were let through to this machine before the port was published, or while rules were away.
    Untranslated(HostPort),
    /// Datagrams that would go on to a backend which is none any more.
    ToBackend(Protocol, Backend),
    /// Everything to an address whose container is gone.
    ToAddress(Ipv4Addr),
}

impl Published {
    /// Wants exactly these backends behind `host`. Order and duplicates do not matter.
    pub fn set(&mut self, host: HostPort, mut backends: Vec<Backend>) {
        backends.sort_unstable();
        backends.dedup();
        if self.wanted.get(&host) == Some(&backends) {
            return;
        }
        let before = self.wanted.insert(host, backends);
        self.before.entry(host).or_insert(before);
    }

    /// Wants `host` published no more.
    pub fn remove(&mut self, host: &HostPort) {
        if let Some(before) = self.wanted.remove(host) {
            self.before.entry(*host).or_insert(Some(before));
        }
    }

    /// Everything that is wanted.
    pub fn ports(&self) -> impl Iterator<Item = (&HostPort, &[Backend])> {
        self.wanted.iter().map(|(host, backends)| (host, backends.as_slice()))
    }

    /// True when `take_changes` would return something.
    pub fn has_changes(&self) -> bool {
        self.before.iter().any(|(host, before)| self.wanted.get(host) != before.as_ref())
    }

    /// What differs from the last call, once.
    pub fn take_changes(&mut self) -> Vec<PortChange> {
        let touched = std::mem::take(&mut self.before);
        let changes = touched.into_iter().map(|(host, before)| {
            let after = self.wanted.get(&host).cloned();
            PortChange { host, before, after }
        });
        changes.filter(|change| change.before != change.after).collect()
    }
}

impl PortChange {
    /// The connections that this change leaves stuck. TCP connections end by themselves or drain.
    pub fn stuck_flows(&self) -> Vec<StuckFlows> {
        if self.host.protocol != Protocol::Udp {
            return Vec::new();
        }
        let is_new = self.before.as_ref().is_none_or(Vec::is_empty);
        let untranslated = (is_new && self.after.is_some()).then_some(StuckFlows::Untranslated(self.host));
        let now = self.after.as_deref().unwrap_or_default();
        let gone = self.before.iter().flatten().filter(|backend| !now.contains(backend));
        untranslated
            .into_iter()
            .chain(gone.map(|backend| StuckFlows::ToBackend(Protocol::Udp, *backend)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(port: u16) -> HostPort {
        HostPort { protocol: Protocol::Udp, ip: Ipv4Addr::UNSPECIFIED.into(), port }
    }

    fn backends(last: &[u8]) -> Vec<Backend> {
        last.iter().map(|last| Backend { ip: [10, 0, 0, *last].into(), port: 53 }).collect()
    }

    #[test]
    fn what_was_undone_before_anyone_looked_is_no_change() {
        let mut published = Published::default();
        published.set(host(53), backends(&[2, 3]));
        assert_eq!(published.take_changes().len(), 1);
        published.set(host(53), backends(&[3]));
        published.set(host(53), backends(&[3, 2, 2]));
        published.set(host(54), backends(&[2]));
        published.remove(&host(54));
        assert!(!published.has_changes());
        assert_eq!(published.take_changes(), []);
    }

    #[test]
    fn datagrams_to_a_removed_backend_are_stuck_and_tcp_drains() {
        let mut change =
            PortChange { host: host(53), before: Some(backends(&[2, 3])), after: Some(backends(&[3, 4])) };
        assert_eq!(change.stuck_flows(), [StuckFlows::ToBackend(Protocol::Udp, backends(&[2])[0])]);
        change.host.protocol = Protocol::Tcp;
        assert_eq!(change.stuck_flows(), []);
    }

    #[test]
    fn datagrams_sent_before_the_port_was_published_are_stuck() {
        let change = PortChange { host: host(53), before: None, after: Some(backends(&[2])) };
        assert_eq!(change.stuck_flows(), [StuckFlows::Untranslated(host(53))]);
    }

    proptest! {
        #[test]
        fn applying_every_change_leads_to_what_is_wanted(
            steps in proptest::collection::vec((0u8..3, 1u16..5, proptest::collection::vec(2u8..6, 0..4)), 0..60)
        ) {
            let mut published = Published::default();
            let mut kernel: BTreeMap<HostPort, Vec<Backend>> = BTreeMap::new();
            for (action, port, last) in steps {
                match action {
                    0 => published.set(host(port), backends(&last)),
                    1 => published.remove(&host(port)),
                    _ => for change in published.take_changes() {
                        prop_assert_eq!(kernel.get(&change.host), change.before.as_ref());
                        match change.after {
                            Some(after) => { kernel.insert(change.host, after); }
                            None => { kernel.remove(&change.host); }
                        }
                    },
                }
            }
            for change in published.take_changes() {
                match change.after {
                    Some(after) => { kernel.insert(change.host, after); }
                    None => { kernel.remove(&change.host); }
                }
            }
            let wanted: BTreeMap<_, _> = published.ports().map(|(host, to)| (*host, to.to_vec())).collect();
            prop_assert_eq!(kernel, wanted);
        }
    }
}

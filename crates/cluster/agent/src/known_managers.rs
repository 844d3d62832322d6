//! The managers this node can turn to, and in which order it tries them.
//!
//! In: what sessions tell, and which calls failed. Out: addresses, those more often that weigh more, and those that just
//! failed last. Never talks to anybody.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use wire::session::ManagerPeer;

use crate::state_file::KnownManager;

/// What a manager weighs that was not told with a weight. Source: swarmkit, `remotes/remotes.go` (10).
const DEFAULT_WEIGHT: u32 = 10;

/// Known managers. Cheap to clone; all clones are the same list.
#[derive(Clone)]
pub(crate) struct Managers {
    inner: Arc<Inner>,
}

struct Inner {
    list: watch::Sender<Vec<KnownManager>>,
    /// Addresses whose last call failed.
    failed: Mutex<BTreeSet<String>>,
}

impl Managers {
    pub(crate) fn new(list: Vec<KnownManager>) -> Self {
        Self { inner: Arc::new(Inner { list: watch::Sender::new(list), failed: Mutex::default() }) }
    }

    /// What was told last.
    pub(crate) fn list(&self) -> Vec<KnownManager> {
        self.inner.list.borrow().clone()
    }

    /// Follows the list.
    pub(crate) fn follow(&self) -> watch::Receiver<Vec<KnownManager>> {
        self.inner.list.subscribe()
    }

    /// Takes what a manager told. One that knows of none has nothing to say: this node would be lost.
    pub(crate) fn replace(&self, told: &[ManagerPeer]) {
        if told.is_empty() {
            return;
        }
        let mut list: Vec<KnownManager> = told
            .iter()
            .map(|peer| KnownManager {
                node_id: peer.node.to_string(),
                addr: peer.address.clone(),
                weight: if peer.weight == 0 { DEFAULT_WEIGHT } else { peer.weight },
            })
            .collect();
        list.sort_by(|one, other| (&one.addr, &one.node_id).cmp(&(&other.addr, &other.node_id)));
        self.failed().retain(|addr| list.iter().any(|manager| manager.addr == *addr));
        self.inner.list.send_if_modified(|known| {
            let is_news = *known != list;
            *known = list;
            is_news
        });
    }

    /// Addresses in the order to try them; `random` draws numbers, all evenly likely.
    pub(crate) fn in_order(&self, mut random: impl FnMut() -> u64) -> Vec<String> {
        let mut left = self.list();
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let total: u64 = left.iter().map(|manager| u64::from(manager.weight.max(1))).sum();
            let mut point = random() % total;
            let at = left.iter().position(|manager| {
                let weight = u64::from(manager.weight.max(1));
                let is_here = point < weight;
                point = point.saturating_sub(weight);
                is_here
            });
            order.push(left.swap_remove(at.unwrap_or(0)).addr);
        }
        let failed = self.failed();
        order.sort_by_key(|addr| failed.contains(addr));
        order
    }

    /// Whether it is this node that is known at this address.
    pub(crate) fn is_at(&self, addr: &str, node: &objects::NodeId) -> bool {
        self.inner
            .list
            .borrow()
            .iter()
            .any(|manager| manager.addr == addr && node.as_str() == manager.node_id)
    }

    /// A call to this address failed: the others come first from now on.
    pub(crate) fn note_failure(&self, addr: &str) {
        self.failed().insert(addr.to_owned());
    }

    /// A call to this address was answered.
    pub(crate) fn note_success(&self, addr: &str) {
        self.failed().remove(addr);
    }

    fn failed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.inner.failed.lock().expect("nothing panics while it holds this lock")
    }
}

/// A number from the system's randomness. Where it has none, the managers are tried in the order of the list.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node: &str, weight: u32) -> ManagerPeer {
        ManagerPeer { node: node.into(), address: format!("{node}:2377"), weight }
    }

    /// How often each is first in 1200 tries with evenly spread numbers.
    fn firsts(managers: &Managers) -> Vec<(String, usize)> {
        let mut next = 0_u64;
        let mut count = std::collections::BTreeMap::new();
        for _ in 0..1200 {
            let order = managers.in_order(|| {
                next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                next >> 33
            });
            assert_eq!(order.len(), managers.list().len());
            *count.entry(order[0].clone()).or_insert(0) += 1;
        }
        count.into_iter().collect()
    }

    #[test]
    fn managers_that_weigh_more_are_tried_first_more_often_and_failed_ones_last() {
        let managers = Managers::new(Vec::new());
        managers.replace(&[peer("a", 10), peer("b", 10), peer("c", 20)]);
        let counts = firsts(&managers);
        for ((_, count), expect) in counts.iter().zip([300, 300, 600]) {
            assert!(count.abs_diff(expect) < 100, "{counts:?}");
        }
        managers.note_failure("c:2377");
        assert!(firsts(&managers).iter().all(|(addr, _)| addr != "c:2377"));
        assert_eq!(managers.in_order(|| 0).last().unwrap(), "c:2377");
        managers.note_success("c:2377");
        assert_eq!(firsts(&managers).len(), 3);
    }

    #[test]
    fn a_manager_that_knows_of_none_is_not_believed() {
        let managers = Managers::new(Vec::new());
        let mut follow = managers.follow();
        managers.replace(&[peer("a", 0)]);
        assert!(follow.has_changed().unwrap());
        follow.borrow_and_update();
        managers.replace(&[]);
        managers.replace(&[peer("a", 0)]);
        assert!(!follow.has_changed().unwrap());
        assert_eq!(managers.list()[0].weight, DEFAULT_WEIGHT);
    }
}

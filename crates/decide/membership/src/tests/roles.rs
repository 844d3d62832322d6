//! Roles: promotion and demotion step by step, their guards, and that no order of them loses the quorum.

use objects::{Node, NodeId, NodeRole, NodeSpec, Timestamp};
use proptest::prelude::*;
use store::{Store, Write};

use crate::roles::{may_change, reconcile};
use crate::{ManagerPeer, Managers, RoleError, RoleStep, reachability};

/// A swarm and its raft: node names are letters, a capital one leads.
struct Swarm {
    store: Store,
    view: Managers,
}

impl Swarm {
    /// `"Ab c! d"`: A leads, b votes, c is unreachable; d, behind the blank, is a worker.
    fn of(text: &str) -> Self {
        let (managers, workers) = text.split_once(' ').unwrap_or((text, ""));
        let mut peers: Vec<ManagerPeer> = Vec::new();
        for (number, letter) in managers.chars().enumerate() {
            if letter == '!' {
                peers.last_mut().unwrap().is_reachable = false;
                continue;
            }
            peers.push(ManagerPeer {
                raft_id: number as u64 + 1,
                node: letter.to_ascii_lowercase().to_string().into(),
                address: format!("{letter}:2377"),
                votes: true,
                is_reachable: true,
                is_leader: letter.is_uppercase(),
            });
        }
        let mut swarm = Self { store: Store::new(), view: Managers { peers } };
        let node = |id: String, role| {
            let mut node = Node { id: id.into(), ..Node::default() };
            node.spec.role = role;
            node.internal.certified_role = role;
            Write::Create(node.into())
        };
        let managers = swarm.view.peers.iter().map(|peer| node(peer.node.to_string(), NodeRole::Manager));
        let workers = workers.chars().map(|letter| node(letter.to_string(), NodeRole::Worker));
        let writes: Vec<Write> = managers.chain(workers).collect();
        swarm.apply(&writes);
        swarm
    }

    fn apply(&mut self, writes: &[Write]) {
        self.store.apply(self.store.applied() + 1, Timestamp(1), writes).unwrap();
    }

    fn may(&self, node: &str, role: NodeRole) -> Result<(), RoleError> {
        let node = self.store.node(&node.into()).unwrap();
        may_change(&self.store, &self.view, node, &NodeSpec { role, ..node.spec.clone() })
    }

    fn set_role(&mut self, node: &str, role: NodeRole) {
        let mut node = Node::clone(self.store.node(&node.into()).unwrap());
        node.spec.role = role;
        self.apply(&[Write::update(node)]);
    }

    /// Takes one step as the leader would; `None` when there is none to take.
    fn step(&mut self) -> Option<String> {
        let writes = reachability::writes(&self.store, &self.view);
        self.apply(&writes);
        match reconcile(&self.store, &self.view).into_iter().next()? {
            RoleStep::Write(writes) => {
                self.apply(&writes);
                let ids: Vec<_> = writes.iter().map(|write| write.target().1).collect();
                Some(format!("certify {}", ids.join(" ")))
            }
            RoleStep::Transfer { to } => {
                for peer in &mut self.view.peers {
                    peer.is_leader = peer.raft_id == to;
                }
                Some(format!("transfer to {to}"))
            }
            RoleStep::Remove { raft_id, node } => {
                self.view.peers.retain(|peer| peer.raft_id != raft_id);
                Some(format!("remove {node}"))
            }
            RoleStep::Promote { raft_id } => {
                let mut peers = self.view.peers.iter_mut();
                peers.find(|peer| peer.raft_id == raft_id).unwrap().votes = true;
                Some(format!("promote {raft_id}"))
            }
            RoleStep::Wait { .. } => None,
        }
    }

    fn steps(&mut self) -> Vec<String> {
        let steps: Vec<_> = std::iter::from_fn(|| self.step()).take(50).collect();
        assert!(steps.len() < 50, "{steps:?}");
        steps
    }
}

#[test]
fn a_demoted_manager_leaves_raft_before_it_loses_its_role() {
    let mut swarm = Swarm::of("Abc");
    assert_eq!(swarm.steps(), [""; 0]);
    swarm.set_role("b", NodeRole::Worker);
    assert_eq!(swarm.steps(), ["remove b", "certify b"]);
    let node = swarm.store.node(&"b".into()).unwrap();
    assert_eq!((node.manager_status.is_some(), node.internal.raft_id), (false, 0));
    assert_eq!(node.internal.certified_role, NodeRole::Worker);
}

#[test]
fn a_leader_hands_over_before_it_is_demoted() {
    let mut swarm = Swarm::of("Abc");
    swarm.set_role("a", NodeRole::Worker);
    swarm.set_role("b", NodeRole::Worker);
    assert_eq!(swarm.steps(), ["remove b", "certify b", "transfer to 3", "remove a", "certify a"]);
}

#[test]
fn a_promoted_worker_may_have_a_managers_certificate_at_once() {
    let mut swarm = Swarm::of("A b");
    swarm.set_role("b", NodeRole::Manager);
    assert_eq!(swarm.steps(), ["certify b"]);
    // It joined as a learner, and the leader died before it gave it a vote.
    let learner = ManagerPeer {
        raft_id: 7,
        node: "b".into(),
        address: "b:2377".to_owned(),
        votes: false,
        is_reachable: true,
        is_leader: false,
    };
    swarm.view.peers.push(learner);
    assert_eq!(swarm.steps(), ["promote 7"]);
    let status = swarm.store.node(&"b".into()).unwrap().manager_status.clone().unwrap();
    assert_eq!((status.leader, status.addr.as_str()), (false, "b:2377"));
}

#[test]
fn a_member_whose_node_is_gone_is_removed() {
    let mut swarm = Swarm::of("Abc");
    let node = swarm.store.node(&"c".into()).unwrap().clone();
    swarm.apply(&[Write::remove(node)]);
    assert_eq!(swarm.steps(), ["remove c"]);
}

#[test]
fn demotions_that_lose_the_quorum_are_refused_in_swarms_words() {
    let check = |text: &str, node: &str, expect: Result<(), &str>| {
        let found = Swarm::of(text).may(node, NodeRole::Worker).map_err(|error| error.to_string());
        assert_eq!(found, expect.map_err(str::to_owned), "{text} {node}");
    };
    let last = Err("attempting to demote the last manager of the swarm");
    let quorum = Err("can't remove member from the raft: this would result in a loss of quorum");
    check("A w", "a", last);
    check("A w", "w", Ok(()));
    check("Ab", "b", Ok(()));
    check("Ab!", "b", Ok(()));
    check("Ab!", "a", quorum);
    check("Abc!", "b", quorum);
    check("Abc!", "c", Ok(()));
    check("Abcd!e!", "b", quorum);
    check("Abcd!e!", "d", Ok(()));
    assert_eq!(Swarm::of("A w").may("w", NodeRole::Manager), Ok(()));
}

#[test]
fn a_demotion_waits_while_it_would_lose_the_quorum() {
    let mut swarm = Swarm::of("Abc!");
    swarm.set_role("b", NodeRole::Worker);
    assert_eq!(swarm.steps(), [""; 0]);
    let wait = RoleStep::Wait { node: "b".into(), because: RoleError::LossOfQuorum };
    assert_eq!(reconcile(&swarm.store, &swarm.view), [wait]);
    swarm.view.peers[2].is_reachable = true;
    assert_eq!(swarm.steps(), ["remove b", "certify b"]);
}

#[test]
fn only_changes_of_the_view_are_written() {
    let mut swarm = Swarm::of("Abc w");
    assert_eq!(reachability::writes(&swarm.store, &swarm.view).len(), 3);
    swarm.steps();
    assert_eq!(reachability::writes(&swarm.store, &swarm.view), []);
    swarm.view.peers[1].is_reachable = false;
    assert_eq!(reachability::writes(&swarm.store, &swarm.view).len(), 1);
    assert_eq!(Managers::of_store(&swarm.store).votes(), (3, 3));
}

proptest! {
    /// Whatever roles are asked for in whatever order while managers come and go: what is accepted is carried out, and the
    /// reachable members stay a quorum if they were one.
    #[test]
    fn no_order_of_role_changes_loses_the_quorum(
        asks in prop::collection::vec((0..5_usize, any::<bool>(), 0..6_usize), 1..12)
    ) {
        let letters = ["a", "b", "c", "d", "e"];
        let mut swarm = Swarm::of("Abc de");
        swarm.steps();
        let mut next_id = 10;
        for (node, promote, toggled) in asks {
            let id: NodeId = letters[node].into();
            let role = if promote { NodeRole::Manager } else { NodeRole::Worker };
            if swarm.may(letters[node], role).is_ok() {
                swarm.set_role(letters[node], role);
            }
            swarm.steps();
            // A node that may manage joins raft by itself.
            let is_new = swarm.view.of_node(&id).is_none();
            if is_new && swarm.store.node(&id).unwrap().internal.certified_role == NodeRole::Manager {
                next_id += 1;
                swarm.view.peers.push(ManagerPeer {
                    raft_id: next_id,
                    node: id,
                    address: String::new(),
                    votes: false,
                    is_reachable: true,
                    is_leader: false,
                });
            }
            swarm.steps();
            let (all, reachable) = swarm.view.votes();
            prop_assert!(all > 0 && 2 * reachable > all, "{:?}", swarm.view);
            prop_assert!(swarm.view.leader().is_some());
            // One that is not needed for the quorum may vanish, or come back.
            let count = swarm.view.peers.len();
            let peer = &mut swarm.view.peers[toggled % count];
            if !peer.is_leader && (!peer.is_reachable || 2 * (reachable - 1) > all) {
                peer.is_reachable = !peer.is_reachable;
            }
        }
    }
}

//! A manager of the world: the real replicated log with the real decisions around it, and the least shell that runs them.
//!
//! In: a seat, a disk. Out: a process that leads when it is elected, and that others may ask. What production's shell does
//! over sockets is here a call through the world's network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dispatch::Told;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use membership::{Leases, Managers};
use objects::{IdSource, Nanos, NodeId};
use raft::{Consensus, DataKey, DataKeys, FeedItem, Member, RaftConfig, Start};
use store::{Store, Write};

use crate::chance::ids;
use crate::cluster::disk::SimDisk;
use crate::cluster::shared::Shared;
use crate::cluster::time::{Machine, OUTSIDE};
use crate::cluster::wire::{Wire, address, machine_of};

/// What a call between machines may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A manager that hears of no leader for so long asks whether it is still a member. chosen: several elections.
const FORSAKEN_AFTER: Duration = Duration::from_secs(5);

/// A place among the managers, as a machine keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) raft_id: u64,
    /// How its log is opened the next time.
    pub(crate) start: Start,
}

/// A manager's process.
pub struct Manager {
    pub(crate) shared: Arc<Shared>,
    pub(crate) machine: Machine,
    pub(crate) raft_id: u64,
    pub(crate) log: Consensus,
    pub(crate) leases: Mutex<Leases>,
    pub(crate) ids: Mutex<IdSource>,
    pub(crate) sessions: Mutex<BTreeMap<NodeId, (u64, Told)>>,
    pub(crate) next_session: Mutex<u64>,
    /// Held while raft's members or what the store says of them change.
    pub(crate) members_turn: tokio::sync::Mutex<()>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic ends the world")
}

impl Manager {
    /// Runs the manager of a machine, and opens it again when its disk failed. Ends with the machine or its seat.
    pub(crate) async fn keep(
        shared: Arc<Shared>,
        machine: Machine,
        disk: SimDisk,
        seat: Arc<Mutex<Option<Seat>>>,
    ) {
        loop {
            let Some(Seat { raft_id, start }) = *lock(&seat) else { return };
            let config = RaftConfig {
                disk: Arc::new(disk.clone()),
                node: raft_id,
                address: address(machine),
                start,
                keys: DataKeys::only(DataKey::new([machine as u8; raft::DATA_KEY_BYTES])),
                transport: Arc::new(Wire { shared: Arc::clone(&shared), from: machine }),
            };
            // Opening may need answers of others, and they of this one: not before it is known.
            if let Ok(log) = Consensus::open(config).await {
                if start == Start::ForceNewCluster {
                    shared.history().begin_again(log.epoch(), log.read().clone(), log.applied_index());
                }
                // From now on it goes on with the log that it has.
                *lock(&seat) = Some(Seat { raft_id, start: Start::Join { epoch: log.epoch() } });
                let manager = Arc::new(Self::new(&shared, machine, raft_id, log));
                shared.set_manager(machine, Some(Arc::clone(&manager)));
                tokio::select! {
                    biased;
                    _ = manager.log.stopped() => {}
                    () = manager.watch() => {}
                    () = manager.lead() => {}
                    () = manager.become_member() => {}
                }
                shared.set_manager(machine, None);
                manager.log.stop().await;
            }
            shared.time.sleep(Duration::from_millis(100)).await;
        }
    }

    fn new(shared: &Arc<Shared>, machine: Machine, raft_id: u64, log: Consensus) -> Self {
        let source = ids(shared.time.chance(|chance| chance.below(u64::MAX)), 100 + machine as u8);
        Self {
            shared: Arc::clone(shared),
            machine,
            raft_id,
            log,
            leases: Mutex::new(Leases::new(membership::LeaseTimes::default())),
            ids: Mutex::new(source),
            sessions: Mutex::default(),
            next_session: Mutex::default(),
            members_turn: tokio::sync::Mutex::default(),
        }
    }

    /// Tells the history what this manager applies.
    async fn watch(&self) {
        let epoch = self.log.epoch();
        let ((), mut feed) = self.log.follow(|store| self.shared.history().opened(epoch, store));
        let mut last = None;
        while let Some(item) = feed.next().await {
            if let FeedItem::Commit(commit) = item {
                self.shared.history().applied(self.machine, epoch, last, &commit);
                last = Some(commit.index);
            }
        }
    }

    /// Asks to be taken in until it has a vote, and again when it hears of no leader: it may have been taken out and
    /// wanted back while it was away, which nobody but the leader's log says.
    async fn become_member(self: &Arc<Self>) {
        loop {
            let is_voter = {
                let members = self.log.members();
                let members = members.borrow();
                members.members.get(&self.raft_id).is_some_and(|own| own.is_voter)
            };
            let is_led = self.log.last_contact_with_leader().is_some_and(|ago| ago < FORSAKEN_AFTER);
            if !is_voter || !is_led {
                let (member, node) = (self.member(), self.shared.nodes[self.machine].clone());
                let epoch = self.log.epoch();
                let asked = self.shared.ask_any(self.machine, move |manager| {
                    let (member, node) = (member.clone(), node.clone());
                    let taken_in = async move {
                        let act = move |leader: Arc<Self>| {
                            leader.take_in(node.clone(), member.clone(), epoch).boxed()
                        };
                        manager.at_leader(act).await
                    };
                    taken_in.boxed()
                });
                // Asked again until it is a member.
                let _ = asked.await;
            }
            self.shared.time.sleep(Duration::from_millis(500)).await;
        }
    }

    fn member(&self) -> Member {
        Member { raft_id: self.raft_id, address: address(self.machine) }
    }

    /// The managers as raft sees them from here.
    pub(crate) fn view(&self) -> Managers {
        let members = self.log.members().borrow().clone();
        let store = self.log.read();
        let node_of = |raft_id: u64| {
            let node = store.nodes().find(|node| node.internal.raft_id == raft_id);
            node.map(|node| node.id.clone()).unwrap_or_default()
        };
        let peer = |(raft_id, member): (&u64, &raft::MemberState)| membership::ManagerPeer {
            raft_id: *raft_id,
            node: node_of(*raft_id),
            address: member.address.clone(),
            votes: member.is_voter,
            is_reachable: member.is_reachable || *raft_id == self.raft_id,
            is_leader: members.leader == Some(*raft_id),
        };
        Managers { peers: members.members.iter().map(peer).collect() }
    }

    /// Calls `act` on the manager that this one believes leads.
    pub(crate) async fn at_leader<T: Send + 'static>(
        self: &Arc<Self>,
        act: impl Fn(Arc<Manager>) -> BoxFuture<'static, Option<T>> + Send + Sync + 'static,
    ) -> Option<T> {
        let leader = machine_of(self.log.leader()?.raft_id);
        if leader == self.machine {
            return act(Arc::clone(self)).await;
        }
        self.shared.ask_manager(self.machine, leader, act).await
    }

    /// Decides and commits, once; the index of the commit. `None`: nothing to write, refused, or nobody knows.
    pub(crate) async fn commit(&self, decide: impl FnOnce(&Store) -> Vec<Write>) -> Option<u64> {
        let now = self.shared.wall(self.machine);
        let writes = decide(&self.log.read());
        if writes.is_empty() {
            return None;
        }
        self.log.propose(now, writes).await.ok().map(|applied| applied.index)
    }

    /// A proof of life of a node arrived. A follower passes it on to the leader.
    pub(crate) fn pulse(&self, node: NodeId) {
        let told = node.clone();
        self.tell_leader(move |manager| {
            let now = manager.shared.moment();
            lock(&manager.leases).proof(&told, now);
        });
    }

    /// The connection of a session was reset.
    pub(crate) fn reset(&self, node: NodeId, session: String) {
        self.tell_leader(move |manager| {
            let now = manager.shared.moment();
            lock(&manager.leases).closed(&node, Some(&session), now);
        });
    }

    /// The daemon of a node stops, and is back after `span`.
    pub(crate) fn hold(&self, node: NodeId, span: Nanos) {
        self.tell_leader(move |manager| {
            let now = manager.shared.moment();
            lock(&manager.leases).hold(&node, span, now);
        });
    }

    /// Notes something about a node here and, if another manager leads, there.
    fn tell_leader(&self, note: impl Fn(&Manager) + Send + Sync + 'static) {
        note(self);
        let Some(leader) = self.log.leader().map(|leader| machine_of(leader.raft_id)) else { return };
        if leader == self.machine {
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.shared.net.send(self.machine, leader, move || {
            if let Some(manager) = shared.manager(leader) {
                note(&manager);
            }
        });
    }

    /// Commits the first state of the swarm.
    pub(crate) async fn found(self: &Arc<Self>, writes: Vec<Write>) -> bool {
        self.commit(|store| if store.cluster().is_some() { Vec::new() } else { writes }).await.is_some()
    }
}

impl Shared {
    /// Calls the manager on a machine. A call of [`OUTSIDE`] is one of a user.
    pub(crate) async fn ask_manager<T: Send + 'static>(
        self: &Arc<Self>,
        from: Machine,
        to: Machine,
        act: impl Fn(Arc<Manager>) -> BoxFuture<'static, Option<T>> + Send + Sync + 'static,
    ) -> Option<T> {
        let served = {
            let shared = Arc::clone(self);
            move || match shared.manager(to) {
                Some(manager) => act(manager),
                None => futures_util::future::ready(None).boxed(),
            }
        };
        let patience = if from == OUTSIDE { PATIENCE * 2 } else { PATIENCE };
        self.net.ask(from, to, patience, false, served).await.ok().flatten()
    }

    /// Calls any manager that runs.
    pub(crate) async fn ask_any<T: Send + 'static>(
        self: &Arc<Self>,
        from: Machine,
        act: impl Fn(Arc<Manager>) -> BoxFuture<'static, Option<T>> + Send + Sync + 'static,
    ) -> Option<T> {
        let managers = self.managers();
        let to = self.time.chance(|chance| chance.pick(&managers).copied())?;
        self.ask_manager(from, to, act).await
    }
}

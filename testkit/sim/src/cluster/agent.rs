//! An agent of the world: holds what it was last told, brings its containers to it, reports, proves that it lives.
//!
//! What is on its disk and the containers outlive its process; without power, containers end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use objects::{NodeId, NodeRole, Task, TaskId, TaskState, TaskStatus};
use raft::Start;
use tokio::sync::Notify;
use wire::session::{Assigned, Assignments};

use crate::agent::next_status;
use crate::chance::Chance;
use crate::cluster::disk::SimDisk;
use crate::cluster::manager::{Manager, Seat};
use crate::cluster::shared::Shared;
use crate::cluster::time::Machine;
use crate::cluster::wire::raft_id;
use crate::cluster::world::Hardware;

/// Between two proofs of life. Source: the failure detector's.
const PULSE: Duration = Duration::from_millis(500);

/// What a machine keeps of its agent.
#[derive(Default)]
pub struct Kept {
    /// The tasks it was told of, with its own statuses.
    wanted: BTreeMap<TaskId, Task>,
    /// Not acknowledged yet.
    unreported: BTreeMap<TaskId, TaskStatus>,
    /// What runs, whatever the agent does.
    pub(crate) containers: BTreeSet<TaskId>,
    /// How often the machine began to manage.
    seats: u64,
}

impl Kept {
    /// The number in the log for a machine that begins to manage.
    pub(crate) fn next_raft_id(&mut self, machine: Machine) -> u64 {
        self.seats += 1;
        raft_id(machine, self.seats)
    }
}

/// The agent of one machine.
pub struct Agent {
    shared: Arc<Shared>,
    machine: Machine,
    node: NodeId,
    kept: Arc<Mutex<Kept>>,
    disk: SimDisk,
    seat: Arc<Mutex<Option<Seat>>>,
    seat_changed: Notify,
    /// The manager that it has a session with.
    manager: Mutex<Option<Machine>>,
    chance: Mutex<Chance>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic ends the world")
}

impl Agent {
    /// Starts the agent of a machine.
    pub(crate) fn start(shared: &Arc<Shared>, machine: Machine, hardware: &Hardware) {
        let seed = shared.time.chance(|chance| chance.below(u64::MAX));
        let agent = Arc::new(Self {
            shared: Arc::clone(shared),
            machine,
            node: shared.nodes[machine].clone(),
            kept: Arc::clone(&hardware.kept),
            disk: hardware.disk.clone(),
            seat: Arc::clone(&hardware.seat),
            seat_changed: Notify::new(),
            manager: Mutex::default(),
            chance: Mutex::new(Chance::new(seed, 20)),
        });
        let all = async move {
            tokio::select! {
                biased;
                () = agent.prove_life() => {}
                () = agent.manage() => {}
                () = agent.keep_session() => {}
                () = agent.work() => {}
                () = agent.report() => {}
            }
        };
        shared.time.spawn(machine, all);
    }

    async fn prove_life(&self) {
        loop {
            for to in self.shared.managers() {
                let (shared, node) = (Arc::clone(&self.shared), self.node.clone());
                self.shared.net.send(self.machine, to, move || {
                    if let Some(manager) = shared.manager(to) {
                        manager.pulse(node.clone());
                    }
                });
            }
            self.shared.time.sleep(PULSE).await;
        }
    }

    /// Runs the machine's manager for as long as it has a seat.
    async fn manage(&self) {
        loop {
            let seat = *lock(&self.seat);
            if seat.is_none() {
                self.seat_changed.notified().await;
                continue;
            }
            let manager = Manager::keep(
                Arc::clone(&self.shared),
                self.machine,
                self.disk.clone(),
                Arc::clone(&self.seat),
            );
            tokio::select! {
                biased;
                () = self.seat_changed.notified() => {}
                () = manager => {}
            }
            if let Some(manager) = self.shared.manager(self.machine) {
                self.shared.set_manager(self.machine, None);
                manager.log.stop().await;
            }
            self.disk.wipe();
        }
    }

    /// Asks the leader when what is heard of this node's role is not what it does, and does what the leader says. The log
    /// of a manager from before a forced new cluster is of no use: it begins anew.
    async fn follow_role(&self, role: NodeRole, epoch: u64) {
        if self.is_so(role, epoch) {
            return;
        }
        let node = self.node.clone();
        let issued =
            self.shared.ask_any(self.machine, move |manager| manager.certificate(node.clone()).boxed());
        let Some(issued) = issued.await.filter(|issued| !self.is_so(issued.role, issued.epoch)) else {
            return;
        };
        *lock(&self.seat) = (issued.role == NodeRole::Manager).then(|| {
            let raft_id = lock(&self.kept).next_raft_id(self.machine);
            Seat { raft_id, start: Start::Join { epoch: issued.epoch } }
        });
        self.seat_changed.notify_one();
    }

    /// Whether this machine does what a node of that role does in the swarm of that epoch.
    fn is_so(&self, role: NodeRole, epoch: u64) -> bool {
        match (role, *lock(&self.seat)) {
            (NodeRole::Manager, Some(seat)) => seat.start == Start::Join { epoch },
            (NodeRole::Worker, seat) => seat.is_none(),
            (NodeRole::Manager, None) => false,
        }
    }

    async fn keep_session(&self) {
        loop {
            let managers = self.shared.managers();
            let to = lock(&self.chance).pick(&managers).copied();
            if let Some(to) = to {
                let node = self.node.clone();
                let opened = self.shared.ask_manager(self.machine, to, move |manager| {
                    let node = node.clone();
                    async move { manager.open(node).await }.boxed()
                });
                if let Some((session, all)) = opened.await {
                    self.take(all);
                    *lock(&self.manager) = Some(to);
                    self.follow(to, session).await;
                    *lock(&self.manager) = None;
                }
            }
            let pause = lock(&self.chance).below(500);
            self.shared.time.sleep(Duration::from_millis(50 + pause)).await;
        }
    }

    async fn follow(&self, to: Machine, session: u64) {
        loop {
            let node = self.node.clone();
            let asked = self
                .shared
                .ask_manager(self.machine, to, move |manager| manager.news(node.clone(), session).boxed());
            let Some(news) = asked.await else { return };
            if let Some(assignments) = news.assignments {
                self.take(assignments);
            }
            self.follow_role(news.role, news.epoch).await;
        }
    }

    fn take(&self, news: Assignments) {
        let mut kept = lock(&self.kept);
        match news {
            Assignments::Complete(all) => {
                let listed: BTreeSet<TaskId> = all.tasks.iter().map(|one| one.task.id.clone()).collect();
                let gone: Vec<_> = kept.wanted.keys().filter(|id| !listed.contains(*id)).cloned().collect();
                gone.iter().for_each(|id| self.forget(&mut kept, id));
                learn(&mut kept, all);
            }
            Assignments::Incremental { update, remove } => {
                learn(&mut kept, update);
                remove.tasks.iter().for_each(|id| self.forget(&mut kept, id));
            }
        }
    }

    fn forget(&self, kept: &mut Kept, id: &TaskId) {
        kept.wanted.remove(id);
        kept.unreported.remove(id);
        if kept.containers.remove(id) {
            self.must_have_reason(id);
        }
    }

    fn must_have_reason(&self, task: &TaskId) {
        self.shared.history().container_stopped(&self.node, task);
    }

    /// Moves each task on by one step of its life.
    async fn work(&self) {
        loop {
            let now = self.shared.wall(self.machine);
            let faults = self.shared.has_faults();
            let mut stopped = Vec::new();
            {
                let mut kept = lock(&self.kept);
                let Kept { wanted, unreported, containers, .. } = &mut *kept;
                for task in wanted.values_mut() {
                    // The swarm gave it up while it ran.
                    if task.is_terminal() && containers.remove(&task.id) {
                        stopped.push(task.id.clone());
                    }
                    let died = task.status.state == TaskState::Running && !containers.contains(&task.id);
                    let next = if died {
                        let lost = "task: non-zero exit (137)".to_owned();
                        Some(TaskStatus {
                            state: TaskState::Failed,
                            err: lost,
                            timestamp: now,
                            ..task.status.clone()
                        })
                    } else {
                        // One in four steps is taken: nobody is in step with anybody.
                        let is_due = lock(&self.chance).percent(25);
                        // Containers end by themselves now and then, but not at every step.
                        let fails = faults && lock(&self.chance).percent(5);
                        if is_due { next_status(task, now, fails, &mut lock(&self.chance)) } else { None }
                    };
                    let Some(next) = next else { continue };
                    if next.state == TaskState::Running {
                        containers.insert(task.id.clone());
                    } else if next.state > TaskState::Running
                        && containers.remove(&task.id)
                        && next.state == TaskState::Shutdown
                    {
                        stopped.push(task.id.clone());
                    }
                    task.status = next.clone();
                    unreported.insert(task.id.clone(), next);
                }
            }
            stopped.iter().for_each(|id| self.must_have_reason(id));
            self.shared.time.sleep(Duration::from_millis(20)).await;
        }
    }

    async fn report(&self) {
        loop {
            self.shared.time.sleep(Duration::from_millis(30)).await;
            let statuses: Vec<(TaskId, TaskStatus)> =
                lock(&self.kept).unreported.iter().map(|(id, status)| (id.clone(), status.clone())).collect();
            let Some(to) = *lock(&self.manager) else { continue };
            if statuses.is_empty() {
                continue;
            }
            let (node, sent) = (self.node.clone(), statuses.clone());
            let asked = self.shared.ask_manager(self.machine, to, move |manager| {
                let (node, sent) = (node.clone(), sent.clone());
                async move { manager.report(node, sent).await.then_some(()) }.boxed()
            });
            if asked.await.is_some() {
                let mut kept = lock(&self.kept);
                for (id, status) in statuses {
                    if kept.unreported.get(&id) == Some(&status) {
                        kept.unreported.remove(&id);
                    }
                }
            }
        }
    }
}

fn learn(kept: &mut Kept, news: Assigned) {
    for assignment in news.tasks {
        let mut task = Task::clone(&assignment.task);
        // Its own knowledge of what the task does is newer, and a wish never gets smaller.
        if let Some(known) = kept.wanted.get(&task.id) {
            task.desired_state = task.desired_state.max(known.desired_state);
            if known.status.state >= task.status.state {
                task.status = known.status.clone();
            }
        }
        // What the swarm does not know of it is told again.
        if task.status.state > assignment.task.status.state {
            kept.unreported.insert(task.id.clone(), task.status.clone());
        }
        kept.wanted.insert(task.id.clone(), task);
    }
}

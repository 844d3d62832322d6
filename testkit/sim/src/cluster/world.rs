//! A swarm and its bad luck: machines, users, a phase with faults, and a phase without in which everything must converge.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use objects::{Cluster, ClusterSpec, IdSource, Nanos, NodeId, NodeRole};
use raft::Start;
use store::Write;

use crate::chance::{Chance, ids};
use crate::cluster::agent::{Agent, Kept};
use crate::cluster::disk::SimDisk;
use crate::cluster::invariants::swarm_converges;
use crate::cluster::manager::Seat;
use crate::cluster::net::{CALM, Weather};
use crate::cluster::shared::{Shared, nanos};
use crate::cluster::time::{Machine, OUTSIDE, Time};
use crate::cluster::wire::raft_id;
use crate::user;

/// Faults per world.
const FAULTS: u64 = 32;

/// How long a healed swarm may take to converge. chosen: several times what the slowest seed needs: restart delays are
/// up to 10 s, and a task may need several attempts.
const CONVERGES_WITHIN: Duration = Duration::from_secs(150);

/// What went wrong, and how to see it again.
#[derive(Debug)]
pub struct Failure {
    /// The seed of the world.
    pub seed: u64,
    /// How old the world was.
    pub at: Duration,
    /// The invariant that broke, and on what.
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "the swarm of seed {} broke after {:?}: {}", self.seed, self.at, self.what)?;
        write!(out, "see it again with: SKEP_SEED={} cargo test -p sim --test swarms", self.seed)
    }
}

impl std::error::Error for Failure {}

/// What a world was, to compare two of one seed and to see that it was alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Tasks polled.
    pub polls: u64,
    /// Entries committed.
    pub commits: usize,
    /// Entries that a user was told of.
    pub acknowledged: usize,
    /// Leaders elected.
    pub leaders: usize,
    /// How old it grew.
    pub age: Duration,
    /// Of everything that was committed.
    pub digest: u64,
}

/// What a machine is apart from its processes.
pub(crate) struct Hardware {
    pub(crate) disk: SimDisk,
    pub(crate) kept: Arc<Mutex<Kept>>,
    /// Its place among the managers, if it has one.
    pub(crate) seat: Arc<Mutex<Option<Seat>>>,
    is_on: bool,
    is_stalled: bool,
}

struct World {
    seed: u64,
    shared: Arc<Shared>,
    machines: Vec<Hardware>,
    chance: Chance,
    /// Machines below this one manage at first.
    managers: usize,
}

/// Runs the swarm of one seed.
pub fn run(seed: u64) -> Result<Summary, Failure> {
    let time = Time::new(seed);
    let _installed = time.install();
    let mut world = World::new(seed, time);
    world.begin()?;
    let forced = world.chance.percent(15).then(|| world.chance.below(FAULTS));
    for number in 0..FAULTS {
        world.live(2000)?;
        if forced == Some(number) { world.force_new_cluster() } else { world.fault() }
    }
    world.heal();
    world.converge()?;
    let summary = world.summary();
    // Machines end before the world does.
    for machine in 0..world.machines.len() {
        world.shared.set_manager(machine, None);
        world.shared.time.crash(machine);
    }
    world.shared.time.crash(OUTSIDE);
    Ok(summary)
}

impl World {
    fn new(seed: u64, time: Time) -> Self {
        let mut chance = Chance::new(seed, 11);
        let managers = if chance.percent(30) { 5 } else { 3 };
        let count = managers + chance.below(3) as usize;
        let mut source: IdSource = ids(seed, 12);
        let nodes: Vec<NodeId> = (0..count).map(|_| source.next()).collect();
        let machines = (0..count).map(|_| Hardware {
            disk: SimDisk::default(),
            kept: Arc::default(),
            seat: Arc::default(),
            is_on: false,
            is_stalled: false,
        });
        Self {
            seed,
            machines: machines.collect(),
            shared: Arc::new(Shared::new(time, nodes)),
            chance,
            managers,
        }
    }

    fn first_state(&self, epoch: u64) -> Vec<Write> {
        let mut source: IdSource = ids(self.seed, 13);
        let mut chance = Chance::new(self.seed, 14);
        let spec = ClusterSpec::default().with_defaults();
        let mut cluster = Cluster { id: source.next(), spec, ..Cluster::default() };
        cluster.internal.epoch = epoch;
        let mut writes = vec![Write::Create(cluster.into())];
        for (number, id) in self.shared.nodes.iter().enumerate() {
            let mut node = user::new_node(number as u64, &mut source, &mut chance);
            node.id = id.clone();
            if number < self.managers {
                node.spec.role = NodeRole::Manager;
                node.internal.certified_role = NodeRole::Manager;
                if number == 0 {
                    node.internal.raft_id = raft_id(0, 1);
                }
            }
            writes.push(Write::Create(node.into()));
        }
        let mut store = store::Store::new();
        store.apply(1, objects::Timestamp::ZERO, &writes).expect("an empty store refuses nothing");
        writes.extend(user::first_networks(&mut store, objects::Timestamp::ZERO, &mut source));
        writes
    }

    /// The first manager founds the swarm, the others join, users begin to ask.
    fn begin(&mut self) -> Result<(), Failure> {
        self.take_seat(0, Start::Found);
        self.boot(0);
        self.until(Duration::from_secs(20), |world| world.shared.manager(0).is_some())?;
        let first = self.shared.manager(0).expect("it was waited for");
        let epoch = first.log.epoch();
        let (founding, writes) = (Arc::clone(&first), self.first_state(epoch));
        self.shared.time.spawn(0, async move {
            let _ = founding.found(writes).await;
        });
        drop(first);
        self.until(Duration::from_secs(20), |world| world.shared.history().store.cluster().is_some())?;
        for machine in 1..self.machines.len() {
            if machine < self.managers {
                self.take_seat(machine, Start::Join { epoch });
            }
            self.boot(machine);
        }
        self.until(Duration::from_secs(60), |world| {
            let first = world.shared.manager(0);
            first.is_some_and(|first| first.log.members().borrow().voters().count() == world.managers)
        })?;
        self.shared.time.spawn(OUTSIDE, users(Arc::clone(&self.shared), self.seed));
        self.shared.time.spawn(OUTSIDE, readers(Arc::clone(&self.shared), self.seed));
        Ok(())
    }

    fn take_seat(&self, machine: Machine, start: Start) {
        let hardware = &self.machines[machine];
        let raft_id = lock(&hardware.kept).next_raft_id(machine);
        *lock(&hardware.seat) = Some(Seat { raft_id, start });
    }

    fn boot(&mut self, machine: Machine) {
        let hardware = &mut self.machines[machine];
        hardware.is_on = true;
        self.shared.net.switch_on(machine);
        Agent::start(&self.shared, machine, hardware);
    }

    /// Ends the processes of the daemon; with the power, everything.
    fn shut(&mut self, machine: Machine, keeps_power: bool) {
        let hardware = &mut self.machines[machine];
        hardware.is_on = false;
        hardware.is_stalled = false;
        self.shared.net.switch_off(machine, keeps_power);
        self.shared.set_manager(machine, None);
        self.shared.time.crash(machine);
        if keeps_power {
            // The kernel closes its connections, and flushes what was written.
            let node = &self.shared.nodes[machine];
            for to in self.shared.managers() {
                let session = self.shared.manager(to).and_then(|manager| manager.session_of(node));
                let Some(session) = session else { continue };
                let (shared, node) = (Arc::clone(&self.shared), node.clone());
                self.shared.net.send(machine, to, move || {
                    if let Some(manager) = shared.manager(to) {
                        manager.reset(node.clone(), session.clone());
                    }
                });
            }
        } else {
            hardware.disk.crash(&self.shared.time);
            lock(&hardware.kept).containers.clear();
        }
    }

    fn fault(&mut self) {
        let machine = self.chance.below(self.machines.len() as u64) as usize;
        let other = self.chance.below(self.machines.len() as u64) as usize;
        let is_on = self.machines[machine].is_on;
        match self.chance.below(14) {
            0 if is_on && self.chance.percent(50) => self.restart(machine),
            0 | 1 if is_on => self.shut(machine, true),
            2 | 3 if is_on => self.shut(machine, false),
            0..=5 if !is_on => self.boot(machine),
            4 if !self.machines[machine].is_stalled => {
                self.machines[machine].is_stalled = true;
                self.shared.time.stall(machine);
            }
            4 | 5 => {
                self.machines[machine].is_stalled = false;
                self.shared.time.resume(machine);
            }
            6 => {
                self.shared.net.cut(machine, other);
                self.shared.net.cut(other, machine);
            }
            // One way only.
            7 => self.shared.net.cut(machine, other),
            8 => (0..self.machines.len()).filter(|to| *to != machine).for_each(|to| {
                self.shared.net.cut(machine, to);
                self.shared.net.cut(to, machine);
            }),
            9 => self.shared.net.set_weather(Weather {
                loss_percent: self.chance.below(30),
                double_percent: self.chance.below(30),
                delay: Duration::from_millis(self.chance.below(300)),
            }),
            10 => self.shared.net.heal(),
            11 => self.machines[machine].disk.set_full(true),
            12 => self.machines[machine].disk.set_delay(Duration::from_millis(self.chance.below(800))),
            13 if self.chance.percent(50) => {
                self.shared.set_skew(machine, Nanos::from_secs(self.chance.below(7200) as i64 - 3600));
            }
            _ => self.machines.iter().for_each(|machine| {
                machine.disk.set_full(false);
                machine.disk.set_delay(Duration::ZERO);
            }),
        }
    }

    /// Somebody restarts a daemon, which announces it; it is back within the time that it says.
    fn restart(&mut self, machine: Machine) {
        let span = Duration::from_millis(500 + self.chance.below(4000));
        for to in self.shared.managers() {
            let (shared, node) = (Arc::clone(&self.shared), self.shared.nodes[machine].clone());
            self.shared.net.send(machine, to, move || {
                if let Some(manager) = shared.manager(to) {
                    manager.hold(node.clone(), nanos(span));
                }
            });
        }
        self.shut(machine, true);
        self.boot(machine);
    }

    /// All managers but one are lost, most of them for good. The one goes on alone; another returns as it was.
    fn force_new_cluster(&mut self) {
        let seated = |machine: &Machine| lock(&self.machines[*machine].seat).is_some();
        let managers: Vec<Machine> = (0..self.machines.len()).filter(seated).collect();
        let fit = |machine: &&Machine| {
            self.shared.manager(**machine).is_some_and(|manager| manager.log.read().cluster().is_some())
        };
        let fit: Vec<Machine> = managers.iter().filter(fit).copied().collect();
        let Some(survivor) = self.chance.pick(&fit).copied() else { return };
        let old = self.chance.below(managers.len() as u64) as usize;
        for (place, machine) in
            managers.iter().copied().enumerate().filter(|(_, machine)| *machine != survivor)
        {
            self.shut(machine, false);
            if place != old {
                self.machines[machine].disk.wipe();
                *lock(&self.machines[machine].seat) = None;
            }
        }
        self.shut(survivor, true);
        self.machines[survivor].disk.set_full(false);
        if let Some(seat) = lock(&self.machines[survivor].seat).as_mut() {
            seat.start = Start::ForceNewCluster;
        }
        self.boot(survivor);
    }

    /// Nothing bad happens any more, and users want only what can be had.
    fn heal(&mut self) {
        self.shared.end_faults();
        self.shared.net.heal();
        self.shared.net.set_weather(CALM);
        for machine in 0..self.machines.len() {
            self.machines[machine].disk.set_full(false);
            self.machines[machine].disk.set_delay(Duration::ZERO);
            self.machines[machine].is_stalled = false;
            self.shared.time.resume(machine);
            if !self.machines[machine].is_on {
                self.boot(machine);
            }
        }
        let shared = Arc::clone(&self.shared);
        self.shared.time.spawn(OUTSIDE, async move {
            // Again and again: what users asked for before may be committed late.
            loop {
                let _ = shared.ask_any(OUTSIDE, |manager| manager.heal().boxed()).await;
                shared.time.sleep(Duration::from_secs(1)).await;
            }
        });
    }

    fn converge(&mut self) -> Result<(), Failure> {
        let began = self.shared.time.now();
        loop {
            self.live(1000)?;
            match swarm_converges::check(&self.shared, &self.machines) {
                Ok(()) => break,
                Err(what) if self.shared.time.now() > began + CONVERGES_WITHIN => {
                    return Err(self.failure(format!("does not converge: {what}")));
                }
                Err(_) => {}
            }
        }
        let promises = self.shared.history().check_promises();
        promises.map_err(|what| self.failure(what))
    }

    fn live(&mut self, up_to_ms: u64) -> Result<(), Failure> {
        let span = Duration::from_millis(20 + self.chance.below(up_to_ms));
        self.until_quietly(span, |_| false)
    }

    /// Lives until something is so; a failure if it is not within `span`.
    fn until(&mut self, span: Duration, is_so: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        self.until_quietly(span, &is_so)?;
        if is_so(self) { Ok(()) } else { Err(self.failure("the swarm does not begin".to_owned())) }
    }

    fn until_quietly(&mut self, span: Duration, is_so: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let until = self.shared.time.now() + span;
        let world: &Self = self;
        world.shared.time.live(until, || world.shared.history().failure.is_some() || is_so(world));
        let failure = self.shared.history().failure.take();
        let stuck =
            self.shared.time.is_stuck().then(|| "its clock stands still: tasks wake each other".to_owned());
        let failure = failure.or(stuck);
        failure.map_or(Ok(()), |what| Err(self.failure(what)))
    }

    fn summary(&self) -> Summary {
        let (commits, acknowledged, leaders) = self.shared.history().size();
        let (polls, age) = (self.shared.time.polls(), self.shared.time.now());
        let digest = self.shared.history().digest();
        Summary { polls, commits, acknowledged, leaders, age, digest }
    }

    fn failure(&self, what: String) -> Failure {
        Failure { seed: self.seed, at: self.shared.time.now(), what }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic ends the world")
}

/// Users who ask any manager for anything, as long as things go wrong.
async fn users(shared: Arc<Shared>, seed: u64) {
    let mut chance = Chance::new(seed, 15);
    while shared.has_faults() {
        shared.time.sleep(Duration::from_millis(50 + chance.below(700))).await;
        let wish = chance.below(u64::MAX);
        let asked = shared.ask_any(OUTSIDE, move |manager| manager.serve_user(wish).boxed());
        if let Some((epoch, index)) = asked.await {
            shared.history().acknowledged(epoch, index);
        }
    }
}

/// Users that look again and again.
async fn readers(shared: Arc<Shared>, seed: u64) {
    let mut chance = Chance::new(seed, 16);
    while shared.has_faults() {
        shared.time.sleep(Duration::from_millis(10 + chance.below(150))).await;
        let promised = shared.history().promised();
        let asked = shared.ask_any(OUTSIDE, |manager| manager.serve_reader().boxed());
        if let Some((epoch, index)) = asked.await {
            shared.history().read(promised, epoch, index);
        }
    }
}

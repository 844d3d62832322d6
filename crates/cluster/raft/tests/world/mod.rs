//! A small simulated world for the tests of the log: virtual time, tasks in an order drawn from a seed, machines that can
//! be killed and stalled, a network with cuts, disks that lose what was not synced.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses a part of it; a test that panics has failed"
)]

pub mod disk;
pub mod net;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use raft::{Simulation, World};

pub use disk::SimDisk;
pub use net::Cluster;

/// The machine that the test itself runs on: never killed.
pub const DRIVER: u64 = 0;

/// Virtual time after which a test has hung.
const LIMIT: Duration = Duration::from_secs(7200);

pub struct Sim {
    me: Weak<Sim>,
    state: Mutex<State>,
}

struct State {
    now: Duration,
    random: u64,
    current: u64,
    next: u64,
    tasks: BTreeMap<u64, Entry>,
    ready: BTreeSet<u64>,
    timers: BTreeMap<(Duration, u64), Waker>,
    paused: BTreeSet<u64>,
    polls: u64,
    trace: u64,
}

struct Entry {
    machine: u64,
    task: Option<BoxFuture<'static, ()>>,
}

struct TaskWaker {
    world: Weak<Sim>,
    task: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(world) = self.world.upgrade() {
            world.state().ready.insert(self.task);
        }
    }
}

fn mix(seed: u64) -> u64 {
    let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Sim {
    pub fn new(seed: u64) -> (Arc<Self>, Simulation) {
        let world = Arc::new_cyclic(|me: &Weak<Sim>| Sim {
            me: me.clone(),
            state: Mutex::new(State {
                now: Duration::ZERO,
                random: mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)),
                current: DRIVER,
                next: 1,
                tasks: BTreeMap::new(),
                ready: BTreeSet::new(),
                timers: BTreeMap::new(),
                paused: BTreeSet::new(),
                polls: 0,
                trace: 0,
            }),
        });
        let simulation = raft::simulate(Arc::clone(&world) as Arc<dyn World>);
        (world, simulation)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn draw(&self) -> u64 {
        let mut state = self.state();
        state.random = state.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(state.random)
    }

    /// A number below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        self.draw() % limit.max(1)
    }

    pub fn time(&self) -> Duration {
        self.state().now
    }

    /// Changes with every difference in what happened.
    pub fn trace(&self) -> u64 {
        self.state().trace
    }

    pub fn spawn_on(&self, machine: u64, task: BoxFuture<'static, ()>) {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.tasks.insert(id, Entry { machine, task: Some(task) });
        state.ready.insert(id);
    }

    /// Drops everything that runs on a machine.
    pub fn kill(&self, machine: u64) {
        let dead: Vec<Entry> = {
            let mut state = self.state();
            let ids: Vec<u64> =
                state.tasks.iter().filter(|(_, entry)| entry.machine == machine).map(|(id, _)| *id).collect();
            state.paused.remove(&machine);
            ids.iter().filter_map(|id| state.tasks.remove(id)).collect()
        };
        drop(dead);
    }

    /// Stops or continues a machine, as SIGSTOP and SIGCONT do.
    pub fn pause(&self, machine: u64, paused: bool) {
        let mut state = self.state();
        if paused {
            state.paused.insert(machine);
        } else {
            state.paused.remove(&machine);
        }
    }

    /// Runs the world until `task`, which runs on the driver's machine, has a result.
    pub fn run<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        self.run_on(DRIVER, task)
    }

    pub fn run_on<T: Send + 'static>(
        &self,
        machine: u64,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let result = Arc::new(Mutex::new(None));
        let out = Arc::clone(&result);
        self.spawn_on(machine, async move { *out.lock().unwrap() = Some(task.await) }.boxed());
        let limit = self.time() + LIMIT;
        loop {
            if let Some(result) = result.lock().unwrap().take() {
                return result;
            }
            assert!(self.step(), "nothing will ever happen again");
            assert!(self.time() < limit, "the test hangs");
        }
    }

    /// Lets `duration` pass.
    pub fn pass(&self, duration: Duration) {
        self.run(raft::runtime::sleep(duration));
    }

    /// Polls one task, or moves the clock; false if neither is possible.
    fn step(&self) -> bool {
        let pick = self.draw();
        let (id, machine, mut task) = {
            let mut state = self.state();
            let runnable: Vec<u64> = state
                .ready
                .iter()
                .filter(|id| state.tasks.get(id).is_some_and(|task| !state.paused.contains(&task.machine)))
                .copied()
                .collect();
            let Some(id) = runnable.get((pick % runnable.len().max(1) as u64) as usize).copied() else {
                return self.advance(state);
            };
            state.ready.remove(&id);
            let entry = state.tasks.get_mut(&id).unwrap();
            let (machine, task) = (entry.machine, entry.task.take());
            let Some(task) = task else { return true };
            state.current = machine;
            state.polls += 1;
            state.trace = mix(state.trace ^ id ^ state.now.as_nanos() as u64);
            (id, machine, task)
        };
        let waker = Waker::from(Arc::new(TaskWaker { world: self.me.clone(), task: id }));
        let done = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let finished = {
            let mut state = self.state();
            state.current = DRIVER;
            match state.tasks.get_mut(&id) {
                Some(entry) if !done => {
                    entry.task = Some(task);
                    None
                }
                Some(_) => {
                    state.tasks.remove(&id);
                    Some(task)
                }
                None => Some(task),
            }
        };
        let _ = machine;
        drop(finished);
        true
    }

    fn advance(&self, mut state: MutexGuard<'_, State>) -> bool {
        let Some((&(at, id), _)) = state.timers.first_key_value() else { return false };
        state.now = state.now.max(at);
        let waker = state.timers.remove(&(at, id)).unwrap();
        drop(state);
        waker.wake();
        true
    }
}

impl World for Sim {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let machine = self.state().current;
        self.spawn_on(machine, task);
    }

    fn now(&self) -> Duration {
        self.state().now
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<'static, ()> {
        Timer { world: self.me.clone(), at, key: None }.boxed()
    }

    fn random(&self) -> u64 {
        self.draw()
    }
}

struct Timer {
    world: Weak<Sim>,
    at: Duration,
    key: Option<u64>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(world) = self.world.upgrade() else { return Poll::Pending };
        let mut state = world.state();
        if state.now >= self.at {
            return Poll::Ready(());
        }
        let key = match self.key {
            Some(key) => key,
            None => {
                state.next += 1;
                state.next
            }
        };
        self.key = Some(key);
        state.timers.insert((self.at, key), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let (Some(key), Some(world)) = (self.key, self.world.upgrade()) {
            let removed = world.state().timers.remove(&(self.at, key));
            drop(removed);
        }
    }
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Seeds per scenario. chosen: some tens of seconds for all of them without optimisation; SEEDS=n runs more.
const SEEDS: u64 = 3;

#[allow(clippy::print_stderr, reason = "a failed test has to say how it is replayed")]
pub(crate) fn each_seed(test: impl Fn(&Arc<Sim>)) {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let (world, _simulation) = Sim::new(seed);
        eprintln!("seed {seed} (replay: SEED={seed})");
        test(&world);
    }
}

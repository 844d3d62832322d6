//! The simulator's own runtime: one thread, a clock that only moves when nothing else can, tasks in a fixed order.
//!
//! In: tasks of machines, and a seed. Out: the same history for the same seed. Nothing here reads a real clock, starts a
//! thread, or draws from the system.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::chance::Chance;

/// A machine of the world, by its place; [`OUTSIDE`] is none of them.
pub type Machine = usize;

/// Where users are, who never crash.
pub const OUTSIDE: Machine = usize::MAX;

type TaskId = u64;

/// Tasks polled without the clock moving, at most. chosen: a hundred times what the busiest moment of many seeds needs.
const POLLS_AT_ONCE: u64 = 1_000_000;

/// The tasks that can go on, shared with their wakers.
///
/// They go on in rounds, each in the order of their numbers and not of their wakers: tokio's `watch` wakes in an order of its
/// own chance.
#[derive(Default)]
struct Ready {
    round: BTreeSet<TaskId>,
    next: BTreeSet<TaskId>,
}

struct Task {
    machine: Machine,
    /// Taken while it is polled.
    future: Option<BoxFuture<'static, ()>>,
}

struct State {
    now: Duration,
    next_task: TaskId,
    next_timer: u64,
    tasks: BTreeMap<TaskId, Task>,
    timers: BTreeMap<(Duration, u64), Waker>,
    /// Machines that are stalled: their tasks stay where they are.
    stalled: BTreeSet<Machine>,
    /// What stalled machines would do.
    held: Vec<TaskId>,
    current: Machine,
    chance: Chance,
    polls: u64,
    /// Of them, since the clock moved.
    polls_at_once: u64,
}

/// The world's time, tasks and chance. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Time {
    state: Arc<Mutex<State>>,
    ready: Arc<Mutex<Ready>>,
}

struct TaskWaker {
    task: TaskId,
    ready: Arc<Mutex<Ready>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        lock(&self.ready).push(self.task);
    }
}

impl Ready {
    fn push(&mut self, task: TaskId) {
        self.next.insert(task);
    }

    fn pop(&mut self) -> Option<TaskId> {
        if self.round.is_empty() {
            std::mem::swap(&mut self.round, &mut self.next);
        }
        self.round.pop_first()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic ends the world")
}

impl Time {
    /// The beginning, with the chances of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            now: Duration::ZERO,
            next_task: 0,
            next_timer: 0,
            tasks: BTreeMap::new(),
            timers: BTreeMap::new(),
            stalled: BTreeSet::new(),
            held: Vec::new(),
            current: OUTSIDE,
            chance: Chance::new(seed, 10),
            polls: 0,
            polls_at_once: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), ready: Arc::default() }
    }

    /// How long the world exists.
    #[must_use]
    pub fn now(&self) -> Duration {
        lock(&self.state).now
    }

    /// How often a task was polled so far: equal histories have equal numbers.
    #[must_use]
    pub fn polls(&self) -> u64 {
        lock(&self.state).polls
    }

    /// Whether tasks wake each other for ever, so that the clock will never move again.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        lock(&self.state).polls_at_once >= POLLS_AT_ONCE
    }

    /// Draws from the world's chances.
    pub fn chance<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut lock(&self.state).chance)
    }

    /// Starts a task on a machine. It ends with the machine.
    pub fn spawn(&self, machine: Machine, task: impl Future<Output = ()> + Send + 'static) {
        let id = {
            let mut state = lock(&self.state);
            let id = state.next_task;
            state.next_task += 1;
            state.tasks.insert(id, Task { machine, future: Some(task.boxed()) });
            id
        };
        lock(&self.ready).push(id);
    }

    /// Ends everything that a machine does, as a pulled plug.
    pub fn crash(&self, machine: Machine) {
        // Dropping a task may wake others or spawn: not under the lock.
        let dead: Vec<Task> = {
            let mut state = lock(&self.state);
            state.stalled.remove(&machine);
            state.tasks.extract_if(.., |_, task| task.machine == machine).map(|(_, task)| task).collect()
        };
        drop(dead);
    }

    /// Stops a machine in the middle of whatever it does; its clock goes on.
    pub fn stall(&self, machine: Machine) {
        lock(&self.state).stalled.insert(machine);
    }

    /// Lets a stalled machine go on.
    pub fn resume(&self, machine: Machine) {
        let held = {
            let mut state = lock(&self.state);
            state.stalled.remove(&machine);
            std::mem::take(&mut state.held)
        };
        let mut ready = lock(&self.ready);
        for task in held {
            ready.push(task);
        }
    }

    /// Waits until the world is `at` old.
    pub fn sleep_until(&self, at: Duration) -> Sleep {
        Sleep { time: self.clone(), at, timer: None }
    }

    /// Waits for a while.
    pub fn sleep(&self, span: Duration) -> Sleep {
        self.sleep_until(self.now() + span)
    }

    /// Lives until the world is `until` old, or `done` says so after a task went on, or it is stuck.
    ///
    /// Call it with the world installed ([`Time::install`]).
    pub fn live(&self, until: Duration, mut done: impl FnMut() -> bool) {
        loop {
            while let Some(task) = self.next_ready() {
                self.poll(task);
                if done() || self.is_stuck() {
                    return;
                }
            }
            if !self.advance(until) {
                return;
            }
        }
    }

    fn next_ready(&self) -> Option<TaskId> {
        lock(&self.ready).pop()
    }

    /// Moves the clock to the next timer; `false` when it is past `until`, where the clock stops.
    fn advance(&self, until: Duration) -> bool {
        let due: Vec<Waker> = {
            let mut state = lock(&self.state);
            let next = state.timers.keys().next().map(|(at, _)| *at).filter(|at| *at <= until);
            let Some(next) = next else {
                state.now = until.max(state.now);
                return false;
            };
            if next > state.now {
                state.now = next;
                state.polls_at_once = 0;
            }
            let later = state.timers.split_off(&(next, u64::MAX));
            std::mem::replace(&mut state.timers, later).into_values().collect()
        };
        due.into_iter().for_each(Waker::wake);
        true
    }

    fn poll(&self, id: TaskId) {
        let mut future = {
            let mut state = lock(&self.state);
            let Some(machine) = state.tasks.get(&id).map(|task| task.machine) else { return };
            if state.stalled.contains(&machine) {
                state.held.push(id);
                return;
            }
            state.polls += 1;
            state.polls_at_once += 1;
            state.current = machine;
            let Some(future) = state.tasks.get_mut(&id).and_then(|task| task.future.take()) else { return };
            future
        };
        let waker = Waker::from(Arc::new(TaskWaker { task: id, ready: Arc::clone(&self.ready) }));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let over = {
            let mut state = lock(&self.state);
            state.current = OUTSIDE;
            match (polled, state.tasks.get_mut(&id)) {
                (Poll::Pending, Some(task)) => {
                    task.future = Some(future);
                    None
                }
                (_, known) => {
                    if known.is_some() {
                        state.tasks.remove(&id);
                    }
                    Some(future)
                }
            }
        };
        // What it held is let go without the lock.
        drop(over);
    }

    /// Makes this the clock, scheduler and chance of the thread, until what it returns is dropped.
    pub fn install(&self) -> raft::Simulation {
        raft::simulate(Arc::new(self.clone()))
    }
}

impl raft::World for Time {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let machine = lock(&self.state).current;
        Time::spawn(self, machine, task);
    }

    fn now(&self) -> Duration {
        Time::now(self)
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<'static, ()> {
        Time::sleep_until(self, at).boxed()
    }

    fn random(&self) -> u64 {
        self.chance(|chance| chance.below(u64::MAX))
    }
}

/// Ends at its moment.
pub struct Sleep {
    time: Time,
    at: Duration,
    timer: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let time = self.time.clone();
        let mut state = lock(&time.state);
        if let Some(timer) = self.timer.take() {
            state.timers.remove(&timer);
        }
        if state.now >= self.at {
            return Poll::Ready(());
        }
        let timer = (self.at, state.next_timer);
        state.next_timer += 1;
        state.timers.insert(timer, context.waker().clone());
        self.timer = Some(timer);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            let waker = lock(&self.time.state).timers.remove(&timer);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_only_when_nothing_else_can_and_in_order() {
        let time = Time::new(1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        for (name, millis) in [("late", 30), ("early", 10), ("middle", 20)] {
            let (time, seen) = (time.clone(), Arc::clone(&seen));
            time.clone().spawn(0, async move {
                time.sleep(Duration::from_millis(millis)).await;
                lock(&seen).push((name, time.now().as_millis()));
            });
        }
        time.live(Duration::from_secs(1), || false);
        assert_eq!(*lock(&seen), [("early", 10), ("middle", 20), ("late", 30)]);
        assert_eq!(time.now(), Duration::from_secs(1));
    }

    #[test]
    fn tasks_that_wake_each_other_for_ever_are_noticed() {
        let time = Time::new(1);
        time.spawn(
            0,
            futures_util::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                Poll::Pending
            }),
        );
        time.live(Duration::from_secs(1), || false);
        assert!(time.is_stuck());
    }

    #[test]
    fn a_stalled_machine_goes_on_where_it_was_and_a_crashed_one_never() {
        let time = Time::new(1);
        let count = Arc::new(Mutex::new([0, 0]));
        for machine in [0, 1] {
            let (time, count) = (time.clone(), Arc::clone(&count));
            time.clone().spawn(machine, async move {
                loop {
                    time.sleep(Duration::from_millis(10)).await;
                    lock(&count)[machine] += 1;
                }
            });
        }
        let live = |millis| time.live(time.now() + Duration::from_millis(millis), || false);
        live(100);
        time.stall(0);
        time.crash(1);
        live(100);
        assert_eq!(*lock(&count), [10, 10]);
        time.resume(0);
        live(55);
        assert_eq!(lock(&count)[1], 10);
        assert!((15..=17).contains(&lock(&count)[0]), "{:?}", lock(&count));
    }
}

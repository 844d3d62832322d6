//! Time, tasks and chance, for everything in this crate and for openraft: tokio's and the system's, or a simulated
//! world's.
//!
//! A simulation installs a [`World`] for its thread and drives the tasks that are spawned there itself; then nothing here
//! reads a clock, starts a thread or asks the system for randomness, so that one seed gives one history. Channels and
//! locks are tokio's in both cases: they need no runtime.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot, TokioRuntime, TokioWatch};
use tokio::sync::oneshot;

use crate::tempo::{RaftInstant, Tempo};
use crate::timing;

/// A simulated world: the only clock, scheduler and source of chance of the threads it is installed on.
///
/// It is asked on behalf of the task it polls at that moment, so it may answer each simulated machine differently.
pub trait World: Send + Sync + 'static {
    /// Takes over a task. It has to be polled until it ends, or dropped when its machine dies.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// The monotonic clock: time since the world began. Never goes back.
    fn now(&self) -> Duration;

    /// Ends when [`Self::now`] has reached `at`.
    fn sleep_until(&self, at: Duration) -> BoxFuture<'static, ()>;

    /// The next random number.
    fn random(&self) -> u64;
}

#[derive(Clone)]
struct Installed {
    world: Arc<dyn World>,
    tempo: Arc<Mutex<Tempo>>,
}

thread_local! {
    static WORLD: RefCell<Option<Installed>> = const { RefCell::new(None) };
}

/// Uninstalls a world when dropped.
#[must_use = "the world is uninstalled when this is dropped"]
pub struct Simulation {
    before: Option<Installed>,
}

/// Installs `world` for this thread, until what this returns is dropped.
pub fn simulate(world: Arc<dyn World>) -> Simulation {
    let tempo = Arc::new(Mutex::new(Tempo::new(Instant(START + world.now()), START)));
    Simulation { before: WORLD.replace(Some(Installed { world, tempo })) }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        let before = self.before.take();
        // A thread that is ending has no world any more.
        drop(WORLD.try_with(|world| world.replace(before)));
    }
}

fn world() -> Option<Arc<dyn World>> {
    WORLD.with_borrow(|installed| installed.as_ref().map(|installed| Arc::clone(&installed.world)))
}

/// How slow openraft's clock is, in this world.
pub(crate) fn with_tempo<T>(use_it: impl FnOnce(&mut Tempo) -> T) -> T {
    static REAL: OnceLock<Mutex<Tempo>> = OnceLock::new();
    let simulated = WORLD.with_borrow(|installed| installed.as_ref().map(|it| Arc::clone(&it.tempo)));
    let real = || REAL.get_or_init(|| Mutex::new(Tempo::new(Instant::now(), START)));
    let tempo = simulated.as_deref().unwrap_or_else(real);
    use_it(&mut tempo.lock().expect("nothing panics while holding it"))
}

/// Whether this thread lives in a simulated world.
#[must_use]
pub fn is_simulated() -> bool {
    WORLD.with_borrow(Option::is_some)
}

/// A moment on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

/// What the clock of a real machine counts from. It starts well above zero so that moments before it exist.
fn origin() -> tokio::time::Instant {
    static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
    *ORIGIN.get_or_init(tokio::time::Instant::now)
}

/// What [`rest`] waits for. chosen: the heartbeat of a leader, which wakes it anyway.
pub const BEAT: Duration = timing::HEARTBEAT;

/// Where every clock starts. chosen: longer than any duration that is subtracted from a moment.
const START: Duration = Duration::from_secs(1_000_000);

impl Instant {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        match world() {
            Some(world) => Self(START + world.now()),
            None => {
                let origin = origin();
                Self(START + tokio::time::Instant::now().saturating_duration_since(origin))
            }
        }
    }

    /// As what the clock shows.
    pub(crate) fn since_start(self) -> Duration {
        self.0
    }

    /// The moment at which the clock shows that.
    #[cfg(test)]
    pub(crate) fn from_start(shown: Duration) -> Self {
        Self(shown)
    }

    /// The first [`BEAT`] that is not before it.
    pub(crate) fn on_the_beat(self) -> Self {
        let (now, beat) = (self.0.as_nanos(), BEAT.as_nanos());
        let missing = u64::try_from((beat - now % beat) % beat).unwrap_or_default();
        Self(self.0 + Duration::from_nanos(missing))
    }

    /// How long ago it was; zero if it is to come.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Starts a task.
pub fn spawn<T>(task: T) -> Task<T::Output>
where
    T: Future + Send + 'static,
    T::Output: Send + 'static,
{
    let Some(world) = world() else { return Task(Kind::Tokio(tokio::spawn(task))) };
    let (done, result) = oneshot::channel();
    world.spawn(
        async move {
            // Nobody has to wait for it.
            drop(done.send(task.await));
        }
        .boxed(),
    );
    Task(Kind::Simulated(result))
}

/// Waits for the moment `at`.
pub fn sleep_until(at: Instant) -> BoxFuture<'static, ()> {
    match world() {
        Some(world) => world.sleep_until(at.0.saturating_sub(START)),
        None => tokio::time::sleep_until(origin() + at.0.saturating_sub(START)).boxed(),
    }
}

/// Waits as long as `duration`.
pub fn sleep(duration: Duration) -> BoxFuture<'static, ()> {
    sleep_until(Instant::now() + duration)
}

/// Waits as long as `duration`, and on until the next [`BEAT`] of this process: for what repeats and need not be on time.
/// Whatever waits so wakes the processor together with the rest.
pub fn rest(duration: Duration) -> BoxFuture<'static, ()> {
    sleep_until((Instant::now() + duration).on_the_beat())
}

/// Waits for `future`, but not after `at`.
pub async fn timeout_at<F: Future>(at: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut deadline = sleep_until(at);
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        deadline.poll_unpin(context).map(|()| Err(Elapsed))
    })
    .await
}

/// Waits for `future`, but not longer than `duration`.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(Instant::now() + duration, future).await
}

/// Runs `work` where it may block: on a thread of its own, or at once in a simulated world.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if is_simulated() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// A random number. Outside a simulation it is good enough for keys.
pub fn random() -> u64 {
    match world() {
        Some(world) => world.random(),
        None => {
            let mut bytes = [0; 8];
            aws_lc_rs::rand::fill(&mut bytes).expect("the system's random numbers do not run out");
            u64::from_le_bytes(bytes)
        }
    }
}

/// The time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is up")]
pub struct Elapsed;

/// Why a task gave no result.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// It panicked or was aborted.
    #[error("the task failed")]
    Tokio(#[source] tokio::task::JoinError),
    /// Its machine died.
    #[error("the task was dropped")]
    Dropped,
}

/// A running task; gives its result when awaited. Dropping it lets the task run on.
#[derive(Debug)]
pub struct Task<T>(Kind<T>);

#[derive(Debug)]
enum Kind<T> {
    Tokio(tokio::task::JoinHandle<T>),
    Simulated(oneshot::Receiver<T>),
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Kind::Tokio(task) => task.poll_unpin(context).map_err(TaskError::Tokio),
            Kind::Simulated(result) => result.poll_unpin(context).map_err(|_| TaskError::Dropped),
        }
    }
}

/// What openraft runs on.
pub(crate) struct Runtime(TokioRuntime);

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

type Seeded = DeterministicRng<TokioRuntime>;

impl AsyncRuntime for Runtime {
    type JoinError = TaskError;
    type JoinHandle<T: OptionalSend + 'static> = Task<T>;
    type Sleep = BoxFuture<'static, ()>;
    type Instant = RaftInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = <Seeded as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = TokioMpsc;
    type Watch = TokioWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Task<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Self::sleep_until(<RaftInstant as openraft_rt::Instant>::now() + duration)
    }

    fn sleep_until(deadline: RaftInstant) -> Self::Sleep {
        sleep_until(deadline.real())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Self::timeout_at(<RaftInstant as openraft_rt::Instant>::now() + duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: RaftInstant, future: F) -> Timeout<F> {
        Timeout { deadline: Self::sleep_until(deadline), future: Box::pin(future) }
    }

    fn is_panic(error: &TaskError) -> bool {
        matches!(error, TaskError::Tokio(error) if error.is_panic())
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        // Seeds a generator without naming the crate it comes from, whose version is openraft's choice.
        Seeded::scope(random(), async { Seeded::thread_rng() }).now_or_never().expect("it does not wait")
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    async fn spawn_blocking<F, T>(work: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        blocking(work).await
    }
}

/// A future with a deadline, as openraft wants it: a type with a name.
pub(crate) struct Timeout<F> {
    deadline: BoxFuture<'static, ()>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.poll_unpin(context) {
            return Poll::Ready(Ok(output));
        }
        self.deadline.poll_unpin(context).map(|()| Err(Elapsed))
    }
}

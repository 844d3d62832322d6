//! The network between machines: slow, lossy, doubling, out of order, cut, cut one way.
//!
//! In: messages from machine to machine. Out: their delivery as a task of the receiver, or not; and what the sender sees.
//! A connection to a machine that is off is refused at once, as a kernel would; anything lost is silence.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::cluster::time::{Machine, OUTSIDE, Time};

/// How well the network works.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of a hundred messages, so many are lost.
    pub loss_percent: u64,
    /// Of a hundred messages, so many arrive twice.
    pub double_percent: u64,
    /// A message takes up to this long; different times put messages out of order.
    pub delay: Duration,
}

/// A quiet local network.
pub const CALM: Weather = Weather { loss_percent: 0, double_percent: 0, delay: Duration::from_millis(1) };

/// Why a message has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The machine is there, but nobody listens; or its process died.
    Refused,
    /// Nothing was heard in time.
    Silence,
}

struct State {
    weather: Weather,
    /// Pairs (from, to) that nothing passes between.
    cut: BTreeSet<(Machine, Machine)>,
    /// How often each machine was started; absent when it is off.
    on: BTreeMap<Machine, u64>,
    boots: u64,
    /// Machines without power: nothing answers for them, not even to refuse.
    dark: BTreeSet<Machine>,
}

/// Where the answer to a question goes; taken by the first that comes.
type Answered<T> = Arc<Mutex<Option<oneshot::Sender<Result<T, Lost>>>>>;

/// The network. Cheap to clone.
#[derive(Clone)]
pub struct Net {
    time: Time,
    state: Arc<Mutex<State>>,
}

impl Net {
    /// A calm one, with every machine off.
    #[must_use]
    pub fn new(time: Time) -> Self {
        let state = State {
            weather: CALM,
            cut: BTreeSet::new(),
            on: BTreeMap::new(),
            boots: 0,
            dark: BTreeSet::new(),
        };
        Self { time, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic ends the world")
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// A machine listens from now on.
    pub fn switch_on(&self, machine: Machine) {
        let mut state = self.state();
        state.boots += 1;
        let boot = state.boots;
        state.on.insert(machine, boot);
        state.dark.remove(&machine);
    }

    /// Nothing listens on a machine any more. Without power, nothing refuses either.
    pub fn switch_off(&self, machine: Machine, has_power: bool) {
        let mut state = self.state();
        state.on.remove(&machine);
        if !has_power {
            state.dark.insert(machine);
        }
    }

    /// Whether a machine is on.
    #[must_use]
    pub fn is_on(&self, machine: Machine) -> bool {
        self.state().on.contains_key(&machine)
    }

    /// Lets nothing pass from one machine to the other.
    pub fn cut(&self, from: Machine, to: Machine) {
        self.state().cut.insert((from, to));
    }

    /// Mends everything.
    pub fn heal(&self) {
        let mut state = self.state();
        state.cut.clear();
        state.weather = CALM;
    }

    fn passes(&self, from: Machine, to: Machine) -> bool {
        if from == to || from == OUTSIDE || to == OUTSIDE {
            return true;
        }
        let (is_cut, loss) = {
            let state = self.state();
            (state.cut.contains(&(from, to)), state.weather.loss_percent)
        };
        !is_cut && !self.time.chance(|chance| chance.percent(loss))
    }

    async fn travel(&self, from: Machine, to: Machine) {
        let delay = self.state().weather.delay.as_micros() as u64;
        if from != to {
            let micros = self.time.chance(|chance| 20 + chance.below(delay + 1));
            self.time.sleep(Duration::from_micros(micros)).await;
        }
    }

    /// Sends a datagram: `deliver` runs on `to` when it arrives, perhaps twice, perhaps never.
    pub fn send(&self, from: Machine, to: Machine, deliver: impl Fn() + Send + Sync + 'static) {
        let double = self.state().weather.double_percent;
        let copies = 1 + usize::from(self.time.chance(|chance| chance.percent(double)));
        let deliver = Arc::new(deliver);
        for _ in 0..copies {
            let (net, deliver) = (self.clone(), Arc::clone(&deliver));
            // On its way it belongs to nobody: it arrives even if its sender has died since.
            self.time.spawn(OUTSIDE, async move {
                net.travel(from, to).await;
                if net.passes(from, to) && net.is_on(to) {
                    net.time.spawn(to, async move { deliver() });
                }
            });
        }
    }

    /// Asks `to`: `serve` runs there and its answer comes back. What is asked may happen without an answer; with
    /// `may_double`, in bad weather, twice.
    pub fn ask<T, F>(
        &self,
        from: Machine,
        to: Machine,
        patience: Duration,
        may_double: bool,
        serve: impl Fn() -> F + Send + Sync + 'static,
    ) -> BoxFuture<'static, Result<T, Lost>>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let net = self.clone();
        let deadline = self.time.sleep(patience);
        let (answered, answer) = oneshot::channel();
        let answered = Arc::new(Mutex::new(Some(answered)));
        let double = self.state().weather.double_percent;
        let copies = 1 + usize::from(may_double && self.time.chance(|chance| chance.percent(double)));
        let serve = Arc::new(serve);
        for _ in 0..copies {
            let (net, serve, answered) = (net.clone(), Arc::clone(&serve), Arc::clone(&answered));
            self.time.spawn(OUTSIDE, async move { net.exchange(from, to, serve, answered).await });
        }
        async move {
            futures_util::pin_mut!(deadline);
            match futures_util::future::select(answer, deadline).await {
                futures_util::future::Either::Left((Ok(answer), _)) => answer,
                // Every copy was lost; the sender learns of it by waiting.
                futures_util::future::Either::Left((Err(_), deadline)) => {
                    deadline.await;
                    Err(Lost::Silence)
                }
                futures_util::future::Either::Right(_) => Err(Lost::Silence),
            }
        }
        .boxed()
    }

    async fn exchange<T, F>(
        &self,
        from: Machine,
        to: Machine,
        serve: Arc<impl Fn() -> F + Send + Sync + 'static>,
        answered: Answered<T>,
    ) where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.travel(from, to).await;
        if !self.passes(from, to) {
            return;
        }
        let reply = |result| {
            let sender = answered.lock().expect("a panic ends the world").take();
            if let Some(sender) = sender {
                // Whoever asked may be gone.
                drop(sender.send(result));
            }
        };
        let (done, served) = oneshot::channel();
        if self.is_on(to) {
            self.time.spawn(to, async move { drop(done.send(serve().await)) });
            if let Ok(answer) = served.await {
                self.travel(to, from).await;
                if self.passes(to, from) {
                    reply(Ok(answer));
                }
                return;
            }
        }
        // Off, or it died meanwhile: the kernel says so, if it runs and the way back is open.
        self.travel(to, from).await;
        if self.passes(to, from) && !self.state().dark.contains(&to) {
            reply(Err(Lost::Refused));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(net: &Net, time: &Time) -> Result<u32, Lost> {
        let result = Arc::new(Mutex::new(None));
        let (asking, kept) =
            (net.ask(0, 1, Duration::from_millis(500), false, || async { 7 }), Arc::clone(&result));
        time.spawn(0, async move { *kept.lock().expect("no panic") = Some(asking.await) });
        time.live(time.now() + Duration::from_secs(2), || false);
        result.lock().expect("no panic").take().expect("it is answered one way or another")
    }

    #[test]
    fn a_question_is_answered_refused_or_lost() {
        let time = Time::new(3);
        let net = Net::new(time.clone());
        assert_eq!(asked(&net, &time), Err(Lost::Refused));
        net.switch_on(1);
        assert_eq!(asked(&net, &time), Ok(7));
        net.cut(1, 0);
        assert_eq!(asked(&net, &time), Err(Lost::Silence), "the answer is lost on its way");
        net.heal();
        net.cut(0, 1);
        assert_eq!(asked(&net, &time), Err(Lost::Silence));
        net.heal();
        assert_eq!(asked(&net, &time), Ok(7));
    }
}

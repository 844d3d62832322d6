//! openraft's clock: it runs as the real one, but slower where managers are far apart.
//!
//! openraft's heartbeat and election timeout are fixed when it starts. Stretching the time it sees stretches both, and
//! everything that follows from them, by the round trips that were measured; the floor is real time. In: each manager's
//! wish. Out: moments that only openraft and whoever compares with its moments may use.

use std::collections::BTreeMap;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use crate::runtime::{Instant, with_tempo};

/// A round trip that needs no stretching. chosen: half of the heartbeat, which is also how long one may take.
const NEAR: Duration = Duration::from_millis(75);

/// chosen: round trips of 600 ms, a geostationary satellite's, are still served.
const SLOWEST: u32 = 800;

/// How slow openraft's clock is.
#[derive(Debug)]
pub(crate) struct Tempo {
    /// Of the managers in this process; in hundredths of real time per time, at least 100. The largest counts.
    wishes: BTreeMap<u64, u32>,
    slowness: u32,
    /// When that began to hold, and what openraft's clock showed then.
    since: Instant,
    shown: Duration,
}

impl Tempo {
    pub(crate) fn new(now: Instant, shown: Duration) -> Self {
        Self { wishes: BTreeMap::new(), slowness: 100, since: now, shown }
    }

    fn at(&self, now: Instant) -> Duration {
        self.shown + (now - self.since) * 100 / self.slowness
    }

    /// When the clock shows at least `shown`: rounded up, or whoever waits for it would wake a moment too early.
    fn when(&self, shown: Duration) -> Instant {
        let hundredfold = shown.saturating_sub(self.shown) * self.slowness;
        self.since + (hundredfold + Duration::from_nanos(99)) / 100
    }

    fn wish(&mut self, now: Instant, manager: u64, slowness: u32) {
        self.wishes.insert(manager, slowness);
        let slowest = self.wishes.values().copied().max().unwrap_or(100);
        if slowest != self.slowness {
            self.shown = self.at(now);
            self.since = now;
            self.slowness = slowest;
        }
    }
}

/// Says that this manager's slowest round trip takes `round_trip`.
pub(crate) fn adapt(manager: u64, round_trip: Duration) {
    let hundredths = round_trip.as_micros() * 100 / NEAR.as_micros();
    // In steps, so that it does not change with every measurement.
    let slowness = u32::try_from(hundredths / 25 * 25).unwrap_or(SLOWEST).clamp(100, SLOWEST);
    let now = Instant::now();
    with_tempo(|tempo| tempo.wish(now, manager, slowness));
}

/// How long openraft's `duration` takes now.
pub(crate) fn stretched(duration: Duration) -> Duration {
    with_tempo(|tempo| duration * tempo.slowness / 100)
}

/// A moment on openraft's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RaftInstant(Duration);

impl RaftInstant {
    /// When it is, as things are now.
    pub(crate) fn real(self) -> Instant {
        with_tempo(|tempo| tempo.when(self.0))
    }

    /// How long ago it was, on openraft's clock.
    pub(crate) fn elapsed(self) -> Duration {
        <Self as openraft_rt::Instant>::now() - self
    }
}

impl openraft_rt::Instant for RaftInstant {
    fn now() -> Self {
        let now = Instant::now();
        Self(with_tempo(|tempo| tempo.at(now)))
    }
}

impl Add<Duration> for RaftInstant {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl AddAssign<Duration> for RaftInstant {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl Sub<Duration> for RaftInstant {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

impl SubAssign<Duration> for RaftInstant {
    fn sub_assign(&mut self, by: Duration) {
        *self = *self - by;
    }
}

impl Sub for RaftInstant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Tempo;
    use crate::runtime::Instant;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_clock_goes_on_from_where_it_is_when_its_speed_changes() {
        let begin = Instant::now();
        let mut tempo = Tempo::new(begin, s(1000));
        assert_eq!(tempo.at(begin + s(10)), s(1010));
        tempo.wish(begin + s(10), 1, 200);
        tempo.wish(begin + s(10), 2, 100);
        assert_eq!(tempo.at(begin + s(10)), s(1010));
        assert_eq!(tempo.at(begin + s(30)), s(1020));
        assert_eq!(tempo.when(s(1020)), begin + s(30));
        for slowness in [125, 175, 325] {
            tempo.wish(begin + s(30), 1, slowness);
            let odd = s(1021) + Duration::from_nanos(1);
            assert!(tempo.at(tempo.when(odd)) >= odd, "{slowness}");
        }
        tempo.wish(begin + s(30), 1, 100);
        assert_eq!(tempo.at(begin + s(40)), s(1030));
        assert_eq!(tempo.when(s(1)), begin + s(30), "what is past is now");
    }
}

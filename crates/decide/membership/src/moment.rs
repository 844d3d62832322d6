//! Time as the failure detector sees it: points of a clock that never jumps, and the spans it judges by.
//!
//! Never reads a clock: the caller passes what its monotonic clock says.

use std::ops::Add;

use objects::Nanos;

/// A point of a clock that never jumps; its zero is the caller's. Not to be mixed with [`objects::Timestamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(
    /// Nanoseconds since the caller's zero.
    pub i64,
);

impl Moment {
    /// How long after `earlier` this is; negative when it is before.
    pub const fn since(self, earlier: Self) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Nanos> for Moment {
    type Output = Self;
    fn add(self, span: Nanos) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

/// The spans of the failure detector; all scale with the cluster's heartbeat period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// Time between two proofs of life of a node: 500 ms.
    pub pulse: Nanos,
    /// A node whose session closed is DOWN after this: 1.8 s. chosen: a daemon that was killed is back before.
    pub suspicion: Nanos,
    /// A node that nobody hears is DOWN after this: 3.5 s. chosen: a cut of 3 s moves nothing.
    pub silence: Nanos,
    /// Tasks of a node that is DOWN may move this long after: 0.4 s.
    pub patience: Nanos,
    /// A node that is heard but has no session with any manager shows DISCONNECTED after this: 5 s.
    pub reconnect: Nanos,
}

/// The heartbeat period that the spans are made for. Source: moby/swarmkit, `manager/dispatcher` (5 s).
const USUAL_PERIOD_MS: i64 = 5000;
/// Shorter periods count as this. chosen: pulses of 50 ms are what a loaded machine still sends in time.
const SHORTEST_PERIOD: Nanos = Nanos::from_millis(500);
/// Longer periods count as this, so that no span overflows.
const LONGEST_PERIOD: Nanos = Nanos::from_secs(24 * 3600);

impl LeaseTimes {
    /// The spans for a heartbeat period; zero is the default of 5 s.
    pub fn of(heartbeat_period: Nanos) -> Self {
        let period = match heartbeat_period {
            Nanos(..=0) => Nanos::from_millis(USUAL_PERIOD_MS),
            period => period.clamp(SHORTEST_PERIOD, LONGEST_PERIOD),
        };
        let scaled = |usual_ms: i64| Nanos(period.0 / USUAL_PERIOD_MS * usual_ms);
        Self {
            pulse: scaled(500),
            suspicion: scaled(1800),
            silence: scaled(3500),
            patience: scaled(400),
            reconnect: period,
        }
    }
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self::of(Nanos::ZERO)
    }
}

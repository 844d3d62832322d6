//! A histogram of powers of two, in place of the published crate of this name, which openraft depends on.
//!
//! In: numbers. Out: how they are spread, within a factor of two. The published crate builds tables of 24 MiB when the
//! first histogram is made; this one has 65 counters and no table. It has the part of its interface that openraft uses.
//! See `docs/decisions/0007-own-histogram-under-openraft.md`.

use std::fmt;
use std::marker::PhantomData;

/// Zero, and one counter per bit length.
const BUCKETS: usize = 65;

/// Counts numbers by their bit length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    kind: PhantomData<T>,
}

/// Where a share of all numbers lies; each figure is the upper end of its bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many numbers were counted.
    pub samples: u64,
    /// 0.1 % lie at or below.
    pub p0_1: u64,
    /// 1 % lie at or below.
    pub p1: u64,
    /// 5 % lie at or below.
    pub p5: u64,
    /// 10 % lie at or below.
    pub p10: u64,
    /// Half lie at or below.
    pub p50: u64,
    /// 90 % lie at or below.
    pub p90: u64,
    /// 99 % lie at or below.
    pub p99: u64,
    /// 99.9 % lie at or below.
    pub p99_9: u64,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// An empty histogram.
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], kind: PhantomData }
    }

    /// Counts `value`.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `value` `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
    }

    /// How many numbers were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.at(1),
            p1: self.at(10),
            p5: self.at(50),
            p10: self.at(100),
            p50: self.at(500),
            p90: self.at(900),
            p99: self.at(990),
            p99_9: self.at(999),
        }
    }

    /// The upper end of the bucket that holds the number at `permille` of all; 0 when there is none.
    fn at(&self, permille: u64) -> u64 {
        let total = u128::from(self.total());
        let wanted = (total * u128::from(permille)).div_ceil(1000).max(1);
        let mut seen = 0_u128;
        for (bits, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if total > 0 && seen >= wanted {
                return if bits == 0 { 0 } else { u64::MAX >> (BUCKETS - 1 - bits) };
            }
        }
        0
    }
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[samples: {}, P50: {}, P90: {}, P99: {}]", self.samples, self.p50, self.p90, self.p99)
    }
}

/// Several histograms as text, a line each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    rows: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// An empty chart.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a histogram.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.rows.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_within_a_factor_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        (1..=1000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p50, stats.p99), (1000, 511, 1023));
        histogram.record(u64::MAX);
        histogram.record(0);
        assert_eq!(histogram.total(), 1002);
    }
}

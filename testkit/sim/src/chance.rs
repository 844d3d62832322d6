//! Chance from a seed.
//!
//! Never draws from the system: the same seed gives the same numbers.

use objects::{IdSource, Nanos};

/// Numbers that follow from a seed.
#[derive(Debug, Clone)]
pub struct Chance {
    source: IdSource,
}

impl Chance {
    /// The numbers of `seed`; `stream` tells apart several users of one seed.
    pub fn new(seed: u64, stream: u8) -> Self {
        Self { source: ids(seed, stream) }
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.source.next_u64() % limit
    }

    /// True in `percent` of all cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.below(of.len() as u64) as usize) }
    }

    /// A span below `limit_ms` milliseconds.
    pub fn millis(&mut self, limit_ms: u64) -> Nanos {
        Nanos::from_millis(self.below(limit_ms) as i64)
    }
}

/// The ids of `seed`.
pub fn ids(seed: u64, stream: u8) -> IdSource {
    let mut bytes = [stream; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    IdSource::from_seed(bytes)
}

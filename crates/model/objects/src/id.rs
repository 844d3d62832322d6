//! Ids of swarm objects, and the one place that makes them.
//!
//! In: a seed. Out: 25 characters of lower-case base 36, as Docker's. Never draws randomness itself: the shell seeds an
//! [`IdSource`] from the system, a test or the simulator from a number.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Declares id types that cannot be mistaken for one another.
macro_rules! ids {
    ($( $(#[$about:meta])* $name:ident, )+) => { $(
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether this is the id of nothing (Go's empty string).
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self(Arc::from(""))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({})", stringify!($name), self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )+ };
}

ids! {
    /// Id of a cluster; also the organisation in its certificates.
    ClusterId,
    /// Id of a node.
    NodeId,
    /// Id of a service.
    ServiceId,
    /// Id of a task.
    TaskId,
    /// Id of a network of the swarm.
    NetworkId,
    /// Id of a secret.
    SecretId,
    /// Id of a config.
    ConfigId,
}

/// Digits of an id.
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Length of an id. Source: moby/swarmkit, `identity/randomid.go`.
pub const ID_LENGTH: usize = 25;

/// Makes ids from a seed: the same seed gives the same ids in the same order.
///
/// Not a source of secrets. Two managers must not share a seed.
#[derive(Debug, Clone)]
pub struct IdSource {
    state: [u64; 4],
}

impl IdSource {
    /// A source that continues from `seed`; the shell fills it from the system's randomness.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let mut state = [0u64; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes"));
        }
        // An all-zero state would only ever give zeros.
        for (position, word) in state.iter_mut().enumerate() {
            *word ^= 0x9e37_79b9_7f4a_7c15_u64.rotate_left(position as u32 * 16);
        }
        let mut source = Self { state };
        for _ in 0..8 {
            source.next_u64();
        }
        source
    }

    /// The next id text: 25 characters of base 36 from 129 bits with the top bit set and the first digit dropped.
    ///
    /// Source: moby/swarmkit, `identity/randomid.go` (129 random bits, so that every id has the same length).
    pub fn next_text(&mut self) -> String {
        let mut rest = (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64());
        let mut text = [0u8; ID_LENGTH];
        for place in text.iter_mut().rev() {
            *place = DIGITS[(rest % 36) as usize];
            rest /= 36;
        }
        String::from_utf8(text.to_vec()).expect("the digits are ASCII")
    }

    /// The next id, of the type that is asked for.
    #[allow(
        clippy::should_implement_trait,
        reason = "one source gives ids of many types, an iterator only of one"
    )]
    pub fn next<Id: From<String>>(&mut self) -> Id {
        Id::from(self.next_text())
    }

    /// The next 64 bits (xoshiro256**, public domain by Blackman and Vigna).
    pub fn next_u64(&mut self) -> u64 {
        let result = self.state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = self.state[1] << 17;
        self.state[2] ^= self.state[0];
        self.state[3] ^= self.state[1];
        self.state[1] ^= self.state[2];
        self.state[0] ^= self.state[3];
        self.state[2] ^= shifted;
        self.state[3] = self.state[3].rotate_left(45);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_25_lower_case_base_36_characters() {
        let mut source = IdSource::from_seed([7; 32]);
        for _ in 0..1000 {
            let id: TaskId = source.next();
            assert_eq!(id.as_str().len(), ID_LENGTH);
            assert!(id.as_str().bytes().all(|b| DIGITS.contains(&b)));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_ids_and_no_duplicates() {
        let draw = |seed| {
            let mut source = IdSource::from_seed(seed);
            (0..1000).map(|_| source.next_text()).collect::<Vec<_>>()
        };
        assert_eq!(draw([1; 32]), draw([1; 32]));
        assert_eq!(draw([0; 32]).into_iter().collect::<BTreeSet<_>>().len(), 1000);
    }
}

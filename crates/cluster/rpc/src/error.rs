//! What can go wrong in a call.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use objects::{Nanos, Timestamp};
use wire::Refusal;

use crate::clock;

/// Why a call has no answer.
///
/// After `Unreachable` and `TimedOut` the other side may or may not have done what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or it broke before the answer was complete.
    #[error("no connection to {address}")]
    Unreachable {
        /// Whom.
        address: String,
        /// Why not. Its kind is `TimedOut` when the other machine was silent, `ConnectionRefused` or
        /// `ConnectionAborted` when it said that nobody is there (any more).
        #[source]
        source: Arc<io::Error>,
    },
    /// No answer in time.
    #[error("{address} did not answer within {} ms", limit.as_millis())]
    TimedOut {
        /// Who.
        address: String,
        /// The time it was given.
        limit: Duration,
    },
    /// One side does not trust the other.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The other side answered that it won't.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The answer is not one of this method.
    #[error("{address} gave an answer that cannot be read")]
    Garbled {
        /// Who.
        address: String,
        /// What is wrong with it.
        #[source]
        source: Arc<serde_json::Error>,
    },
}

impl CallError {
    /// Whether it makes sense to ask another manager the same: this one was not reached, or is not in a state to answer.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Refused(refusal) => refusal.code == wire::Code::Unavailable,
            Self::Untrusted(_) | Self::Garbled { .. } => false,
        }
    }
}

/// Two nodes that don't trust each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {why}{}", Hint(*.offset, .address))]
pub struct Untrusted {
    /// The other one.
    pub address: String,
    /// The reason.
    pub why: Distrust,
    /// The other side's clock minus this one's, where it is known and the reason has to do with time.
    pub offset: Option<Nanos>,
}

/// Why two nodes don't trust each other. The texts that begin with `x509` are those of Docker's (Go's `crypto/x509`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Its certificate leads to another root.
    #[error("x509: certificate signed by unknown authority")]
    Foreign,
    /// Its certificate has run out, says this machine's clock.
    #[error("x509: certificate has expired or is not yet valid: current time {now} is after {end}")]
    Expired {
        /// The time here.
        now: Timestamp,
        /// Its last moment.
        end: Timestamp,
    },
    /// Its certificate is not valid yet, says this machine's clock.
    #[error("x509: certificate has expired or is not yet valid: current time {now} is before {start}")]
    NotYetValid {
        /// The time here.
        now: Timestamp,
        /// Its first moment.
        start: Timestamp,
    },
    /// It is not a manager. Source of the text: Go's `crypto/x509`.
    #[error("x509: certificate is valid for {names}, not swarm-manager")]
    NotManager {
        /// What it is valid for.
        names: String,
    },
    /// Of another swarm.
    #[error("certificate of swarm {found}, not of {expected}")]
    OtherSwarm {
        /// Its swarm.
        found: String,
        /// This node's.
        expected: String,
    },
    /// The other side does not accept this node's certificate.
    #[error("remote error: tls: {alert}")]
    NotTrustedThere {
        /// What it said.
        alert: String,
    },
    /// Anything else about its certificate.
    #[error("x509: {what}")]
    Invalid {
        /// What.
        what: String,
    },
}

struct Hint<'a>(Option<Nanos>, &'a str);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(offset) = self.0 else { return Ok(()) };
        write!(out, " (the clock of {} is {} this machine's)", self.1, clock::side(offset))
    }
}

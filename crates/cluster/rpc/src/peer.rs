//! Who is at the other end of a connection.
//!
//! In: a certificate. Out: node, role and swarm that it names. Trusts nothing by itself: the chain was verified before.

use std::net::SocketAddr;

use bytes::Bytes;
use objects::{ClusterId, Nanos, NodeId, NodeRole, Timestamp};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A node, as its certificate describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id (CN).
    pub node: NodeId,
    /// What it may do (OU).
    pub role: NodeRole,
    /// Its swarm (O).
    pub cluster: ClusterId,
    /// First moment of its certificate.
    pub not_before: Timestamp,
    /// Last moment of its certificate.
    pub not_after: Timestamp,
    /// The certificate, DER.
    pub certificate: Bytes,
}

/// Whether a certificate is valid at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It is.
    Valid,
    /// No longer.
    Expired,
    /// Not yet.
    NotYet,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The node; `None` when it showed no certificate, which only methods for anyone accept.
    pub peer: Option<Peer>,
    /// Whether the peer's certificate has run out, which only methods for `ExpiredToo` and `Anyone` accept.
    pub is_expired: bool,
    /// Where it calls from.
    pub remote: SocketAddr,
    /// Its clock minus this one's when the request arrived, the way it took included; `None` when it did not say.
    pub offset: Option<Nanos>,
}

/// A certificate without node, role or swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate of a swarm's node")]
pub struct NotOfASwarm;

impl Peer {
    /// Reads a certificate in DER.
    pub fn of_der(der: &[u8]) -> Result<Self, NotOfASwarm> {
        let identity = pki::Identity::of_der(der).map_err(|_| NotOfASwarm)?;
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| NotOfASwarm)?;
        let validity = certificate.validity();
        Ok(Self {
            node: identity.node,
            role: identity.role,
            cluster: identity.cluster,
            not_before: Timestamp::from_secs(validity.not_before.timestamp()),
            not_after: Timestamp::from_secs(validity.not_after.timestamp()),
            certificate: Bytes::copy_from_slice(der),
        })
    }

    /// Whether its certificate is valid at `now`.
    #[must_use]
    pub fn validity(&self, now: Timestamp) -> Validity {
        if now > self.not_after {
            Validity::Expired
        } else if now < self.not_before {
            Validity::NotYet
        } else {
            Validity::Valid
        }
    }

    /// The time nearest to `now` at which the certificate is valid: there its chain can be verified, apart from time.
    pub(crate) fn nearest_valid(&self, now: Timestamp) -> Timestamp {
        now.max(self.not_before).min(self.not_after)
    }
}

impl Caller {
    /// The node's id; the empty id for a caller without a certificate.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.peer.as_ref().map(|peer| peer.node.clone()).unwrap_or_default()
    }
}

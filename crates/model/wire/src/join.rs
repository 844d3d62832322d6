//! How a machine becomes a node and stays one: the trust root, a certificate, its renewal.

use objects::{Availability, ClusterId, NodeId, NodeRole, Timestamp};
use serde::{Deserialize, Serialize};

use crate::session::ManagerPeer;
use crate::{Callers, Hidden, Method};

/// Asks for the swarm's trust root. The caller checks it against the digest in its join token.
pub struct Root;

impl Method for Root {
    const NAME: &'static str = "root";
    const CALLERS: Callers = Callers::Anyone;
    type Request = RootRequest;
    type Response = TrustRoot;
}

/// Nothing: a question without an argument.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRequest {}

/// What a swarm trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrustRoot {
    /// The root certificate, PEM, byte for byte as join tokens were made for it; several during a rotation.
    pub bundle: String,
    /// The manager's time.
    pub now: Timestamp,
}

/// Asks for a first certificate with a join token. The swarm has a new node when this is answered.
pub struct Issue;

impl Method for Issue {
    const NAME: &'static str = "issue";
    const CALLERS: Callers = Callers::Anyone;
    type Request = IssueRequest;
    type Response = Issued;
}

/// What a machine brings to become a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IssueRequest {
    /// The certificate signing request, PEM. Its subject is not looked at: the manager chooses id and role.
    pub csr: String,
    /// `SWMTKN-1-…`; decides the role.
    pub token: Hidden,
    /// Which tasks it wants.
    pub availability: Availability,
    /// Where the other nodes reach it, `host` or `host:port`; empty: where the call came from.
    pub address: String,
    /// Its host name.
    pub hostname: String,
    /// Its time: the manager refuses a machine whose clock is far off.
    pub now: Timestamp,
}

/// A certificate and what it is worth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Issued {
    /// The node's id.
    pub node: NodeId,
    /// What it may do.
    pub role: NodeRole,
    /// The certificate and, during a rotation, the one that leads to the older root; PEM.
    pub certificate: String,
    /// What it should trust, PEM.
    pub root: String,
    /// The swarm.
    pub cluster: ClusterId,
    /// Where the swarm's managers are.
    pub managers: Vec<ManagerPeer>,
}

/// Asks for a new certificate, for the role that the swarm now wants of the node.
pub struct Renew;

impl Method for Renew {
    const NAME: &'static str = "renew";
    const CALLERS: Callers = Callers::ExpiredToo;
    type Request = RenewRequest;
    type Response = Issued;
}

/// What a node brings to renew its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RenewRequest {
    /// The certificate signing request, PEM.
    pub csr: String,
}

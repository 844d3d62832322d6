//! What the parts of a member share: who it is, whom it knows, and what its managers told it.
//!
//! Nothing is decided here; every part reads what it needs and follows what may change.

use std::sync::Arc;

use manager::Manager;
use objects::{NodeDescription, NodeId};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::logs::LogWish;
use wire::network::NetworkKey;
use wire::session::{Heartbeat, SessionId};

use crate::credentials::Credentials;
use crate::known_managers::Managers;

/// Shared by everything that runs on behalf of a member. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ties {
    /// This node.
    pub(crate) node: NodeId,
    /// Its certificate and what it trusts.
    pub(crate) credentials: Credentials,
    /// Managers it can turn to.
    pub(crate) managers: Managers,
    /// Calls them.
    pub(crate) client: rpc::Client,
    /// The manager on this node, while there is one.
    pub(crate) own: Arc<watch::Sender<Option<Manager>>>,
    /// What this node says of itself.
    pub(crate) description: Arc<watch::Sender<NodeDescription>>,
    /// Where other nodes reach it, without a port.
    pub(crate) address: String,
    /// Where its overlay traffic arrives, when that is another address.
    pub(crate) data_path_address: Option<String>,
    /// Names what this node's kernel holds of encrypted networks; zero: it cannot encrypt.
    pub(crate) encryption_generation: Arc<watch::Sender<u64>>,
    /// Keys of encrypted networks as a manager told them last, the oldest first; empty before. In memory alone.
    pub(crate) network_keys: Arc<watch::Sender<Vec<NetworkKey>>>,
    /// The session that is open.
    pub(crate) session: Arc<watch::Sender<Option<OpenSession>>>,
    /// Rung when the managers want this node to have another certificate.
    pub(crate) renew: Arc<Notify>,
    /// Why no manager takes this node; empty while one does.
    pub(crate) trouble: Arc<watch::Sender<String>>,
    /// Takes wishes for logs of this node's tasks.
    pub(crate) wishes: mpsc::Sender<LogWish>,
    /// Cancelled when the swarm has removed this node.
    pub(crate) removed: CancellationToken,
}

/// A session as others of this node need it.
#[derive(Clone)]
pub(crate) struct OpenSession {
    /// With whom.
    pub(crate) with: With,
    /// Its name.
    pub(crate) id: SessionId,
    /// How this node proves that it is alive.
    pub(crate) heartbeat: Heartbeat,
    /// Ends the session: the manager does not know it any more.
    pub(crate) broken: CancellationToken,
}

/// The manager of a session.
#[derive(Clone)]
pub(crate) enum With {
    /// The one on this node.
    Own(Manager),
    /// The one at this address.
    Remote(String),
}

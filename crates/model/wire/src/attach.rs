//! How a plain container gets onto a network of the swarm: its node asks any manager.
//!
//! The answer comes when the container has addresses; the node is told of the network by its session, and says there when
//! the container has gone, as of any task.

use std::net::IpAddr;

use objects::TaskId;
use serde::{Deserialize, Serialize};

use crate::{Callers, Method};

/// Asks for a place on a network. Asking again for the same container gives the same place.
pub struct Attach;

impl Method for Attach {
    const NAME: &'static str = "attach";
    const CALLERS: Callers = Callers::Node;
    type Request = AttachRequest;
    type Response = Attached;
}

/// A container of the calling node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachRequest {
    /// Id, name or id prefix of the network.
    pub network: String,
    /// Id of the container.
    pub container: String,
    /// Names that mean the container there, its own first.
    pub names: Vec<String>,
    /// Addresses that it asks for, at most one of each family.
    pub addresses: Vec<IpAddr>,
}

/// Its place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attached {
    /// The task that stands for it.
    pub task: TaskId,
    /// Id of the network.
    pub network: String,
    /// Its addresses with the length of their networks, such as `10.0.1.7/24`.
    pub addresses: Vec<String>,
}

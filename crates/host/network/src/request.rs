//! The questions the handle asks the network's thread, each with the way back for its answer.
//!
//! In: arguments of the handle's methods. Out: one value per request. Decides nothing.

use docker::NetworkInspect;
use objects::{NodeId, ServiceId};
use tokio::sync::oneshot::Sender;
use wire::network::NetworkKey;
use wire::session::Assignments;

use crate::connect::Change;
use crate::error::{AttachError, ConnectError, CreateError, NetworkError, PublishError, RemoveError};
use crate::{AttachRequest, Attachment, NetworkFacts, ServicePort};
use crate::{ConnectRequest, ContainerNames, NetworkSpec};

/// What a container has after one network came or went.
pub(crate) type Connected = Result<Attachment, ConnectError>;

/// One call of the handle.
pub(crate) enum Request {
    Attach(AttachRequest, Sender<Result<Attachment, AttachError>>),
    Release(String, Sender<()>),
    Adopt { container_id: String, name: String, attachment: Box<Attachment>, reply: Sender<()> },
    Rename { container_id: String, name: String, reply: Sender<()> },
    PublishService { service: ServiceId, ports: Vec<ServicePort>, reply: Sender<Result<(), PublishError>> },
    UnpublishService(ServiceId, Sender<()>),
    UnpublishAllServices(Sender<()>),
    Hold(Sender<()>),
    ReleaseHold(Sender<Result<(), NetworkError>>),
    Create(Box<NetworkSpec>, Sender<Result<String, CreateError>>),
    EnsureGatewayBridge(Sender<Result<String, CreateError>>),
    Remove(String, Sender<Result<(String, String), RemoveError>>),
    Connect(Box<ConnectRequest>, Sender<Connected>),
    Disconnect { container_id: String, network: String, pid: i32, reply: Sender<Connected> },
    Names(String, Sender<Vec<ContainerNames>>),
    Facts(String, Sender<Option<NetworkFacts>>),
    Tell { node: NodeId, told: Box<Assignments>, reply: Sender<Result<(), NetworkError>> },
    TellKeys(Vec<NetworkKey>, Sender<()>),
    LeaveSwarm(Sender<()>),
    CheckEncryption { network: String, reply: Sender<Result<(), NetworkError>> },
    Plug { container_id: String, pid: u32, reply: Sender<Result<(), NetworkError>> },
    List(Sender<Vec<NetworkInspect>>),
    ShutdownRemove(Sender<bool>),
}

/// An answer that waits until the kernel has what the requests before it changed.
pub(crate) enum Reply {
    Attach(String, Attachment, Sender<Result<Attachment, AttachError>>),
    Publish(Result<(), PublishError>, Sender<Result<(), PublishError>>),
    Outcome(Sender<Result<(), NetworkError>>),
    Create(String, Sender<Result<String, CreateError>>),
    Remove(String, String, Sender<Result<(String, String), RemoveError>>),
    Connect(Box<Change>, Sender<Connected>),
    Done(Sender<()>),
}

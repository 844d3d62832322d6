//! The questions the handle asks the network's thread, each with the way back for its answer.
//!
//! In: arguments of the handle's methods. Out: one value per request. Decides nothing.

use docker::NetworkInspect;
use objects::ServiceId;
use tokio::sync::oneshot::Sender;

use crate::error::{AttachError, NetworkError, PublishError};
use crate::{AttachRequest, Endpoint, ServicePort};

/// One call of the handle.
pub(crate) enum Request {
    Attach(AttachRequest, Sender<Result<Endpoint, AttachError>>),
    Release(String, Sender<()>),
    Adopt { container_id: String, name: String, endpoint: Box<Endpoint>, reply: Sender<()> },
    Rename { container_id: String, name: String, reply: Sender<()> },
    PublishService { service: ServiceId, ports: Vec<ServicePort>, reply: Sender<Result<(), PublishError>> },
    UnpublishService(ServiceId, Sender<()>),
    UnpublishAllServices(Sender<()>),
    Hold(Sender<()>),
    ReleaseHold(Sender<Result<(), NetworkError>>),
    List(Sender<Vec<NetworkInspect>>),
    ShutdownRemove(Sender<bool>),
}

/// An answer that waits until the kernel has what the requests before it changed.
pub(crate) enum Reply {
    Attach(String, Endpoint, Sender<Result<Endpoint, AttachError>>),
    Publish(Result<(), PublishError>, Sender<Result<(), PublishError>>),
    ReleaseHold(Sender<Result<(), NetworkError>>),
    Done(Sender<()>),
}

//! The handle that engine and agent hold.
//!
//! In: calls. Out: answers of the thread that owns the network. Cheap to clone; the thread ends with the last handle and
//! leaves the kernel's state as it is, so that containers keep working without a daemon.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use docker::NetworkInspect;
use objects::ServiceId;
use tokio::sync::{mpsc, oneshot};

use crate::open;
use crate::request::Request;
use crate::show;
use crate::{
    AttachError, AttachRequest, Endpoint, NetworkConfig, NetworkError, OpenError, PublishError, ServicePort,
};

/// The networks of this machine.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

/// Shared by all handles; ends the thread with the last of them.
#[derive(Debug)]
struct Inner {
    requests: Option<mpsc::Sender<Request>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Opens the network of the calling thread's network namespace, held: nothing of the rules in the kernel changes
    /// before the first [`Network::release_hold`]. Blocks for a few milliseconds.
    pub fn open(config: NetworkConfig) -> Result<Self, OpenError> {
        let running = open::start(&config)?;
        let inner =
            Inner { requests: Some(running.requests), wake: running.wake, thread: Some(running.thread) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Gives a container its endpoint and publishes its ports. The bridge exists when this returns, also while held;
    /// the runtime then makes the interfaces. Call before the container's shim is started. An endpoint that the container
    /// still has is replaced.
    pub async fn attach(&self, request: AttachRequest) -> Result<Endpoint, AttachError> {
        let answer = self.ask(|reply| Request::Attach(request, reply)).await;
        answer.unwrap_or(Err(AttachError::Apply(NetworkError::Closed)))
    }

    /// Takes a container's endpoint away, with its ports and the tracked connections to it. Of an unknown container:
    /// nothing happens.
    pub async fn release(&self, container_id: &str) {
        let container_id = container_id.to_owned();
        self.tell("release", |reply| Request::Release(container_id, reply)).await;
    }

    /// Takes over an endpoint given out by an earlier daemon for a container that still runs. Never fails: what cannot
    /// be had again (a port that a foreign process took meanwhile) is logged and published all the same.
    pub async fn adopt(&self, container_id: &str, container_name: &str, endpoint: &Endpoint) {
        let (container_id, name) = (container_id.to_owned(), container_name.to_owned());
        let endpoint = Box::new(endpoint.clone());
        self.tell("adopt", |reply| Request::Adopt { container_id, name, endpoint, reply }).await;
    }

    /// Tells a container's new name.
    pub async fn rename(&self, container_id: &str, container_name: &str) {
        let (container_id, name) = (container_id.to_owned(), container_name.to_owned());
        self.tell("rename", |reply| Request::Rename { container_id, name, reply }).await;
    }

    /// Publishes exactly these ports of a service, each for exactly its backends, replacing what the service had before.
    /// New connections are spread evenly; those under way stay with their backend. A port without backends stays
    /// reserved, and connections to it are refused.
    pub async fn publish_service(
        &self,
        service: &ServiceId,
        ports: Vec<ServicePort>,
    ) -> Result<(), PublishError> {
        let service = service.clone();
        let answer = self.ask(|reply| Request::PublishService { service, ports, reply }).await;
        answer.unwrap_or(Err(PublishError::Apply(NetworkError::Closed)))
    }

    /// Takes a service's ports away. Of an unknown service: nothing happens.
    pub async fn unpublish_service(&self, service: &ServiceId) {
        let service = service.clone();
        self.tell("unpublish", |reply| Request::UnpublishService(service, reply)).await;
    }

    /// Takes the ports of every service away, as when this machine leaves its swarm.
    pub async fn unpublish_all_services(&self) {
        self.tell("unpublish all", Request::UnpublishAllServices).await;
    }

    /// Stops changes of the kernel's rules until [`Network::release_hold`]; wanted state is collected. Does not nest.
    pub async fn hold(&self) {
        self.tell("hold", Request::Hold).await;
    }

    /// Ends the hold and applies everything at once. The first time, sweeps what a killed daemon left behind: veths of
    /// ours on the bridge that belong to no adopted container, and stale rules.
    pub async fn release_hold(&self) -> Result<(), NetworkError> {
        self.ask(Request::ReleaseHold).await.unwrap_or(Err(NetworkError::Closed))
    }

    /// The networks `bridge`, `host` and `none` with their endpoints.
    pub async fn list(&self) -> Vec<NetworkInspect> {
        self.ask(Request::List).await.unwrap_or_default()
    }

    /// One network by name, id, or unambiguous id prefix.
    pub async fn inspect(&self, name_or_id: &str) -> Option<NetworkInspect> {
        show::find(self.list().await, name_or_id)
    }

    /// Removes table and bridge, if no container is left; call when the daemon ends on purpose. True when removed:
    /// then nothing can be attached or published any more.
    pub async fn shutdown_remove(&self) -> bool {
        self.ask(Request::ShutdownRemove).await.unwrap_or(false)
    }

    /// Sends a request and waits for its answer; `None` when the thread is gone.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let requests = self.inner.requests.as_ref()?;
        requests.send(request(reply)).await.ok()?;
        self.inner.wake();
        answer.await.ok()
    }

    /// Like `ask`, for requests whose only answer is that they were done.
    async fn tell(&self, operation: &'static str, request: impl FnOnce(oneshot::Sender<()>) -> Request) {
        if self.ask(request).await.is_none() {
            tracing::error!(operation, "the network thread is gone");
        }
    }
}

impl Inner {
    fn wake(&self) {
        // Fails only when the counter is at its maximum, and then the thread is awake anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.requests = None;
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the network thread panicked");
        }
    }
}

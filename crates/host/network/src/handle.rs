//! The handle that engine and agent hold.
//!
//! In: calls. Out: answers of the thread that owns the network. Cheap to clone; the thread ends with the last handle and
//! leaves the kernel's state as it is, so that containers keep working without a daemon.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use docker::NetworkInspect;
use objects::{NodeId, ServiceId};
use tokio::sync::{mpsc, oneshot, watch};
use wire::network::NetworkKey;
use wire::session::Assignments;

use crate::open;
use crate::request::Request;
use crate::show;
use crate::{
    AttachError, AttachRequest, Attachment, ConnectError, ConnectRequest, ContainerNames, CreateError,
    NetworkConfig, NetworkError, NetworkFacts, NetworkSpec, OpenError, PublishError, RemoveError,
    ServicePort,
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
    encryption_generation: watch::Receiver<u64>,
}

impl Network {
    /// Opens the network of the calling thread's network namespace, held: nothing of the rules in the kernel changes
    /// before the first [`Network::release_hold`]. Blocks for a few milliseconds.
    pub fn open(config: NetworkConfig) -> Result<Self, OpenError> {
        let running = open::start(&config)?;
        let inner = Inner {
            requests: Some(running.requests),
            wake: running.wake,
            thread: Some(running.thread),
            encryption_generation: running.encryption_generation,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Gives a container its endpoints and publishes its ports. Their bridges exist when this returns, also while held;
    /// the runtime then makes the interfaces. Call before the container's shim is started. What the container still has is
    /// replaced.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attachment, AttachError> {
        let answer = self.ask(|reply| Request::Attach(request, reply)).await;
        answer.unwrap_or(Err(AttachError::Apply(NetworkError::Closed)))
    }

    /// Takes a container's endpoints away, with its ports and the tracked connections to it. Of an unknown container:
    /// nothing happens.
    pub async fn release(&self, container_id: &str) {
        let container_id = container_id.to_owned();
        self.finish("release", |reply| Request::Release(container_id, reply)).await;
    }

    /// Takes over what an earlier daemon gave to a container that still runs. Never fails: what cannot
    /// be had again (a port that a foreign process took meanwhile) is logged and published all the same.
    pub async fn adopt(&self, container_id: &str, container_name: &str, attachment: &Attachment) {
        let (container_id, name) = (container_id.to_owned(), container_name.to_owned());
        let attachment = Box::new(attachment.clone());
        self.finish("adopt", |reply| Request::Adopt { container_id, name, attachment, reply }).await;
    }

    /// Tells a container's new name.
    pub async fn rename(&self, container_id: &str, container_name: &str) {
        let (container_id, name) = (container_id.to_owned(), container_name.to_owned());
        self.finish("rename", |reply| Request::Rename { container_id, name, reply }).await;
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
        self.finish("unpublish", |reply| Request::UnpublishService(service, reply)).await;
    }

    /// Takes the ports of every service away, as when this machine leaves its swarm.
    pub async fn unpublish_all_services(&self) {
        self.finish("unpublish all", Request::UnpublishAllServices).await;
    }

    /// Stops changes of the kernel's rules until [`Network::release_hold`]; wanted state is collected. Does not nest.
    pub async fn hold(&self) {
        self.finish("hold", Request::Hold).await;
    }

    /// Ends the hold and applies everything at once. The first time, sweeps what a killed daemon left behind: veths of
    /// ours on the bridge that belong to no adopted container, and stale rules.
    pub async fn release_hold(&self) -> Result<(), NetworkError> {
        self.ask(Request::ReleaseHold).await.unwrap_or(Err(NetworkError::Closed))
    }

    /// Makes a network; returns its id once its bridge is there and it survives the daemon's end.
    pub async fn create(&self, spec: NetworkSpec) -> Result<String, CreateError> {
        let answer = self.ask(|reply| Request::Create(Box::new(spec), reply)).await;
        answer.unwrap_or(Err(CreateError::Apply(NetworkError::Closed)))
    }

    /// The id of the network `docker_gwbridge`, by which containers of swarm networks reach what lies beyond; made if there
    /// is none yet.
    pub async fn ensure_gateway_bridge(&self) -> Result<String, CreateError> {
        let answer = self.ask(Request::EnsureGatewayBridge).await;
        answer.unwrap_or(Err(CreateError::Apply(NetworkError::Closed)))
    }

    /// Removes a network that no container is on, by id, name, or unambiguous id prefix; returns its name and id.
    pub async fn remove(&self, name_or_id: &str) -> Result<(String, String), RemoveError> {
        let network = name_or_id.to_owned();
        let answer = self.ask(|reply| Request::Remove(network, reply)).await;
        answer.unwrap_or(Err(RemoveError::Apply(NetworkError::Closed)))
    }

    /// Connects a running container to one network more; returns all that it has then.
    pub async fn connect(&self, request: ConnectRequest) -> Result<Attachment, ConnectError> {
        let answer = self.ask(|reply| Request::Connect(Box::new(request), reply)).await;
        answer.unwrap_or(Err(ConnectError::Attach(AttachError::Apply(NetworkError::Closed))))
    }

    /// Disconnects a running container from a network; returns all that it has left. `pid` is a process in its network
    /// namespace.
    pub async fn disconnect(
        &self,
        container_id: &str,
        network: &str,
        pid: i32,
    ) -> Result<Attachment, ConnectError> {
        let (container_id, network) = (container_id.to_owned(), network.to_owned());
        let answer = self.ask(|reply| Request::Disconnect { container_id, network, pid, reply }).await;
        answer.unwrap_or(Err(ConnectError::Attach(AttachError::Apply(NetworkError::Closed))))
    }

    /// Under which names the containers of this machine are found on a network, and where they are.
    pub async fn names(&self, network: &str) -> Vec<ContainerNames> {
        let network = network.to_owned();
        self.ask(|reply| Request::Names(network, reply)).await.unwrap_or_default()
    }

    /// What is looked at of a network before a container asks for it; by id, name, or unambiguous id prefix.
    pub async fn facts(&self, name_or_id: &str) -> Option<NetworkFacts> {
        let network = name_or_id.to_owned();
        self.ask(|reply| Request::Facts(network, reply)).await.flatten()
    }

    /// Takes in what a manager said of the swarm's networks to this node. When this returns, containers may join them; what
    /// could not be made of them yet is tried again.
    pub async fn tell(&self, node: &NodeId, told: Assignments) -> Result<(), NetworkError> {
        let (node, told) = (node.clone(), Box::new(told));
        self.ask(|reply| Request::Tell { node, told, reply }).await.unwrap_or(Err(NetworkError::Closed))
    }

    /// Takes in the keys of encrypted networks as a manager said them, all of them, the oldest first. They are in memory and in
    /// the kernel, and nowhere else.
    pub async fn tell_keys(&self, keys: Vec<NetworkKey>) {
        self.finish("tell keys", |reply| Request::TellKeys(keys, reply)).await;
    }

    /// Names what the kernel holds of encrypted networks, now and when that changes: the managers have to know. Zero: the
    /// kernel cannot encrypt.
    #[must_use]
    pub fn encryption_generation(&self) -> watch::Receiver<u64> {
        self.inner.encryption_generation.clone()
    }

    /// Refuses a network of the swarm, by id, that is encrypted when the kernel cannot.
    pub async fn check_encryption(&self, network: &str) -> Result<(), NetworkError> {
        let network = network.to_owned();
        let answer = self.ask(|reply| Request::CheckEncryption { network, reply }).await;
        answer.unwrap_or(Err(NetworkError::Closed))
    }

    /// Forgets the swarm's networks, and takes the ports of all services away.
    pub async fn leave_swarm(&self) {
        self.finish("leave the swarm", Request::LeaveSwarm).await;
    }

    /// Gives a container what it needs of the swarm's networks it is attached to: virtual addresses, its side of the routing
    /// mesh. `pid` stands for its namespace. Call when its interfaces are there and before its program runs, and again for
    /// one that was adopted. Of a container without such networks: nothing happens.
    pub async fn plug(&self, container_id: &str, pid: u32) -> Result<(), NetworkError> {
        let container_id = container_id.to_owned();
        let answer = self.ask(|reply| Request::Plug { container_id, pid, reply }).await;
        answer.unwrap_or(Err(NetworkError::Closed))
    }

    /// The networks of this machine with their endpoints.
    pub async fn list(&self) -> Vec<NetworkInspect> {
        self.ask(Request::List).await.unwrap_or_default()
    }

    /// One network by name, id, or unambiguous id prefix.
    pub async fn inspect(&self, name_or_id: &str) -> Option<NetworkInspect> {
        show::find(self.list().await, name_or_id)
    }

    /// Removes table and bridges, if no container is left; call when the daemon ends on purpose. True when removed:
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
    async fn finish(&self, operation: &'static str, request: impl FnOnce(oneshot::Sender<()>) -> Request) {
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

//! Which local containers a service's ingress ports are spread over.
//!
//! In: tasks that became ready to serve, and tasks that stop. Out: calls that bring the network to that. The wanted state
//! changes at once; `bring` applies the newest one, one call at a time per machine, so that an older one never wins.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use objects::{PortConfig, PublishMode, ServiceId, Task, TaskId};
use tokio::sync::Semaphore;

use crate::containers::{Containers, Failure, Publication};

#[derive(Debug, Default)]
struct Service {
    tasks: BTreeMap<TaskId, Member>,
}

#[derive(Debug)]
struct Member {
    /// Which spec it was made from; the newest one's ports are published.
    spec_version: u64,
    ports: Vec<PortConfig>,
    /// Set while it serves.
    address: Option<Ipv4Addr>,
}

/// What should be published.
#[derive(Clone)]
pub(crate) struct Publisher<C> {
    containers: C,
    wanted: Arc<Mutex<BTreeMap<ServiceId, Service>>>,
    applied: Arc<Mutex<BTreeMap<ServiceId, Publication>>>,
    turn: Arc<Semaphore>,
}

/// The ingress ports of a task.
fn ingress_ports(task: &Task) -> Vec<PortConfig> {
    task.internal.ports.iter().filter(|port| port.publish_mode == PublishMode::Ingress).cloned().collect()
}

impl<C: Containers> Publisher<C> {
    pub(crate) fn new(containers: C) -> Self {
        Self {
            containers,
            wanted: Arc::default(),
            applied: Arc::default(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    fn wanted(&self) -> MutexGuard<'_, BTreeMap<ServiceId, Service>> {
        self.wanted.lock().expect("nothing panics while it holds this lock")
    }

    /// A task of the service is here; its ports are reserved from now on.
    pub(crate) fn add(&self, task: &Task) {
        let ports = ingress_ports(task);
        if ports.is_empty() {
            return;
        }
        let mut wanted = self.wanted();
        let tasks = &mut wanted.entry(task.service_id.clone()).or_default().tasks;
        let address = tasks.get(&task.id).and_then(|member| member.address);
        tasks.insert(task.id.clone(), Member { spec_version: task.internal.spec_version, ports, address });
    }

    /// The task serves at this address, or nowhere any more.
    pub(crate) fn serve(&self, task: &Task, address: Option<Ipv4Addr>) {
        if let Some(service) = self.wanted().get_mut(&task.service_id)
            && let Some(member) = service.tasks.get_mut(&task.id)
        {
            member.address = address;
        }
    }

    /// The task is gone.
    pub(crate) fn remove(&self, task: &Task) {
        let mut wanted = self.wanted();
        if let Some(service) = wanted.get_mut(&task.service_id) {
            service.tasks.remove(&task.id);
            if service.tasks.is_empty() {
                wanted.remove(&task.service_id);
            }
        }
    }

    /// Services that are wanted or published.
    pub(crate) fn services(&self) -> Vec<ServiceId> {
        self.wanted().keys().cloned().collect()
    }

    /// Whether what is published is not what is wanted.
    pub(crate) fn is_behind(&self, service: &ServiceId) -> bool {
        let applied = self.applied.lock().expect("nothing panics while it holds this lock");
        self.publication(service).as_ref() != applied.get(service)
    }

    fn publication(&self, service: &ServiceId) -> Option<Publication> {
        let wanted = self.wanted();
        let tasks = &wanted.get(service)?.tasks;
        let newest = tasks.values().max_by_key(|member| member.spec_version)?;
        let backends = tasks.values().filter_map(|member| member.address).collect();
        Some(Publication { ports: newest.ports.clone(), backends })
    }

    /// Brings the network to what is wanted for the service by the time it is this call's turn.
    pub(crate) async fn bring(&self, service: &ServiceId) -> Result<(), Failure> {
        let Ok(_turn) = self.turn.acquire().await else { return Ok(()) };
        if !self.is_behind(service) {
            return Ok(());
        }
        let publication = self.publication(service);
        self.containers.publish(service.clone(), publication.clone()).await?;
        let mut applied = self.applied.lock().expect("nothing panics while it holds this lock");
        match publication {
            Some(publication) => drop(applied.insert(service.clone(), publication)),
            None => drop(applied.remove(service)),
        }
        Ok(())
    }
}

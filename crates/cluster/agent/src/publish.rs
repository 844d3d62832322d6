//! Which local containers a service's ingress ports are spread over.
//!
//! In: tasks that became ready to serve, and tasks that stop. Out: calls that bring the network to that. The wanted state
//! changes at once; `bring` applies the newest one, one call at a time per machine, so that an older one never wins.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use network::{Backend, Protocol, ServicePort};
use objects::{PortProtocol, PublishMode, ServiceId, Task, TaskId, TaskState};
use tokio::sync::Semaphore;

use crate::containers::{Containers, Failure};

/// The tasks of a service.
type Members = BTreeMap<TaskId, Member>;

#[derive(Debug)]
struct Member {
    task: Arc<Task>,
    /// Set while it serves.
    address: Option<Ipv4Addr>,
}

/// What should be published.
#[derive(Clone)]
pub(crate) struct Publisher<C> {
    containers: C,
    wanted: Arc<Mutex<BTreeMap<ServiceId, Members>>>,
    applied: Arc<Mutex<BTreeMap<ServiceId, Vec<ServicePort>>>>,
    turn: Arc<Semaphore>,
}

/// An ingress port of a task.
struct IngressPort {
    protocol: Protocol,
    published: u16,
    target: u16,
}

fn ingress_ports(task: &Task) -> impl Iterator<Item = IngressPort> + '_ {
    let ingress = task.internal.ports.iter().filter(|port| port.publish_mode == PublishMode::Ingress);
    ingress.filter_map(|port| {
        Some(IngressPort {
            protocol: match port.protocol {
                PortProtocol::Tcp => Protocol::Tcp,
                PortProtocol::Udp => Protocol::Udp,
                PortProtocol::Sctp => Protocol::Sctp,
            },
            published: u16::try_from(port.published_port).ok()?,
            target: u16::try_from(port.target_port).ok()?,
        })
    })
}

/// The ports of the newest task that is wanted, each with every task that serves it, at that task's own port: an update
/// may change it. A task that is not wanted any more says nothing about the ports: history stays for long.
fn ports_of(members: &Members) -> Vec<ServicePort> {
    let wanted = members.values().filter(|member| member.task.desired_state <= TaskState::Running);
    let Some(newest) = wanted.max_by_key(|member| member.task.meta.created_at) else { return Vec::new() };
    let ports = ingress_ports(&newest.task).map(|port| ServicePort {
        protocol: port.protocol,
        published: port.published,
        backends: members.values().filter_map(|member| member.behind(&port)).collect(),
    });
    ports.collect()
}

impl Member {
    fn behind(&self, port: &IngressPort) -> Option<Backend> {
        let ip = self.address?;
        let is_same = |own: &IngressPort| own.protocol == port.protocol && own.published == port.published;
        let own = ingress_ports(&self.task).find(is_same)?;
        Some(Backend { ip, port: own.target })
    }
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

    fn wanted(&self) -> MutexGuard<'_, BTreeMap<ServiceId, Members>> {
        self.wanted.lock().expect("nothing panics while it holds this lock")
    }

    /// A task of the service is here; its ports are reserved from now on.
    pub(crate) fn add(&self, task: &Arc<Task>) {
        let mut wanted = self.wanted();
        let members = wanted.entry(task.service_id.clone()).or_default();
        let address = members.get(&task.id).and_then(|member| member.address);
        members.insert(task.id.clone(), Member { task: Arc::clone(task), address });
    }

    /// The task serves at this address, or nowhere any more.
    pub(crate) fn serve(&self, task: &Task, address: Option<Ipv4Addr>) {
        if let Some(members) = self.wanted().get_mut(&task.service_id)
            && let Some(member) = members.get_mut(&task.id)
        {
            member.address = address;
        }
    }

    /// The task is gone.
    pub(crate) fn remove(&self, task: &Task) {
        let mut wanted = self.wanted();
        if let Some(members) = wanted.get_mut(&task.service_id) {
            members.remove(&task.id);
            if members.is_empty() {
                wanted.remove(&task.service_id);
            }
        }
    }

    /// Services with tasks here.
    pub(crate) fn services(&self) -> Vec<ServiceId> {
        self.wanted().keys().cloned().collect()
    }

    /// Whether what is published is not what is wanted.
    pub(crate) fn is_behind(&self, service: &ServiceId) -> bool {
        let applied = self.applied.lock().expect("nothing panics while it holds this lock");
        self.ports(service) != applied.get(service).map_or(&[][..], Vec::as_slice)
    }

    fn ports(&self, service: &ServiceId) -> Vec<ServicePort> {
        self.wanted().get(service).map(ports_of).unwrap_or_default()
    }

    /// Brings the network to what is wanted for the service by the time it is this call's turn.
    pub(crate) async fn bring(&self, service: &ServiceId) -> Result<(), Failure> {
        let Ok(_turn) = self.turn.acquire().await else { return Ok(()) };
        if !self.is_behind(service) {
            return Ok(());
        }
        let ports = self.ports(service);
        self.containers.publish(service.clone(), ports.clone()).await?;
        let mut applied = self.applied.lock().expect("nothing panics while it holds this lock");
        if ports.is_empty() {
            applied.remove(service);
        } else {
            applied.insert(service.clone(), ports);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use objects::{PortConfig, Timestamp};

    use super::*;

    /// A task that serves, with its ports as (published, target).
    fn member(id: u8, desired: TaskState, ports: &[(u32, u32)]) -> (TaskId, Member) {
        let mut task = Task { id: id.to_string().as_str().into(), desired_state: desired, ..Task::default() };
        task.meta.created_at = Timestamp(i64::from(id));
        let port = |&(published_port, target_port)| PortConfig {
            published_port,
            target_port,
            ..PortConfig::default()
        };
        task.internal.ports = ports.iter().map(port).collect();
        // The number of the spec says nothing: after a rollback the newest task has an older one.
        task.internal.spec_version = u64::MAX - u64::from(id);
        let address = Some(Ipv4Addr::new(10, 0, 0, id));
        (task.id.clone(), Member { task: Arc::new(task), address })
    }

    fn check(members: Vec<(TaskId, Member)>, expect: &[&str]) {
        let ports = ports_of(&members.into_iter().collect());
        let text = |port: &ServicePort| {
            let backends: Vec<_> = port.backends.iter().map(|to| format!("{}:{}", to.ip, to.port)).collect();
            format!("{}/{} {}", port.published, port.protocol, backends.join(" "))
        };
        assert_eq!(ports.iter().map(text).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn tasks_that_are_not_wanted_any_more_say_nothing_about_the_ports() {
        use TaskState::{Running, Shutdown};
        let serving = || member(1, Running, &[(80, 80)]);
        check(vec![serving(), member(2, Shutdown, &[(81, 81)])], &["80/tcp 10.0.0.1:80"]);
        check(vec![member(1, Shutdown, &[(80, 80)])], &[]);
        // The newest one publishes nothing any more.
        check(vec![serving(), member(2, Running, &[])], &[]);
    }

    #[test]
    fn each_task_is_reached_at_its_own_port() {
        use TaskState::{Ready, Running, Shutdown};
        check(
            vec![
                member(1, Shutdown, &[(80, 8080)]),
                member(2, Running, &[(80, 8080)]),
                member(3, Ready, &[(80, 9090), (443, 9443)]),
            ],
            &["80/tcp 10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:9090", "443/tcp 10.0.0.3:9443"],
        );
    }
}

//! Plain containers of this machine on networks of the swarm: how the engine asks for places, and how the agent knows that
//! they are needed.
//!
//! ```text
//!   engine: a container starts ─► hold ─► a manager gives addresses ─► the agent was told of the network ─► start goes on
//!   agent: a place without a hold, whose container does not run ─► reported as over
//! ```
//!
//! In: what a container asks for. Out: its addresses, once this machine has the network. Nothing of it is on disk: who is
//! where follows from containers and assignments.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use engine::{Attaching, Place, PlaceError, PlaceWish, SwarmNetworks};
use objects::TaskId;
use tokio::sync::{Notify, watch};
use wire::Code;
use wire::attach::{AttachRequest, Attached};

use crate::dispatcher::CallFailed;
use crate::node::{Inner, SwarmNode};

/// How long a start waits for the network after it was given addresses. chosen: a session tells within milliseconds; one
/// that has just broken is replaced within seconds.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Shared by the engine's requests and the agent. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Attachments {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Containers that are being started, with how often.
    held: Mutex<BTreeMap<String, usize>>,
    /// Tasks that stand for containers here, whose networks are there; and whether they are over.
    assigned: watch::Sender<BTreeMap<TaskId, bool>>,
    let_go: Notify,
}

/// While it lives, the places of a container are needed although it may not run yet.
pub(crate) struct Hold {
    shared: Arc<Shared>,
    container: String,
}

impl Attachments {
    fn hold(&self, container: &str) -> Hold {
        *self.shared.held().entry(container.to_owned()).or_default() += 1;
        Hold { shared: Arc::clone(&self.shared), container: container.to_owned() }
    }

    /// Whether somebody starts this container.
    pub(crate) fn is_held(&self, container: &str) -> bool {
        self.shared.held().contains_key(container)
    }

    /// Returns when a hold has ended since the last call. Cancel safe.
    pub(crate) async fn let_go(&self) {
        self.shared.let_go.notified().await;
    }

    /// Notes that a task that stands for a container is assigned to this node, and whether it is over; `None`: it is gone.
    pub(crate) fn note(&self, task: &TaskId, is_over: Option<bool>) {
        self.shared.assigned.send_if_modified(|assigned| {
            let before = match is_over {
                Some(is_over) => assigned.insert(task.clone(), is_over),
                None => assigned.remove(task),
            };
            before != is_over
        });
    }

    /// Waits until the agent knows the task; whether it is over. `None` when it is not told of it in time.
    async fn known(&self, task: &TaskId) -> Option<bool> {
        self.until(|assigned| assigned.contains_key(task))
            .await
            .and_then(|assigned| assigned.get(task).copied())
    }

    /// Waits until the task is gone from this node.
    async fn gone(&self, task: &TaskId) {
        self.until(|assigned| !assigned.contains_key(task)).await;
    }

    async fn until(
        &self,
        is_so: impl FnMut(&BTreeMap<TaskId, bool>) -> bool,
    ) -> Option<BTreeMap<TaskId, bool>> {
        let mut assigned = self.shared.assigned.subscribe();
        let told = tokio::time::timeout(TOLD_WITHIN, assigned.wait_for(is_so)).await;
        told.ok()?.ok().map(|assigned| assigned.clone())
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.shared.held();
        if let Some(count) = held.get_mut(&self.container) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.container);
                self.shared.let_go.notify_one();
            }
        }
    }
}

/// This node's part in its swarm, as the engine asks it.
struct OfNode(Weak<Inner>);

impl SwarmNode {
    /// What the engine asks for places on networks of the swarm. It does not keep this node alive.
    #[must_use]
    pub fn swarm_networks(&self) -> Arc<dyn SwarmNetworks> {
        Arc::new(OfNode(Arc::downgrade(&self.inner)))
    }

    async fn place(&self, wish: PlaceWish) -> Result<Place, PlaceError> {
        let Some((gate, attachments)) = self.gate() else { return Err(PlaceError::NoSwarm) };
        let hold = attachments.hold(&wish.container_id);
        let request = AttachRequest {
            network: wish.network.clone(),
            container: wish.container_id,
            names: wish.names,
            addresses: wish.addresses,
        };
        loop {
            let asked = gate.attach(request.clone()).await;
            let attached = asked.map_err(|error| refused(&wish.network, &error))?;
            match attachments.known(&attached.task).await {
                Some(false) => return Ok(place(attached, hold)),
                // Of the container's last run: its end is on its way to the managers.
                Some(true) => attachments.gone(&attached.task).await,
                None => {
                    return Err(PlaceError::Refused(format!(
                        "Could not attach to network {}: the managers have not told this node of it",
                        wish.network
                    )));
                }
            }
        }
    }
}

impl SwarmNetworks for OfNode {
    fn attach(&self, wish: PlaceWish) -> Attaching {
        let node = self.0.upgrade().map(|inner| SwarmNode { inner });
        Box::pin(async move {
            match node {
                Some(node) => node.place(wish).await,
                None => Err(PlaceError::NoSwarm),
            }
        })
    }
}

fn place(attached: Attached, hold: Hold) -> Place {
    let bare = |text: &String| text.split('/').next().and_then(|ip| ip.parse::<IpAddr>().ok());
    let addresses: Vec<IpAddr> = attached.addresses.iter().filter_map(bare).collect();
    Place { network_id: attached.network, addresses, hold: Box::new(hold) }
}

/// Source of the text: moby, `daemon/container_operations.go` `findAndAttachNetwork`.
fn refused(network: &str, error: &CallFailed) -> PlaceError {
    match error.code() {
        Some(Code::NotFound) => PlaceError::NoNetwork,
        Some(code) => PlaceError::Refused(format!(
            "Could not attach to network {network}: rpc error: code = {code:?} desc = {}",
            error.bare()
        )),
        None => PlaceError::Refused(format!("Could not attach to network {network}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_container_is_held_until_the_last_start_of_it_has_ended() {
        let attachments = Attachments::default();
        let (first, second) = (attachments.hold("c"), attachments.hold("c"));
        drop(first);
        assert!(attachments.is_held("c") && !attachments.is_held("d"));
        drop(second);
        attachments.let_go().await;
        assert!(!attachments.is_held("c"));
    }

    #[tokio::test]
    async fn a_start_waits_for_its_task_to_be_assigned() {
        let (attachments, task) = (Attachments::default(), TaskId::from("t"));
        let (waiting, other) = (attachments.clone(), task.clone());
        let told = tokio::spawn(async move { waiting.known(&other).await });
        attachments.note(&task, Some(false));
        assert_eq!(told.await.unwrap(), Some(false));
        attachments.note(&task, Some(true));
        assert_eq!(attachments.known(&task).await, Some(true));
        attachments.note(&task, None);
        attachments.gone(&task).await;
    }
}

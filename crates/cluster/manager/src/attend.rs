//! Listens for signs of life and passes them on to the leader.
//!
//! In: pulses, broken connections, ended sessions. Out: notes for the leases, here or at the leader.

use std::time::Duration;

use objects::NodeId;
use raft::runtime;
use rpc::Visitors;
use rpc::pulse::{PulseKey, PulseServer};
use tokio::sync::broadcast;
use tokio::time::Instant;
use wire::Callers;
use wire::managers::Alive;

use crate::manager::Manager;
use crate::vitals::PULSES_PER_NEWS;

/// How long the leader has to take a message. chosen: a node without a sign of life is down after 1.8 s.
const TOLD_WITHIN: Duration = Duration::from_millis(800);

/// How long the connections of a removed node stay for its session to end in. chosen: an agent reads a message in
/// milliseconds; whatever else it asks for meanwhile is refused.
const LAST_WORD_WITHIN: Duration = Duration::from_millis(500);

/// Wait after the leader did not take a message. chosen: notes must not be lost, and an election takes longer.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

impl Manager {
    /// The key of a node's pulses; `None` for one that the swarm does not have.
    pub(crate) fn pulse_key(&self, node: &NodeId) -> Option<PulseKey> {
        let store = self.inner.consensus.read();
        store.node(node)?;
        let secret = pki::decode_base64(&store.cluster()?.internal.pulse_secret)?;
        (!secret.is_empty()).then(|| PulseKey::derive(&secret, node))
    }
}

/// Hears pulses until the manager stops.
pub(crate) async fn hear(manager: Manager, mut pulses: PulseServer) {
    loop {
        let heard = tokio::select! {
            () = manager.inner.stopping.cancelled() => return,
            heard = pulses.next(|node| manager.pulse_key(node)) => heard,
        };
        match heard {
            Ok(heard) => manager.inner.vitals.proof(&heard.node, &heard.session),
            Err(error) => {
                tracing::warn!(%error, "proofs of life cannot be received");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// Notes when the connections of a manager break, until this one stops: its process has most likely died, and with it the
/// session that its node has with itself.
pub(crate) async fn departures(manager: Manager, mut departures: broadcast::Receiver<NodeId>) {
    loop {
        let departed = tokio::select! {
            () = manager.inner.stopping.cancelled() => return,
            departed = departures.recv() => departed,
        };
        match departed {
            Ok(node) => {
                let manages = {
                    let store = manager.inner.consensus.read();
                    store.node(&node).is_some_and(|node| node.internal.raft_id != 0)
                };
                if manages {
                    manager.inner.vitals.departed(&node);
                }
            }
            // A hint that was missed is no loss: the session and raft's own calls tell the same.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Closes the connections of nodes that were removed, until the manager stops.
pub(crate) async fn send_away(manager: Manager, visitors: Visitors) {
    let stopping = manager.inner.stopping.clone();
    while stopping.run_until_cancelled(manager.inner.removals_ring.notified()).await.is_some() {
        // Its session has a last word for it.
        if stopping.run_until_cancelled(tokio::time::sleep(LAST_WORD_WITHIN)).await.is_none() {
            return;
        }
        visitors.disconnect(|peer| manager.turns_away(peer, Callers::Anyone).is_some());
    }
}

/// Tells the leader what was heard here, until the manager stops.
pub(crate) async fn tell_leader(manager: Manager) {
    let vitals = &manager.inner.vitals;
    let mut told = None;
    let every = || Duration::from_millis(manager.inner.sessions.common().period_ms.max(1)) * PULSES_PER_NEWS;
    let mut proofs_at = Instant::now() + every();
    loop {
        tokio::select! {
            () = manager.inner.stopping.cancelled() => return,
            () = vitals.rung() => {}
            () = runtime::rest(proofs_at.saturating_duration_since(Instant::now())) => {}
        }
        if proofs_at <= Instant::now() {
            manager.inner.sessions.prove(vitals, manager.inner.visitors.get());
            proofs_at = Instant::now() + every();
        }
        match tell_once(&manager, told).await {
            Ok(term) => told = term.or(told),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the leader was not told who lives"
                );
                proofs_at = Instant::now() + AFTER_FAILURE;
            }
        }
    }
}

/// Tells the leader what it does not know, if another manager leads; `told` is the last term of which the leader was told
/// everything. Gives the term of the leader that knows everything now.
async fn tell_once(manager: &Manager, told: Option<u64>) -> Result<Option<u64>, rpc::CallError> {
    let vitals = &manager.inner.vitals;
    // As it is now: what is watched may be behind, and what was heard must not be lost when this manager ceases to lead.
    let Some(leader) = manager.inner.consensus.leader() else { return Ok(None) };
    if leader.raft_id == manager.inner.raft_id {
        vitals.forget_news();
        return Ok(None);
    }
    let term = manager.inner.consensus.members().borrow().term;
    let Some(news) = vitals.news(told != Some(term)) else { return Ok(Some(term)) };
    let message = news.message();
    let client = &manager.inner.client;
    let told = if message.proves_only() {
        // Told twice it says the same.
        client.small_call::<Alive>(&leader.address, &message, TOLD_WITHIN).await
    } else {
        client.call::<Alive>(&leader.address, &message, TOLD_WITHIN).await
    };
    match told {
        Ok(answer) => Ok(Some(answer.term)),
        Err(error) => {
            vitals.untold(news);
            Err(error)
        }
    }
}

/// Tells everything to whoever leads next, as soon as there is somebody; a manager alone has nobody to tell.
pub(crate) async fn tell_next(manager: &Manager) {
    while manager.inner.consensus.members().borrow().members.len() > 1 {
        match tell_once(manager, None).await {
            Ok(Some(_)) => return,
            Ok(None) => {}
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the leader was not told who comes back"
            ),
        }
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

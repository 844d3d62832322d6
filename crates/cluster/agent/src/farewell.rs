//! How a node goes: it comes back after a restart of its daemon, or leaves for good.
//!
//! In: the open session. Out: a word to its manager, and for a manager that leaves, to the others. Nobody waits for long:
//! what is not heard is noticed by the silence.

use std::time::Duration;

use engine::Engine;
use manager::Manager;
use tokio::task::JoinSet;
use wire::session::{Farewell, Goodbye, GoodbyeRequest};

use crate::containers;
use crate::requests::{self, SwarmError};
use crate::ties::{Ties, With};

/// How long a daemon that stops on purpose may be away before its tasks move. Source: `docs/design/failure-detection.md`.
const HOLD: Duration = Duration::from_secs(30);

/// How long the manager may take to hear of a restart. chosen: the daemon's stop waits for it, and one round trip takes
/// milliseconds.
const HEARD_WITHIN: Duration = Duration::from_millis(500);

/// How long the others may take to let a manager go. chosen: one commit, or an election when it leads.
const LET_GO_WITHIN: Duration = Duration::from_secs(3);

/// Announces a restart of the daemon.
pub(crate) async fn hold(ties: &Ties) {
    let ms = u64::try_from(HOLD.as_millis()).unwrap_or(u64::MAX);
    say(ties, Farewell::Hold { ms }).await;
}

/// Announces that this node leaves the swarm, and takes its manager out of the log.
pub(crate) async fn leave(ties: &Ties, manager: Option<&Manager>) {
    say(ties, Farewell::Leaving).await;
    let Some(manager) = manager else { return };
    match tokio::time::timeout(LET_GO_WITHIN, Box::pin(manager.leave_raft(true))).await {
        Ok(Ok(())) => {}
        // The last one, or without a majority: there is nobody to take it out.
        Ok(Err(error)) => tracing::info!(
            error = &error as &dyn std::error::Error,
            "the swarm's log still counts on this manager"
        ),
        Err(_) => tracing::info!("the other managers did not let this one go in time"),
    }
}

async fn say(ties: &Ties, farewell: Farewell) {
    let Some(session) = ties.session.borrow().clone() else { return };
    let request = GoodbyeRequest { session: session.id.clone(), farewell };
    let said = match &session.with {
        With::Own(manager) => manager.goodbye(&ties.node, &request).map_err(|error| requests::chain(&error)),
        With::Remote(address) => {
            let call = ties.client.call::<Goodbye>(address, &request, HEARD_WITHIN).await;
            call.map(drop).map_err(|error| requests::chain(&error))
        }
    };
    if let Err(error) = said {
        tracing::info!(error, "the manager did not hear that this node goes");
    }
}

/// Removes every container of a task, then the swarm's networks: nobody is left who would.
pub(crate) async fn remove_containers(engine: &Engine) -> Result<(), SwarmError> {
    let mut removals = JoinSet::new();
    for state in engine.states() {
        if state.labels.contains_key(crate::container_spec::TASK_ID) {
            let engine = engine.clone();
            removals.spawn(async move { containers::remove(&engine, &state.id).await });
        }
    }
    let mut failed = None;
    while let Some(removed) = removals.join_next().await {
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed = Some(requests::failed("remove the swarm's containers", error)),
            Err(error) => failed = Some(requests::failed("remove the swarm's containers", error)),
        }
    }
    engine.network().leave_swarm().await;
    failed.map_or(Ok(()), Err)
}

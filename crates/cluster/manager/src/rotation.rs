//! Carries a change of the swarm's root through; runs while this manager leads.
//!
//! In: what `membership::trust` says is due. Out: nodes that are asked for new certificates, and at last the new root with
//! new join tokens.

use std::time::Duration;

use membership::trust;
use objects::Timestamp;
use pki::JoinToken;
use store::Write;

use crate::clock;
use crate::error::ManagerError;
use crate::manager::Manager;
use crate::propose::Beside;

/// Wait after a write that failed. chosen: nobody waits for it.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Until it is dropped.
pub(crate) async fn run(manager: Manager) {
    let mut last_batch = None;
    loop {
        match advance(&manager, &mut last_batch).await {
            Ok(wake_at) => tokio::select! {
                () = manager.inner.trust_ring.notified() => {}
                () = sleep_until(wake_at) => {}
            },
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the root's rotation got stuck");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        Some(at) => tokio::time::sleep(clock::until(at)).await,
        None => std::future::pending().await,
    }
}

/// Does what is due; gives when to look again.
async fn advance(
    manager: &Manager,
    last_batch: &mut Option<Timestamp>,
) -> Result<Option<Timestamp>, ManagerError> {
    let now = clock::now();
    let due = trust::advance(&manager.inner.consensus.read(), *last_batch, now);
    if due.is_finished {
        finish(manager).await?;
        return Ok(Some(now));
    }
    if !due.writes.is_empty() {
        tracing::info!(
            done = due.done,
            nodes = due.nodes,
            "nodes are asked for certificates of the new root"
        );
        *last_batch = Some(now);
        match manager.propose(due.writes).await {
            // One of them was written meanwhile; the next look finds who is left.
            Ok(_) | Err(ManagerError::OutOfSequence) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(due.wake_at)
}

async fn finish(manager: &Manager) -> Result<(), ManagerError> {
    let (worker, manage) = (pki::new_secret()?, pki::new_secret()?);
    manager
        .change(Beside::Nobody, |store, _| {
            let cluster = store.cluster().ok_or(ManagerError::NoCluster)?;
            let Some(rotation) = &cluster.internal.root_rotation else { return Ok(((), Vec::new())) };
            if !trust::advance(store, None, clock::now()).is_finished {
                return Ok(((), Vec::new()));
            }
            let token = |secret: &str| JoinToken::new(&rotation.ca_certificate, secret).to_string();
            let next = trust::finished(cluster, token(&worker), token(&manage));
            Ok(((), next.map(Write::update).into_iter().collect()))
        })
        .await?;
    tracing::info!("the swarm has a new root");
    Ok(())
}

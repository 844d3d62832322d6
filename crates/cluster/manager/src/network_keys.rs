//! Replaces the keys of encrypted networks; runs while this manager leads.
//!
//! In: what `membership::network_keys` says is due. Out: the keys in the cluster, from where every session tells them.

use std::time::Duration;

use membership::network_keys;
use store::Write;

use crate::clock;
use crate::error::ManagerError;
use crate::found::new_secrets;
use crate::manager::Manager;
use crate::propose::Beside;

/// Wait after a write that failed. chosen: the keys that there are still work.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Until it is dropped.
pub(crate) async fn run(manager: Manager) {
    loop {
        let now = clock::now();
        let due_at =
            manager.inner.consensus.read().cluster().map(|cluster| network_keys::due_at(cluster, now));
        let Some(due_at) = due_at else { return };
        if due_at > now {
            tokio::time::sleep(clock::until(due_at)).await;
        } else if let Err(error) = replace(&manager).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the keys of encrypted networks were not replaced"
            );
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}

async fn replace(manager: &Manager) -> Result<(), ManagerError> {
    let fresh = new_secrets()?;
    manager
        .change(Beside::Nobody, |store, _| {
            let cluster = store.cluster().ok_or(ManagerError::NoCluster)?;
            let now = clock::now();
            let is_due = network_keys::due_at(cluster, now) <= now;
            let next = is_due.then(|| network_keys::replaced(cluster, fresh.clone(), now));
            Ok(((), next.map(Write::update).into_iter().collect()))
        })
        .await?;
    tracing::info!("encrypted networks have a new key");
    Ok(())
}

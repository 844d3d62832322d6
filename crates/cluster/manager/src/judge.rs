//! Keeps the state of the nodes true to what was heard of them; runs while this manager leads.
//!
//! In: the leases. Out: node statuses. Waits until a lease runs out or something is heard that may shorten one.

use std::time::Duration;

use membership::LeaseTimes;
use store::{Store, Write};

use crate::clock;
use crate::manager::Manager;
use crate::propose::Beside;

/// Wait after a write that failed. chosen: the judgement is repeated until the store agrees.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Until it is dropped.
pub(crate) async fn run(manager: Manager) {
    let vitals = &manager.inner.vitals;
    let _leading = vitals.lead();
    {
        let store = manager.inner.consensus.read();
        vitals.with_leases(|leases, now| {
            leases.set_times(times(&store), now);
            leases.lead(&store, now);
        });
    }
    loop {
        let wake_at = vitals.with_leases(|leases, _| leases.wake_at());
        tokio::select! {
            () = vitals.noted() => {}
            () = sleep_until(&manager, wake_at) => {}
        }
        if let Err(error) = judge(&manager).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the state of nodes was not written");
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}

async fn sleep_until(manager: &Manager, at: Option<membership::Moment>) {
    match at {
        Some(at) => raft::runtime::rest(manager.inner.vitals.until(at)).await,
        None => std::future::pending().await,
    }
}

fn times(store: &Store) -> LeaseTimes {
    let period = store.cluster().map(|cluster| cluster.spec.dispatcher.heartbeat_period);
    LeaseTimes::of(period.unwrap_or_default())
}

async fn judge(manager: &Manager) -> Result<(), crate::ManagerError> {
    let judgements = {
        let store = manager.inner.consensus.read();
        let wall = clock::now();
        manager.inner.vitals.with_leases(|leases, now| {
            leases.set_times(times(&store), now);
            leases.judge(&store, now, wall)
        })
    };
    if judgements.is_empty() {
        return Ok(());
    }
    for judgement in &judgements {
        tracing::info!(
            node.id = %judgement.node,
            state = judgement.state.as_str(),
            message = judgement.message,
            "a node's state changes"
        );
    }
    let decide = |store: &Store, _: &mut objects::IdSource| {
        let now = clock::now();
        let writes: Vec<Write> =
            judgements.iter().filter_map(|judgement| judgement.write(store, now)).collect();
        Ok(((), writes))
    };
    manager.change(Beside::Others, decide).await.map(drop)
}

//! What only the leader does, for as long as it leads.
//!
//! In: whether this manager leads. Out: the loops that decide, all started afresh from the store when leadership is
//! gained, all ended when it is lost. What a loop must remember lives in the objects.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::manager::Manager;
use crate::{control_loop, found, judge, members, network_keys, rotation};

/// Wait after a write that failed. chosen: a leader that cannot write is replaced.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Until the manager stops.
pub(crate) async fn run(manager: Manager) {
    let mut members = manager.inner.consensus.members();
    let stopping = manager.inner.stopping.clone();
    while !stopping.is_cancelled() {
        let term = {
            let now = members.borrow_and_update();
            (now.leader == Some(manager.inner.raft_id)).then_some(now.term)
        };
        if let Some(term) = term {
            lead(&manager, term).await;
            continue;
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = members.changed() => if changed.is_err() { return },
        }
    }
}

/// Leads until this term is over.
async fn lead(manager: &Manager, term: u64) {
    let over = term_is_over(manager, term);
    let work = async {
        if !manager.settled().await {
            return std::future::pending().await;
        }
        while let Err(error) = found::complete(manager, false).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the swarm was not completed");
            tokio::time::sleep(AFTER_FAILURE).await;
        }
        tracing::info!(term, "this manager leads the swarm");
        let mut loops = JoinSet::new();
        let mut run = |name: &'static str, work: futures_util::future::BoxFuture<'static, ()>| {
            loops.spawn(async move {
                work.await;
                name
            });
        };
        run("control", Box::pin(control_loop::run(manager.clone())));
        run("leases", Box::pin(judge::run(manager.clone())));
        run("roles", Box::pin(members::run_roles(manager.clone())));
        run("reachability", Box::pin(members::run_reachability(manager.clone())));
        run("root rotation", Box::pin(rotation::run(manager.clone())));
        run("network keys", Box::pin(network_keys::run(manager.clone())));
        while let Some(ended) = loops.join_next().await {
            match ended {
                Ok(name) => tracing::debug!(name, "a loop of the leader has ended"),
                Err(error) => tracing::error!(%error, "a loop of the leader ended badly"),
            }
        }
        // They end when the log stops; nothing is left to be done then.
        std::future::pending::<()>().await;
    };
    // Dropping the set ends every loop where it waits: what it proposed is committed or not, as after a crash.
    tokio::select! {
        () = over => tracing::info!(term, "this manager leads no more"),
        () = manager.inner.stopping.cancelled() => {}
        () = work => {}
    }
}

fn term_is_over(manager: &Manager, term: u64) -> impl Future<Output = ()> + use<> {
    let mut members = manager.inner.consensus.members();
    let raft_id = manager.inner.raft_id;
    async move {
        loop {
            {
                let now = members.borrow_and_update();
                if now.leader != Some(raft_id) || now.term != term {
                    return;
                }
            }
            if members.changed().await.is_err() {
                return;
            }
        }
    }
}

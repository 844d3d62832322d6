//! Keeps the manager of a member running: one that cannot be opened, or whose disk failed, is opened again.
//!
//! In: what it is opened with. Out: whether it runs, whenever that changes. Ends when it is told to; the manager that
//! runs then is its caller's to stop. Never gives up: the disk may have room again at any time.

use std::error::Error;
use std::time::Duration;

use manager::{Manager, ManagerConfig};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::requests;

/// Wait after a failure. Source: swarmkit restarts a component after 100 ms.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The longest such wait; one that ran for longer starts anew. Source: swarmkit, 30 s.
const AFTER_FAILURES: Duration = Duration::from_secs(30);

/// Whether a manager runs here.
pub(crate) enum Standing {
    /// This one, from now on.
    Runs(Manager),
    /// None, and why.
    IsDown(String),
}

/// Runs until `stopping`; `first` runs already.
pub(crate) async fn keep(
    config: ManagerConfig,
    first: Option<Manager>,
    tell: impl Fn(Standing),
    stopping: CancellationToken,
) {
    let mut running = first;
    let mut wait = Duration::ZERO;
    loop {
        if let Some(manager) = running.take() {
            let since = Instant::now();
            let Some(failed) = stopping.run_until_cancelled(manager.failed()).await else { return };
            tell(down(&failed));
            manager.stop().await;
            if since.elapsed() > AFTER_FAILURES {
                wait = Duration::ZERO;
            }
        } else {
            let Some(opened) = stopping.run_until_cancelled(Manager::open(config.clone())).await else {
                return;
            };
            match opened {
                Ok(manager) => {
                    tell(Standing::Runs(manager.clone()));
                    running = Some(manager);
                    continue;
                }
                Err(error) => tell(down(&error)),
            }
        }
        wait = (wait * 2).clamp(AFTER_FAILURE, AFTER_FAILURES);
        if stopping.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

fn down(error: &(dyn Error + 'static)) -> Standing {
    tracing::error!(error, "the manager does not run");
    Standing::IsDown(requests::chain(error))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use objects::{Availability, ClusterSpec, NodeDescription, Timestamp};
    use tokio::sync::mpsc;

    use super::*;

    fn config(root: &Path) -> ManagerConfig {
        let address = "127.0.0.1:2377".to_owned();
        ManagerConfig { directory: root.join("raft"), node: "node1".into(), raft_id: 7, address }
    }

    async fn found(root: &Path) -> Manager {
        let founding = manager::Founding {
            cluster: "cluster1".into(),
            spec: ClusterSpec::default().with_defaults(),
            authority: pki::Authority::create(Timestamp::from_secs(1_700_000_000)).unwrap(),
            certificate: String::new(),
            description: NodeDescription::default(),
            availability: Availability::Active,
            node_address: "127.0.0.1".to_owned(),
            address_pools: vec!["10.0.0.0/8".to_owned()],
            subnet_size: 24,
            data_path_port: 4789,
        };
        Manager::found(config(root), founding).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_manager_that_stopped_or_cannot_be_opened_is_opened_until_it_runs() {
        let root = tempfile::tempdir().unwrap();
        let first = found(root.path()).await;
        let (sender, mut told) = mpsc::unbounded_channel();
        let tell = move |standing| sender.send(standing).unwrap();
        let stopping = CancellationToken::new();
        let (raft, away) = (root.path().join("raft"), root.path().join("away"));
        std::fs::rename(&raft, &away).unwrap();
        let kept = tokio::spawn(keep(config(root.path()), Some(first.clone()), tell, stopping.clone()));
        first.stop().await;
        let Some(Standing::IsDown(error)) = told.recv().await else { panic!("it stopped") };
        assert!(error.starts_with("the swarm's manager has stopped"), "{error}");
        let Some(Standing::IsDown(error)) = told.recv().await else { panic!("there is no log") };
        assert!(error.starts_with("open the swarm's log"), "{error}");
        // Over an empty directory: the attempts to open it made that one.
        std::fs::rename(&away, &raft).unwrap();
        let second = loop {
            match told.recv().await.unwrap() {
                Standing::IsDown(_) => {}
                Standing::Runs(manager) => break manager,
            }
        };
        assert!(second.swarm().is_ok());
        stopping.cancel();
        kept.await.unwrap();
        second.stop().await;
    }
}

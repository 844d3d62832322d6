//! Managers of one swarm in one process: founded, joined, promoted by certificate alone, opened again, demoted.

use objects::Nanos;
use wire::join::Issued;

use super::*;
use crate::bench::Bench;
use crate::fake_manager::{Swarm, within};

const HOUR: Nanos = Nanos::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_stopped_or_cannot_be_opened_is_opened_until_it_runs() {
    let (mut bench, first) = Bench::found(&Swarm::new(), HOUR).await;
    bench.runs().await;
    let (raft, away) = (bench.directory().join("raft"), bench.directory().join("away"));
    std::fs::rename(&raft, &away).unwrap();
    first.stop().await;
    let Standing::IsDown(error) = bench.told().await else { panic!("it stopped") };
    assert!(error.starts_with("the swarm's manager has stopped"), "{error}");
    let Standing::IsDown(error) = bench.told().await else { panic!("there is no log") };
    assert!(error.starts_with("open the swarm's log"), "{error}");
    // Over an empty directory: the attempts to open it made that one.
    std::fs::rename(&away, &raft).unwrap();
    let second = bench.runs().await;
    within(second.ready()).await.unwrap();
    assert!(second.swarm().is_ok());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_alone_makes_a_node_a_manager_and_a_worker_again() {
    let swarm = Swarm::new();
    let (mut first, leader) = Bench::found(&swarm, HOUR).await;
    // The second node is one of the swarm by the usual way: a token.
    let mut second = Bench::join(&first, &leader, "Manager").await;
    assert_eq!(second.premises.membership.get().managers.len(), 1);
    second.keep(None);
    assert!(matches!(second.told().await, Standing::IsJoining));
    let joined = second.runs().await;
    assert!(joined.swarm().is_ok() && !joined.is_leader());
    assert!(second.premises.membership.get().is_voter);
    // Opened again, it is a member at once.
    second.stop().await;
    second.keep(None);
    second.runs().await;
    // A worker's certificate ends it and leaves nothing of the log.
    let credentials = &second.premises.ties.credentials;
    let node = second.premises.ties.node.to_string();
    let issued = Issued {
        certificate: swarm.certify(&credentials.request().unwrap(), &node, NodeRole::Worker),
        ..Issued::default()
    };
    // `certify` names the test's swarm, which is the founded one.
    credentials.take(&issued, requests::now()).unwrap();
    while !matches!(second.told().await, Standing::IsWorker) {}
    let raft = second.premises.directory.clone();
    let is_gone = async {
        while raft.exists() || second.premises.membership.get().raft_id != 0 {
            tokio::task::yield_now().await;
        }
    };
    within(is_gone).await;
    second.stop().await;
    first.stop().await;
}

//! What becomes of the roles in a forced new cluster.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::time::Duration;

use raft::Start;

use super::*;
use crate::testing::{self, NODE};
use crate::transport::Refuser;

/// A log of a swarm with two managers of which this one was about to become a worker; nobody has it open.
async fn left(papers: &testing::Papers, root: &std::path::Path) {
    let manager = papers.found_over(std::sync::Arc::new(raft::NoTransport), root).await;
    let mut own = Node::clone(manager.inner.consensus.read().node(&NODE.into()).unwrap());
    own.spec.role = NodeRole::Worker;
    let mut other = Node { id: "node2".into(), ..own.clone() };
    other.spec.role = NodeRole::Manager;
    manager.propose(vec![Write::update(own), Write::Create(other.into())]).await.unwrap();
    manager.stop().await;
}

fn role(manager: &Manager, node: &str) -> NodeRole {
    manager.inner.consensus.read().node(&node.into()).unwrap().spec.role
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_new_cluster_has_this_manager_and_no_other() {
    let root = tempfile::tempdir().unwrap();
    let papers = testing::papers();
    left(&papers, root.path()).await;
    let manager = Manager::force_new_cluster(papers.config(root.path())).await.unwrap();
    assert_eq!((role(&manager, NODE), role(&manager, "node2")), (NodeRole::Manager, NodeRole::Worker));
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_the_log_was_taken_over_changes_nothing_about_that() {
    let root = tempfile::tempdir().unwrap();
    let papers = testing::papers();
    left(&papers, root.path()).await;
    let way = std::sync::Arc::new(raft::NoTransport);
    let crashed =
        Manager::open_log_over(way, Refuser::default(), papers.config(root.path()), Start::ForceNewCluster)
            .await;
    crashed.unwrap().stop().await;
    let manager = Manager::open(papers.config(root.path())).await.unwrap();
    let settled = async {
        while (role(&manager, NODE), role(&manager, "node2")) != (NodeRole::Manager, NodeRole::Worker) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.expect("the roles are settled");
    // A manager that joins later stays one.
    let joins = |store: &Store, _: &mut objects::IdSource| {
        let mut other = Node::clone(store.node(&"node2".into()).unwrap());
        other.spec.role = NodeRole::Manager;
        Ok(((), vec![Write::update(other)]))
    };
    manager.change(Beside::Others, joins).await.unwrap();
    manager.stop().await;
    let manager = Manager::open(papers.config(root.path())).await.unwrap();
    complete(&manager, false).await.unwrap();
    assert_eq!(role(&manager, "node2"), NodeRole::Manager);
    manager.stop().await;
}

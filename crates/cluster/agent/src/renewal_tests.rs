//! Certificates that end while a swarm works: real managers, renewals and sessions on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manager::Manager;
use objects::{ClusterSpec, ContainerSpec, Nanos, ServiceMode, ServiceSpec, TaskSpec};

use super::*;
use crate::bench::Bench;
use crate::fake_manager::{Swarm, within};

/// How long certificates last here: they are renewed within the first 60 % of it, which leaves a busy machine the rest.
const SHORT: Nanos = Nanos::from_secs(12);

/// A swarm of three managers and a worker, all with a session.
async fn swarm(authority: &Swarm, expiry: Nanos) -> Vec<Bench> {
    let (mut first, leader) = Bench::found(authority, expiry).await;
    first.live();
    first.is_taken().await;
    let mut nodes = vec![first];
    for role in ["Manager", "Manager", "Worker"] {
        let mut node = Bench::join(&nodes[0], &leader, role).await;
        node.keep(None);
        node.live();
        if role == "Manager" {
            within(node.runs().await.ready()).await.unwrap();
        }
        node.is_taken().await;
        nodes.push(node);
    }
    nodes
}

fn manager(node: &Bench) -> Manager {
    node.premises.ties.own.borrow().clone().expect("it is a manager")
}

async fn write(manager: &Manager, number: usize) -> Result<(), ManagerError> {
    let container = ContainerSpec { image: "nginx".to_owned(), ..ContainerSpec::default() };
    let spec = ServiceSpec {
        name: format!("service{number}"),
        task_template: TaskSpec { container_spec: Some(container), ..TaskSpec::default() },
        mode: ServiceMode::replicas(0),
        ..ServiceSpec::default()
    };
    manager.create_service(spec, None).await.map(drop)
}

/// Waits until a node has taken two more certificates, and has one when the present one has run out.
async fn is_renewed(node: &Bench) {
    let mut follow = node.premises.ties.credentials.follow();
    let first = follow.borrow_and_update().facts.valid_until;
    let mut taken = 0;
    while taken < 2 || requests::now() <= first {
        follow.changed().await.unwrap();
        taken += 1;
    }
    assert!(!follow.borrow().is_expired(requests::now()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_while_writes_go_on_and_no_session_is_dropped() {
    let authority = Swarm::new();
    let mut nodes = swarm(&authority, SHORT).await;
    // A node is taken a moment before its session is counted.
    within(async {
        while nodes.iter().any(|node| node.sessions() == 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let sessions: Vec<usize> = nodes.iter().map(Bench::sessions).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let (follower, over) = (manager(&nodes[1]), Arc::clone(&is_over));
    let load = tokio::spawn(async move {
        let mut written = 0;
        while !over.load(Ordering::Relaxed) {
            write(&follower, written).await.unwrap();
            written += 1;
        }
        written
    });
    let renewed = futures_util::future::join_all(nodes.iter().map(is_renewed));
    tokio::time::timeout(Duration::from_secs(120), renewed).await.unwrap();
    is_over.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 10);
    write(&manager(&nodes[2]), usize::MAX).await.unwrap();
    assert_eq!(nodes.iter().map(Bench::sessions).collect::<Vec<_>>(), sessions);
    for node in &mut nodes {
        node.stop().await;
    }
}

/// Stops these nodes, lets their certificates run out, and starts them again.
async fn sleep_past_the_end(authority: &Swarm, nodes: Vec<Bench>) -> Vec<Bench> {
    let mut again = Vec::new();
    let mut stopped = Vec::new();
    for mut node in nodes {
        node.stop().await;
        stopped.push(node);
    }
    for node in stopped {
        let credentials = node.premises.ties.credentials.clone();
        let identity = credentials.certified().identity;
        let old = authority.certify_long_ago(&credentials.request().unwrap(), &identity);
        drop(credentials);
        let mut node = node.again_with(old);
        assert!(node.premises.ties.credentials.certified().is_expired(requests::now()));
        node.keep(None);
        node.live();
        again.push(node);
    }
    for node in &again {
        node.is_taken().await;
        assert!(!node.premises.ties.credentials.certified().is_expired(requests::now()));
    }
    again
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_and_whole_swarms_that_slept_past_their_certificates_come_back() {
    let authority = Swarm::new();
    let expiry = ClusterSpec::default().with_defaults().ca_config.node_cert_expiry;
    let mut nodes = swarm(&authority, expiry).await;
    let away = nodes.split_off(2);
    // A manager and a worker, while the others go on.
    let mut back = sleep_past_the_end(&authority, away).await;
    within(back[0].runs().await.ready()).await.unwrap();
    nodes.append(&mut back);
    // Everybody: no manager accepts another one until they have renewed their own.
    let mut nodes = sleep_past_the_end(&authority, nodes).await;
    for (number, node) in nodes.iter_mut().take(3).enumerate() {
        let manager = node.runs().await;
        within(write(&manager, number)).await.unwrap();
    }
    for node in &mut nodes {
        node.stop().await;
    }
}

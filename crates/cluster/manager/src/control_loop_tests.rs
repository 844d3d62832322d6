//! The control loop over a log whose other voter can be cut off at a chosen moment.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use docker::filters::Filters;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use raft::{Call, CallError, Consensus, Member, RaftConfig, SnapshotStream, Start, Transport};

use super::*;
use crate::testing;

/// What an entry has that makes tasks.
const MAKES_TASKS: &[u8] = br#"{"create":{"task""#;

/// The way from the leader to the other voter, which never asks for anything itself.
#[derive(Default)]
struct Way {
    other: Mutex<Option<Consensus>>,
    /// Whether an entry that makes tasks was on its way.
    has_tasks: AtomicBool,
    /// Nothing passes.
    is_cut: AtomicBool,
    /// Entries that make tasks do not pass.
    is_narrow: AtomicBool,
}

fn is_in(body: &[u8], what: &[u8]) -> bool {
    body.windows(what.len()).any(|window| window == what)
}

impl Transport for Way {
    fn call(
        &self,
        _to: &Member,
        call: Call,
        body: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let silent = || Err(CallError::Silent("cut".into()));
        let makes_tasks = is_in(&body, MAKES_TASKS);
        if makes_tasks && !self.has_tasks.swap(true, Ordering::SeqCst) {
            self.is_cut.store(true, Ordering::SeqCst);
            self.is_narrow.store(true, Ordering::SeqCst);
        }
        let is_stopped =
            self.is_cut.load(Ordering::SeqCst) || (makes_tasks && self.is_narrow.load(Ordering::SeqCst));
        let other = self.other.lock().unwrap().clone();
        async move {
            let Some(other) = other.filter(|_| !is_stopped) else { return silent() };
            other.answer(call, body).await.map_err(|error| CallError::Refused(error.into()))
        }
        .boxed()
    }

    fn snapshot(
        &self,
        _to: &Member,
        _header: Bytes,
        _body: SnapshotStream,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        async { Err(CallError::Silent("none is needed".into())) }.boxed()
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let looked = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looked).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_nobody_answered_for_is_not_made_twice() {
    let root = tempfile::tempdir().unwrap();
    let way = Arc::new(Way::default());
    let papers = testing::papers();
    let manager = papers.found_over(way.clone(), root.path()).await;
    let other = Consensus::open(RaftConfig {
        disk: Arc::new(raft::Directory::new(root.path().join("other")).unwrap()),
        node: 2,
        address: "other:1".to_owned(),
        start: Start::Join { epoch: manager.inner.consensus.epoch() },
        keys: testing::keys(),
        transport: Arc::new(raft::NoTransport),
    });
    let other = other.await.unwrap();
    *way.other.lock().unwrap() = Some(other.clone());
    let member = Member { raft_id: 2, address: "other:1".to_owned() };
    manager.inner.consensus.add_learner(member).await.unwrap();
    manager.inner.consensus.promote(2).await.unwrap();
    // A member of nobody would be taken out.
    let mut node = objects::Node { id: "node2".into(), ..objects::Node::default() };
    node.spec.role = objects::NodeRole::Manager;
    node.internal.raft_id = 2;
    node.internal.certified_role = objects::NodeRole::Manager;
    manager.propose(vec![store::Write::Create(node.into())]).await.unwrap();
    manager.run(Vec::new());
    manager.create_service(testing::spec("web", 2), None).await.unwrap();
    until("tasks are decided", || way.has_tasks.load(Ordering::SeqCst)).await;
    until("the quorum is lost", || !manager.is_leader()).await;
    way.is_cut.store(false, Ordering::SeqCst);
    until("the quorum is back", || manager.is_leader()).await;
    // Long enough for whoever would decide again at once, on a store without the tasks.
    tokio::time::sleep(Duration::from_millis(300)).await;
    way.is_narrow.store(false, Ordering::SeqCst);
    until("the tasks are there", || manager.inner.consensus.read().task_count() > 0).await;
    manager.settle().await.unwrap();
    assert_eq!(manager.tasks(&Filters::default()).unwrap().len(), 2);
    manager.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_has_the_time_of_its_decision() {
    let root = tempfile::tempdir().unwrap();
    let manager = testing::papers().found_over(Arc::new(raft::NoTransport), root.path()).await;
    let at = Timestamp::from_secs(42);
    let service = objects::Service::new("web".into(), testing::spec("web", 0));
    let parts = Parts::new(&manager.inner.consensus.read(), vec![store::Write::Create(service.into())]);
    propose(&manager, at, parts).await.unwrap();
    let written = manager.inner.consensus.read().service_named("web").unwrap().meta.updated_at;
    assert_eq!(written, at);
    manager.stop().await;
}

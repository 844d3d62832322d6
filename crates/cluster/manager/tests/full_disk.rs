//! A manager whose disk takes no more writes says so, and goes on after it was opened again.
//!
//! A program of its own: the limit that stands for the full disk holds for the whole process.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use manager::{Manager, ManagerError, Origin};
use objects::{NodeId, NodeRole};
use pki::Authority;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Papers, description, now, soon, spec};
use tokio::signal::unix::{SignalKind, signal};
use wire::session::{Assignments, OpenRequest, SessionMessage};

const NODE: &str = "node1";
/// Sent to who writes beyond its limit; caught, the write fails. Source: signal(7).
const SIGXFSZ: i32 = 25;

/// Until it is dropped no file takes more than a byte.
struct FullDisk(Rlimit);

impl FullDisk {
    fn new() -> Self {
        let before = getrlimit(Resource::Fsize);
        setrlimit(Resource::Fsize, Rlimit { current: Some(1), maximum: before.maximum }).unwrap();
        Self(before)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // Nothing is left to fail: the limit only goes back to what it was.
        setrlimit(Resource::Fsize, self.0).unwrap_or_default();
    }
}

async fn create(manager: &Manager, name: &str) -> Result<(), ManagerError> {
    manager.create_service(spec(name, 0), None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_goes_on_after_its_disk_was_full() {
    let _caught = signal(SignalKind::from_raw(SIGXFSZ)).unwrap();
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::create(now()).unwrap();
    let papers = Papers::certified(&authority, NODE, NodeRole::Manager);
    let config = || papers.config(root.path(), 7, "127.0.0.1:2377").0;
    let manager = support::found(root.path(), &papers, &authority).await;
    let opening = OpenRequest { description: description("host1"), now: now(), ..OpenRequest::default() };
    let mut session = manager.open_session(&NodeId::from(NODE), opening, Origin::Here).await.unwrap();
    assert!(matches!(soon(session.next()).await, Some(SessionMessage::Hello(_))));
    let complete = soon(session.next()).await;
    assert!(matches!(complete, Some(SessionMessage::Assignments(Assignments::Complete(_)))));
    create(&manager, "before").await.unwrap();

    let full = FullDisk::new();
    soon(create(&manager, "refused")).await.unwrap_err();
    soon(manager.failed()).await;
    soon(manager.stop()).await;
    let mut last = soon(session.next()).await;
    while let Some(message) = last {
        let is_end = matches!(message, SessionMessage::Bye(_));
        last = soon(session.next()).await;
        assert!(!is_end || last.is_none(), "the session ends with its manager");
    }
    assert!(soon(Manager::open(config())).await.is_err(), "the disk is still full");
    drop(full);

    // The old manager is still held here, as by a request that is under way.
    let reopened = soon(Manager::open(config())).await.unwrap();
    assert!(reopened.service("before", false).is_ok());
    create(&reopened, "after").await.unwrap();
    reopened.stop().await;
    drop(manager);
}

//! A manager whose disk takes no more writes says so, and goes on after it was opened again.
//!
//! A program of its own: the limit that stands for the full disk holds for the whole process.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use manager::{Assignments, Founding, Manager, ManagerConfig, ManagerError};
use objects::{
    Availability, ClusterSpec, ContainerSpec, NodeDescription, NodeId, ServiceMode, ServiceSpec, TaskSpec,
    Timestamp,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

const NODE: &str = "node1";
const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);
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

fn config(directory: &Path) -> ManagerConfig {
    let address = "127.0.0.1:2377".to_owned();
    ManagerConfig { directory: directory.to_owned(), node: NODE.into(), raft_id: 7, address }
}

async fn found(directory: &Path) -> Manager {
    let founding = Founding {
        cluster: "cluster1".into(),
        spec: ClusterSpec::default().with_defaults(),
        authority: pki::Authority::create(NOW).unwrap(),
        certificate: String::new(),
        description: NodeDescription::default(),
        availability: Availability::Active,
        node_address: "127.0.0.1".to_owned(),
        address_pools: vec!["10.0.0.0/8".to_owned()],
        subnet_size: 24,
        data_path_port: 4789,
    };
    Manager::found(config(directory), founding).await.unwrap()
}

async fn create(manager: &Manager, name: &str) -> Result<(), ManagerError> {
    let container = ContainerSpec { image: "nginx".to_owned(), ..ContainerSpec::default() };
    let task_template = TaskSpec { container_spec: Some(container), ..TaskSpec::default() };
    let spec = ServiceSpec {
        name: name.to_owned(),
        task_template,
        mode: ServiceMode::replicas(0),
        ..ServiceSpec::default()
    };
    manager.create_service(spec, None).await.map(drop)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it does not come")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_goes_on_after_its_disk_was_full() {
    let _caught = signal(SignalKind::from_raw(SIGXFSZ)).unwrap();
    let root = tempfile::tempdir().unwrap();
    let manager = found(root.path()).await;
    let mut session =
        manager.open_session(&NodeId::from(NODE), NodeDescription::default(), "127.0.0.1").await.unwrap();
    assert!(matches!(soon(session.next()).await, Some(Assignments::Complete(_))));
    create(&manager, "before").await.unwrap();

    let full = FullDisk::new();
    soon(create(&manager, "refused")).await.unwrap_err();
    soon(manager.failed()).await;
    soon(manager.stop()).await;
    assert!(soon(session.next()).await.is_none(), "the session ends with its manager");
    assert!(soon(Manager::open(config(root.path()))).await.is_err(), "the disk is still full");
    drop(full);

    // The old manager is still held here, as by a request that is under way.
    let reopened = soon(Manager::open(config(root.path()))).await.unwrap();
    assert!(reopened.service("before", false).is_ok());
    create(&reopened, "after").await.unwrap();
    reopened.stop().await;
    drop(manager);
}

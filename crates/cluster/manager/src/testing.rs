//! What the tests inside of this crate start from: a manager that talks to nobody, or over a way of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::Path;
use std::sync::Arc;

use objects::{
    Availability, ClusterSpec, ContainerSpec, Nanos, NodeDescription, NodeRole, ServiceMode, ServiceSpec,
    TaskSpec,
};
use pki::{Authority, Identity, NodeKey};
use raft::{DataKey, DataKeys, Start, Transport};
use rpc::{Client, Tls};
use tokio::sync::watch;

use crate::certify::Credentials;
use crate::clock;
use crate::found::{self, Founding};
use crate::manager::{Manager, ManagerConfig};
use crate::transport::Refuser;

pub(crate) const NODE: &str = "node1";
const CLUSTER: &str = "cluster1";

/// A manager's node: its authority, key and certificate.
pub(crate) struct Papers {
    authority: Authority,
    key: NodeKey,
    chain: String,
}

pub(crate) fn keys() -> DataKeys {
    DataKeys::only(DataKey::new([7; raft::DATA_KEY_BYTES]))
}

pub(crate) fn papers() -> Papers {
    let now = clock::now();
    let authority = Authority::create(now).unwrap();
    let key = NodeKey::generate().unwrap();
    let identity = Identity { node: NODE.into(), role: NodeRole::Manager, cluster: CLUSTER.into() };
    let chain =
        authority.certify(&key.request().unwrap(), &identity, now, Nanos::from_secs(90 * 86_400)).unwrap();
    Papers { authority, key, chain }
}

impl Papers {
    pub(crate) fn config(&self, root: &Path) -> ManagerConfig {
        let credentials = rpc::Credentials {
            certificate: self.chain.clone(),
            key: self.key.pem().to_owned(),
            roots: self.authority.certificate.clone(),
        };
        let (_, shown) = watch::channel(Credentials { chain: self.chain.clone(), key: self.key.clone() });
        ManagerConfig {
            directory: root.join("raft"),
            node: NODE.into(),
            cluster: CLUSTER.into(),
            raft_id: 1,
            address: "127.0.0.1:1".to_owned(),
            keys: keys(),
            client: Client::new(Tls::new(&credentials).unwrap()),
            credentials: shown,
        }
    }

    /// A founded swarm whose manager does nothing yet, with its log over `transport`.
    pub(crate) async fn found_over(&self, transport: Arc<dyn Transport>, root: &Path) -> Manager {
        let manager = Manager::open_log_over(transport, Refuser::default(), self.config(root), Start::Found)
            .await
            .unwrap();
        let founding = Founding {
            cluster: CLUSTER.into(),
            spec: ClusterSpec::default().with_defaults(),
            authority: self.authority.clone(),
            certificate: self.chain.clone(),
            description: NodeDescription { hostname: "host1".to_owned(), ..NodeDescription::default() },
            availability: Availability::Active,
            node_address: "127.0.0.1".to_owned(),
            own_networks: Vec::new(),
            encryption_generation: 0,
            address_pools: Vec::new(),
            subnet_size: 24,
            data_path_port: 4789,
            unlock_key: String::new(),
        };
        let epoch = manager.inner.consensus.epoch();
        let writes = found::writes(founding, &NODE.into(), 1, "127.0.0.1:1", epoch, clock::now()).unwrap();
        manager.propose(writes).await.unwrap();
        manager
    }
}

pub(crate) fn spec(name: &str, replicas: u64) -> ServiceSpec {
    let container = ContainerSpec { image: "nginx".to_owned(), ..ContainerSpec::default() };
    let task_template = TaskSpec { container_spec: Some(container), ..TaskSpec::default() };
    let mode = ServiceMode::replicas(replicas);
    ServiceSpec { name: name.to_owned(), task_template, mode, ..ServiceSpec::default() }
}

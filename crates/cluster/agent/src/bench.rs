//! Nodes of a real swarm for tests: manager, renewals and sessions over real connections on loopback, without containers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use manager::Manager;
use objects::{Availability, ClusterSpec, Nanos, NodeDescription, NodeRole};
use pki::{KeyFile, NodeFiles, StoredKey};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::dispatcher::Dispatcher;
use crate::fake_manager::{CLUSTER, Swarm, within};
use crate::joining::{Entry, Machine};
use crate::keep_manager::{self, Premises, Standing};
use crate::keys::Keys;
use crate::link::{Assigned as _, Link as _};
use crate::member::Member;
use crate::requests::JoinRequest;
use crate::serving::Serving;
use crate::state_file::{KnownManager, Membership, MembershipFile};
use crate::{pulse, renewal};

/// A node.
pub(crate) struct Bench {
    root: TempDir,
    pub(crate) premises: Premises,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
    told: mpsc::UnboundedReceiver<Standing>,
    tell: mpsc::UnboundedSender<Standing>,
    /// Sessions that have begun.
    sessions: Arc<AtomicUsize>,
}

/// A port of loopback that nobody listens on.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

impl Bench {
    fn of(root: TempDir, member: Member) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let (stopping, tasks) = (CancellationToken::new(), JoinSet::new());
        Self { root, premises: member.premises, stopping, tasks, told, tell, sessions: Arc::default() }
    }

    /// `<data root>/swarm`.
    pub(crate) fn directory(&self) -> PathBuf {
        self.root.path().join("swarm")
    }

    /// The first manager of a swarm whose certificates last for `expiry`.
    /// What it logs shows with `RUST_LOG`.
    pub(crate) async fn found(swarm: &Swarm, expiry: Nanos) -> (Self, Manager) {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        // Another test of this process may have set it.
        drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("swarm");
        let (key, files) = swarm.files_for("node1", NodeRole::Manager, 0, expiry);
        let address = free_port();
        let membership = Membership {
            version: Membership::VERSION,
            node_id: "node1".to_owned(),
            cluster_id: CLUSTER.to_owned(),
            listen_addr: address.clone(),
            control_addr: address,
            node_addr: "127.0.0.1".to_owned(),
            data_path_addr: "127.0.0.1".to_owned(),
            raft_id: 7,
            is_voter: true,
            ..Membership::default()
        };
        std::fs::create_dir(&directory).unwrap();
        membership.save(&directory).unwrap();
        let membership = MembershipFile::new(&directory, membership);
        let certificates = directory.join("certificates");
        files.save(&certificates).unwrap();
        let file = KeyFile::new(key);
        file.save(&certificates, None).unwrap();
        let member = Member::new(&directory, membership, Keys::new(certificates, file, None), files);
        let mut bench = Self::of(root, member.unwrap());
        let mut spec = ClusterSpec::default().with_defaults();
        spec.ca_config.node_cert_expiry = expiry;
        let founding = manager::Founding {
            cluster: CLUSTER.into(),
            spec,
            authority: swarm.authority.clone(),
            certificate: bench.premises.ties.credentials.certified().files.chain,
            description: NodeDescription::default(),
            availability: Availability::Active,
            node_address: "127.0.0.1".to_owned(),
            own_networks: Vec::new(),
            encryption_generation: 0,
            address_pools: vec!["10.0.0.0/8".to_owned()],
            subnet_size: 24,
            data_path_port: 4789,
            unlock_key: String::new(),
        };
        let manager = Manager::found(bench.premises.config().unwrap(), founding).await.unwrap();
        let serving = bench.premises.serve(manager.clone()).await.unwrap();
        bench.keep(Some(serving));
        (bench, manager)
    }

    /// A machine that joined the swarm of `manager` by token; nothing of it runs yet.
    pub(crate) async fn join(at: &Self, manager: &Manager, role: &str) -> Self {
        let token = manager.swarm().unwrap()["JoinTokens"][role].as_str().unwrap().to_owned();
        let root = tempfile::tempdir().unwrap();
        let request = JoinRequest {
            remote_addrs: vec![at.known().addr],
            join_token: token.as_str().into(),
            listen_addr: free_port(),
            ..JoinRequest::default()
        };
        let directory = root.path().join("swarm");
        let machine = Machine {
            directory: directory.clone(),
            hostname: "host".to_owned(),
            default_advertise_addr: None,
        };
        let entered = within(Entry::check(request, machine).unwrap().enter()).await;
        let entered = entered.unwrap_or_else(|why| panic!("{why:?}"));
        let member = Member::new(&directory, entered.membership, entered.keys, entered.files);
        Self::of(root, member.unwrap())
    }

    pub(crate) fn known(&self) -> KnownManager {
        KnownManager {
            node_id: self.premises.ties.node.to_string(),
            addr: self.premises.membership.get().control_addr,
            weight: 10,
        }
    }

    /// Keeps the manager of this node as its certificate says.
    pub(crate) fn keep(&mut self, first: Option<Serving>) {
        let (told, own) = (self.tell.clone(), self.premises.ties.own.clone());
        let tell = move |standing| {
            own.send_replace(match &standing {
                Standing::Runs(manager) => Some(manager.clone()),
                _ => None,
            });
            drop(told.send(standing));
        };
        self.tasks.spawn(keep_manager::keep(self.premises.clone(), first, tell, self.stopping.clone()));
    }

    /// Renews the certificate in time, holds a session and proves that it is alive.
    pub(crate) fn live(&mut self) {
        let ties = self.premises.ties.clone();
        self.tasks.spawn(pulse::run(ties.clone(), self.stopping.clone()));
        self.tasks.spawn(renewal::run(ties.clone(), self.stopping.clone()));
        let (describing, stopping) = (ties.clone(), self.stopping.clone());
        self.tasks.spawn(async move {
            let mut certified = describing.credentials.follow();
            let describe = async {
                loop {
                    let tls_info = certified.borrow_and_update().tls_info();
                    describing
                        .description
                        .send_replace(NodeDescription { tls_info, ..NodeDescription::default() });
                    certified.changed().await.unwrap();
                }
            };
            stopping.run_until_cancelled(describe).await;
        });
        let (stopping, sessions) = (self.stopping.clone(), Arc::clone(&self.sessions));
        self.tasks.spawn(async move {
            let dispatcher = Dispatcher::new(ties);
            let work = async {
                loop {
                    let mut session = dispatcher.connect().await;
                    sessions.fetch_add(1, Ordering::Relaxed);
                    while session.next().await.is_some() {}
                }
            };
            stopping.run_until_cancelled(work).await;
        });
    }

    /// How many sessions this node has had.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Waits until this node has a session with a manager.
    pub(crate) async fn is_taken(&self) {
        let mut session = self.premises.ties.session.subscribe();
        within(session.wait_for(Option::is_some)).await.unwrap();
    }

    pub(crate) async fn told(&mut self) -> Standing {
        within(self.told.recv()).await.expect("it is kept")
    }

    pub(crate) async fn runs(&mut self) -> Manager {
        loop {
            if let Standing::Runs(manager) = self.told().await {
                return manager;
            }
        }
    }

    /// Stops everything of it, as its daemon does.
    pub(crate) async fn stop(&mut self) {
        self.stopping.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.stopping = CancellationToken::new();
    }

    /// The same node started again from its disk, after its certificate became `chain`.
    pub(crate) fn again_with(self, chain: String) -> Self {
        let directory = self.directory();
        let certificates = directory.join("certificates");
        let before = NodeFiles::load(&certificates).unwrap().unwrap();
        let files = NodeFiles { chain, ..before };
        files.save(&certificates).unwrap();
        let Some(StoredKey::Open(file)) = StoredKey::load(&certificates).unwrap() else {
            panic!("it does not lock")
        };
        let membership = Membership::load(&directory).unwrap().unwrap();
        let membership = MembershipFile::new(&directory, membership);
        let member = Member::new(&directory, membership, Keys::new(certificates, file, None), files);
        Self::of(self.root, member.unwrap())
    }
}

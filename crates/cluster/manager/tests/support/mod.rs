//! What the manager's tests start from: a swarm's founder, machines with managers on loopback addresses, nodes that play
//! agents.
//!
//! Each machine has a runtime of its own, so that it can be killed: everything it does ends at once, and its sockets close.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a test that panics has failed; not every test uses everything"
)]

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use docker::filters::Filters;
use manager::{Credentials, Founding, Manager, ManagerConfig};
use objects::{
    Availability, ClusterId, ClusterSpec, ContainerSpec, NodeDescription, NodeId, NodeRole, ServiceMode,
    ServiceSpec, TaskSpec, Timestamp,
};
use pki::{Authority, Identity, JoinToken, NodeKey};
use raft::{DataKey, DataKeys};
use rpc::pulse::{PulseKey, PulseSender, PulseServer};
use rpc::{Client, Router, Server, ServerOptions, Subscription, Tls};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use wire::join::{Issue, IssueRequest, Issued, Renew, RenewRequest};
use wire::session::{Hello, OpenRequest, OpenSession, SessionMessage};

pub const CLUSTER: &str = "cluster1";

/// Machines of all tests of this process; each has an address of its own.
static MACHINES: AtomicU8 = AtomicU8::new(1);

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_nanos()).unwrap())
}

/// An address that no other test uses: the processes of tests run side by side.
fn address() -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let number = MACHINES.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{low}.{number}:2377", 64 | (high & 63)).parse().unwrap()
}

pub fn description(hostname: &str) -> NodeDescription {
    let mut description = NodeDescription { hostname: hostname.to_owned(), ..NodeDescription::default() };
    description.resources.nano_cpus = 64_000_000_000;
    description.resources.memory_bytes = 64 << 30;
    description
}

/// What a node has: its key, its certificate and what it trusts.
#[derive(Clone)]
pub struct Papers {
    pub node: NodeId,
    pub key: NodeKey,
    pub chain: String,
    pub roots: String,
}

impl Papers {
    pub fn tls(&self) -> Tls {
        Tls::new(&self.credentials()).unwrap()
    }

    pub fn credentials(&self) -> rpc::Credentials {
        rpc::Credentials {
            certificate: self.chain.clone(),
            key: self.key.pem().to_owned(),
            roots: self.roots.clone(),
        }
    }

    pub fn certified(authority: &Authority, node: &str, role: NodeRole) -> Self {
        let key = NodeKey::generate().unwrap();
        let identity = Identity { node: node.into(), role, cluster: CLUSTER.into() };
        let request = key.request().unwrap();
        let chain =
            authority.certify(&request, &identity, now(), objects::Nanos::from_secs(90 * 86_400)).unwrap();
        Self { node: node.into(), key, chain, roots: authority.certificate.clone() }
    }

    /// What a manager is opened with, and the sender of its credentials, which has to be kept.
    pub fn config(&self, directory: &Path, raft_id: u64, address: &str) -> (ManagerConfig, Tls) {
        let tls = self.tls();
        let (_, credentials) =
            watch::channel(Credentials { chain: self.chain.clone(), key: self.key.clone() });
        let config = ManagerConfig {
            directory: directory.join("raft"),
            node: self.node.clone(),
            cluster: ClusterId::from(CLUSTER),
            raft_id,
            address: address.to_owned(),
            keys: DataKeys::only(DataKey::new([7; 32])),
            client: Client::new(tls.clone()),
            credentials,
        };
        (config, tls)
    }
}

/// The founder of a swarm.
pub fn founding(authority: &Authority, papers: &Papers) -> Founding {
    Founding {
        cluster: CLUSTER.into(),
        spec: ClusterSpec::default().with_defaults(),
        authority: authority.clone(),
        certificate: papers.chain.clone(),
        description: description("host1"),
        availability: Availability::Active,
        node_address: "127.0.0.1".to_owned(),
        own_networks: Vec::new(),
        encryption_generation: 0,
        address_pools: vec!["10.0.0.0/8".to_owned()],
        subnet_size: 24,
        data_path_port: 4789,
        unlock_key: String::new(),
    }
}

/// A manager of its own in `directory` that talks to nobody.
pub async fn found(directory: &Path, papers: &Papers, authority: &Authority) -> Manager {
    let (config, _) = papers.config(directory, 7, "127.0.0.1:2377");
    Manager::found(config, founding(authority, papers)).await.unwrap()
}

pub fn spec(name: &str, replicas: u64) -> ServiceSpec {
    let container = ContainerSpec { image: "nginx".to_owned(), ..ContainerSpec::default() };
    let task_template = TaskSpec { container_spec: Some(container), ..TaskSpec::default() };
    let mode = ServiceMode::replicas(replicas);
    ServiceSpec { name: name.to_owned(), task_template, mode, ..ServiceSpec::default() }
}

pub fn version(object: &Value) -> u64 {
    object["Version"]["Index"].as_u64().unwrap()
}

pub fn filter(field: &str, value: &str) -> Filters {
    let mut filters = Filters::default();
    filters.add(field, value);
    filters
}

/// Fails a test that waits for something that never comes.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it does not come")
}

/// Looks again and again until something is so, for at most 20 s; gives how long it took.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}

/// A machine with a manager.
pub struct Machine {
    pub papers: Papers,
    pub address: SocketAddr,
    raft_id: u64,
    directory: PathBuf,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    manager: Manager,
    server: Option<Server>,
}

/// A swarm on this machine's loopback addresses.
pub struct Swarm {
    root: TempDir,
    pub machines: Vec<Machine>,
}

impl Machine {
    fn new(root: &Path, papers: Papers, address: SocketAddr) -> Self {
        let directory = root.join(papers.node.as_str());
        let raft_id = u64::from_be_bytes(getrandom_bytes()) | 1;
        Self { papers, address, raft_id, directory, running: None }
    }

    /// Runs a manager that `open` makes, and serves its methods.
    fn run<F>(&mut self, open: impl FnOnce(ManagerConfig) -> F)
    where
        F: Future<Output = Manager> + Send,
    {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (config, tls) = self.papers.config(&self.directory, self.raft_id, &self.address.to_string());
        let (manager, server) = runtime.block_on(async {
            let manager = open(config).await;
            let refusing = manager.clone();
            let refuse = Arc::new(move |peer: &rpc::Peer, callers| refusing.turns_away(peer, callers));
            let options = ServerOptions { refuse, ..ServerOptions::default() };
            let router = manager.routes(Router::new());
            let server = Server::bind(self.address, tls, router, options).unwrap();
            let pulses = PulseServer::bind(self.address).unwrap().answering(server.visitors());
            manager.attend(pulses, server.visitors());
            (manager, server)
        });
        self.running = Some(Running { runtime, manager, server: Some(server) });
    }

    pub fn manager(&self) -> &Manager {
        &self.running.as_ref().expect("it runs").manager
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn block_on<T>(&self, what: impl Future<Output = T>) -> T {
        self.running.as_ref().expect("it runs").runtime.block_on(what)
    }

    /// Ends everything on it at once.
    pub fn kill(&mut self) {
        let Running { runtime, manager, server } = self.running.take().expect("it runs");
        drop(server);
        drop(manager);
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    /// Stops its manager as a daemon does that is told to stop.
    pub fn stop(&mut self) {
        let Running { runtime, manager, server } = self.running.take().expect("it runs");
        runtime.block_on(async {
            manager.stop().await;
            if let Some(server) = server {
                server.shutdown(Duration::from_secs(1)).await;
            }
        });
        drop(manager);
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    pub fn start_again(&mut self) {
        self.run(|config| patiently(config, Manager::open));
    }

    pub fn force_new_cluster(&mut self) {
        self.run(|config| patiently(config, Manager::force_new_cluster));
    }

    /// Leaves the directory as a node does that was demoted.
    pub fn wipe(&mut self) {
        std::fs::remove_dir_all(&self.directory).unwrap();
        self.raft_id = u64::from_be_bytes(getrandom_bytes()) | 1;
    }

    /// The next start is at another address.
    pub fn move_elsewhere(&mut self) {
        self.address = address();
    }

    pub fn join(&mut self, managers: Vec<String>) {
        self.run(|config| async { Manager::join(config, managers).await.unwrap() });
    }
}

/// What was killed lets go of its files when its last thread has ended.
async fn patiently<F>(config: ManagerConfig, open: impl Fn(ManagerConfig) -> F) -> Manager
where
    F: Future<Output = Result<Manager, manager::ManagerError>>,
{
    for _ in 0..100 {
        match open(config.clone()).await {
            Err(manager::ManagerError::Open(raft::OpenError::InUse { .. })) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("its files stay in use")
}

fn getrandom_bytes() -> [u8; 8] {
    let key = DataKey::random();
    key.as_bytes()[..8].try_into().unwrap()
}

impl Swarm {
    /// A swarm with this many managers, all of them with a vote. What they log shows with `RUST_LOG`.
    pub fn new(managers: usize) -> Self {
        let authority = Authority::create(now()).unwrap();
        let papers = Papers::certified(&authority, "node1", NodeRole::Manager);
        let founded = founding(&authority, &papers);
        let mut swarm = Self::founded(papers, founded);
        for _ in 1..managers {
            swarm.add_manager();
        }
        swarm
    }

    /// A swarm with one manager.
    pub fn founded(papers: Papers, founded: Founding) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        // Another test of this process may have set it.
        drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
        let root = tempfile::tempdir().unwrap();
        let mut first = Machine::new(root.path(), papers, address());
        first.run(|config| async { Manager::found(config, founded).await.unwrap() });
        Self { root, machines: vec![first] }
    }

    /// Joins a machine by token; its manager has a vote when this returns.
    pub fn add_manager(&mut self) {
        let mut machine = self.new_manager();
        machine.join(self.addresses());
        machine.block_on(soon(machine.manager().ready())).unwrap();
        self.machines.push(machine);
    }

    /// A machine with a manager's certificate, whose manager does not run yet.
    pub fn new_manager(&self) -> Machine {
        let address = address();
        let papers = self.join_machine("Manager", &address.ip().to_string());
        Machine::new(self.root.path(), papers, address)
    }

    pub fn add_worker(&self) -> Papers {
        self.join_machine("Worker", "127.0.0.1")
    }

    pub fn addresses(&self) -> Vec<String> {
        self.running().map(|machine| machine.address.to_string()).collect()
    }

    pub fn running(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| machine.is_running())
    }

    /// What a machine does that joins by token.
    fn join_machine(&self, role: &str, address: &str) -> Papers {
        let machine = self.running().next().unwrap();
        let token = machine.manager().swarm().unwrap()["JoinTokens"][role].as_str().unwrap().to_owned();
        let at = machine.address.to_string();
        machine.block_on(soon(join(&at, &token, address))).unwrap()
    }

    /// The index of the machine that all others agree leads; waits for it.
    pub fn leader(&self) -> usize {
        let mut found = None;
        until("there is a leader", || {
            found = self
                .machines
                .iter()
                .position(|machine| machine.is_running() && machine.manager().is_leader());
            found.is_some()
        });
        found.unwrap()
    }

    pub fn follower(&self) -> usize {
        let leader = self.leader();
        self.machines.iter().position(Machine::is_running_but(leader, self)).unwrap()
    }

    /// Joins of managers under way are done: every node that manages is reachable.
    pub fn is_whole(&self) -> bool {
        let machine = &self.machines[self.leader()];
        let Ok(nodes) = machine.manager().nodes(&filter("role", "manager")) else { return false };
        nodes.len() == self.running().count()
            && nodes.iter().all(|node| node["ManagerStatus"]["Reachability"] == "reachable")
    }

    pub fn create(&self, machine: usize, name: &str) -> Result<(), manager::ManagerError> {
        let machine = &self.machines[machine];
        machine.block_on(machine.manager().create_service(spec(name, 0), None)).map(drop)
    }
}

impl Machine {
    fn is_running_but<'a>(leader: usize, swarm: &'a Swarm) -> impl FnMut(&'a Machine) -> bool {
        let leader = swarm.machines[leader].address;
        move |machine| machine.is_running() && machine.address != leader
    }
}

/// Asks one of the managers for a role of a node; again when the leader writes the node just then.
pub fn set_role(swarm: &Swarm, at: usize, node: &str, role: &str) -> Result<(), manager::ManagerError> {
    let machine = &swarm.machines[at];
    let set = || {
        machine.block_on(async {
            machine.manager().barrier().await?;
            let read = machine.manager().node(node)?;
            let spec = serde_json::json!({"Role": role, "Availability": "active"});
            let spec: objects::NodeSpec = serde_json::from_value(spec).unwrap();
            machine.manager().update_node(node, version(&read), spec).await
        })
    };
    loop {
        match set() {
            Err(error) if error.to_string().ends_with("update out of sequence") => {}
            done => return done,
        }
    }
}

/// Joins a swarm by token: root, pin, certificate.
pub async fn join(at: &str, token: &str, address: &str) -> Result<Papers, rpc::CallError> {
    let root = Client::fetch_root(at, Duration::from_secs(5)).await?;
    token.parse::<JoinToken>().unwrap().check_root(&root.bundle).unwrap();
    let client = Client::new(Tls::joining(&root.bundle).unwrap());
    let key = NodeKey::generate().unwrap();
    let request = IssueRequest {
        csr: key.request().unwrap(),
        token: token.into(),
        address: address.to_owned(),
        hostname: "joiner".to_owned(),
        now: now(),
        ..IssueRequest::default()
    };
    let issued: Issued = client.call::<Issue>(at, &request, Duration::from_secs(20)).await?;
    Ok(Papers { node: issued.node, key, chain: issued.certificate, roots: issued.root })
}

/// Asks for another certificate.
pub async fn renew(papers: &Papers, at: &str) -> Result<Issued, rpc::CallError> {
    let request = RenewRequest { csr: papers.key.request().unwrap() };
    Client::new(papers.tls()).call::<Renew>(at, &request, Duration::from_secs(20)).await
}

/// Opens a session as a node's agent does.
pub async fn open(client: &Client, at: &str) -> Result<Subscription<SessionMessage>, rpc::CallError> {
    let request = OpenRequest { description: description("worker"), now: now(), ..OpenRequest::default() };
    client.stream::<OpenSession>(at, &request, Duration::from_secs(5)).await
}

/// Proves a node's life as its agent does, until it is dropped.
pub struct Pulse(Arc<AtomicBool>);

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub fn pulse(papers: &Papers, hello: &Hello, to: Vec<SocketAddr>) -> Pulse {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, node, session) = (Arc::clone(&stop), papers.node.clone(), hello.session.clone());
    let key = PulseKey::read(&hello.heartbeat.key).unwrap();
    let period = Duration::from_millis(hello.heartbeat.period_ms);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut sender = PulseSender::open(node).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                // Managers that were killed refuse it.
                drop(sender.send(&key, &session, &to));
                tokio::time::sleep(period).await;
            }
        });
    });
    Pulse(stop)
}

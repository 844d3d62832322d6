//! A small manager over real connections on loopback, for tests: it says what the test tells it to say.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream;
use objects::{Nanos, NodeId, NodeRole, Timestamp};
use pki::{Authority, Identity, JoinToken, KeyFile, NodeFiles, NodeKey};
use rpc::{Caller, Router, Server, ServerOptions, Tls};
use tokio::sync::mpsc;
use wire::join::{Issue, IssueRequest, Issued, Renew, Root, TrustRoot};
use wire::session::{
    Changed, Done, Goodbye, GoodbyeRequest, Heartbeat, Hello, ManagerPeer, OpenRequest, OpenSession, Report,
    ReportRequest, SessionId, SessionMessage,
};
use wire::{Code, Refusal};

use crate::keys::Keys;
use crate::member::Member;
use crate::requests::now;
use crate::state_file::{KnownManager, Membership, MembershipFile};

pub(crate) const CLUSTER: &str = "cluster1";
const DAY: i64 = 86_400;

/// A swarm's authority.
#[derive(Clone)]
pub(crate) struct Swarm {
    pub(crate) authority: Authority,
}

impl Swarm {
    pub(crate) fn new() -> Self {
        Self { authority: Authority::create(now()).unwrap() }
    }

    pub(crate) fn token(&self) -> String {
        JoinToken::new(&self.authority.certificate, &pki::new_secret().unwrap()).to_string()
    }

    fn identity(node: &str, role: NodeRole) -> Identity {
        Identity { node: node.into(), role, cluster: CLUSTER.into() }
    }

    pub(crate) fn certify(&self, csr: &str, node: &str, role: NodeRole) -> String {
        self.authority.certify(csr, &Self::identity(node, role), now(), Nanos::from_secs(DAY)).unwrap()
    }

    /// The files of a node whose certificate was made `ago` seconds before now, for an hour.
    pub(crate) fn files(&self, node: &str, role: NodeRole, ago: i64) -> (NodeKey, NodeFiles) {
        self.files_for(node, role, ago, Nanos::from_secs(3600))
    }

    /// The same for another time than an hour.
    pub(crate) fn files_for(
        &self,
        node: &str,
        role: NodeRole,
        ago: i64,
        life: Nanos,
    ) -> (NodeKey, NodeFiles) {
        let made = Timestamp(now().0 - ago * 1_000_000_000);
        let issued = self.authority.issue(&Self::identity(node, role), made, life).unwrap();
        (issued.key, NodeFiles { chain: issued.certificate, roots: self.authority.certificate.clone() })
    }

    /// A certificate that ran out an hour ago.
    pub(crate) fn certify_long_ago(&self, csr: &str, identity: &Identity) -> String {
        let made = Timestamp(now().0 - 7_200 * 1_000_000_000);
        self.authority.certify(csr, identity, made, Nanos::from_secs(3600)).unwrap()
    }

    /// A member in `directory` that knows these managers.
    pub(crate) fn member(&self, directory: &Path, managers: &[&FakeManager], ago: i64) -> Member {
        let (key, files) = self.files("node1", NodeRole::Worker, ago);
        let known = |manager: &&FakeManager| KnownManager {
            node_id: manager.node.clone(),
            addr: manager.address.clone(),
            weight: 10,
        };
        let membership = Membership {
            version: Membership::VERSION,
            node_id: "node1".to_owned(),
            cluster_id: CLUSTER.to_owned(),
            node_addr: "127.0.0.1".to_owned(),
            data_path_addr: "127.0.0.1".to_owned(),
            managers: managers.iter().map(known).collect(),
            ..Membership::default()
        };
        membership.save(directory).unwrap();
        let membership = MembershipFile::new(directory, membership);
        let certificates = directory.join("certificates");
        files.save(&certificates).unwrap();
        let keys = Keys::new(certificates, KeyFile::new(key), None);
        Member::new(directory, membership, keys, files).unwrap()
    }
}

/// A session as the manager sees it.
pub(crate) struct Opened {
    pub(crate) request: OpenRequest,
    /// What the node hears. Dropped, the stream ends.
    pub(crate) say: mpsc::UnboundedSender<SessionMessage>,
}

impl Opened {
    pub(crate) fn changed(&self, changed: Changed) {
        self.say.send(SessionMessage::Changed(Box::new(changed))).unwrap();
    }

    /// Waits until the node has let go of the session.
    pub(crate) async fn closed(&self) {
        within(self.say.closed()).await;
    }
}

/// What a manager answers.
#[derive(Default)]
pub(crate) struct Answers {
    /// The role it certifies.
    pub(crate) role: NodeRole,
    /// Whether nodes are told that they were removed.
    pub(crate) removes: bool,
    /// Whether reports are refused: the session is not known.
    pub(crate) forgets: bool,
    /// Whether joining is refused for now.
    pub(crate) is_leaderless: bool,
}

/// A manager.
pub(crate) struct FakeManager {
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) opened: mpsc::UnboundedReceiver<Opened>,
    pub(crate) reports: mpsc::UnboundedReceiver<ReportRequest>,
    pub(crate) goodbyes: mpsc::UnboundedReceiver<GoodbyeRequest>,
    pub(crate) joins: mpsc::UnboundedReceiver<IssueRequest>,
    pub(crate) answers: Arc<Mutex<Answers>>,
    server: Server,
}

#[derive(Clone)]
struct Desk {
    swarm: Swarm,
    node: String,
    address: Arc<Mutex<String>>,
    opened: mpsc::UnboundedSender<Opened>,
    reports: mpsc::UnboundedSender<ReportRequest>,
    goodbyes: mpsc::UnboundedSender<GoodbyeRequest>,
    joins: mpsc::UnboundedSender<IssueRequest>,
    answers: Arc<Mutex<Answers>>,
}

impl FakeManager {
    pub(crate) fn start(swarm: &Swarm, node: &str) -> Self {
        let (opened_sender, opened) = mpsc::unbounded_channel();
        let (report_sender, reports) = mpsc::unbounded_channel();
        let (goodbye_sender, goodbyes) = mpsc::unbounded_channel();
        let (join_sender, joins) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(Answers::default()));
        let desk = Desk {
            swarm: swarm.clone(),
            node: node.to_owned(),
            address: Arc::default(),
            opened: opened_sender,
            reports: report_sender,
            goodbyes: goodbye_sender,
            joins: join_sender,
            answers: Arc::clone(&answers),
        };
        let (key, files) = swarm.files(node, NodeRole::Manager, 0);
        let shown =
            rpc::Credentials { certificate: files.chain, key: key.pem().to_owned(), roots: files.roots };
        let tls = Tls::new(&shown).unwrap();
        let refusing = Arc::clone(&answers);
        let options = ServerOptions {
            refuse: Arc::new(move |_, _| refusing.lock().unwrap().removes.then_some(rpc::Unwelcome::Removed)),
            ..ServerOptions::default()
        };
        let server =
            Server::bind("127.0.0.1:0".parse().unwrap(), tls, desk.clone().routes(), options).unwrap();
        let address = server.local_address().to_string();
        desk.address.lock().unwrap().clone_from(&address);
        Self { node: node.to_owned(), address, opened, reports, goodbyes, joins, answers, server }
    }

    pub(crate) fn answer(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.lock().unwrap());
    }

    pub(crate) async fn session(&mut self) -> Opened {
        within(self.opened.recv()).await.expect("the manager runs")
    }

    /// Dies: its connections are closed at once.
    pub(crate) fn die(self) {
        drop(self.server);
    }
}

impl Desk {
    fn routes(self) -> Router {
        let (root, issue, renew, open, report, goodbye) =
            (self.clone(), self.clone(), self.clone(), self.clone(), self.clone(), self);
        Router::default()
            .method::<Root, _, _>(move |_, _| {
                let bundle = root.swarm.authority.certificate.clone();
                async move { Ok(TrustRoot { bundle, now: now() }) }
            })
            .method::<Issue, _, _>(move |_, request| {
                let desk = issue.clone();
                async move { desk.issue(request) }
            })
            .method::<Renew, _, _>(move |caller: Caller, request| {
                let desk = renew.clone();
                async move { Ok(desk.issued(&request.csr, &caller.node())) }
            })
            .streaming::<OpenSession, _, _, _>(move |_, request| {
                let desk = open.clone();
                async move { Ok(desk.open(request)) }
            })
            .method::<Report, _, _>(move |_, request| {
                let desk = report.clone();
                async move {
                    if desk.answers.lock().unwrap().forgets {
                        return Err(Refusal::new(Code::InvalidArgument, "session invalid"));
                    }
                    desk.reports.send(request).unwrap();
                    Ok(Done {})
                }
            })
            .method::<Goodbye, _, _>(move |_, request| {
                let desk = goodbye.clone();
                async move {
                    desk.goodbyes.send(request).unwrap();
                    Ok(Done {})
                }
            })
    }

    fn issue(&self, request: IssueRequest) -> Result<Issued, Refusal> {
        if self.answers.lock().unwrap().is_leaderless {
            return Err(Refusal::new(Code::Unavailable, "The swarm does not have a leader."));
        }
        let issued = self.issued(&request.csr, &"node7".into());
        self.joins.send(request).unwrap();
        Ok(issued)
    }

    fn issued(&self, csr: &str, node: &NodeId) -> Issued {
        let role = self.answers.lock().unwrap().role;
        Issued {
            node: node.clone(),
            role,
            certificate: self.swarm.certify(csr, node.as_str(), role),
            root: self.swarm.authority.certificate.clone(),
            cluster: CLUSTER.into(),
            managers: vec![self.peer()],
        }
    }

    fn peer(&self) -> ManagerPeer {
        ManagerPeer {
            node: self.node.as_str().into(),
            address: self.address.lock().unwrap().clone(),
            weight: 10,
        }
    }

    fn open(
        &self,
        request: OpenRequest,
    ) -> impl futures_util::Stream<Item = Result<SessionMessage, Refusal>> + use<> {
        let (say, heard) = mpsc::unbounded_channel();
        let mut node = objects::Node { id: "node1".into(), ..objects::Node::default() };
        node.internal.certified_role = self.answers.lock().unwrap().role;
        let key = rpc::pulse::PulseKey::derive(b"secret", &node.id).to_hidden();
        let hello = Hello {
            session: SessionId(format!("session at {}", self.node)),
            node,
            managers: Vec::new(),
            root: self.swarm.authority.certificate.clone(),
            heartbeat: Heartbeat { period_ms: 50, key, now: now() },
            network_keys: Vec::new(),
        };
        say.send(SessionMessage::Hello(Box::new(hello))).unwrap();
        self.opened.send(Opened { request, say }).unwrap();
        stream::unfold(heard, |mut heard| async move { heard.recv().await.map(|said| (Ok(said), heard)) })
    }
}

/// What a test waits for, with a limit that only a failure reaches.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it is due")
}

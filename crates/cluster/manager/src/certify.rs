//! Lets machines in and gives nodes their certificates; the leader signs.
//!
//! In: requests, join tokens, proofs of a key. Out: chains, and nodes that hold them. Whom to certify as what is in the
//! store; what a certificate looks like is `pki`'s. A node that was removed is refused whatever it shows.

use objects::{
    Cluster, IdSource, Node, NodeDescription, NodeId, NodeRole, NodeSpec, NodeState, NodeStatus, Timestamp,
};
use pki::{ExternalAuthority, Identity, JoinToken, NodeKey, SignError, Signer};
use rpc::Caller;
use store::{Kind, Write};
use wire::Code;
use wire::forward::{Certified, FirstCertificate, NextCertificate, Operation, Outcome};
use wire::join::{IssueRequest, Issued, TrustRoot};

use crate::clock;
use crate::error::{ClockOff, ManagerError};
use crate::manager::Manager;
use crate::perform::unexpected;
use crate::propose::{Beside, Decided};
use crate::session::{known, removed};

/// A machine whose clock is further off does not get a certificate: it would not be valid there, or not for long.
/// chosen: certificates are valid from an hour ago; half of that is for what is measured wrong.
const CLOCK_MUST_BE_WITHIN_MS: u64 = 30 * 60 * 1000;

/// How often signing starts again because the root changed meanwhile. chosen: roots change once in years.
const ATTEMPTS: usize = 5;

/// This node's certificate and key: what it shows to an authority outside of the swarm.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// PEM.
    pub chain: String,
    /// The key.
    pub key: NodeKey,
}

/// What a node of the swarm trusts, PEM: two roots while one is replaced by the other.
pub(crate) fn trusted_roots(cluster: &Cluster) -> String {
    Signer::of(cluster).trusted().to_owned()
}

/// A node that is to have a certificate.
struct Applicant<'a> {
    node: &'a NodeId,
    role: NodeRole,
    csr: &'a str,
}

/// A chain, and on which cluster object it rests.
struct Signed {
    chain: String,
    cluster: Write,
    at: Timestamp,
    until: Timestamp,
}

impl Manager {
    /// Answers a machine that asks what it would trust: the root that join tokens were made for.
    pub(crate) fn trust_root(&self) -> Result<TrustRoot, ManagerError> {
        let store = self.inner.consensus.read();
        let cluster = store.cluster().ok_or(ManagerError::Stopping)?;
        Ok(TrustRoot { bundle: cluster.internal.ca_certificate.clone(), now: clock::now() })
    }

    /// Answers a machine that wants to be a node.
    pub(crate) async fn issue(&self, caller: &Caller, request: IssueRequest) -> Result<Issued, ManagerError> {
        self.check_clock(caller, &request)?;
        let remote = caller.remote.ip().to_canonical().to_string();
        let address = if request.address.is_empty() { remote } else { request.address };
        let operation = Operation::Issue(Box::new(FirstCertificate {
            node: id_for(&request.csr).unwrap_or_else(|| self.new_id()),
            csr: request.csr,
            token: request.token,
            availability: request.availability,
            address,
            hostname: request.hostname,
        }));
        self.certified(operation).await
    }

    /// Answers a node that wants another certificate; it has shown that it holds the key of its last one.
    pub(crate) async fn renew(&self, node: &NodeId, csr: String) -> Result<Issued, ManagerError> {
        self.certified(Operation::Renew(NextCertificate { node: node.clone(), csr })).await
    }

    /// Another certificate for this manager's own node, for the key of `csr` (PEM).
    ///
    /// When there is no leader, `has_expired` makes this manager sign it by itself, without a trace in the store: after
    /// the whole swarm was off for longer than certificates last, managers could not speak to each other to elect one.
    pub async fn renew_own(&self, csr: &str, has_expired: bool) -> Result<Issued, ManagerError> {
        let error = match self.renew(&self.inner.node, csr.to_owned()).await {
            Err(error @ (ManagerError::NoLeader | ManagerError::TooSlow)) if has_expired => error,
            result => return result,
        };
        tracing::warn!(error = &error as &dyn std::error::Error, "this manager renews its own certificate");
        let role = {
            let store = self.inner.consensus.read();
            known(&store, &self.inner.node)?.internal.certified_role
        };
        let applicant = Applicant { node: &self.inner.node, role, csr };
        let chain = self.sign(&applicant).await?.chain;
        self.issued(Certified { node: self.inner.node.clone(), role, chain })
    }

    fn check_clock(&self, caller: &Caller, request: &IssueRequest) -> Result<(), ManagerError> {
        let measured = match request.now.is_zero() {
            true => caller.offset.unwrap_or_default(),
            false => request.now.since(clock::now()),
        };
        let offset_ms = measured.0 / 1_000_000;
        if offset_ms.unsigned_abs() <= CLOCK_MUST_BE_WITHIN_MS {
            return Ok(());
        }
        let machine = format!("{} ({})", request.hostname, caller.remote.ip().to_canonical());
        let off = ClockOff { machine, offset_ms };
        tracing::warn!("a machine was not let in: {off}");
        Err(ManagerError::Clock { off })
    }

    async fn certified(&self, operation: Operation) -> Result<Issued, ManagerError> {
        match self.perform(operation).await? {
            Outcome::Certified(certified) => self.issued(certified),
            other => Err(unexpected(&other)),
        }
    }

    fn issued(&self, certified: Certified) -> Result<Issued, ManagerError> {
        let store = self.inner.consensus.read();
        let cluster = store.cluster().ok_or(ManagerError::Stopping)?;
        Ok(Issued {
            node: certified.node,
            role: certified.role,
            certificate: certified.chain,
            root: trusted_roots(cluster),
            cluster: cluster.id.clone(),
            managers: dispatch::managers(&store),
        })
    }

    /// At the leader: lets a machine in. A node that was made by an earlier attempt gets the same certificate: its id follows
    /// from its key.
    pub(crate) async fn do_issue(
        &self,
        request: &FirstCertificate,
    ) -> Result<Decided<Outcome>, ManagerError> {
        for _ in 0..ATTEMPTS {
            let (role, is_removed) = {
                let store = self.inner.consensus.read();
                let cluster = store.cluster().ok_or(ManagerError::NoCluster)?;
                let is_removed = membership::trust::is_removed(cluster, &request.node);
                (role_of(cluster, request.token.reveal())?, is_removed)
            };
            // Somebody removed what an attempt that was answered too late had made.
            let node = if is_removed { self.new_id() } else { request.node.clone() };
            let applicant = Applicant { node: &node, role, csr: &request.csr };
            let signed = self.sign(&applicant).await?;
            let made = self
                .change(Beside::Others, |store, _| {
                    if let Some(node) = store.node(&node) {
                        return Ok((certified(node), Vec::new()));
                    }
                    let node = new_node(&node, request, role, &signed);
                    Ok((certified(&node), vec![Write::Create(node.into()), signed.cluster.clone()]))
                })
                .await;
            match made {
                Err(ManagerError::OutOfSequence) => {}
                made => return made,
            }
        }
        Err(ManagerError::OutOfSequence)
    }

    /// At the leader: gives a node another certificate, for the role that the swarm wants it to have.
    pub(crate) async fn do_renew(&self, request: &NextCertificate) -> Result<Decided<Outcome>, ManagerError> {
        for _ in 0..ATTEMPTS {
            let role = {
                let store = self.inner.consensus.read();
                known(&store, &request.node).map_err(removed)?.internal.certified_role
            };
            let applicant = Applicant { node: &request.node, role, csr: &request.csr };
            let signed = self.sign(&applicant).await?;
            let made = self
                .change(Beside::Others, |store, _| {
                    let node = known(store, &request.node).map_err(removed)?;
                    if node.internal.certified_role != role {
                        return Err(ManagerError::OutOfSequence);
                    }
                    let chain = signed.chain.clone();
                    let next = membership::trust::certified(node, chain, role, signed.at, signed.until);
                    Ok((certified(&next), vec![Write::update(next), signed.cluster.clone()]))
                })
                .await;
            match made {
                Err(ManagerError::OutOfSequence) => {}
                made => return made,
            }
        }
        Err(ManagerError::OutOfSequence)
    }

    /// Signs by the root of the swarm as it is now, or has it signed outside.
    async fn sign(&self, applicant: &Applicant<'_>) -> Result<Signed, ManagerError> {
        let (signer, cluster, id) = {
            let store = self.inner.consensus.read();
            let cluster = store.cluster().ok_or(ManagerError::NoCluster)?;
            let unchanged = Write::Check {
                kind: Kind::Cluster,
                id: cluster.id.to_string(),
                read_version: cluster.meta.version,
            };
            (Signer::of(cluster), unchanged, cluster.id.clone())
        };
        let identity = Identity { node: applicant.node.clone(), role: applicant.role, cluster: id };
        let at = clock::now();
        let chain = signer.sign(&self.external()?, applicant.csr, &identity, at).await.map_err(unsigned)?;
        let facts = pki::facts(&chain).map_err(|error| unsigned(SignError::Own(error.into())))?;
        Ok(Signed { chain, cluster, at, until: facts.valid_until })
    }

    /// The way to authorities outside of the swarm.
    pub(crate) fn external(&self) -> Result<ExternalAuthority, ManagerError> {
        let own = self.inner.credentials.borrow().clone();
        ExternalAuthority::new(&own.chain, &own.key).map_err(|error| unsigned(SignError::External(error)))
    }
}

/// The role that a join token gives.
fn role_of(cluster: &Cluster, token: &str) -> Result<NodeRole, ManagerError> {
    if token.parse::<JoinToken>().is_err() {
        return Err(ManagerError::Trust {
            code: Code::InvalidArgument,
            reason: "invalid join token".to_owned(),
        });
    }
    let is = |known: &str| !known.is_empty() && is_equal(known, token);
    if is(&cluster.internal.manager_token) {
        Ok(NodeRole::Manager)
    } else if is(&cluster.internal.worker_token) {
        Ok(NodeRole::Worker)
    } else {
        Err(ManagerError::InvalidToken)
    }
}

/// Compares secrets in a time that does not tell where they differ.
fn is_equal(known: &str, given: &str) -> bool {
    let differences = known.bytes().zip(given.bytes()).fold(0, |seen, (a, b)| seen | (a ^ b));
    known.len() == given.len() && differences == 0
}

/// The id of the node with the key that a certificate is asked for: a machine that asks again is the same node. `None` for
/// a malformed request, which is refused when it is to be signed.
fn id_for(csr: &str) -> Option<NodeId> {
    Some(IdSource::from_seed(pki::requested_key_digest(csr).ok()?).next())
}

fn new_node(id: &NodeId, request: &FirstCertificate, role: NodeRole, signed: &Signed) -> Node {
    let node = Node {
        id: id.clone(),
        spec: NodeSpec { role, availability: request.availability, ..NodeSpec::default() },
        description: NodeDescription { hostname: request.hostname.clone(), ..NodeDescription::default() },
        status: NodeStatus {
            state: NodeState::Unknown,
            addr: host(&request.address).to_owned(),
            ..NodeStatus::default()
        },
        ..Node::default()
    };
    let mut node = membership::trust::certified(&node, signed.chain.clone(), role, signed.at, signed.until);
    node.internal.status_since = signed.at;
    node
}

/// An address without its port.
fn host(address: &str) -> &str {
    match address.parse::<std::net::SocketAddr>() {
        Ok(_) => address.rsplit_once(':').map_or(address, |(host, _)| host.trim_matches(['[', ']'])),
        Err(_) => address,
    }
}

fn certified(node: &Node) -> Outcome {
    Outcome::Certified(Certified {
        node: node.id.clone(),
        role: node.internal.certified_role,
        chain: node.internal.certificate.clone(),
    })
}

fn unsigned(error: SignError) -> ManagerError {
    match error {
        SignError::Own(pki::PkiError::Request(invalid)) => {
            ManagerError::Trust { code: Code::InvalidArgument, reason: invalid.to_string() }
        }
        SignError::Own(error) => ManagerError::Authority(error),
        error => ManagerError::Signing(error),
    }
}

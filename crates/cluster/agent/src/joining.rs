//! How a machine becomes a node: checks whom it talks to, and gets a certificate for the role of its token.
//!
//! In: a request to join. Out: everything a member has on its disk. Writes it last: until then the machine is in no
//! swarm.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pki::{JoinToken, KeyFile, NodeFiles, NodeKey};
use rpc::{CallError, Client, Tls};
use wire::join::{Issue, IssueRequest, Issued};
use wire::{Code, Refusal};

use crate::address;
use crate::keys::Keys;
use crate::requests::{self, JoinRequest, SwarmError};
use crate::state_file::{KnownManager, Membership, MembershipFile, Requested};
use crate::unfinished;

/// How long the manager may take for each of the two questions. Source: reference 4.1 (dial limit 10 s).
const LIMIT: Duration = Duration::from_secs(10);

/// What the token and addresses of a request to join come to.
#[derive(Clone)]
pub(crate) struct Entry {
    request: JoinRequest,
    token: JoinToken,
    remote: String,
    requested: Requested,
    machine: Machine,
    /// Of the node to be: whoever asks again with the same key asks for the same node.
    key: NodeKey,
}

/// What a machine brings besides the request.
#[derive(Clone)]
pub(crate) struct Machine {
    /// `<data root>/swarm`.
    pub(crate) directory: PathBuf,
    pub(crate) hostname: String,
    /// `--swarm-default-advertise-addr`.
    pub(crate) default_advertise_addr: Option<String>,
}

/// Why the machine is not a node yet.
#[derive(Debug)]
pub(crate) enum NotYet {
    /// Trying again may help.
    Passing(SwarmError),
    /// It will not.
    Final(SwarmError),
}

/// What a new member starts with.
pub(crate) struct Entered {
    pub(crate) membership: MembershipFile,
    pub(crate) keys: Keys,
    pub(crate) files: NodeFiles,
}

impl Entry {
    /// Refuses a request that cannot work whatever the manager says.
    pub(crate) fn check(request: JoinRequest, machine: Machine) -> Result<Self, SwarmError> {
        let invalid = |reason: &str| SwarmError::InvalidRequest { reason: reason.to_owned() };
        let remote = request
            .remote_addrs
            .first()
            .ok_or_else(|| invalid("at least 1 RemoteAddr is required to join"))?;
        let remote = address::with_control_port(remote).map_err(requests::invalid)?;
        let token = request.join_token.reveal().parse().map_err(|_| invalid("invalid join token"))?;
        let requested = Requested {
            listen_addr: request.listen_addr.clone(),
            advertise_addr: request.advertise_addr.clone(),
            data_path_addr: request.data_path_addr.clone(),
            link: String::new(),
        };
        let key = NodeKey::generate().map_err(|error| requests::failed("make this node's key", error))?;
        Ok(Self { request, token, remote, requested, machine, key })
    }

    /// Tries once to become a node, and keeps what came of it on disk.
    pub(crate) async fn enter(&self) -> Result<Entered, NotYet> {
        let mut membership = self.draft().await.map_err(NotYet::Final)?;
        let root = Client::fetch_root(&self.remote, LIMIT).await.map_err(of_call)?.bundle;
        if let Err(pki::ForeignRoot { expected }) = self.token.check_root(&root) {
            return Err(NotYet::Final(SwarmError::ForeignRoot { expected }));
        }
        let issued = self.ask(&membership, &root).await?;
        membership.node_id = issued.node.to_string();
        membership.cluster_id = issued.cluster.to_string();
        membership.managers = self.managers(&issued);
        keep(&self.machine.directory, membership, self.key.clone(), &issued).map_err(NotYet::Final)
    }

    /// Where this node listens and is reached.
    async fn draft(&self) -> Result<Membership, SwarmError> {
        let machine = address::of_this_machine().map_err(requests::invalid)?;
        let towards = address::towards(&self.remote).await;
        let default = self.machine.default_advertise_addr.as_deref();
        let addresses =
            address::choose(&self.requested, default, &machine, towards).map_err(requests::invalid)?;
        let mut membership = Membership {
            version: Membership::VERSION,
            requested: self.requested.clone(),
            ..Membership::default()
        };
        addresses.apply(&mut membership);
        Ok(membership)
    }

    async fn ask(&self, membership: &Membership, root: &str) -> Result<Issued, NotYet> {
        let tls = Tls::joining(root).map_err(|error| failed("read the swarm's root", error))?;
        let request = IssueRequest {
            csr: self.key.request().map_err(|error| failed("make a certificate request", error))?,
            token: self.request.join_token.clone(),
            availability: self.request.availability,
            address: membership.node_addr.clone(),
            hostname: self.machine.hostname.clone(),
            now: requests::now(),
        };
        let issued = Client::new(tls).call::<Issue>(&self.remote, &request, LIMIT).await.map_err(of_call)?;
        let roots = if issued.root.is_empty() { root } else { &issued.root };
        let identity = pki::verify(&issued.certificate, roots, requests::now())
            .map_err(|error| failed("check this node's certificate", error))?;
        if identity.node != issued.node || identity.cluster != issued.cluster {
            return Err(failed("check this node's certificate", pki::InvalidCertificate));
        }
        Ok(Issued { root: roots.to_owned(), ..issued })
    }

    /// Whom to turn to; at least the one that let this node in.
    fn managers(&self, issued: &Issued) -> Vec<KnownManager> {
        let told = issued.managers.iter().map(|manager| KnownManager {
            node_id: manager.node.to_string(),
            addr: manager.address.clone(),
            weight: manager.weight,
        });
        let told: Vec<KnownManager> = told.collect();
        if !told.is_empty() {
            return told;
        }
        vec![KnownManager { node_id: String::new(), addr: self.remote.clone(), weight: 1 }]
    }
}

/// Puts a new member on disk, `state.json` last.
fn keep(
    directory: &Path,
    membership: Membership,
    key: NodeKey,
    issued: &Issued,
) -> Result<Entered, SwarmError> {
    unfinished::clear_beside(directory)
        .map_err(|error| requests::failed("clear the swarm's directory", error))?;
    std::fs::create_dir_all(directory)
        .map_err(|error| requests::failed("make the swarm's directory", error))?;
    let certificates = directory.join("certificates");
    let file = KeyFile::new(key);
    file.save(&certificates, None).map_err(|error| requests::failed("keep this node's key", error))?;
    let files = NodeFiles { chain: issued.certificate.clone(), roots: issued.root.clone() };
    files.save(&certificates).map_err(|error| requests::failed("keep this node's certificate", error))?;
    membership.save(directory).map_err(|error| requests::failed("keep this node's membership", error))?;
    Ok(Entered {
        membership: MembershipFile::new(directory, membership),
        keys: Keys::new(certificates, file, None),
        files,
    })
}

fn failed(doing: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> NotYet {
    NotYet::Final(requests::failed(doing, error))
}

/// A manager that did not answer in time may yet; one that nobody is at is most likely a mistyped address.
/// Source: moby refuses that at once, with gRPC's text.
fn of_call(error: CallError) -> NotYet {
    let is_passing = match &error {
        CallError::TimedOut { .. } => true,
        CallError::Refused(refusal) => {
            matches!(refusal.code, Code::Unavailable | Code::ResourceExhausted)
        }
        CallError::Unreachable { source, .. } => source.kind() == std::io::ErrorKind::TimedOut,
        CallError::Untrusted(_) | CallError::Garbled { .. } => false,
    };
    let (code, message) = match &error {
        CallError::Refused(Refusal { code, message, .. }) => (*code, message.clone()),
        error => (Code::Unavailable, format!("connection error: desc = \"{}\"", requests::chain(error))),
    };
    let error = SwarmError::Refused { code, message };
    if is_passing { NotYet::Passing(error) } else { NotYet::Final(error) }
}

#[cfg(test)]
mod tests {
    use objects::NodeRole;

    use super::*;
    use crate::fake_manager::{FakeManager, Swarm, within};

    fn entry(directory: &Path, manager: &FakeManager, token: &str) -> Result<Entry, SwarmError> {
        let request = JoinRequest {
            remote_addrs: vec![manager.address.clone()],
            join_token: token.into(),
            ..JoinRequest::default()
        };
        let machine = Machine {
            directory: directory.to_owned(),
            hostname: "host1".to_owned(),
            default_advertise_addr: None,
        };
        Entry::check(request, machine)
    }

    #[tokio::test]
    async fn a_machine_with_a_token_becomes_a_node_that_a_restart_finds_again() {
        let swarm = Swarm::new();
        let mut manager = FakeManager::start(&swarm, "m1");
        manager.answer(|answers| answers.role = NodeRole::Manager);
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("swarm");
        let entered = entry(&directory, &manager, &swarm.token()).unwrap().enter().await;
        let entered = entered.unwrap_or_else(|why| panic!("{why:?}"));
        let asked = within(manager.joins.recv()).await.unwrap();
        assert_eq!((asked.hostname.as_str(), asked.address.as_str()), ("host1", "127.0.0.1"));
        let membership = Membership::load(&directory).unwrap().expect("it is a member");
        assert_eq!(membership, entered.membership.get());
        assert_eq!((membership.node_id.as_str(), membership.raft_id), ("node7", 0));
        assert_eq!(membership.managers[0].addr, manager.address);
        assert_eq!(NodeFiles::load(&directory.join("certificates")).unwrap().unwrap(), entered.files);
        assert!(matches!(
            pki::StoredKey::load(&directory.join("certificates")).unwrap(),
            Some(pki::StoredKey::Open(_))
        ));
    }

    #[tokio::test]
    async fn a_machine_that_asks_again_asks_with_the_same_key() {
        let swarm = Swarm::new();
        let mut manager = FakeManager::start(&swarm, "m1");
        let root = tempfile::tempdir().unwrap();
        let entry = entry(&root.path().join("swarm"), &manager, &swarm.token()).unwrap();
        let mut digests = Vec::new();
        for _ in 0..2 {
            entry.enter().await.unwrap_or_else(|why| panic!("{why:?}"));
            let asked = within(manager.joins.recv()).await.unwrap();
            digests.push(pki::requested_key_digest(&asked.csr).unwrap());
        }
        assert_eq!(digests[0], digests[1]);
    }

    #[tokio::test]
    async fn a_manager_of_another_swarm_is_refused_and_nothing_is_kept() {
        let (swarm, other) = (Swarm::new(), Swarm::new());
        let manager = FakeManager::start(&swarm, "m1");
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("swarm");
        let entered = entry(&directory, &manager, &other.token()).unwrap().enter().await;
        let Err(NotYet::Final(error)) = entered else { panic!("the root is another one") };
        let text = error.to_string();
        assert!(text.starts_with("remote CA does not match fingerprint. Expected: "), "{text}");
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn a_swarm_without_a_leader_may_have_one_later_and_a_wrong_address_has_none() {
        let swarm = Swarm::new();
        let manager = FakeManager::start(&swarm, "m1");
        manager.answer(|answers| answers.is_leaderless = true);
        let root = tempfile::tempdir().unwrap();
        let entry = |manager: &FakeManager| entry(root.path(), manager, &swarm.token());
        assert!(matches!(entry(&manager).unwrap().enter().await, Err(NotYet::Passing(_))));
        let mut gone = FakeManager::start(&swarm, "m2");
        gone.address = "127.0.0.1:1".to_owned();
        let Err(NotYet::Final(error)) = entry(&gone).unwrap().enter().await else {
            panic!("nobody listens there")
        };
        let text = error.to_string();
        assert!(text.starts_with("rpc error: code = Unavailable desc = connection error"), "{text}");
    }

    #[test]
    fn a_malformed_token_is_refused_before_anybody_is_asked() {
        let request = JoinRequest { remote_addrs: vec!["10.0.0.1".to_owned()], ..JoinRequest::default() };
        let machine =
            Machine { directory: PathBuf::new(), hostname: String::new(), default_advertise_addr: None };
        let refused = Entry::check(request, machine).err().unwrap();
        assert_eq!(refused.to_string(), "invalid join token");
    }
}

//! What a manager answers to other machines: one function per method of `wire`.
//!
//! In: calls whose caller `rpc` has identified. Out: answers, refusals in Docker's words. Who may call what is in the
//! methods; that a caller speaks for itself is checked here.

use futures_util::stream;
use objects::{ClusterInternal, Node, NodeId, NodeRole};
use raft::ProposeError;
use rpc::{Caller, Router, Unwelcome};
use store::Store;
use wire::attach::Attach;
use wire::forward::{Forward, Forwarded, NewMember, Operation};
use wire::join::{Issue, Renew, Root};
use wire::logs::{AskLogs, Asked, TELL_LOGS};
use wire::managers::{
    Alive, AliveAnswer, Health, Healthy, JoinRaft, JoinRaftRequest, JoinedRaft, LeaveRaft, RaftMember,
};
use wire::session::{Done, Goodbye, OpenRequest, OpenSession, Report, SessionMessage};
use wire::{Callers, Code, Refusal};

use crate::error::ManagerError;
use crate::manager::Manager;
use crate::session::{Origin, Session, known};
use crate::transport;

impl Manager {
    /// Adds everything that a manager answers.
    #[must_use]
    pub fn routes(&self, router: Router) -> Router {
        let router = self.certificate_routes(router);
        let router = self.session_routes(router);
        let router = self.log_routes(router);
        let router = self.manager_routes(router);
        transport::routes(self, router)
    }

    /// Whether a node is turned away from a method of these callers, whatever its certificate says: nothing that a removed
    /// one asks for is answered, and nothing for managers by one that is certified as a worker by now.
    #[must_use]
    pub fn turns_away(&self, peer: &rpc::Peer, callers: Callers) -> Option<Unwelcome> {
        let store = self.inner.consensus.read();
        let cluster = store.cluster()?;
        if membership::trust::is_removed(cluster, &peer.node) {
            return Some(Unwelcome::Removed);
        }
        let is_demoted = callers == Callers::Manager
            && store.node(&peer.node).is_some_and(|node| is_demoted(node, peer))
            && self.knows_its_leader(&store);
        is_demoted.then_some(Unwelcome::NoManager)
    }

    /// Whether this replica is not behind by so much that it takes a leader for a worker: nobody but the leader could tell
    /// it better.
    fn knows_its_leader(&self, store: &Store) -> bool {
        let leader = self.inner.consensus.leader();
        leader.is_some_and(|leader| store.nodes().any(|node| node.internal.raft_id == leader.raft_id))
    }

    fn certificate_routes(&self, router: Router) -> Router {
        let (root, issue, renew) = (self.clone(), self.clone(), self.clone());
        router
            .method::<Root, _, _>(move |_, _| {
                let answer = root.trust_root();
                async move { answer.map_err(for_node) }
            })
            .method::<Issue, _, _>(move |caller, request| {
                let manager = issue.clone();
                async move { manager.issue(&caller, request).await.map_err(for_node) }
            })
            .method::<Renew, _, _>(move |caller, request| {
                let manager = renew.clone();
                async move { manager.renew(&caller.node(), request.csr).await.map_err(for_node) }
            })
    }

    fn session_routes(&self, router: Router) -> Router {
        let (open, report, goodbye) = (self.clone(), self.clone(), self.clone());
        let attach = self.clone();
        router
            .streaming::<OpenSession, _, _, _>(move |caller, request| {
                let manager = open.clone();
                async move {
                    let request = from(&caller, request);
                    let session = manager.open_session(&caller.node(), request, Origin::Network).await;
                    session.map(messages).map_err(for_node)
                }
            })
            .method::<Report, _, _>(move |caller, request| {
                let manager = report.clone();
                async move {
                    let node = caller.node();
                    if !manager.inner.sessions.is_open(&node, &request.session) {
                        return Err(for_node(ManagerError::UnknownSession));
                    }
                    manager.report(&node, request.statuses).await.map_err(for_node)?;
                    Ok(Done {})
                }
            })
            .method::<Attach, _, _>(move |caller, request| {
                let manager = attach.clone();
                async move { manager.attach_container(&caller.node(), request).await.map_err(for_node) }
            })
            .method::<Goodbye, _, _>(move |caller, request| {
                let done = goodbye.goodbye(&caller.node(), &request);
                async move { done.map(|()| Done {}).map_err(for_node) }
            })
    }

    fn log_routes(&self, router: Router) -> Router {
        let (ask, tell) = (self.clone(), self.clone());
        router
            .method::<AskLogs, _, _>(move |_, request| {
                let nodes = ask.ask_for_logs(&request);
                async move { Ok(Asked { nodes }) }
            })
            .raw(TELL_LOGS, move |caller, body| {
                let manager = tell.clone();
                async move {
                    let piece = wire::logs::read_piece(&body);
                    let (head, begin) = piece.ok_or_else(|| {
                        Refusal::new(Code::InvalidArgument, "a piece of a log is malformed")
                    })?;
                    let heard = manager.hear_logs(caller.node(), head, body.slice(begin..)).await;
                    Ok(serde_json::to_vec(&heard).expect("two booleans serialise").into())
                }
            })
    }

    fn manager_routes(&self, router: Router) -> Router {
        let (forward, alive, health) = (self.clone(), self.clone(), self.clone());
        let (join, leave) = (self.clone(), self.clone());
        router
            .method::<Forward, _, _>(move |_, request| {
                let manager = forward.clone();
                async move {
                    let done = manager.execute(&request.operation, request.again).await;
                    let done = done.map_err(|error| match error {
                        // Whoever leads next does it.
                        ManagerError::Stopping | ManagerError::Log(ProposeError::Stopped(_)) => {
                            manager.not_leader().for_manager()
                        }
                        error => error.for_manager(),
                    })?;
                    Ok(Forwarded { outcome: done.value, applied: done.applied })
                }
            })
            .method::<Alive, _, _>(move |_, request| {
                let manager = alive.clone();
                async move {
                    if !manager.is_leader() {
                        return Err(manager.not_leader().for_manager());
                    }
                    manager.inner.vitals.take(&request);
                    Ok(AliveAnswer { term: manager.inner.consensus.members().borrow().term })
                }
            })
            .method::<Health, _, _>(move |_, request| {
                let healthy = health.healthy(request.raft_id);
                async move { Ok(healthy) }
            })
            .method::<JoinRaft, _, _>(move |caller, request| {
                let manager = join.clone();
                async move { manager.join_raft(&caller, request).await.map_err(for_node) }
            })
            .method::<LeaveRaft, _, _>(move |caller, request| {
                let manager = leave.clone();
                async move {
                    let node = own(&caller, &request.node)?;
                    let operation = Operation::LeaveRaft { node, force: false };
                    manager.perform(operation).await.map_err(for_node)?;
                    Ok(Done {})
                }
            })
    }

    fn healthy(&self, asker: Option<u64>) -> Healthy {
        let members = self.inner.consensus.members();
        let is_member = |raft_id: &u64| members.borrow().members.contains_key(raft_id);
        Healthy {
            knows_you: asker.as_ref().is_some_and(is_member),
            node: self.inner.node.clone(),
            raft_id: Some(self.inner.raft_id).filter(is_member),
            applied_index: self.inner.consensus.applied_index(),
            epoch: self.inner.consensus.epoch(),
        }
    }

    /// Whether a log is one that this swarm had before it was founded anew.
    fn is_former(&self, store: &Store, epoch: u64) -> bool {
        let internal = store.cluster().map(|cluster| &cluster.internal);
        let is_known = |internal: &ClusterInternal| {
            internal.former_epochs.contains(&epoch)
                // Until the new one is noted.
                || (internal.epoch == epoch && epoch != self.inner.consensus.epoch())
        };
        epoch != 0 && internal.is_some_and(is_known)
    }

    async fn join_raft(&self, caller: &Caller, request: JoinRaftRequest) -> Result<JoinedRaft, ManagerError> {
        let node = own(caller, &request.node)?;
        {
            let store = self.inner.consensus.read();
            if self.is_former(&store, request.epoch) {
                return Err(ManagerError::FormerLog { node });
            }
            // A replica that is behind may not know the node yet; the leader decides.
            if let Err(error @ ManagerError::RemovedNode) = known(&store, &node) {
                return Err(error);
            }
        }
        let address = specified(&request.address, caller);
        let member = NewMember { node, raft_id: request.raft_id, address };
        self.perform(Operation::JoinRaft(member)).await?;
        let members = self.managers_seen().peers.into_iter();
        Ok(JoinedRaft {
            epoch: self.inner.consensus.epoch(),
            members: members
                .map(|peer| RaftMember { raft_id: peer.raft_id, node: peer.node, address: peer.address })
                .collect(),
        })
    }
}

/// Whether a manager's certificate is worth nothing any more, unless it is newer than what this replica has.
fn is_demoted(node: &Node, peer: &rpc::Peer) -> bool {
    let internal = &node.internal;
    internal.certified_role == NodeRole::Worker && peer.not_after <= internal.certified_until
}

fn for_node(error: ManagerError) -> Refusal {
    error.for_node()
}

/// The caller's own id: nobody asks for others.
fn own(caller: &Caller, named: &NodeId) -> Result<NodeId, Refusal> {
    let own = caller.node();
    if named.is_empty() || *named == own {
        Ok(own)
    } else {
        Err(Refusal::new(Code::PermissionDenied, "a node asks only for itself"))
    }
}

/// The request with an address: the caller's, if it gave none.
fn from(caller: &Caller, mut request: OpenRequest) -> OpenRequest {
    let is_unspecified =
        request.address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified());
    if request.address.is_empty() || is_unspecified {
        request.address = caller.remote.ip().to_canonical().to_string();
    }
    request
}

/// An address whose host is unspecified means where the caller is. Source: reference 4.1 (join).
fn specified(address: &str, caller: &Caller) -> String {
    match address.parse::<std::net::SocketAddr>() {
        Ok(parsed) if parsed.ip().is_unspecified() => {
            std::net::SocketAddr::new(caller.remote.ip().to_canonical(), parsed.port()).to_string()
        }
        _ => address.to_owned(),
    }
}

/// The messages of a session; dropping the stream ends it.
fn messages(session: Session) -> impl stream::Stream<Item = Result<SessionMessage, Refusal>> + Send {
    stream::unfold(session, |mut session| async move {
        let message = session.next().await?;
        Some((Ok(message), session))
    })
}

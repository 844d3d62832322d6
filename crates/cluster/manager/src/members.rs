//! Who takes part in consensus: managers that come, go, and change their role; runs at the leader.
//!
//! In: requests of managers, the store, raft's view. Out: changes of raft's members one at a time, and the manager status
//! of the nodes. Which change is due is decided in `membership`.

use std::time::Duration;

use membership::{ManagerPeer, Managers, RoleStep};
use objects::{NodeId, NodeRole};
use raft::Member;
use store::Write;
use tokio::time::timeout;
use wire::forward::{NewMember, Outcome};
use wire::managers::{Health, HealthRequest};

use crate::error::ManagerError;
use crate::manager::Manager;
use crate::propose::{Beside, Decided};
use crate::session::known;

/// How long a manager that joins has to answer when it is called back. Source: reference 4.1 (5 s).
const CALL_BACK_WITHIN: Duration = Duration::from_secs(5);

/// How long a new member has to copy the log before it is answered; it goes on without an answer.
/// chosen: below the 20 s that a request may take.
const PROMOTE_WITHIN: Duration = Duration::from_secs(10);

/// Wait after a step that failed. chosen: long against a step, short against the 5 s between two looks.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

impl Manager {
    /// The managers as raft sees them from here.
    pub(crate) fn managers_seen(&self) -> Managers {
        let seen = self.inner.consensus.members().borrow().clone();
        let store = self.inner.consensus.read();
        let node_of = |raft_id: u64| {
            let node = store.nodes().find(|node| node.internal.raft_id == raft_id);
            node.map(|node| node.id.clone()).unwrap_or_default()
        };
        let peers = seen.members.iter().map(|(raft_id, member)| ManagerPeer {
            raft_id: *raft_id,
            node: node_of(*raft_id),
            address: member.address.clone(),
            votes: member.is_voter,
            is_reachable: member.is_reachable || *raft_id == self.inner.raft_id,
            is_leader: seen.leader == Some(*raft_id),
        });
        Managers { peers: peers.collect() }
    }

    /// At the leader: takes a manager into consensus, or notes its new address. Answered once it has a vote.
    pub(crate) async fn do_join_raft(&self, member: &NewMember) -> Result<Decided<Outcome>, ManagerError> {
        {
            let store = self.inner.consensus.read();
            let node = known(&store, &member.node)?;
            if node.spec.role != NodeRole::Manager {
                return Err(ManagerError::NotAManager { node: member.node.clone() });
            }
        }
        self.call_back(member).await?;
        let _raft = self.inner.raft_turn.acquire().await.map_err(|_| ManagerError::Stopping)?;
        let joined = {
            let _turn = self.inner.members_turn.acquire().await.map_err(|_| ManagerError::Stopping)?;
            self.remove_former(member).await?;
            // The store knows whose number it is before raft has it: a member of nobody is removed.
            let noted = self
                .change(Beside::Nobody, |store, _| {
                    let node = known(store, &member.node)?;
                    if node.internal.raft_id == member.raft_id {
                        return Ok((Outcome::Done, Vec::new()));
                    }
                    let mut next = node.clone();
                    next.internal.raft_id = member.raft_id;
                    Ok((Outcome::Done, vec![Write::update(next)]))
                })
                .await?;
            self.add(member).await?;
            noted
        };
        self.inner.roles_ring.notify_one();
        match timeout(PROMOTE_WITHIN, self.inner.consensus.promote(member.raft_id)).await {
            Ok(Ok(())) => Ok(Decided { applied: self.inner.consensus.applied_index(), ..joined }),
            Ok(Err(error)) => Err(into_error(error)),
            // It copies a large log; the roles' loop gives it its vote.
            Err(_) => Ok(joined),
        }
    }

    async fn call_back(&self, member: &NewMember) -> Result<(), ManagerError> {
        if member.node == self.inner.node {
            return Ok(());
        }
        let request = HealthRequest::default();
        let health = self.inner.client.call::<Health>(&member.address, &request, CALL_BACK_WITHIN);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ManagerError::MemberUnreachable {
            address: member.address.clone(),
            source,
        };
        let healthy = health.await.map_err(|error| failed(error.into()))?;
        if healthy.node != member.node {
            return Err(failed(format!("the manager there is node {}", healthy.node).into()));
        }
        if healthy.epoch != self.inner.consensus.epoch() {
            return Err(ManagerError::FormerLog { node: member.node.clone() });
        }
        Ok(())
    }

    /// Removes the member that the node was before, with another log.
    async fn remove_former(&self, member: &NewMember) -> Result<(), ManagerError> {
        let managers = self.managers_seen();
        let former = managers.of_node(&member.node).filter(|peer| peer.raft_id != member.raft_id);
        let Some(former) = former else { return Ok(()) };
        if !managers.can_lose(former.raft_id) {
            return Err(ManagerError::Role(membership::RoleError::LossOfQuorum));
        }
        self.inner.consensus.remove(former.raft_id).await.map_err(into_error)
    }

    async fn add(&self, member: &NewMember) -> Result<(), ManagerError> {
        let (raft_id, address) = (member.raft_id, member.address.clone());
        let known = self.inner.consensus.members().borrow().member(raft_id);
        let added = match known {
            None => self.inner.consensus.add_learner(Member { raft_id, address }).await,
            Some(known) if known.address != address => {
                self.inner.consensus.set_address(raft_id, address).await
            }
            Some(_) => Ok(()),
        };
        added.map_err(into_error)
    }

    /// At the leader: takes a manager out of consensus.
    pub(crate) async fn do_leave_raft(
        &self,
        node: &NodeId,
        force: bool,
    ) -> Result<Decided<Outcome>, ManagerError> {
        let managers = self.managers_seen();
        let done = || Decided { value: Outcome::Done, applied: self.inner.consensus.applied_index() };
        let Some(peer) = managers.of_node(node) else { return Ok(done()) };
        if !force && !managers.can_lose(peer.raft_id) {
            return Err(ManagerError::Role(membership::RoleError::LossOfQuorum));
        }
        if peer.raft_id == self.inner.raft_id {
            // Whoever takes over removes it: the caller asks again, and is led there.
            let handed = self.inner.consensus.transfer(None).await;
            handed.map_err(|error| ManagerError::Elsewhere {
                code: wire::Code::FailedPrecondition,
                text: format!("rpc error: code = FailedPrecondition desc = {error}"),
            })?;
            return Err(ManagerError::NotLeader { leader: None });
        }
        let _raft = self.inner.raft_turn.acquire().await.map_err(|_| ManagerError::Stopping)?;
        self.inner.consensus.remove(peer.raft_id).await.map_err(into_error)?;
        self.inner.roles_ring.notify_one();
        Ok(done())
    }
}

fn into_error(error: raft::MemberError) -> ManagerError {
    match error {
        raft::MemberError::NotLeader => ManagerError::NotLeader { leader: None },
        error => ManagerError::Members(error),
    }
}

/// Brings roles to what users asked for, until it is dropped.
pub(crate) async fn run_roles(manager: Manager) {
    let mut members = manager.inner.consensus.members();
    loop {
        members.mark_unchanged();
        // A manager that is joining is in the store before it is in raft: it is looked at when it is done.
        let Ok(turn) = manager.inner.raft_turn.acquire().await else { return };
        let steps = {
            let managers = manager.managers_seen();
            let store = manager.inner.consensus.read();
            membership::roles::reconcile(&store, &managers)
        };
        let wait = match steps.into_iter().next() {
            None => membership::roles::RETRY_AFTER.to_std(),
            Some(step) => match take(&manager, step).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a role was not changed");
                    AFTER_FAILURE
                }
            },
        };
        drop(turn);
        tokio::select! {
            () = manager.inner.roles_ring.notified() => {}
            _ = members.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Takes one step; gives how long to wait before the next look.
async fn take(manager: &Manager, step: RoleStep) -> Result<Duration, ManagerError> {
    let consensus = &manager.inner.consensus;
    match step {
        RoleStep::Write(writes) => {
            manager.change(Beside::Nobody, |_, _| Ok(((), writes.clone()))).await?;
        }
        RoleStep::Transfer { to } => {
            tracing::info!(to, "leadership is handed over: this manager is to be a worker");
            if let Err(error) = consensus.transfer(Some(to)).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "leadership was not handed over");
                return Ok(AFTER_FAILURE);
            }
        }
        RoleStep::Remove { raft_id, node } => {
            tracing::info!(raft_id, node.id = %node, "a manager is taken out of consensus");
            consensus.remove(raft_id).await.map_err(into_error)?;
        }
        RoleStep::Promote { raft_id } => consensus.promote(raft_id).await.map_err(into_error)?,
        RoleStep::Wait { node, because } => {
            tracing::warn!(node.id = %node, %because, "a role cannot change now");
            return Ok(membership::roles::RETRY_AFTER.to_std());
        }
    }
    Ok(Duration::ZERO)
}

/// Keeps the manager status of the nodes true to raft's view, until it is dropped.
pub(crate) async fn run_reachability(manager: Manager) {
    let mut members = manager.inner.consensus.members();
    loop {
        members.mark_unchanged();
        if let Err(error) = write_reachability(&manager).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the managers' state was not written");
            tokio::time::sleep(AFTER_FAILURE).await;
            continue;
        }
        if members.changed().await.is_err() {
            return;
        }
    }
}

async fn write_reachability(manager: &Manager) -> Result<(), ManagerError> {
    let _turn = manager.inner.members_turn.acquire().await.map_err(|_| ManagerError::Stopping)?;
    let managers = manager.managers_seen();
    let decide = |store: &store::Store, _: &mut objects::IdSource| {
        Ok(((), membership::reachability::writes(store, &managers)))
    };
    manager.change(Beside::Others, decide).await.map(drop)
}

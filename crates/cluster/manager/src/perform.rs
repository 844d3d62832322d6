//! Does a write wherever it is asked for: here when this manager leads, else at the leader.
//!
//! In: an operation. Out: what it gave, once it is committed and this replica has it. While nobody leads it waits for a
//! short time. An attempt whose answer was lost is made again, marked so: then what it wants may be there already.

use std::time::Duration;

use raft::{Member, ProposeError};
use rpc::CallError;
use tokio::time::{Instant, timeout, timeout_at};
use wire::Code;
use wire::forward::{Forward, Forwarded, Forwarding, Operation, Outcome};

use crate::error::ManagerError;
use crate::manager::Manager;
use crate::propose::Decided;

/// How long a request waits for a leader. chosen: longer than a killed leader takes to be replaced (1.5 s), and a swarm
/// without quorum refuses writes within 2 s.
const LEADER_WITHIN: Duration = Duration::from_millis(1800);

/// How long a request may take in all. Source: moby, `daemon/cluster/cluster.go` (`swarmRequestTimeout` 20 s).
const REQUEST_WITHIN: Duration = Duration::from_secs(20);

/// How long an answer waits for this replica. chosen: it is behind by one message; when it is behind by more, whoever
/// reads here next is refused anyway.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(5);

/// Wait between two attempts at the same leader. chosen: short against an election, long against a busy loop.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);

/// Why an attempt gave nothing.
enum Missed {
    /// For good.
    Failed(ManagerError),
    /// Somebody else may lead, or nobody.
    NotHere,
}

impl Manager {
    /// Does an operation at the leader.
    pub(crate) async fn perform(&self, operation: Operation) -> Result<Outcome, ManagerError> {
        self.performed(operation).await.map(|done| done.value)
    }

    /// As [`Self::perform`]; also gives the index of the log that this replica has applied since.
    pub(crate) async fn performed(&self, operation: Operation) -> Result<Decided<Outcome>, ManagerError> {
        let stopping = self.inner.stopping.clone();
        let done = stopping.run_until_cancelled(Box::pin(self.try_until_done(operation))).await;
        done.unwrap_or(Err(ManagerError::Stopping))
    }

    async fn try_until_done(&self, operation: Operation) -> Result<Decided<Outcome>, ManagerError> {
        let mut asked = Forwarding { operation, again: false };
        let started = Instant::now();
        let mut leaderless_since = started;
        let mut members = self.inner.consensus.members();
        loop {
            members.mark_unchanged();
            let tried = match self.inner.consensus.leader() {
                None => Err(Missed::NotHere),
                Some(leader) => {
                    let tried = self.attempt(&leader, &asked, started + REQUEST_WITHIN).await;
                    if tried.is_err() && leaderless_since.elapsed() > LEADER_WITHIN {
                        // It was being done all the while: the time without a leader begins now.
                        leaderless_since = Instant::now();
                    }
                    asked.again = true;
                    tried
                }
            };
            match tried {
                Ok(done) => {
                    self.catch_up(done.applied).await;
                    return Ok(done);
                }
                Err(Missed::Failed(error)) => return Err(error),
                Err(Missed::NotHere) => {}
            }
            let give_up = (leaderless_since + LEADER_WITHIN).min(started + REQUEST_WITHIN);
            if Instant::now() >= give_up {
                return Err(ManagerError::NoLeader);
            }
            tokio::select! {
                changed = members.changed() => changed.map_err(|_| ManagerError::Stopping)?,
                () = tokio::time::sleep(BETWEEN_ATTEMPTS) => {}
            }
        }
    }

    async fn attempt(
        &self,
        leader: &Member,
        asked: &Forwarding,
        until: Instant,
    ) -> Result<Decided<Outcome>, Missed> {
        let lost = self.leads_no_more(leader.raft_id);
        let attempt = async {
            if leader.raft_id == self.inner.raft_id {
                self.attempt_here(asked).await
            } else {
                self.attempt_there(leader, asked).await
            }
        };
        tokio::select! {
            biased;
            tried = timeout_at(until, attempt) => {
                tried.unwrap_or(Err(Missed::Failed(ManagerError::TooSlow)))
            }
            () = lost => Err(Missed::NotHere),
        }
    }

    async fn attempt_here(&self, asked: &Forwarding) -> Result<Decided<Outcome>, Missed> {
        match self.execute(&asked.operation, asked.again).await {
            Ok(done) => Ok(done),
            Err(ManagerError::NotLeader { .. }) => Err(Missed::NotHere),
            Err(error) => Err(Missed::Failed(error)),
        }
    }

    async fn attempt_there(&self, leader: &Member, asked: &Forwarding) -> Result<Decided<Outcome>, Missed> {
        let called = self.inner.client.call::<Forward>(&leader.address, asked, REQUEST_WITHIN).await;
        match called {
            Ok(Forwarded { outcome, applied }) => Ok(Decided { value: outcome, applied }),
            Err(CallError::Refused(refusal)) if refusal.leader.is_some() || is_not_leader(&refusal) => {
                Err(Missed::NotHere)
            }
            Err(CallError::Refused(refusal)) => Err(Missed::Failed(refusal.into())),
            Err(error @ (CallError::Untrusted(_) | CallError::Garbled { .. })) => {
                tracing::warn!(
                    leader = leader.address,
                    error = &error as &dyn std::error::Error,
                    "the leader cannot be asked"
                );
                Err(Missed::NotHere)
            }
            Err(CallError::Unreachable { .. } | CallError::TimedOut { .. }) => Err(Missed::NotHere),
        }
    }

    /// Waits until this replica has what was done elsewhere: a moment, unless this manager is cut off just now. What was
    /// committed is so whether this replica has it yet or not.
    async fn catch_up(&self, applied: u64) {
        let caught_up = timeout(CAUGHT_UP_WITHIN, self.inner.consensus.wait_applied(applied));
        tokio::select! {
            caught_up = caught_up => if !matches!(caught_up, Ok(Ok(()))) {
                tracing::warn!(applied, "this manager's replica is behind the leader's");
            },
            // Nothing is copied to one that was taken out.
            () = self.removed() => {}
        }
    }

    /// Waits until this manager knows that another one leads, or none.
    async fn leads_no_more(&self, raft_id: u64) {
        let mut members = self.inner.consensus.members();
        while members.borrow_and_update().leader == Some(raft_id) {
            if members.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// At the leader: does an operation. [`ManagerError::NotLeader`] when this manager does not lead, or ceased to before it
    /// knew whether the operation was committed: it is to be asked for again then.
    pub(crate) async fn execute(
        &self,
        operation: &Operation,
        again: bool,
    ) -> Result<Decided<Outcome>, ManagerError> {
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        let done = self.try_once(operation, again).await;
        done.map_err(|error| if is_elsewhere(&error) { self.not_leader() } else { error })
    }

    pub(crate) fn not_leader(&self) -> ManagerError {
        let leader = self.inner.consensus.leader().filter(|leader| leader.raft_id != self.inner.raft_id);
        ManagerError::NotLeader { leader: leader.map(|leader| leader.address) }
    }

    async fn try_once(&self, operation: &Operation, again: bool) -> Result<Decided<Outcome>, ManagerError> {
        if again {
            // What the earlier attempt made has to be seen, even if it is committed only now.
            self.settle().await?;
        }
        match operation {
            Operation::CreateService { id, spec, registry_auth } => {
                self.do_create_service(id, spec, registry_auth.as_ref()).await
            }
            Operation::UpdateService { reference, update } => {
                self.do_update_service(reference, update, again).await
            }
            Operation::RemoveService { reference } => self.do_remove_service(reference, again).await,
            Operation::CreateNetwork { id, spec } => self.do_create_network(id, spec).await,
            Operation::RemoveNetwork { reference } => self.do_remove_network(reference, again).await,
            Operation::UpdateNode { reference, version, spec } => {
                self.do_update_node(reference, *version, spec, again).await
            }
            Operation::RemoveNode { reference, force } => self.do_remove_node(reference, *force, again).await,
            Operation::UpdateCluster { version, spec, update, request } => {
                self.do_update_cluster(*version, spec, *update, request).await
            }
            Operation::OpenSession(opens) => self.do_open_session(opens).await,
            Operation::Attach { id, node, request } => self.do_attach(id, node, request).await,
            Operation::Observe { reports } => self.do_observe(reports).await,
            Operation::Issue(request) => self.do_issue(request).await,
            Operation::Renew(request) => self.do_renew(request).await,
            Operation::JoinRaft(member) => self.do_join_raft(member).await,
            Operation::LeaveRaft { node, force } => self.do_leave_raft(node, *force).await,
            Operation::Barrier => {
                self.inner.consensus.read_barrier().await?;
                let applied = self.inner.consensus.applied_index();
                Ok(Decided { value: Outcome::Done, applied })
            }
        }
    }

    /// Waits until this replica has everything that was acknowledged, by any manager, before this call. Refused when
    /// the swarm has no leader that can tell.
    pub async fn barrier(&self) -> Result<(), ManagerError> {
        if self.inner.consensus.may_read() {
            return Ok(());
        }
        self.perform(Operation::Barrier).await.map(drop)
    }
}

/// Whether an error of this manager only says that it does not lead, or ceased to in the middle.
fn is_elsewhere(error: &ManagerError) -> bool {
    matches!(
        error,
        ManagerError::NotLeader { .. } | ManagerError::Log(ProposeError::NotLeader | ProposeError::Unknown)
    )
}

fn is_not_leader(refusal: &wire::Refusal) -> bool {
    let unknown = ManagerError::NotLeader { leader: None }.for_manager();
    refusal.code == Code::Unavailable && refusal.message == unknown.message
}

/// An operation that gave what belongs to another one: the leader is of a version that this one cannot work with.
pub(crate) fn unexpected(outcome: &Outcome) -> ManagerError {
    tracing::error!(?outcome, "the leader's answer belongs to another operation");
    ManagerError::Elsewhere {
        code: Code::Internal,
        text: "rpc error: code = Internal desc = the leader's answer cannot be used".to_owned(),
    }
}

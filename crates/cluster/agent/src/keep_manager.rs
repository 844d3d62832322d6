//! Runs a manager on this node for as long as its certificate says that it is one.
//!
//! ```text
//!  worker ──promoted──► join: asks to be taken in ──► serves ──demoted──► its log is wiped ──► worker
//!                                     opened again after a failure ◄┘
//! ```
//!
//! In: the certificate's role, what this node remembers. Out: whether a manager runs, whenever that changes. One that
//! cannot be opened, or whose disk failed, is opened again: it never gives up, the disk may have room again at any time.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use manager::{Manager, ManagerConfig, ManagerError};
use objects::NodeRole;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::keys::{Keys, KeysError};
use crate::known_managers::random;

use crate::serving::{ServeError, Serving};
use crate::state_file::{Membership, MembershipFile};
use crate::ties::Ties;
use crate::{requests, room};

/// Wait after a failure. Source: swarmkit restarts a component after 100 ms.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The longest such wait; one that ran for longer starts anew. chosen: swarmkit waits for up to 30 s, which is long for a
/// manager that only waits for the others to come back.
const AFTER_FAILURES: Duration = Duration::from_secs(5);

/// How long a manager that was taken out of the log waits to be a worker before it asks to be taken in again.
/// Source: reference 4.4 (16 s until a role change is forced).
const ROLE_CHANGE_WITHIN: Duration = Duration::from_secs(16);

/// Whether a manager runs here.
pub(crate) enum Standing {
    /// This one, from now on.
    Runs(Manager),
    /// None, and why.
    IsDown(String),
    /// None: this node is a worker.
    IsWorker,
    /// None yet: the swarm is asked to take it in.
    IsJoining,
}

/// What a manager of this node is opened with.
#[derive(Clone)]
pub(crate) struct Premises {
    /// `<swarm directory>/raft`.
    pub(crate) directory: PathBuf,
    pub(crate) ties: Ties,
    pub(crate) membership: MembershipFile,
    pub(crate) keys: Keys,
}

/// Why no manager runs.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("write where the swarm's log is")]
    NoRoom(#[source] io::Error),
    #[error("keep this node's membership")]
    Remember(#[source] io::Error),
    #[error("remove the log of a former manager")]
    RemoveLog(#[source] io::Error),
    #[error(transparent)]
    Manager(#[from] ManagerError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Why a manager that ran runs no more.
enum Ended {
    /// It can do nothing more.
    Failed(manager::ManagerFailed),
    /// It is no member of the log any more.
    TakenOut,
    /// This node is a worker now.
    IsWorker,
}

/// Runs until `stopping`, and stops the manager then; `first` runs already.
pub(crate) async fn keep(
    premises: Premises,
    first: Option<Serving>,
    tell: impl Fn(Standing),
    stopping: CancellationToken,
) {
    let mut running = first;
    let mut wait = Duration::ZERO;
    while !stopping.is_cancelled() {
        let serving = match running.take() {
            Some(serving) => serving,
            None if premises.ties.credentials.role() == NodeRole::Worker => {
                tell(Standing::IsWorker);
                premises.forget_log();
                premises.role_is(NodeRole::Manager, &stopping).await;
                continue;
            }
            None => match stopping.run_until_cancelled(Box::pin(premises.start())).await {
                None => return,
                Some(Ok(serving)) => serving,
                Some(Err(error)) => {
                    tell(down(&error));
                    wait = (wait * 2).clamp(AFTER_FAILURE, AFTER_FAILURES);
                    stopping.run_until_cancelled(tokio::time::sleep(wait)).await;
                    continue;
                }
            },
        };
        let since = Instant::now();
        let ended = stopping.run_until_cancelled(premises.run(&serving.manager, &tell)).await;
        match &ended {
            Some(Ended::Failed(failed)) => tell(down(failed)),
            Some(Ended::TakenOut) => tell(Standing::IsJoining),
            Some(Ended::IsWorker) => tell(Standing::IsWorker),
            None => {}
        }
        serving.stop().await;
        if since.elapsed() > AFTER_FAILURES {
            wait = Duration::ZERO;
        }
        match ended {
            None => return,
            Some(Ended::Failed(_)) => {
                wait = (wait * 2).clamp(AFTER_FAILURE, AFTER_FAILURES);
                stopping.run_until_cancelled(tokio::time::sleep(wait)).await;
            }
            Some(Ended::TakenOut) => premises.leave_log(&stopping).await,
            Some(Ended::IsWorker) => {}
        }
    }
}

fn down(error: &(dyn Error + 'static)) -> Standing {
    tracing::error!(error, "the manager does not run");
    Standing::IsDown(requests::chain(error))
}

impl Premises {
    /// What the manager is opened with; a number for the log is drawn and kept if there is none.
    pub(crate) fn config(&self) -> Result<ManagerConfig, KeysError> {
        let membership = self.membership.get();
        Ok(ManagerConfig {
            directory: self.directory.clone(),
            node: self.ties.node.clone(),
            cluster: membership.cluster_id.as_str().into(),
            raft_id: membership.raft_id,
            address: membership.control_addr,
            keys: self.keys.storage()?,
            client: self.ties.client.clone(),
            credentials: self.ties.credentials.shown(),
        })
    }

    /// Serves a manager that was opened; stops it when that fails.
    pub(crate) async fn serve(&self, manager: Manager) -> Result<Serving, ServeError> {
        let listen = self.membership.get().listen_addr;
        let served = Serving::start(&manager, &listen, self.ties.credentials.tls(), self.keys.clone());
        if served.is_err() {
            manager.stop().await;
        }
        served
    }

    async fn start(&self) -> Result<Serving, StartError> {
        room::for_log(&self.directory).await.map_err(StartError::NoRoom)?;
        if self.membership.get().raft_id == 0 {
            self.remove_log().map_err(StartError::RemoveLog)?;
            // On disk before it is used: a number is never drawn twice for one log.
            let number = random().max(1);
            let remember = |membership: &mut Membership| {
                (membership.raft_id, membership.is_voter) = (number, false);
            };
            self.membership.change(remember).map_err(StartError::Remember)?;
        }
        let config = self.config()?;
        let manager = if self.membership.get().is_voter {
            Box::pin(Manager::open(config)).await?
        } else {
            Box::pin(Manager::join(config, self.ties.managers.in_order(random))).await?
        };
        Ok(self.serve(manager).await?)
    }

    /// Shows the manager when it can do its part; returns when it can no more.
    async fn run(&self, manager: &Manager, tell: &impl Fn(Standing)) -> Ended {
        let work = async {
            if !self.membership.get().is_voter {
                tell(Standing::IsJoining);
                // It fails only for one that is stopping.
                if Box::pin(manager.ready()).await.is_err() {
                    std::future::pending::<()>().await;
                }
                if let Err(error) = self.membership.change(|membership| membership.is_voter = true) {
                    // After a restart it asks to be taken in once more, which changes nothing.
                    tracing::warn!(%error, "not kept that this node is a manager");
                }
            }
            tell(Standing::Runs(manager.clone()));
            std::future::pending::<()>().await;
        };
        let never = CancellationToken::new();
        tokio::select! {
            () = work => unreachable!("it waits for ever"),
            failed = Box::pin(manager.failed()) => Ended::Failed(failed),
            () = Box::pin(manager.removed()) => Ended::TakenOut,
            () = self.role_is(NodeRole::Worker, &never) => Ended::IsWorker,
        }
    }

    /// Waits until this node has a certificate of that role.
    async fn role_is(&self, role: NodeRole, stopping: &CancellationToken) {
        let mut certified = self.ties.credentials.follow();
        // The sender lives in `ties`.
        let is = certified.wait_for(|certified| certified.identity.role == role);
        let _ = stopping.run_until_cancelled(is).await;
    }

    /// This manager is no member of the log any more: becomes a worker, or begins anew when it is to be a manager again.
    async fn leave_log(&self, stopping: &CancellationToken) {
        let mut certified = self.ties.credentials.follow();
        certified.mark_unchanged();
        self.ties.renew.notify_one();
        // The next certificate says what this node is now. The swarm may change its mind after that, as it may at any time.
        let next = stopping.run_until_cancelled(certified.changed());
        if tokio::time::timeout(ROLE_CHANGE_WITHIN, next).await.is_err() {
            tracing::warn!("taken out of the log and not certified anew: asking to be taken in again");
        }
        if !stopping.is_cancelled() {
            self.forget_log();
        }
    }

    /// Forgets the log of a node that has no part in it any more, and what belongs to it.
    fn forget_log(&self) {
        let forget = |membership: &mut Membership| {
            (membership.raft_id, membership.is_voter) = (0, false);
        };
        // First: without a number, what a crash leaves behind is removed before there is another log.
        if let Err(error) = self.membership.change(forget) {
            tracing::warn!(%error, "not kept that this node is no manager any more");
            return;
        }
        if let Err(error) = self.remove_log() {
            tracing::warn!(%error, path = %self.directory.display(), "the former log was not removed");
        }
        if let Err(error) = self.keys.forget_storage() {
            tracing::warn!(error = &error as &dyn Error, "the former log's keys were not removed");
        }
    }

    fn remove_log(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "keep_manager_tests.rs"]
mod tests;

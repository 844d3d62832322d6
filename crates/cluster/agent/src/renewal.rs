//! Renews this node's certificate: in time, or when the managers want it to have another one.
//!
//! In: the certificate, what managers tell. Out: a new certificate on disk and on new connections; live ones stay. A
//! certificate that has run out is renewed all the same: the key proves who asks.

use std::time::Duration;

use manager::ManagerError;
use objects::Timestamp;
use rpc::CallError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::join::{Issued, Renew, RenewRequest};

use crate::credentials::CredentialsError;
use crate::dispatcher::is_removal;
use crate::known_managers::random;
use crate::requests;
use crate::ties::Ties;

/// How long one manager may take. Source: swarmkit, `ca/certificates.go` (5 s per call).
const LIMIT: Duration = Duration::from_secs(5);

/// How long the manager on this node may take: it waits for a leader first. chosen: more than that wait (reference 4.1,
/// ten ticks) would keep this node from asking the others.
const OWN_LIMIT: Duration = Duration::from_secs(15);

/// Wait after no manager renewed it. Source: swarmkit, `ca/certificates.go` (2 s apart).
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// The longest such wait. chosen: certificates end in hours or days, and a swarm that lost its managers has other
/// worries; one that has run out is asked for at the first pace.
const AFTER_FAILURES: Duration = Duration::from_secs(60);

/// The longest sleep. chosen: the machine's clock may be set, and tells how late it is after that.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Renewals that time alone asks for, during the life of one certificate. chosen: two at most are due; a node whose clock
/// is ahead finds every new certificate old already, and would ask without a pause.
const AT_MOST_PER_LIFE: u32 = 20;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error("no manager is known")]
    NoManager,
    #[error(transparent)]
    Own(#[from] ManagerError),
    #[error(transparent)]
    Remote(#[from] CallError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Runs until `stopping`.
pub(crate) async fn run(ties: Ties, stopping: CancellationToken) {
    let work = async {
        let mut earliest = Instant::now();
        loop {
            until_due(&ties, earliest).await;
            renew_until_done(&ties).await;
            let facts = ties.credentials.certified().facts;
            earliest = Instant::now() + facts.valid_until.since(facts.valid_from).to_std() / AT_MOST_PER_LIFE;
        }
    };
    stopping.run_until_cancelled(work).await;
}

/// Waits for the moment to renew, which is not before `earliest` unless the managers want it.
async fn until_due(ties: &Ties, earliest: Instant) {
    let facts = ties.credentials.certified().facts;
    let due = pki::renewal_moment(facts.valid_from, facts.valid_until, random());
    while let left = time_left(due).max(earliest - Instant::now())
        && !left.is_zero()
    {
        tokio::select! {
            () = tokio::time::sleep(left.min(LONGEST_SLEEP)) => {}
            () = ties.renew.notified() => return,
        }
    }
}

fn time_left(due: Timestamp) -> Duration {
    due.since(requests::now()).to_std()
}

async fn renew_until_done(ties: &Ties) {
    let mut wait = Duration::ZERO;
    while let Err(error) = renew(ties).await {
        let is_expired = ties.credentials.certified().is_expired(requests::now());
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            is_expired,
            "this node's certificate was not renewed"
        );
        let longest = if is_expired { AFTER_FAILURE } else { AFTER_FAILURES };
        wait = (wait * 2).clamp(AFTER_FAILURE, longest);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = ties.renew.notified() => {}
        }
    }
}

/// Asks the manager on this node, then the others, for a new certificate.
async fn renew(ties: &Ties) -> Result<(), RenewError> {
    let csr = ties.credentials.request()?;
    let own = ties.own.borrow().clone();
    let mut failed = RenewError::NoManager;
    if let Some(manager) = own {
        let has_expired = ties.credentials.certified().is_expired(requests::now());
        match tokio::time::timeout(OWN_LIMIT, Box::pin(manager.renew_own(&csr, has_expired))).await {
            Ok(Ok(issued)) => return take(ties, &issued),
            Ok(Err(error)) => failed = error.into(),
            Err(_) => {}
        }
    }
    let request = RenewRequest { csr };
    for address in ties.managers.in_order(random) {
        match ties.client.call::<Renew>(&address, &request, LIMIT).await {
            Ok(issued) => return take(ties, &issued),
            Err(error) => {
                if let CallError::Refused(refusal) = &error
                    && is_removal(refusal)
                {
                    ties.removed.cancel();
                }
                failed = error.into();
            }
        }
    }
    Err(failed)
}

fn take(ties: &Ties, issued: &Issued) -> Result<(), RenewError> {
    ties.credentials.take(issued, requests::now())?;
    let certified = ties.credentials.certified();
    tracing::info!(
        role = certified.identity.role.as_str(),
        until = %certified.facts.valid_until,
        "this node has a new certificate"
    );
    ties.managers.replace(&issued.managers);
    Ok(())
}

#[cfg(test)]
#[path = "renewal_tests.rs"]
mod tests;

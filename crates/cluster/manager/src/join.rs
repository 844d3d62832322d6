//! A manager's own way into consensus: which log to copy, asking to be taken in, telling a new address.
//!
//! In: addresses of managers. Out: membership. Asks until it succeeds: whoever is to be a manager is needed.

use std::time::Duration;

use raft::Members;
use rpc::{CallError, Client};
use tokio::time::Instant;
use wire::forward::{NewMember, Operation};
use wire::managers::{Health, HealthRequest, JoinRaft, JoinRaftRequest};

use crate::error::{FORMER_LOG, ManagerError};
use crate::manager::Manager;

/// How long a manager has to say which log it has. Source: reference 4.1 (dial limit 10 s).
const TELL_WITHIN: Duration = Duration::from_secs(10);

/// How long the leader may take to take a manager in: it calls back and lets it copy the log.
/// Source: reference 4.1 (engine request timeout 20 s).
const JOIN_WITHIN: Duration = Duration::from_secs(20);

/// A manager to which no leader has spoken for this long asks whether it is still a member. chosen: several elections.
const FORSAKEN_AFTER: Duration = Duration::from_secs(5);

/// Between two looks at the time since then. chosen: asking is for those who are left alone, and they have time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Wait between two attempts; doubles. chosen: a leader is elected within it.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest such wait. Source: reference 5 (agent back-off, cap 8 s).
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// The epoch of the swarm's log, from the first manager that answers.
pub(crate) async fn epoch(client: &Client, managers: &[String]) -> Result<u64, ManagerError> {
    let mut failed = ManagerError::NoLeader;
    for address in managers {
        match client.call::<Health>(address, &HealthRequest::default(), TELL_WITHIN).await {
            Ok(healthy) => return Ok(healthy.epoch),
            Err(error) => {
                failed = ManagerError::MemberUnreachable { address: address.clone(), source: error.into() };
            }
        }
    }
    Err(failed)
}

/// Asks to be taken in whenever this manager is not: it has no vote, the others know another address of it, or no leader
/// speaks to it. It may have been taken out and wanted back while it was away, which nobody but the leader's log says.
/// One that refuses this manager's calls is asked, too: the swarm may have been founded anew without this manager, which
/// can have found others of before to lead. Until the manager stops, or was taken out for good.
///
/// The leader cannot find it, so it asks all that it knows, `managers` at last.
pub(crate) async fn keep_seat(manager: Manager, managers: Vec<String>) {
    let inner = &manager.inner;
    let work = async {
        let opened = Instant::now();
        let mut members = inner.consensus.members();
        let mut wait = FIRST_WAIT;
        loop {
            members.mark_unchanged();
            if let Some(refuser) = inner.refuser.take() {
                ask(&manager, &refuser).await;
            }
            let is_due = !is_settled(&manager, opened);
            if is_due {
                let mut elections = inner.consensus.members();
                // Those that are asked don't find a manager that is elected meanwhile: it takes itself in.
                let is_elected = |members: &Members| members.leader == Some(inner.raft_id);
                let was_elected = is_elected(&elections.borrow());
                let elected = async { elections.wait_for(is_elected).await.map(drop) };
                tokio::select! {
                    () = ask_any(&manager, opened, &managers) => {}
                    Ok(()) = elected, if !was_elected => continue,
                }
            }
            tokio::select! {
                changed = members.changed() => if changed.is_err() { return } else { wait = FIRST_WAIT },
                () = tokio::time::sleep(wait), if is_due => wait = (wait * 2).min(LONGEST_WAIT),
                () = tokio::time::sleep(LOOK_EVERY), if !is_due => {}
            }
        }
    };
    tokio::select! {
        () = inner.stopping.cancelled() => {}
        () = manager.removed() => {}
        () = work => {}
    }
}

/// Asks one manager after the other, until one says that this one is in.
async fn ask_any(manager: &Manager, opened: Instant, managers: &[String]) {
    let inner = &manager.inner;
    let (node, address, raft_id) = (inner.node.clone(), inner.address.clone(), inner.raft_id);
    if inner.consensus.leader().is_some_and(|leader| leader.raft_id == raft_id) {
        // Nobody finds it: it came back at another address and was elected before it could say so.
        let member = NewMember { node, raft_id, address };
        if let Err(error) = manager.perform(Operation::JoinRaft(member)).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the leader's address was not changed");
        }
        return;
    }
    for address in known(manager, managers) {
        if is_settled(manager, opened) || ask(manager, &address).await {
            return;
        }
    }
}

/// Asks one manager; whether it gave the answer.
async fn ask(manager: &Manager, other: &str) -> bool {
    let inner = &manager.inner;
    let request = JoinRaftRequest {
        node: inner.node.clone(),
        address: inner.address.clone(),
        raft_id: inner.raft_id,
        epoch: inner.consensus.epoch(),
    };
    match inner.client.call::<JoinRaft>(other, &request, JOIN_WITHIN).await {
        Ok(_) => true,
        Err(CallError::Refused(refusal)) if refusal.message == FORMER_LOG => {
            tracing::info!("the swarm was founded anew: this manager's log has no part in it");
            inner.contact.removed.send_replace(true);
            true
        }
        Err(error) => {
            tracing::warn!(
                manager = other,
                error = &error as &dyn std::error::Error,
                "this manager was not taken in"
            );
            false
        }
    }
}

/// The addresses of all managers that this one knows of, each once: the members of its log, those that its replica names,
/// and `managers`.
fn known(manager: &Manager, managers: &[String]) -> Vec<String> {
    let inner = &manager.inner;
    let mut known: Vec<String> = {
        let members = inner.consensus.members();
        let members = members.borrow();
        let others = members.members.iter().filter(|(id, _)| **id != inner.raft_id);
        others.map(|(_, other)| other.address.clone()).collect()
    };
    let named = manager.managers().into_iter().map(|peer| peer.address);
    for address in named.chain(managers.iter().cloned()) {
        if address != inner.address && !known.contains(&address) {
            known.push(address);
        }
    }
    known
}

/// Whether this manager, `opened` then, has a vote, the others know its address, and a leader speaks to it.
fn is_settled(manager: &Manager, opened: Instant) -> bool {
    let inner = &manager.inner;
    let contact = inner.consensus.last_contact_with_leader();
    let is_led = contact.unwrap_or_else(|| opened.elapsed()) < FORSAKEN_AFTER;
    let members = inner.consensus.members();
    let members = members.borrow();
    let own = members.members.get(&inner.raft_id);
    is_led && own.is_some_and(|own| own.is_voter && own.address == inner.address)
}

//! Whether this manager is in touch with the swarm, and what it stops doing when it is not.
//!
//! In: when the leader was last heard, whether a quorum of managers answers. Out: agents are sent elsewhere within a
//! second, reads are refused. A swarm between two leaders is not out of touch: its managers reach each other.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use raft::Consensus;
use rpc::CallError;
use tokio::sync::watch;
use tokio::time::Instant;
use wire::Code;
use wire::managers::{Health, HealthRequest, Healthy};

use crate::manager::Manager;
use crate::sessions;

/// How often it is looked at while nothing is heard. chosen: a tenth of what it must be noticed within.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A manager that heard nothing for this long asks the others whether they are there. chosen: more than usual between
/// two messages of a leader.
const ASK_AFTER: Duration = Duration::from_millis(400);

/// How long the others have to answer. chosen: an answer takes milliseconds; together with [`ASK_AFTER`] below a second.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// Out of touch with leader and quorum for this long, a manager sends its agents elsewhere. Source: design, failure
/// detection.
const CUT_OFF_AFTER: Duration = Duration::from_secs(1);

/// Out of touch with the leader alone for this long, too: an election never takes so long, so it is this manager that the
/// leader cannot reach. chosen: above the 3 s that a cut link may take to be replaced.
const LEADERLESS_FOR: Duration = Duration::from_secs(5);

/// Reads are answered this long after the leader was last heard. chosen: as [`CUT_OFF_AFTER`], and an election.
const FRESH_FOR: Duration = Duration::from_millis(1800);

/// A look that comes this much late means that this process did not run. chosen: far above what a busy machine causes.
const STALLED: Duration = Duration::from_secs(1);

/// What is known about this manager's contact.
pub(crate) struct Contact {
    seen: Mutex<Seen>,
    /// Whether this manager was a member, and is none any more.
    pub(crate) removed: watch::Sender<bool>,
}

#[derive(Clone, Copy)]
struct Seen {
    /// When a quorum of managers last answered.
    quorum: Instant,
    /// When the leader was last heard.
    leader: Instant,
    /// Whether this manager was seen to have a vote.
    had_vote: bool,
}

impl Contact {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            seen: Mutex::new(Seen { quorum: now, leader: now, had_vote: false }),
            removed: watch::Sender::new(false),
        }
    }

    fn update(&self, change: impl FnOnce(&mut Seen)) -> Seen {
        let mut seen = self.seen.lock().expect("nothing panics while holding it");
        change(&mut seen);
        *seen
    }

    /// Whether what this replica has may be shown to somebody.
    pub(crate) fn is_fresh(&self, consensus: &Consensus) -> bool {
        consensus.leader().is_some()
            || consensus.last_contact_with_leader().is_some_and(|age| age < FRESH_FOR)
    }
}

/// Until the manager stops.
pub(crate) async fn run(manager: Manager) {
    let (mut last, mut wait) = (Instant::now(), LOOK_EVERY);
    let mut members = manager.inner.consensus.members();
    loop {
        tokio::select! {
            () = manager.inner.stopping.cancelled() => return,
            // Its end is the log's, which is looked at in time.
            Ok(()) = members.changed() => {}
            () = raft::runtime::rest(wait) => {}
        }
        let late = last.elapsed().saturating_sub(wait);
        if late > STALLED {
            tracing::warn!(late_ms = late.as_millis(), "this manager did not run for a while");
            manager.inner.vitals.with_leases(|leases, now| leases.manager_stalled(now));
        }
        let silent_at = look(&manager).await;
        last = Instant::now();
        wait = silent_at.saturating_duration_since(last).max(LOOK_EVERY);
    }
}

/// Looks once; gives when the others are to be asked, if nothing is heard until then.
async fn look(manager: &Manager) -> Instant {
    let contact = &manager.inner.contact;
    note_membership(manager);
    let age = manager.inner.consensus.last_contact_with_leader();
    let heard = age.and_then(|age| Instant::now().checked_sub(age));
    let mut seen = contact.update(|seen| {
        if let Some(heard) = heard {
            seen.leader = seen.leader.max(heard);
            seen.quorum = seen.quorum.max(heard);
        }
    });
    if seen.quorum.elapsed() > ASK_AFTER {
        let asked = ask(manager).await;
        if asked.is_quorum {
            seen = contact.update(|seen| seen.quorum = Instant::now());
        }
        if asked.is_removed && !contact.removed.send_replace(true) {
            tracing::info!("this manager was taken out of consensus");
        }
    }
    let is_removed = *contact.removed.borrow();
    let is_cut_off =
        seen.quorum.elapsed() > CUT_OFF_AFTER || seen.leader.elapsed() > LEADERLESS_FOR || is_removed;
    if is_cut_off {
        if manager.inner.sessions.close(&sessions::cut_off()) {
            tracing::warn!("no contact to the other managers: nodes are sent elsewhere");
        }
    } else if manager.inner.sessions.open() {
        tracing::info!("in contact with the swarm");
    }
    seen.quorum + ASK_AFTER
}

/// A manager with a vote that finds itself left out of the members was removed.
fn note_membership(manager: &Manager) {
    let contact = &manager.inner.contact;
    let own = {
        let members = manager.inner.consensus.members();
        let members = members.borrow();
        members.members.get(&manager.inner.raft_id).map(|own| own.is_voter)
    };
    let had_vote = contact.update(|seen| seen.had_vote |= own == Some(true)).had_vote;
    if had_vote && own.is_none() && !contact.removed.send_replace(true) {
        tracing::info!("this manager was taken out of consensus");
    }
}

/// What the other managers say.
struct Asked {
    /// Whether this manager and those that answer are more than half.
    is_quorum: bool,
    /// Whether most of them, knowing as much as this one, say that it is no member any more: the leader sends nothing to
    /// those that it has removed.
    is_removed: bool,
}

async fn ask(manager: &Manager) -> Asked {
    let raft_id = manager.inner.raft_id;
    let (is_member, is_voter, others) = {
        let members = manager.inner.consensus.members().borrow().clone();
        let own = members.members.get(&raft_id);
        let others: Vec<String> = members
            .members
            .iter()
            .filter(|(id, member)| member.is_voter && **id != raft_id)
            .map(|(_, member)| member.address.clone())
            .collect();
        (own.is_some(), own.is_some_and(|own| own.is_voter), others)
    };
    let request = HealthRequest { raft_id: Some(raft_id) };
    let asked =
        others.iter().map(|address| manager.inner.client.call::<Health>(address, &request, ANSWER_WITHIN));
    let answers = join_all(asked).await;
    let applied = manager.inner.consensus.applied_index();
    let is_strange = |answer: &Result<Healthy, CallError>| match answer {
        Ok(answer) => !answer.knows_you && answer.applied_index >= applied,
        Err(CallError::Refused(refusal)) => refusal.code == Code::PermissionDenied,
        Err(_) => false,
    };
    let strange = answers.iter().filter(|answer| is_strange(answer)).count();
    let answers = answers.iter().filter(|answer| answer.is_ok()).count();
    let voters = others.len() + usize::from(is_voter);
    Asked {
        is_quorum: answers + usize::from(is_voter) > voters / 2,
        is_removed: is_member && strange > others.len() / 2,
    }
}

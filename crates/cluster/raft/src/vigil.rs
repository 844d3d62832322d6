//! Notices that the leader's process has died or its log has stopped, and replaces it without waiting for its lease to run out.
//!
//! A follower keeps a question open at the leader. When the connection under it is closed, and closed again for a second
//! question, the process is gone. If a quorum of the voters sees the same with its own eyes, it is replaced as soon as
//! nothing is promised to it any more (`lease.rs`), without waiting for an election timeout. A leader that is only silent is left to the election timeout.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{Raft, ServerState};
use tokio::sync::watch;

use crate::command::TypeConfig;
use crate::encoding::{Position, StoredVote};
use crate::keeper::View;
use crate::link::Link;
use crate::machine::Machine;
use crate::messages::{self, Probe};
use crate::runtime;
use crate::timing;
use crate::transport::CallError;

/// A follower's watch over its leader.
pub(crate) struct Vigil {
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) view: View,
    pub(crate) link: Arc<Link>,
}

impl Vigil {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut server = self.view.server.clone();
        loop {
            let leader = self.leader();
            let watching = async {
                match leader {
                    Some(leader) => self.watch(leader).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                stopped = stop.wait_for(|stop| *stop) => { drop(stopped); return; }
                changed = server.changed() => if changed.is_err() { return },
                () = watching => {}
            }
        }
    }

    /// The leader to watch: another manager that this voter follows.
    fn leader(&self) -> Option<StoredVote> {
        let server = self.view.server.borrow_watched();
        let is_follower = server.state == ServerState::Follower;
        let vote = StoredVote::of(&server.vote);
        (is_follower && vote.committed && vote.node != server.id).then_some(vote)
    }

    /// Waits for the end of the leader's process; returns when it has to begin anew.
    async fn watch(&mut self, leader: StoredVote) {
        let probe = Probe { linger_ms: timing::millis(timing::VIGIL), suspect: None };
        match self.link.probe(leader.node, probe, timing::VIGIL + timing::PROBE * 4).await {
            Ok(answer) if answer.stopped => self.replace(leader).await,
            Ok(_) => runtime::sleep(timing::LOOK).await,
            Err(CallError::Closed(_)) => self.replace(leader).await,
            // Heartbeats will tell.
            Err(CallError::Silent(_) | CallError::Refused(_)) => {
                runtime::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn replace(&mut self, leader: StoredVote) {
        // It may be there all the same, and read on the strength of what this voter has promised.
        runtime::sleep_until(self.link.promised_until()).await;
        let spread = timing::millis(timing::SPREAD).max(1);
        runtime::sleep(Duration::from_millis(runtime::random() % spread)).await;
        while let Some(until) = self.link.deferring_until() {
            runtime::sleep_until(until).await;
        }
        if self.view.sees_the_end_of(leader).await && self.a_quorum_sees_it(leader).await {
            tracing::info!(leader = leader.node, "the leader's process is gone, electing another");
            // A stopped log elects nobody.
            drop(self.raft.trigger().elect(false).await);
        }
        // Long enough for the election, short enough if nothing came of it.
        runtime::sleep(timing::DEFER).await;
    }

    /// Whether the voters that see the end of the leader, this one among them, can elect another.
    async fn a_quorum_sees_it(&self, leader: StoredVote) -> bool {
        let voters =
            self.view.server.borrow_watched().membership_config.membership().get_joint_config().clone();
        let others: Vec<u64> = voters
            .iter()
            .flatten()
            .copied()
            .filter(|id| *id != self.link.this && *id != leader.node)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let probe = Probe { suspect: Some(leader), linger_ms: 0 };
        let ask = |id: u64| async move { (id, self.link.probe(id, probe, timing::PROBE * 2).await) };
        let answers = join_all(others.into_iter().map(ask)).await;
        let mine = messages::place(self.view.data.borrow_watched().last_log);
        let place = |at: Option<Position>| at.map(|at| (at.term, at.index));
        let mut seen = vec![self.link.this];
        for (id, answer) in answers {
            let Ok(answer) = answer else { continue };
            if place(answer.last) > place(mine) {
                // It would not vote for this manager, and has seen the same: the field is its own.
                return false;
            }
            if answer.gone {
                seen.push(id);
            }
        }
        let is_majority =
            |set: &BTreeSet<u64>| set.iter().filter(|id| seen.contains(id)).count() * 2 > set.len();
        voters.iter().all(is_majority)
    }
}

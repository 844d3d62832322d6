//! Gives openraft its beat: heartbeats while this manager leads, ticks while an election may be due.
//!
//! In: who leads, when it was heard. Out: heartbeats, and openraft's ticker switched on and off. openraft would look every
//! 40 ms whether something is due, on every manager and for ever; most of the time nothing can be. Never decides who leads.

use std::sync::Arc;

use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{Raft, ServerState};
use tokio::sync::watch;

use crate::command::TypeConfig;
use crate::encoding::StoredVote;
use crate::keeper::View;
use crate::link::Link;
use crate::machine::Machine;
use crate::runtime::{self, Instant};
use crate::tempo;
use crate::timing;

/// What openraft needs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing before its standing changes: it leads nobody.
    Nothing,
    /// A heartbeat now and after each period.
    Beats,
    /// Nothing until the leader has been silent for a while.
    NothingUntil(Instant),
    /// Its own ticks: it may have to ask to lead.
    Ticks,
}

/// Gives openraft its beat.
pub(crate) struct Pacemaker {
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) view: View,
    pub(crate) link: Arc<Link>,
}

impl Pacemaker {
    /// Runs until `stop`.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut server = self.view.server.clone();
        loop {
            // What changes from here on is looked at again.
            let need = self.need();
            self.raft.runtime_config().tick(need == Need::Ticks);
            let wait = async {
                match need {
                    Need::Nothing => std::future::pending().await,
                    Need::Beats => {
                        // A log that has stopped needs no beat.
                        drop(self.raft.trigger().heartbeat().await);
                        // Real time, for followers that know nothing of long ways; what is too often is not sent.
                        runtime::sleep_until(next_beat()).await;
                    }
                    Need::NothingUntil(at) => runtime::sleep_until(at).await,
                    Need::Ticks => runtime::sleep(timing::LOOK).await,
                }
            };
            tokio::select! {
                biased;
                stopped = stop.wait_for(|stop| *stop) => { drop(stopped); return; }
                changed = server.changed() => if changed.is_err() { return },
                () = wait => {}
            }
        }
    }

    fn need(&self) -> Need {
        let (state, vote, members) = {
            let server = self.view.server.borrow_watched();
            (
                server.state,
                StoredVote::of(&server.vote),
                server.membership_config.membership().nodes().count(),
            )
        };
        if state == ServerState::Leader {
            return if members > 1 { Need::Beats } else { Need::Nothing };
        }
        let Some((_, at)) = self.link.led().filter(|(leader, _)| *leader == vote) else { return Need::Ticks };
        // openraft elects nobody before.
        let silent_at = at + tempo::stretched(timing::ELECTION_MAX);
        let now = Instant::now();
        // What is stretched now may be so no more in a while.
        if silent_at > now {
            Need::NothingUntil(silent_at.min(now + timing::ELECTION_MAX))
        } else {
            Need::Ticks
        }
    }
}

/// The beat after this moment, not one that is on now.
fn next_beat() -> Instant {
    (Instant::now() + timing::HEARTBEAT / 4).on_the_beat()
}

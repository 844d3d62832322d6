//! Runs `control::step` whenever something changed or a decision asked to be made again.
//!
//! In: the changes of every commit. Out: proposals. No polling and no waiting for more changes to come: what is queued
//! already is taken together, the rest waits for the next step.

use std::time::Duration;

use control::{Decision, Dirty};
use raft::{ChangeFeed, FeedItem, ProposeError};

use crate::clock;
use crate::manager::Manager;
use crate::propose::is_lost_race;

/// Wait after a failed proposal. Source: swarmkit restarts a component after 100 ms.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The longest such wait. Source: swarmkit, 30 s.
const AFTER_FAILURES: Duration = Duration::from_secs(30);

/// Steps in a row that lost a race before it is worth a warning. chosen: more than any burst of requests causes.
const RACES_WORTH_A_WARNING: u32 = 20;

/// Until the manager stops.
pub(crate) async fn run(manager: Manager) {
    let ((), mut feed) = manager.inner.consensus.follow(|_| ());
    let mut dirty = Dirty::everything();
    let mut wait = Duration::ZERO;
    let mut races = 0;
    let stopping = manager.inner.stopping.clone();
    while !stopping.is_cancelled() {
        let Ok(turn) = manager.turn().await else { return };
        // Everything committed until now is in the feed: whoever had the turn before has finished its commit.
        take_queued(&mut feed, &mut dirty);
        let decision = step(&manager, &mut dirty);
        let wake_at = decision.wake_at;
        if decision.writes.is_empty() {
            drop(turn);
            wait = Duration::ZERO;
            tokio::select! {
                () = stopping.cancelled() => return,
                item = feed.next() => match item {
                    Some(item) => note(item, &mut dirty),
                    None => return,
                },
                () = sleep_until(wake_at) => {}
            }
            continue;
        }
        let proposed = manager.propose_split(decision.writes).await;
        drop(turn);
        match proposed {
            Ok(()) => (wait, races) = (Duration::ZERO, 0),
            Err(error) if is_lost_race(&error) => {
                races += 1;
                if races % RACES_WORTH_A_WARNING == 0 {
                    tracing::warn!(
                        races,
                        error = &error as &dyn std::error::Error,
                        "decisions keep losing races"
                    );
                }
            }
            Err(error) => {
                report(&error);
                wait = (wait * 2).clamp(AFTER_FAILURE, AFTER_FAILURES);
                dirty = Dirty::everything();
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}

fn step(manager: &Manager, dirty: &mut Dirty) -> Decision {
    let store = manager.inner.consensus.read();
    let mut ids = manager.inner.ids.lock().expect("drawing ids does not panic");
    let decision = control::step(&store, dirty, clock::now(), &mut ids);
    for reason in &decision.reasons {
        tracing::debug!(?reason, "decided");
    }
    decision
}

fn take_queued(feed: &mut ChangeFeed, dirty: &mut Dirty) {
    while let Some(item) = feed.try_next() {
        note(item, dirty);
    }
}

fn note(item: FeedItem, dirty: &mut Dirty) {
    match item {
        FeedItem::Commit(commit) => commit.changes.iter().for_each(|change| dirty.note(change)),
        FeedItem::Resync => *dirty = Dirty::everything(),
    }
}

async fn sleep_until(wake_at: Option<objects::Timestamp>) {
    match wake_at {
        Some(at) => tokio::time::sleep(clock::until(at)).await,
        None => std::future::pending().await,
    }
}

fn report(error: &ProposeError) {
    tracing::error!(error = error as &dyn std::error::Error, "a decision could not be committed");
}

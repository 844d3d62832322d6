//! Runs `control::step` whenever something changed or a decision asked to be made again; while this manager leads.
//!
//! In: the changes of every commit. Out: proposals. No polling and no waiting for more changes to come: what is queued
//! already is taken together, the rest waits for the next step.

use std::time::Duration;

use control::{Decision, Dirty, Parts};
use objects::Timestamp;
use raft::{ChangeFeed, FeedItem, ProposeError};

use crate::clock;
use crate::manager::Manager;
use crate::propose::{is_lost_race, is_open};

/// Wait after a failed proposal. Source: swarmkit restarts a component after 100 ms.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The longest such wait. Source: swarmkit, 30 s.
const AFTER_FAILURES: Duration = Duration::from_secs(30);

/// Steps in a row that lost a race before it is worth a warning. chosen: more than any burst of requests causes.
const RACES_WORTH_A_WARNING: u32 = 20;

/// Steps in a row that lost a race before everybody else has to wait for one. chosen: a race is lost when an object that a
/// step writes changes within the milliseconds of a commit; a second time by chance, a third one under load.
const RACES_BEFORE_HUSH: u32 = 3;

/// Until it is dropped, or the log has stopped.
pub(crate) async fn run(manager: Manager) {
    let ((), mut feed) = manager.inner.consensus.follow(|_| ());
    let mut dirty = Dirty::everything();
    let mut wait = Duration::ZERO;
    let mut races = 0;
    loop {
        let Ok(turn) = manager.inner.turns.take_control(races >= RACES_BEFORE_HUSH).await else { return };
        let now = clock::now();
        let (decision, parts) = step(&manager, &mut feed, &mut dirty, now);
        let wake_at = decision.wake_at;
        let Some(parts) = parts else {
            drop(turn);
            (wait, races) = (Duration::ZERO, 0);
            tokio::select! {
                item = feed.next() => match item {
                    Some(item) => note(item, &mut dirty),
                    None => return,
                },
                () = sleep_until(wake_at) => {}
            }
            continue;
        };
        let proposed = propose(&manager, now, parts).await;
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
                // The next decision must not be made on a store that lacks this one.
                if is_open(&error) && !manager.settled().await {
                    return;
                }
                wait = (wait * 2).clamp(AFTER_FAILURE, AFTER_FAILURES);
                dirty = Dirty::everything();
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Decides on the store and on everything that led to it: a commit is in the feed before the store can be read.
fn step(
    manager: &Manager,
    feed: &mut ChangeFeed,
    dirty: &mut Dirty,
    now: Timestamp,
) -> (Decision, Option<Parts>) {
    let store = manager.inner.consensus.read();
    while let Some(item) = feed.try_next() {
        note(item, dirty);
    }
    let mut ids = manager.inner.ids.lock().expect("drawing ids does not panic");
    let mut decision = control::step(&store, dirty, now, &mut ids);
    for reason in &decision.reasons {
        tracing::debug!(?reason, "decided");
    }
    let writes = std::mem::take(&mut decision.writes);
    let parts = (!writes.is_empty()).then(|| Parts::new(&store, writes));
    (decision, parts)
}

/// Commits a decision of `now`, in several entries when one would be too large. Stops at the first one that is refused.
async fn propose(manager: &Manager, now: Timestamp, mut parts: Parts) -> Result<(), ProposeError> {
    while let Some(entry) = parts.next() {
        match manager.inner.consensus.propose(now, entry).await {
            Ok(applied) => parts.committed(applied.index),
            Err(ProposeError::TooLarge { .. }) if parts.halve() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn note(item: FeedItem, dirty: &mut Dirty) {
    match item {
        FeedItem::Commit(commit) => commit.changes.iter().for_each(|change| dirty.note(change)),
        FeedItem::Resync => *dirty = Dirty::everything(),
    }
}

async fn sleep_until(wake_at: Option<Timestamp>) {
    match wake_at {
        Some(at) => tokio::time::sleep(clock::until(at)).await,
        None => std::future::pending().await,
    }
}

fn report(error: &ProposeError) {
    tracing::error!(error = error as &dyn std::error::Error, "a decision could not be committed");
}

#[cfg(test)]
#[path = "control_loop_tests.rs"]
mod tests;

//! How long a leader may be silent, and everything that follows from it.
//!
//! A follower waits [`ELECTION_MAX`] after the leader's last sign of life, then a random time out of the election timeout,
//! then asks for a pre-vote: a silent leader is replaced after 0.8 to 1 s, one whose process died (its connections are
//! closed) after about 0.3 s. What openraft times ([`HEARTBEAT`], [`ELECTION_MIN`], [`ELECTION_MAX`]) is stretched where round
//! trips are long (`tempo.rs`); these are the floor.

use std::time::Duration;

/// Between two signs of life of a leader. chosen: four in a row have to be missed before anybody asks to lead, and an idle
/// leader of three managers sends ten small messages a second.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(200);

/// The shortest election timeout. chosen: longer than the heartbeat, and not shorter than [`PROMISE`].
pub(crate) const ELECTION_MIN: Duration = Duration::from_millis(300);

/// The longest election timeout. As long as a quorum has answered within that time, a leader acts as one.
/// chosen: a silent leader is replaced well within 1.5 s.
pub(crate) const ELECTION_MAX: Duration = Duration::from_millis(500);

/// How long after a message a leader reads without asking, if a quorum answered it (`lease.rs`). Real time, never
/// stretched. chosen: longer than the heartbeat and a round trip, so that a lease does not end between two.
pub(crate) const LEASE: Duration = Duration::from_millis(250);

/// How long after a message of its leader a voter helps to elect nobody else, even when that leader's process is gone.
/// Real time, never stretched. chosen: longer than [`LEASE`] by a fifth, which is more than clocks differ in speed.
pub(crate) const PROMISE: Duration = Duration::from_millis(300);

/// What an answer to entries may take. chosen: a megabyte over a slow line and a slow disk; sending again does no harm.
pub(crate) const APPEND: Duration = Duration::from_secs(3);

/// What sending a snapshot may take without anything moving. chosen: as gRPC's keep-alive of swarmkit.
pub(crate) const SNAPSHOT: Duration = Duration::from_secs(10);

/// What an answer to a question between managers may take, if it is not about entries. chosen: a round trip around the
/// world.
pub(crate) const PROBE: Duration = Duration::from_millis(300);

/// How long a follower asks the leader to hold its question, to notice when the connection ends. chosen: rare enough not
/// to be seen, and connections that only look alive are noticed by the heartbeats.
pub(crate) const VIGIL: Duration = Duration::from_secs(20);

/// Followers that notice the end of the leader's process at the same moment wait a random time up to this before they ask
/// to lead. chosen: some round trips of a local network.
pub(crate) const SPREAD: Duration = Duration::from_millis(50);

/// How long a follower leaves the field to another one that asked first. chosen: an election takes two round trips and two
/// disk writes.
pub(crate) const DEFER: Duration = Duration::from_millis(300);

/// How often a manager looks at what may change without a message, while something is not as it should be. Otherwise it
/// looks when something may be over. chosen: a fifth of the time for which a quorum counts.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Between two measurements of the round trips to the other voters, until they are known. chosen: some seconds for all.
pub(crate) const MEASURE: Duration = Duration::from_secs(2);

/// Between two measurements after that. chosen: they change seldom; when they change by much, no leader is heard, and they
/// are measured at once.
pub(crate) const MEASURE_AGAIN: Duration = Duration::from_secs(15);

/// A commit that takes this long is slow. chosen: above what a loaded disk shows, below what users notice as a hang.
pub(crate) const SLOW_COMMIT: Duration = Duration::from_millis(300);

/// A commit that has taken this long counts as a slow disk at once.
pub(crate) const STUCK_COMMIT: Duration = Duration::from_secs(1);

/// Slow commits in a row after which another manager should lead. chosen: one hiccup is none.
pub(crate) const SLOW_COMMITS: u32 = 3;

/// Between two attempts to hand over because of a slow disk. chosen: if all disks are slow, leadership should not wander.
pub(crate) const HANDOVER_AGAIN: Duration = Duration::from_secs(30);

/// What a handover may take. chosen: the other may have to write entries to its disk first.
pub(crate) const HANDOVER: Duration = Duration::from_millis(1500);

/// What one step of a change of members may take.
pub(crate) const CHANGE: Duration = Duration::from_secs(5);

/// How long a learner may take to copy the log before it gets a vote.
/// Source: design of this crate's callers; swarmkit waits for the same reason, without a limit.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(20);

/// A change of members that somebody left half done is completed after this time. chosen: longer than any step takes.
pub(crate) const COMPLETE_AFTER: Duration = Duration::from_secs(1);

/// A follower answers a heartbeat after this time even if its disk still writes entries that came before.
/// chosen: well within the heartbeat's own time limit.
pub(crate) const BEAT_ANSWER: Duration = Duration::from_millis(60);

/// In whole milliseconds, as openraft takes it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

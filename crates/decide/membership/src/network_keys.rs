//! Decides when the keys of encrypted networks are replaced, and which of them is used for what.
//!
//! In: the keys of the cluster, the time, fresh secrets. Out: the keys from then on. Never makes a secret itself.
//!
//! ```text
//!   oldest    what was sent before the last change still arrives
//!   middle    what is sent
//!   newest    known everywhere before anybody sends with it
//! ```

use objects::{Cluster, Nanos, NetworkKey, Timestamp};

/// Keys that are known at a time. Source: moby/swarmkit, `manager/keymanager/keymanager.go` (three per subsystem).
pub const KEPT: usize = 3;

/// How long a key is the newest. Source: moby/swarmkit, `manager/keymanager/keymanager.go` (12 h).
pub const LIFE: Nanos = Nanos::from_secs(12 * 60 * 60);

/// When the keys are to be replaced next; not later than `now`: they are due.
pub fn due_at(cluster: &Cluster, now: Timestamp) -> Timestamp {
    let keys = &cluster.internal.network_keys;
    let Some(newest) = keys.last().filter(|_| keys.len() >= KEPT) else { return now };
    // One that a leader with a fast clock made does not last longer for it.
    newest.made_at.min(now) + LIFE
}

/// The cluster with one key more, or all it should have when it has fewer; the oldest goes. `fresh` has [`KEPT`] secrets.
pub fn replaced(cluster: &Cluster, fresh: [String; KEPT], now: Timestamp) -> Cluster {
    let mut next = cluster.clone();
    let keys = &mut next.internal.network_keys;
    let missing = KEPT.saturating_sub(keys.len()).max(1);
    for key in fresh.into_iter().take(missing) {
        let number = keys.last().map_or(1, |newest| newest.number + 1);
        keys.push(NetworkKey { number, made_at: now, key });
    }
    let surplus = keys.len().saturating_sub(KEPT);
    keys.drain(..surplus);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> [String; KEPT] {
        ["a", "b", "c"].map(str::to_owned)
    }

    fn numbers(cluster: &Cluster) -> Vec<u64> {
        cluster.internal.network_keys.iter().map(|key| key.number).collect()
    }

    #[test]
    fn a_new_swarm_gets_three_keys_and_then_one_every_twelve_hours() {
        let start = Timestamp(1_000_000_000);
        let mut cluster = Cluster::default();
        assert_eq!(due_at(&cluster, start), start);
        cluster = replaced(&cluster, fresh(), start);
        assert_eq!(numbers(&cluster), [1, 2, 3]);
        assert_eq!(due_at(&cluster, start), start + LIFE);
        let later = start + LIFE;
        cluster = replaced(&cluster, fresh(), later);
        assert_eq!(numbers(&cluster), [2, 3, 4]);
        assert_eq!(due_at(&cluster, later), later + LIFE);
    }

    #[test]
    fn what_is_sent_now_is_still_taken_after_the_next_change() {
        let mut cluster = replaced(&Cluster::default(), fresh(), Timestamp(1));
        for _ in 0..5 {
            let sending = numbers(&cluster)[1];
            cluster = replaced(&cluster, fresh(), Timestamp(1));
            assert!(numbers(&cluster).contains(&sending), "a node that was told late loses nothing");
            assert_eq!(numbers(&cluster)[1], sending + 1, "and the next one was known before");
        }
    }

    #[test]
    fn a_key_of_a_leader_whose_clock_was_ahead_lasts_no_longer() {
        let ahead = replaced(&Cluster::default(), fresh(), Timestamp(i64::MAX / 2));
        let now = Timestamp(5);
        assert_eq!(due_at(&ahead, now), now + LIFE);
    }
}

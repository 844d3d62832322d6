//! Whether this leader may answer a read without asking anybody: its lease.
//!
//! In: when messages were sent that other voters have answered as this leader's followers; the members; the time. Out: yes
//! or no. Never extends what a voter has promised: a voter that answered helps to elect nobody else for [`timing::PROMISE`]
//! after it heard the message, which is later than the moment it was sent.
//!
//! ```text
//!  leader    sent ├──── LEASE ────┤ reads are answered until here
//!  voter           heard ├────── PROMISE ──────┤ votes for nobody else until here
//! ```
//!
//! Every way past a voter's promise ends it for the leader first, or waits for its end: a handover is announced by the
//! leader itself ([`Lease::surrender`]), a leader whose process is gone is replaced after the promise (`vigil.rs`), a
//! voter that was restarted and has forgotten what it promised votes for nobody at first (`answer.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::encoding::StoredVote;
use crate::runtime::{self, Instant};
use crate::timing;

/// How far the wall clock may go apart from the monotonic one before this counts as a machine that slept.
/// chosen: a clock that is being adjusted goes apart by half a millisecond a second; asking once in vain costs a round trip.
const APART: Duration = Duration::from_millis(20);

/// The lease of this manager, should it lead.
#[derive(Default)]
pub(crate) struct Lease {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// As which leader this manager was answered.
    leader: Option<StoredVote>,
    /// When the newest message was sent that each voter has answered as that leader's follower.
    answered: BTreeMap<u64, Instant>,
    /// The last term in which this manager asked another one to lead.
    surrendered: Option<u64>,
    sleep: Sleep,
}

/// Notices that the machine slept: the monotonic clock stood still then, the wall clock did not.
#[derive(Default)]
struct Sleep {
    /// Between the two clocks, in nanoseconds.
    apart: Option<i128>,
    /// When it was noticed last that they moved against each other.
    woken: Option<Instant>,
}

impl Lease {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding it")
    }

    /// A voter has answered, as a follower of `leader`, a message that was sent at `sent`.
    pub(crate) fn answered(&self, leader: StoredVote, voter: u64, sent: Instant) {
        let mut state = self.state();
        state.sleep.look();
        if state.leader.is_some_and(|known| known.term > leader.term) {
            return;
        }
        if state.leader != Some(leader) {
            state.leader = Some(leader);
            state.answered.clear();
        }
        let newest = state.answered.entry(voter).or_insert(sent);
        *newest = sent.max(*newest);
    }

    /// This manager is about to ask another one to lead. What it asks may arrive late, so there is no lease any more in
    /// this term.
    pub(crate) fn surrender(&self, term: u64) {
        let mut state = self.state();
        state.surrendered = state.surrendered.max(Some(term));
    }

    /// Whether nobody else can lead at this moment; `leader` is this manager as it was elected, `voters` one set, or two
    /// during a change.
    pub(crate) fn holds<'v>(
        &self,
        leader: StoredVote,
        mut voters: impl Iterator<Item = &'v BTreeSet<u64>>,
    ) -> bool {
        let mut state = self.state();
        state.sleep.look();
        if state.leader != Some(leader) || state.surrendered >= Some(leader.term) {
            return false;
        }
        let woken = state.sleep.woken;
        let now = Instant::now();
        let counts = |voter: &&u64| {
            **voter == leader.node
                || state.answered.get(voter).is_some_and(|sent| {
                    now - *sent < timing::LEASE && woken.is_none_or(|woken| *sent >= woken)
                })
        };
        voters.all(|set| set.iter().filter(counts).count() * 2 > set.len())
    }
}

impl Sleep {
    fn look(&mut self) {
        // A simulated machine has no other clock, and never sleeps.
        if runtime::is_simulated() {
            return;
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.compare(wall, Instant::now());
    }

    fn compare(&mut self, wall: Duration, now: Instant) {
        let nanos = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
        let apart = nanos(wall) - nanos(now.since_start());
        let is_apart = |before: i128| (apart - before).unsigned_abs() > APART.as_nanos();
        if self.apart.replace(apart).is_some_and(is_apart) {
            self.woken = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: StoredVote = StoredVote { term: 3, node: 1, committed: true };

    fn check(lease: &Lease, leader: StoredVote, voters: &[&[u64]]) -> bool {
        let voters: Vec<BTreeSet<u64>> = voters.iter().map(|set| set.iter().copied().collect()).collect();
        lease.holds(leader, voters.iter())
    }

    #[test]
    fn a_quorum_of_every_set_of_voters_gives_a_lease() {
        let lease = Lease::default();
        assert!(!check(&lease, LEADER, &[&[1, 2, 3]]), "nobody has answered");
        lease.answered(LEADER, 2, Instant::now());
        for (voters, holds) in [
            (&[&[1, 2, 3][..]][..], true),
            (&[&[1, 2, 3, 4]], false),
            (&[&[2, 3, 4]], false),
            (&[&[1, 3, 4]], false),
            (&[&[1, 2, 3], &[1, 2, 3, 4]], false),
            (&[&[1, 2, 3], &[1, 2]], true),
        ] {
            assert_eq!(check(&lease, LEADER, voters), holds, "{voters:?}");
        }
    }

    #[test]
    fn an_answer_counts_for_the_leader_it_was_given_to() {
        let lease = Lease::default();
        let next = StoredVote { term: 4, ..LEADER };
        lease.answered(LEADER, 2, Instant::now());
        assert!(!check(&lease, next, &[&[1, 2, 3]]));
        lease.answered(next, 3, Instant::now());
        lease.answered(LEADER, 2, Instant::now());
        assert!(check(&lease, next, &[&[1, 2, 3]]) && !check(&lease, LEADER, &[&[1, 2, 3]]));
        assert!(!check(&lease, next, &[&[1, 2, 4]]), "an answer of before does not count");
    }

    #[test]
    fn a_lease_counts_from_when_the_message_was_sent_and_ends_before_the_promise() {
        let lease = Lease::default();
        let ago = |span| Instant::from_start(Instant::now().since_start() - span);
        lease.answered(LEADER, 2, ago(timing::LEASE));
        assert!(!check(&lease, LEADER, &[&[1, 2, 3]]));
        lease.answered(LEADER, 2, ago(timing::LEASE / 2));
        lease.answered(LEADER, 2, ago(timing::LEASE));
        assert!(check(&lease, LEADER, &[&[1, 2, 3]]), "the newest counts");
        assert!(timing::LEASE * 6 / 5 <= timing::PROMISE, "clocks may differ by a fifth in speed");
        assert!(timing::PROMISE <= timing::ELECTION_MIN, "a voter keeps its promise by itself, too");
    }

    #[test]
    fn who_asked_another_to_lead_has_no_lease_in_that_term() {
        let lease = Lease::default();
        lease.surrender(3);
        lease.answered(LEADER, 2, Instant::now());
        assert!(!check(&lease, LEADER, &[&[1, 2, 3]]));
        let next = StoredVote { term: 4, ..LEADER };
        lease.answered(next, 2, Instant::now());
        assert!(check(&lease, next, &[&[1, 2, 3]]));
    }

    #[test]
    fn a_machine_that_slept_counts_nothing_of_before() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut sleep = Sleep::default();
        let begin = Duration::from_secs(1_000_000);
        sleep.compare(begin, start);
        sleep.compare(begin + ms(1_010), start + ms(1_000));
        assert_eq!(sleep.woken, None, "a clock is being adjusted");
        sleep.compare(begin + ms(60_000), start + ms(1_001));
        assert_eq!(sleep.woken, Some(start + ms(1_001)), "a minute was slept through");
        sleep.compare(begin + ms(60_100), start + ms(1_101));
        assert_eq!(sleep.woken, Some(start + ms(1_001)));
        sleep.compare(begin, start + ms(1_102));
        assert_eq!(sleep.woken, Some(start + ms(1_102)), "or the clock was set");
    }
}

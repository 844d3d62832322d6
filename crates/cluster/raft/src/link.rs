//! What this manager knows about the way to the others: their addresses, when it last heard from each, and whose
//! connections were closed.
//!
//! In: calls to carry, signs of life. Out: answers. Never decides who leads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;

use crate::encoding::StoredVote;
use crate::lease::Lease;
use crate::messages::{self, Envelope, Probe, ProbeAnswer};
use crate::runtime::{self, Instant};
use crate::timing;
use crate::transport::{Call, CallError, Member, SnapshotStream, Transport};

/// Round trips that are remembered per member. chosen: one or two that a busy processor delayed don't show in the middle.
const ROUND_TRIPS: usize = 7;

/// Shared by everything that talks to other managers.
pub(crate) struct Link {
    pub(crate) this: u64,
    pub(crate) epoch: u64,
    pub(crate) lease: Lease,
    transport: Arc<dyn Transport>,
    /// When this manager began: what it promised before, it has forgotten.
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    addresses: BTreeMap<u64, String>,
    heard: BTreeMap<u64, Instant>,
    /// Who last spoke as a leader that this manager follows, and when. Answers to its own questions don't count: a manager
    /// that was removed still gets those.
    led: Option<(StoredVote, Instant)>,
    /// The newest round trips to each member, at most [`ROUND_TRIPS`].
    round_trips: BTreeMap<u64, VecDeque<Duration>>,
    /// The leader that this manager has seen the end of.
    gone: Option<StoredVote>,
    /// Another manager asked to lead instead of a leader that is gone: it has the field until then.
    deferring_until: Option<Instant>,
}

impl Link {
    pub(crate) fn new(this: u64, epoch: u64, transport: Arc<dyn Transport>) -> Self {
        let (lease, began) = (Lease::default(), Instant::now());
        Self { this, epoch, lease, transport, began, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding it")
    }

    /// The head of a message to `to`.
    pub(crate) fn envelope(&self, to: u64) -> Envelope {
        Envelope { epoch: self.epoch, from: self.this, to }
    }

    /// Takes over where the members are reached.
    pub(crate) fn set_addresses(&self, addresses: BTreeMap<u64, String>) {
        self.state().addresses = addresses;
    }

    fn member(&self, raft_id: u64, otherwise: &str) -> Member {
        let address = self.state().addresses.get(&raft_id).map_or(otherwise, String::as_str).to_owned();
        Member { raft_id, address }
    }

    /// Something came from a member: its process is there.
    pub(crate) fn hear(&self, raft_id: u64) {
        let mut state = self.state();
        state.heard.insert(raft_id, Instant::now());
        if state.gone.is_some_and(|gone| gone.node == raft_id) {
            state.gone = None;
        }
    }

    /// When something last came from a member.
    pub(crate) fn heard(&self, raft_id: u64) -> Option<Instant> {
        self.state().heard.get(&raft_id).copied()
    }

    /// A leader that this manager follows has sent it entries, a sign of life or a snapshot.
    pub(crate) fn hear_leader(&self, leader: StoredVote) {
        self.state().led = Some((leader, Instant::now()));
    }

    /// When a leader last spoke to this manager, and which.
    pub(crate) fn led(&self) -> Option<(StoredVote, Instant)> {
        self.state().led
    }

    /// Until when this manager helps to elect nobody else than the leader that spoke to it last.
    pub(crate) fn promised_until(&self) -> Instant {
        self.led().map_or(self.began, |(_, at)| at) + timing::PROMISE
    }

    /// Until when this manager votes for nobody, because it may have promised so before it was restarted.
    pub(crate) fn mute_until(&self) -> Instant {
        self.began + timing::PROMISE
    }

    /// The leader that this manager has seen the end of, unless it was heard from since.
    pub(crate) fn gone(&self) -> Option<StoredVote> {
        self.state().gone
    }

    pub(crate) fn set_gone(&self, leader: StoredVote) {
        self.state().gone = Some(leader);
    }

    /// Leaves the field to another manager for a while.
    pub(crate) fn defer(&self) {
        self.state().deferring_until = Some(Instant::now() + timing::DEFER);
    }

    /// Until when the field is another manager's.
    pub(crate) fn deferring_until(&self) -> Option<Instant> {
        self.state().deferring_until.filter(|until| *until > Instant::now())
    }

    /// Calls a member; `address` is where it is reached if nothing newer is known.
    pub(crate) async fn call(
        &self,
        to: u64,
        address: &str,
        call: Call,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let member = self.member(to, address);
        if member.address.is_empty() {
            return Err(CallError::Silent(NoAddress.into()));
        }
        let calling = self.transport.call(&member, call, body, timeout);
        let answer = match runtime::timeout(timeout, calling).await {
            Ok(answer) => answer?,
            Err(elapsed) => return Err(CallError::Silent(elapsed.into())),
        };
        self.check(to, &answer)?;
        Ok(answer)
    }

    /// Sends a snapshot to a member.
    pub(crate) async fn snapshot(
        &self,
        to: u64,
        address: &str,
        header: Bytes,
        body: SnapshotStream,
    ) -> Result<Bytes, CallError> {
        let member = self.member(to, address);
        let answer = self.transport.snapshot(&member, header, body).await?;
        self.check(to, &answer)?;
        Ok(answer)
    }

    fn check(&self, to: u64, answer: &[u8]) -> Result<(), CallError> {
        let (envelope, _) = Envelope::read(answer).map_err(|error| CallError::Refused(error.into()))?;
        if envelope != (Envelope { epoch: self.epoch, from: to, to: self.this }) {
            return Err(CallError::Refused(Stranger.into()));
        }
        self.hear(to);
        Ok(())
    }

    /// Measures the round trip to a member; nothing is learned from one that does not answer.
    pub(crate) async fn measure(&self, to: u64) {
        let began = Instant::now();
        let answered = self.probe(to, Probe::default(), timing::APPEND).await.is_ok();
        // A longer time is this process's own: it did not run.
        if answered && began.elapsed() <= timing::APPEND {
            let mut state = self.state();
            let known = state.round_trips.entry(to).or_default();
            known.push_back(began.elapsed());
            if known.len() > ROUND_TRIPS {
                known.pop_front();
            }
        }
    }

    /// Whether the round trips to all these members were measured often enough to know what is usual.
    pub(crate) fn knows_round_trips(&self, mut members: impl Iterator<Item = u64>) -> bool {
        let state = self.state();
        members.all(|id| state.round_trips.get(&id).is_some_and(|known| known.len() >= ROUND_TRIPS / 2))
    }

    /// The longest of the usual round trips to `members`.
    pub(crate) fn round_trip(&self, members: impl Iterator<Item = u64>) -> Duration {
        let state = self.state();
        let usual = members.filter_map(|id| {
            let mut known: Vec<Duration> = state.round_trips.get(&id)?.iter().copied().collect();
            known.sort_unstable();
            known.get(known.len() / 2).copied()
        });
        usual.max().unwrap_or_default()
    }

    /// Asks a member whether it lives, or more.
    pub(crate) async fn probe(
        &self,
        to: u64,
        probe: Probe,
        timeout: Duration,
    ) -> Result<ProbeAnswer, CallError> {
        let refused = |error: Box<dyn std::error::Error + Send + Sync>| CallError::Refused(error);
        let body = self.envelope(to).seal(&probe).map_err(|error| refused(error.into()))?;
        let answer = self.call(to, "", Call::Probe, body, timeout).await?;
        let (_, content) = Envelope::read(&answer).map_err(|error| refused(error.into()))?;
        messages::read(content).map_err(|error| refused(error.into()))
    }
}

/// The members are not known yet.
#[derive(Debug, thiserror::Error)]
#[error("the manager's address is not known yet")]
struct NoAddress;

/// The one who answered is not the one who was asked.
#[derive(Debug, thiserror::Error)]
#[error("the answer is of another manager or another swarm")]
struct Stranger;

//! What this manager hears of nodes: proofs of life, sessions that open and end, announced holds.
//!
//! In: pulses, sessions. Out: notes in this manager's own [`Leases`], and the same for the leader while another manager
//! leads. A new leader is told the newest proofs of every node, and all holds, again. Never judges: that is the leader's loop.
//!
//! A proof names the session that it is of. The leader knows each session before its node does: once a node has used its
//! new one, proofs of another one are recordings.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use membership::{LONGEST_HOLD, LeaseTimes, Leases, Moment};
use objects::{Nanos, NodeId};
use tokio::sync::Notify;
use tokio::time::Instant;
use wire::managers::{AliveRequest, Held, Seen};
use wire::session::SessionId;

/// After how many pulses of a node proofs go to the leader. chosen: a second, as a rule, which is a third of what makes a
/// silent node suspicious; most proofs reach the leader directly.
pub(crate) const PULSES_PER_NEWS: u32 = 2;

/// Notes for the leader that are kept while nobody leads. chosen: far above what a swarm has in a minute; beyond it the
/// leader's own leases tell the same.
const KEPT_NOTES: usize = 10_000;

/// Proofs older than this are not told again: they no longer prove anything. chosen: twice the longest usual lease.
const OLDEST_PROOF: Duration = Duration::from_secs(10);

/// What this manager has heard.
pub(crate) struct Vitals {
    /// The zero of this manager's moments.
    start: Instant,
    heard: Mutex<Heard>,
    /// Rung when there is something to judge or to pass on at once.
    ring: Notify,
    /// Rung with every note: the judge asks its leases anew when to judge.
    noted: Notify,
}

struct Heard {
    leases: Leases,
    /// When each node was last heard of, here, in which session.
    proofs: Proofs,
    /// The sessions of each node, as the leader knows them; `None` on others.
    sessions: Option<BTreeMap<NodeId, Known>>,
    /// Until when the nodes that said so may be silent, whichever manager they said it to, as far as this one was told.
    holds: BTreeMap<NodeId, (SessionId, Instant)>,
    /// Notes that the leader was not told yet.
    news: News,
}

type Proofs = BTreeMap<(NodeId, SessionId), Instant>;

/// What the leader knows of a node's sessions.
#[derive(Default)]
struct Known {
    /// The last one that was opened, until the node uses it.
    opened: Option<SessionId>,
    /// The last one that the node was seen to use; `None`: it may be any of before this manager led.
    used: Option<SessionId>,
}

impl Known {
    /// Whether a proof of this session is the node's own. Between two sessions it goes on with the one before.
    fn takes(&mut self, session: &SessionId) -> bool {
        if self.opened.as_ref() == Some(session) {
            self.used = self.opened.take();
        }
        self.used.as_ref().is_none_or(|used| used == session)
    }
}

/// Notes for the leader.
#[derive(Default)]
struct News {
    proofs: Proofs,
    closed: Vec<(NodeId, SessionId, Instant)>,
    opened: Vec<(NodeId, SessionId, Instant)>,
    holds: Vec<(NodeId, SessionId, Instant)>,
    left: Vec<(NodeId, SessionId, Instant)>,
}

impl News {
    fn len(&self) -> usize {
        self.closed.len() + self.opened.len() + self.holds.len() + self.left.len()
    }
}

impl Heard {
    /// Whether a proof is the node's own, as far as this manager can tell.
    fn is_own(&mut self, node: &NodeId, session: &SessionId) -> bool {
        let known = self.sessions.as_mut().and_then(|sessions| sessions.get_mut(node));
        known.is_none_or(|known| known.takes(session))
    }
}

/// A manager's leadership, as far as it learns of sessions.
pub(crate) struct Leading<'a>(&'a Vitals);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.heard().sessions = None;
    }
}

impl Vitals {
    pub(crate) fn new(times: LeaseTimes) -> Self {
        let heard = Heard {
            leases: Leases::new(times),
            proofs: Proofs::new(),
            sessions: None,
            holds: BTreeMap::new(),
            news: News::default(),
        };
        Self { start: Instant::now(), heard: Mutex::new(heard), ring: Notify::new(), noted: Notify::new() }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("noting what was heard does not panic")
    }

    /// `at` on the clock of the leases.
    fn moment(&self, at: Instant) -> Moment {
        Moment::default() + Nanos::from(at.saturating_duration_since(self.start))
    }

    /// Now, on the clock of the leases.
    pub(crate) fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    /// From now until `at`.
    pub(crate) fn until(&self, at: Moment) -> Duration {
        at.since(self.now()).to_std()
    }

    /// Does something with the leases.
    pub(crate) fn with_leases<T>(&self, act: impl FnOnce(&mut Leases, Moment) -> T) -> T {
        let now = self.now();
        act(&mut self.heard().leases, now)
    }

    /// This manager leads until what it gets is dropped: it learns which sessions are opened.
    pub(crate) fn lead(&self) -> Leading<'_> {
        self.heard().sessions = Some(BTreeMap::new());
        Leading(self)
    }

    /// At the leader: a node opens a session, with whichever manager. Call it before READY is written.
    pub(crate) fn opens(&self, node: &NodeId, session: &SessionId) {
        let now = self.now();
        let mut heard = self.heard();
        heard.leases.opened(node, &session.0, now);
        if let Some(sessions) = &mut heard.sessions {
            sessions.entry(node.clone()).or_default().opened = Some(session.clone());
        }
        heard.holds.remove(node);
        drop(heard);
        self.noted.notify_one();
    }

    /// A node proved that it is alive, in this session.
    pub(crate) fn proof(&self, node: &NodeId, session: &SessionId) {
        self.proof_of(node, session, Instant::now());
    }

    /// As [`Self::proof`], heard at `at`. One that is not newer than what is known says nothing.
    pub(crate) fn proof_of(&self, node: &NodeId, session: &SessionId, at: Instant) {
        let mut heard = self.heard();
        let of = (node.clone(), session.clone());
        if heard.proofs.get(&of).is_some_and(|known| *known >= at) {
            return;
        }
        if heard.is_own(node, session) {
            heard.leases.proof(node, self.moment(at));
            heard.proofs.insert(of.clone(), at);
            heard.news.proofs.insert(of, at);
        }
    }

    /// A session was opened here.
    pub(crate) fn opened(&self, node: &NodeId, session: &SessionId) {
        self.note(|heard, at, moment| {
            heard.leases.opened(node, &session.0, moment);
            heard.holds.remove(node);
            heard.news.opened.push((node.clone(), session.clone(), at));
        });
    }

    /// A session ended here without a goodbye.
    pub(crate) fn closed(&self, node: &NodeId, session: &SessionId) {
        self.note(|heard, at, moment| {
            heard.leases.closed(node, Some(&session.0), moment);
            heard.news.closed.push((node.clone(), session.clone(), at));
        });
    }

    /// All connections of a manager's node to this one have ended.
    pub(crate) fn departed(&self, node: &NodeId) {
        self.with_leases(|leases, now| leases.closed(node, None, now));
        self.noted.notify_one();
    }

    /// A node's daemon stops and is back after at most `span`.
    pub(crate) fn hold(&self, node: &NodeId, session: &SessionId, span: Duration) {
        self.note(|heard, at, moment| {
            heard.leases.hold(node, Nanos::from(span), moment);
            heard.holds.insert(node.clone(), (session.clone(), at + span));
            heard.news.holds.push((node.clone(), session.clone(), at + span));
        });
    }

    /// A node leaves the swarm.
    pub(crate) fn left(&self, node: &NodeId, session: &SessionId) {
        self.note(|heard, at, moment| {
            heard.leases.left(node, moment);
            heard.news.left.push((node.clone(), session.clone(), at));
        });
    }

    fn note(&self, note: impl FnOnce(&mut Heard, Instant, Moment)) {
        let at = Instant::now();
        let mut heard = self.heard();
        note(&mut heard, at, self.moment(at));
        if heard.news.len() > KEPT_NOTES {
            heard.news = News::default();
        }
        drop(heard);
        self.ring.notify_one();
        self.noted.notify_one();
    }

    /// What another manager has heard.
    pub(crate) fn take(&self, told: &AliveRequest) {
        let now = Instant::now();
        let at = |age_ms: u64| {
            let at = now.checked_sub(Duration::from_millis(age_ms)).unwrap_or(self.start);
            self.moment(at)
        };
        let mut heard = self.heard();
        for seen in &told.opened {
            heard.leases.opened(&seen.node, &seen.session.0, at(seen.age_ms));
            heard.holds.remove(&seen.node);
        }
        for seen in &told.proofs {
            if heard.is_own(&seen.node, &seen.session) {
                heard.leases.proof(&seen.node, at(seen.age_ms));
            }
        }
        for held in &told.holds {
            let span = Duration::from_millis(held.for_ms).min(LONGEST_HOLD.to_std());
            heard.leases.hold(&held.node, Nanos::from(span), self.moment(now));
            heard.holds.insert(held.node.clone(), (held.session.clone(), now + span));
        }
        for seen in &told.closed {
            heard.leases.closed(&seen.node, Some(&seen.session.0), at(seen.age_ms));
        }
        for seen in &told.left {
            heard.leases.left(&seen.node, at(seen.age_ms));
        }
        drop(heard);
        self.noted.notify_one();
    }

    /// Waits until something was noted that matters at once.
    pub(crate) async fn rung(&self) {
        self.ring.notified().await;
    }

    /// Waits until something was noted.
    pub(crate) async fn noted(&self) {
        self.noted.notified().await;
    }

    /// What the leader has not been told; `None` when it knows all. With `again` the newest proofs of every node, and
    /// every hold, are part of it.
    ///
    /// Taking it forgets it: hand it to [`Self::untold`] when the leader did not get it.
    pub(crate) fn news(&self, again: bool) -> Option<Untold> {
        let now = Instant::now();
        let mut heard = self.heard();
        let mut news = std::mem::take(&mut heard.news);
        heard.proofs.retain(|_, at| now.saturating_duration_since(*at) < OLDEST_PROOF);
        heard.holds.retain(|_, (_, until)| *until > now);
        if again {
            news.proofs = heard.proofs.clone();
            let held =
                heard.holds.iter().map(|(node, (session, until))| (node.clone(), session.clone(), *until));
            news.holds = held.collect();
        }
        (news.len() > 0 || !news.proofs.is_empty()).then_some(Untold(news))
    }

    /// The leader did not get it: it stays news.
    pub(crate) fn untold(&self, untold: Untold) {
        let mut heard = self.heard();
        let newer = std::mem::replace(&mut heard.news, untold.0);
        // Older proofs of the same nodes are replaced.
        heard.news.proofs.extend(newer.proofs);
        heard.news.closed.extend(newer.closed);
        heard.news.opened.extend(newer.opened);
        heard.news.holds.extend(newer.holds);
        heard.news.left.extend(newer.left);
    }

    /// Everything that waits for another leader is old: this manager leads itself.
    pub(crate) fn forget_news(&self) {
        self.heard().news = News::default();
    }
}

/// Notes on their way to the leader.
pub(crate) struct Untold(News);

impl Untold {
    /// The message: ages as of now.
    pub(crate) fn message(&self) -> AliveRequest {
        let now = Instant::now();
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let age = |at: &Instant| ms(now.saturating_duration_since(*at));
        let seen = |list: &[(NodeId, SessionId, Instant)]| {
            let seen = |(node, session, at): &(NodeId, SessionId, Instant)| Seen {
                node: node.clone(),
                session: session.clone(),
                age_ms: age(at),
            };
            list.iter().map(seen).collect::<Vec<_>>()
        };
        let proof = |((node, session), at): (&(NodeId, SessionId), &Instant)| Seen {
            node: node.clone(),
            session: session.clone(),
            age_ms: age(at),
        };
        let held = |(node, session, until): &(NodeId, SessionId, Instant)| Held {
            node: node.clone(),
            session: session.clone(),
            for_ms: ms(until.saturating_duration_since(now)),
        };
        AliveRequest {
            proofs: self.0.proofs.iter().map(proof).collect(),
            opened: seen(&self.0.opened),
            closed: seen(&self.0.closed),
            holds: self.0.holds.iter().map(held).collect(),
            left: seen(&self.0.left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str) -> SessionId {
        SessionId(name.to_owned())
    }

    /// Whether a proof of this session counts.
    fn counts(vitals: &Vitals, name: &str) -> bool {
        vitals.heard().is_own(&"node".into(), &session(name))
    }

    #[tokio::test]
    async fn a_leader_takes_no_proofs_of_a_session_that_was_left() {
        let vitals = Vitals::new(LeaseTimes::default());
        let node = NodeId::from("node");
        vitals.opens(&node, &session("a"));
        assert!(counts(&vitals, "recorded"), "only the leader knows");
        let leading = vitals.lead();
        assert!(counts(&vitals, "of before"), "a leader knows nothing of before");
        vitals.opens(&node, &session("b"));
        assert!(counts(&vitals, "a"), "the node may not know of its new session yet, or never get it");
        assert!(counts(&vitals, "b"));
        assert!(!counts(&vitals, "a"), "it knows it, and does not go back");
        vitals.opens(&node, &session("c"));
        assert!(counts(&vitals, "b") && counts(&vitals, "c") && !counts(&vitals, "b"));
        drop(leading);
        assert!(counts(&vitals, "a"), "the next leader judges");
    }

    #[tokio::test]
    async fn a_hold_outlives_every_manager_that_knows_of_it() {
        let (first, second, third) = (
            Vitals::new(LeaseTimes::default()),
            Vitals::new(LeaseTimes::default()),
            Vitals::new(LeaseTimes::default()),
        );
        first.hold(&"node".into(), &session("a"), Duration::from_secs(30));
        second.take(&first.news(true).unwrap().message());
        let passed_on = second.news(true).unwrap().message();
        assert_eq!((passed_on.holds.len(), &passed_on.holds[0].session), (1, &session("a")));
        assert!((1..=30_000).contains(&passed_on.holds[0].for_ms), "what is left of it");
        third.take(&passed_on);
        let back = Seen { node: "node".into(), session: session("b"), age_ms: 0 };
        third.take(&AliveRequest { opened: vec![back], ..AliveRequest::default() });
        assert!(third.news(true).is_none(), "who is back holds nothing");
    }
}

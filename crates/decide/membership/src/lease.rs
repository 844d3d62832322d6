//! What was heard of one node, and what follows from it.
//!
//! In: signs of life, the node as the store has it, the time. Out: a judgement, and when the next one may be due.

use objects::{Nanos, Node, NodeState, Timestamp};

use crate::judgement::{
    DISCONNECTED_MESSAGE, DOWN_MESSAGE, LEFT_MESSAGE, LOST_UNKNOWN_MESSAGE, UNKNOWN_MESSAGE,
};
use crate::mass::{Fallen, Standing};
use crate::{Judgement, LeaseTimes, MASS_HOLD, Moment};

/// What was heard of one node.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    /// Newest sign of life, or when the lease was granted without one.
    pub(crate) heard: Moment,
    /// Whether there was any sign of life.
    pub(crate) is_heard: bool,
    pub(crate) session: Session,
    pub(crate) hold_until: Option<Moment>,
    pub(crate) has_left: bool,
    /// Its state in the store when it was last judged.
    pub(crate) shown: NodeState,
    pub(crate) down: Option<Down>,
}

/// What is known of the newest session of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Session {
    NotKnown,
    Open(String),
    Closed { at: Moment },
}

/// A judgement that the node is down.
#[derive(Debug, Clone)]
pub(crate) struct Down {
    at: Moment,
    message: &'static str,
    /// Whether it fell with many others.
    is_mass: bool,
    moves_at: Moment,
    /// `moves_at` on the clock of the store.
    stamp: Timestamp,
}

/// What all nodes of one judgement have in common.
pub(crate) struct Court<'a> {
    pub(crate) times: &'a LeaseTimes,
    pub(crate) leads_since: Moment,
    pub(crate) now: Moment,
    pub(crate) wall: Timestamp,
}

impl Court<'_> {
    /// Nobody is judged before: other managers may have heard more.
    fn floor(&self) -> Moment {
        self.leads_since + self.times.suspicion
    }
}

impl Lease {
    pub(crate) fn granted(now: Moment) -> Self {
        Self {
            heard: now,
            is_heard: false,
            session: Session::NotKnown,
            hold_until: None,
            has_left: false,
            shown: NodeState::Ready,
            down: None,
        }
    }

    pub(crate) fn hear(&mut self, at: Moment) {
        self.heard = if self.is_heard { self.heard.max(at) } else { at };
        self.is_heard = true;
    }

    /// Forgives silence: whoever judges could not listen.
    pub(crate) fn renew(&mut self, now: Moment) {
        self.heard = self.heard.max(now);
        if let Session::Closed { at } = &mut self.session {
            *at = now.max(*at);
        }
    }

    /// Takes note of the node as the store has it.
    pub(crate) fn see(&mut self, node: &Node, now: Moment) {
        let was_ready = std::mem::replace(&mut self.shown, node.status.state) == NodeState::Ready;
        if !was_ready && self.shown == NodeState::Ready && !self.has_left {
            // Only a sign of life makes a node ready; this one was not noted yet.
            self.renew(now);
        }
    }

    /// When the node is down, if nothing more is heard of it.
    pub(crate) fn due(&self, times: &LeaseTimes) -> Moment {
        // How long a node has been silent of which this manager never heard is not known.
        let silence = if self.is_heard { times.silence } else { times.silence + times.silence };
        let mut due = self.heard + silence;
        if let Session::Closed { at } = self.session {
            due = due.min(at.max(self.heard) + times.suspicion);
        }
        self.hold_until.map_or(due, |until| due.max(until))
    }

    fn is_due(&self, court: &Court<'_>) -> bool {
        self.has_left || court.now >= self.due(court.times).max(court.floor())
    }

    /// How the node stands among all.
    pub(crate) fn standing(&self, court: &Court<'_>) -> Standing {
        // Two pulses that are lost on their way, and one that is late, are no silence.
        let silent_after = Nanos(court.times.pulse.0 * 5 / 2);
        let is_held = self.hold_until.is_some_and(|until| until > court.now);
        if self.has_left || (self.shown == NodeState::Down && self.down.is_none()) {
            Standing::Out
        } else if self.down.is_some() || (!is_held && court.now.since(self.heard) > silent_after) {
            Standing::Fallen(self.heard)
        } else {
            Standing::Up
        }
    }

    /// What is to be written about the node now.
    pub(crate) fn judge(&mut self, node: &Node, court: &Court<'_>, fallen: &Fallen) -> Option<Judgement> {
        if self.is_due(court) {
            self.judge_fallen(node, court, fallen)
        } else {
            self.judge_alive(node, court)
        }
    }

    fn judge_fallen(&mut self, node: &Node, court: &Court<'_>, fallen: &Fallen) -> Option<Judgement> {
        let is_shown = node.status.state == NodeState::Down;
        let longest = MASS_HOLD.max(court.times.patience);
        if is_shown && self.down.is_none() && node.internal.tasks_move_at <= court.wall + longest {
            // Down before this manager led: whoever judged said when its tasks move, on a clock that was right.
            return None;
        }
        let is_mass = !self.has_left && fallen.is_mass(self.heard);
        let message = match node.status.state {
            _ if self.has_left => LEFT_MESSAGE,
            NodeState::Ready | NodeState::Disconnected if self.is_heard => DOWN_MESSAGE,
            _ => LOST_UNKNOWN_MESSAGE,
        };
        let patience = if self.has_left { Nanos::ZERO } else { court.times.patience };
        let down = self.down.get_or_insert_with(|| Down {
            at: court.now,
            message,
            is_mass: false,
            moves_at: court.now + patience,
            stamp: court.wall + patience,
        });
        let is_pending = court.now < down.moves_at;
        if is_pending && down.is_mass != is_mass {
            let span = if is_mass { MASS_HOLD } else { patience };
            down.is_mass = is_mass;
            down.moves_at = court.now.max(down.at + span);
            down.stamp = court.wall + down.moves_at.since(court.now);
        } else if !is_pending && down.stamp > court.wall + court.times.pulse {
            // The clock of the store was set back: the time is over all the same.
            down.stamp = court.wall;
        }
        if is_shown && node.internal.tasks_move_at == down.stamp {
            return None;
        }
        Some(Judgement {
            node: node.id.clone(),
            state: NodeState::Down,
            message: down.message,
            tasks_move_at: down.stamp,
        })
    }

    fn judge_alive(&mut self, node: &Node, court: &Court<'_>) -> Option<Judgement> {
        self.down = None;
        let has_session = matches!(self.session, Session::Open(_));
        let may_have_session = has_session || self.session == Session::NotKnown;
        // That nobody is judged yet makes nobody alive.
        let is_alive = self.is_heard && self.due(court.times) > court.now;
        let (state, message) = match node.status.state {
            NodeState::Ready if court.now >= self.unknown_at(court) => (NodeState::Unknown, UNKNOWN_MESSAGE),
            NodeState::Ready if self.lost_session_at(court).is_some_and(|at| court.now >= at) => {
                (NodeState::Disconnected, DISCONNECTED_MESSAGE)
            }
            NodeState::Unknown if is_alive && may_have_session => (NodeState::Ready, ""),
            NodeState::Down | NodeState::Disconnected if is_alive && has_session => (NodeState::Ready, ""),
            _ => return None,
        };
        Some(Judgement { node: node.id.clone(), state, message, tasks_move_at: Timestamp::ZERO })
    }

    /// When a node is shown as unknown of which a new leader has not heard.
    fn unknown_at(&self, court: &Court<'_>) -> Moment {
        let never = Moment(i64::MAX);
        if self.is_heard { never } else { court.floor().max(self.heard + court.times.suspicion) }
    }

    /// When a node is shown as disconnected that is heard but has no session.
    fn lost_session_at(&self, court: &Court<'_>) -> Option<Moment> {
        let Session::Closed { at } = self.session else { return None };
        Some(at.max(court.leads_since) + court.times.reconnect)
    }

    /// The next moment at which there may be something to write, if nothing more is heard.
    pub(crate) fn next(&self, court: &Court<'_>) -> Option<Moment> {
        let due = self.due(court.times).max(court.floor());
        let moves_at = self.down.as_ref().map(|down| down.moves_at);
        [Some(due), Some(self.unknown_at(court)), self.lost_session_at(court), moves_at]
            .into_iter()
            .flatten()
            .filter(|at| *at > court.now)
            .min()
    }
}

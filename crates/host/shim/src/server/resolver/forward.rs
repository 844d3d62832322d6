//! Asks upstream resolvers for names that are not ours.
//!
//! In: queries, with who asked. Out: one reply for each, in time, whatever becomes of the upstreams: theirs, or that it failed.
//! The first upstream is asked first, the next ones after a short while without an answer, without giving up on the ones
//! before; one that was silent is asked last for some time. Source of the limits: moby,
//! `daemon/libnetwork/resolver.go` (`maxExtDNS`, `extIOTimeout`, `maxConcurrent`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use resolve::{Transport, relay};

use super::askers::AskerId;
use super::attempt::{Attempt, Progress};
use super::places::Places;
use crate::resolver::Upstream;
use crate::server::poll::{Poll, Ready};

/// Upstreams that are asked.
const UPSTREAMS_MAX: usize = 3;
/// Queries under way at the same time; those beyond fail at once.
const FLIGHTS_MAX: usize = 1024;
/// The longest that a query may take. Clients such as glibc give up after 5 s.
const OVERALL_TIME: Duration = Duration::from_secs(4);
/// How long one upstream is waited for before the next one is asked, too. Chosen: longer than a good answer takes, short
/// enough to go unnoticed.
const NEXT_TIME: Duration = Duration::from_millis(400);
/// For how long an upstream that was silent is asked last. Chosen; then one query tries it.
const DISTRUST_TIME: Duration = Duration::from_secs(10);

/// Who wants the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Datagram(SocketAddr),
    Stream(AskerId),
}

impl Asker {
    fn transport(self) -> Transport {
        match self {
            Self::Datagram(_) => Transport::Udp,
            Self::Stream(_) => Transport::Tcp,
        }
    }
}

/// A reply and whom it is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) asker: Asker,
    pub(super) message: Vec<u8>,
}

#[derive(Debug)]
struct Known {
    upstream: Upstream,
    /// When it was last silent or of no help, until it answers again.
    failed_at: Option<Instant>,
}

/// One query under way.
#[derive(Debug)]
struct Flight {
    asker: Asker,
    query: Box<[u8]>,
    /// Numbers of upstreams, in the order in which they are asked.
    order: [usize; UPSTREAMS_MAX],
    attempts: [Option<Attempt>; UPSTREAMS_MAX],
    /// How many were asked.
    asked: usize,
    until: Instant,
    next_at: Instant,
    /// The least unhelpful answer so far.
    refusal: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
pub(super) struct Forwarder {
    upstreams: Vec<Known>,
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    ids: Ids,
}

/// What is needed to ask.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    pub(super) poll: &'a Poll,
    pub(super) places: &'a Places,
    pub(super) first_token: u64,
}

impl Forwarder {
    pub(super) fn is_idle(&self) -> bool {
        self.flights.len() == self.free.len()
    }

    /// Takes over another list of upstreams; what is known of those that stay is kept. Queries under way go on with the
    /// numbers they have: those that now mean another upstream get their answer from it.
    pub(super) fn use_upstreams(&mut self, upstreams: &[Upstream]) {
        let before = std::mem::take(&mut self.upstreams);
        let failed_at =
            |upstream: &Upstream| before.iter().find(|known| known.upstream == *upstream)?.failed_at;
        let first = upstreams.iter().take(UPSTREAMS_MAX);
        self.upstreams =
            first.map(|upstream| Known { upstream: *upstream, failed_at: failed_at(upstream) }).collect();
    }

    /// Asks for a name; the reply is given when there is nobody to ask, or too much under way.
    pub(super) fn begin(&mut self, asker: Asker, query: &[u8], means: Means<'_>) -> Option<Vec<u8>> {
        if self.flights.len() - self.free.len() >= FLIGHTS_MAX {
            return relay::failure(query);
        }
        let now = Instant::now();
        let flight = Flight {
            asker,
            query: query.into(),
            order: self.order(now),
            attempts: [const { None }; UPSTREAMS_MAX],
            asked: 0,
            until: now + OVERALL_TIME,
            next_at: now,
            refusal: None,
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            self.flights.len() - 1
        });
        self.flights[place] = Some(flight);
        if self.ask_next(place, now, means) {
            return None;
        }
        self.finish(place, None).map(|reply| reply.message)
    }

    /// Numbers of upstreams: those that are trusted first. One whose time of distrust is over is tried by this query alone.
    fn order(&mut self, now: Instant) -> [usize; UPSTREAMS_MAX] {
        let is_distrusted = |known: &Known| {
            known.failed_at.is_some_and(|at| now.saturating_duration_since(at) < DISTRUST_TIME)
        };
        let mut order = [0, 1, 2];
        order.sort_by_key(|number| self.upstreams.get(*number).is_none_or(is_distrusted));
        if let Some(known) = self.upstreams.get_mut(order[0])
            && known.failed_at.is_some()
        {
            known.failed_at = Some(now);
        }
        order
    }

    /// Asks the next upstream; whether anybody is asked now.
    fn ask_next(&mut self, place: usize, now: Instant, means: Means<'_>) -> bool {
        let Some(Some(flight)) = self.flights.get_mut(place) else { return false };
        while let Some(number) = flight.order.get(flight.asked).copied() {
            let slot = flight.asked;
            flight.asked += 1;
            let Some(known) = self.upstreams.get_mut(number) else { continue };
            let token = means.first_token + (place * UPSTREAMS_MAX + slot) as u64;
            match begin(known.upstream, self.ids.next(), flight, token, means) {
                Ok(attempt) => {
                    flight.attempts[slot] = Some(attempt);
                    flight.next_at = now + NEXT_TIME;
                    return true;
                }
                Err(_) => known.failed_at = Some(now),
            }
        }
        flight.next_at = flight.until;
        flight.attempts.iter().any(Option::is_some)
    }

    /// Takes what an upstream says.
    pub(super) fn handle(&mut self, ready: Ready, buffer: &mut [u8], means: Means<'_>) -> Option<Reply> {
        let number = usize::try_from(ready.token.checked_sub(means.first_token)?).ok()?;
        let (place, slot) = (number / UPSTREAMS_MAX, number % UPSTREAMS_MAX);
        let flight = self.flights.get_mut(place)?.as_mut()?;
        let progress = flight.attempts[slot].as_mut()?.handle(ready, &flight.query, buffer, means.poll);
        let asked = self.upstreams.get_mut(flight.order[slot]);
        match progress {
            Progress::Waits => None,
            Progress::Answered(message) => {
                asked.into_iter().for_each(|known| known.failed_at = None);
                self.finish(place, Some(message))
            }
            Progress::TooLong => {
                let message = relay::truncated(&flight.query);
                self.finish(place, message)
            }
            Progress::Failed(said) => {
                // One that says so is there: it may know other names.
                asked
                    .into_iter()
                    .filter(|_| said.is_none())
                    .for_each(|known| known.failed_at = Some(Instant::now()));
                flight.attempts[slot] = None;
                flight.refusal = said.or(flight.refusal.take());
                if self.ask_next(place, Instant::now(), means) { None } else { self.finish(place, None) }
            }
        }
    }

    /// Asks the next upstreams where it is time, and ends what has taken too long.
    pub(super) fn tick(&mut self, now: Instant, means: Means<'_>) -> Vec<Reply> {
        let mut replies = Vec::new();
        for place in 0..self.flights.len() {
            let Some(Some(flight)) = self.flights.get(place) else { continue };
            let (is_over, is_late) = (now >= flight.until, now >= flight.next_at);
            if is_over || is_late {
                self.distrust_silent(place, now);
            }
            if is_over || (is_late && !self.ask_next(place, now, means)) {
                replies.extend(self.finish(place, None));
            }
        }
        replies
    }

    fn distrust_silent(&mut self, place: usize, now: Instant) {
        let Some(Some(flight)) = self.flights.get(place) else { return };
        let silent = flight.order.iter().zip(&flight.attempts).filter(|(_, attempt)| attempt.is_some());
        for (number, _) in silent {
            if let Some(known) = self.upstreams.get_mut(*number) {
                known.failed_at = Some(now);
            }
        }
    }

    /// The reply to a query that is over.
    fn finish(&mut self, place: usize, answer: Option<Vec<u8>>) -> Option<Reply> {
        let flight = self.flights.get_mut(place)?.take()?;
        self.free.push(place);
        if self.is_idle() {
            // A burst takes some hundred kilobytes, which are not kept for the days after it.
            (self.flights, self.free) = (Vec::new(), Vec::new());
        }
        let mut message = answer.or(flight.refusal).or_else(|| relay::failure(&flight.query))?;
        relay::set_id(&mut message, relay::id(&flight.query));
        Some(Reply { asker: flight.asker, message })
    }
}

fn begin(
    upstream: Upstream,
    id: u16,
    flight: &Flight,
    token: u64,
    means: Means<'_>,
) -> std::io::Result<Attempt> {
    let open = || Attempt::begin(upstream.address, id, &flight.query, flight.asker.transport());
    let attempt = if upstream.inside { means.places.inside(open)? } else { open()? };
    attempt.listen(means.poll, token)?;
    Ok(attempt)
}

/// Numbers that nobody can guess.
#[derive(Debug, Default)]
struct Ids {
    drawn: [u16; 32],
    left: usize,
}

impl Ids {
    fn next(&mut self) -> u16 {
        if self.left == 0 {
            // SAFETY: pointer and length describe a live array. What isn't filled stays as it was: such numbers are guessed
            // more easily, but the port still has to be guessed, too.
            unsafe { libc::getrandom(self.drawn.as_mut_ptr().cast(), size_of_val(&self.drawn), 0) };
            self.left = self.drawn.len();
        }
        self.left -= 1;
        self.drawn[self.left]
    }
}

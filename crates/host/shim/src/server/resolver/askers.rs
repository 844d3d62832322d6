//! Programs of the container that ask by TCP.
//!
//! In: connections. Out: whole queries; replies on their way. Each message has its length before it. Holds little for each
//! connection, and gives up on one that is silent, too slow or wants too much.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::server::poll::{Interest, Poll, Ready};

/// Connections at the same time. Chosen: TCP is for the rare long answer; bounds memory.
const ASKERS_MAX: usize = 64;

/// Longest query. Chosen: EDNS options included, none comes near it.
const QUERY_BYTES_MAX: usize = 4 * 1024;

/// Replies that wait for one client. Chosen: two of the longest.
const WAITING_BYTES_MAX: usize = 2 * 66 * 1024;

/// How long a connection may be silent. Chosen: glibc and others close theirs at once; RFC 7766 asks for a few seconds.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// Which connection, and that it is still the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AskerId {
    place: usize,
    serial: u64,
}

#[derive(Debug)]
struct Asker {
    socket: TcpStream,
    serial: u64,
    inbox: Vec<u8>,
    outbox: VecDeque<u8>,
    /// Queries that others are asked for.
    waiting: usize,
    /// It will send no more.
    has_ended: bool,
    interest: Option<Interest>,
    last_at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Askers {
    places: Vec<Option<Asker>>,
    serial: u64,
}

impl Askers {
    pub(super) fn is_empty(&self) -> bool {
        self.places.iter().all(Option::is_none)
    }

    /// Takes in a connection, in place of the one that has been silent for longest if there are too many.
    pub(super) fn accept(&mut self, listener: &TcpListener, poll: &Poll, first_token: u64) {
        let Ok((socket, _)) = listener.accept() else { return };
        let now = Instant::now();
        let free = self.places.iter().position(Option::is_none);
        let place =
            free.unwrap_or(if self.places.len() < ASKERS_MAX { self.places.len() } else { self.oldest() });
        if socket.set_nonblocking(true).is_err()
            || poll.add(&socket, first_token + place as u64, Interest::Read).is_err()
        {
            return;
        }
        self.serial += 1;
        let asker = Asker {
            socket,
            serial: self.serial,
            inbox: Vec::new(),
            outbox: VecDeque::new(),
            waiting: 0,
            has_ended: false,
            interest: Some(Interest::Read),
            last_at: now,
        };
        match self.places.get_mut(place) {
            Some(taken) => *taken = Some(asker),
            None => self.places.push(Some(asker)),
        }
    }

    fn oldest(&self) -> usize {
        let ages = self
            .places
            .iter()
            .enumerate()
            .map(|(place, asker)| (asker.as_ref().map(|asker| asker.last_at), place));
        ages.min().map_or(0, |(_, place)| place)
    }

    /// Reads and writes what a connection is ready for; gives the queries that have come.
    pub(super) fn handle(
        &mut self,
        place: usize,
        ready: Ready,
        buffer: &mut [u8],
    ) -> Vec<(AskerId, Vec<u8>)> {
        let Some(asker) = self.places.get_mut(place).and_then(Option::as_mut) else { return Vec::new() };
        let id = AskerId { place, serial: asker.serial };
        let is_alive = (!ready.can_write || asker.flush()) && (!ready.can_read || asker.receive(buffer));
        if !is_alive {
            self.places[place] = None;
            return Vec::new();
        }
        std::iter::from_fn(|| asker.take_query()).map(|query| (id, query)).collect()
    }

    /// A reply to a query is on its way from elsewhere.
    pub(super) fn wait(&mut self, id: AskerId) {
        if let Some(asker) = self.asker(id) {
            asker.waiting += 1;
        }
    }

    /// The reply that a connection waited for.
    pub(super) fn reply_late(&mut self, id: AskerId, message: &[u8]) {
        if let Some(asker) = self.asker(id) {
            asker.waiting = asker.waiting.saturating_sub(1);
            self.reply(id, message);
        }
    }

    /// Sends a reply; what the socket doesn't take now is kept.
    pub(super) fn reply(&mut self, id: AskerId, message: &[u8]) {
        let Some(asker) = self.asker(id) else { return };
        let Ok(length) = u16::try_from(message.len()) else { return };
        asker.outbox.extend(length.to_be_bytes());
        asker.outbox.extend(message);
        if !asker.flush() || asker.outbox.len() > WAITING_BYTES_MAX {
            self.places[id.place] = None;
        }
    }

    fn asker(&mut self, id: AskerId) -> Option<&mut Asker> {
        self.places.get_mut(id.place)?.as_mut().filter(|asker| asker.serial == id.serial)
    }

    /// Forgets connections that are over, and waits for what makes sense now.
    pub(super) fn settle(&mut self, poll: &Poll, first_token: u64) {
        for (place, slot) in self.places.iter_mut().enumerate() {
            let is_over = slot.as_ref().is_some_and(Asker::is_over);
            if is_over {
                *slot = None;
            }
            if let Some(asker) = slot {
                asker.update_interest(poll, first_token + place as u64);
            }
        }
        if self.is_empty() {
            self.places = Vec::new();
        }
    }

    /// Forgets connections that have been silent for too long.
    pub(super) fn tick(&mut self, now: Instant) {
        for slot in &mut self.places {
            if slot.as_ref().is_some_and(|asker| now.saturating_duration_since(asker.last_at) > IDLE_TIME) {
                *slot = None;
            }
        }
    }
}

impl Asker {
    fn is_over(&self) -> bool {
        self.has_ended && self.waiting == 0 && self.outbox.is_empty()
    }

    /// Whether the connection is still good.
    fn receive(&mut self, buffer: &mut [u8]) -> bool {
        match self.socket.read(buffer) {
            Ok(0) => self.has_ended = true,
            Ok(count) => {
                self.inbox.extend_from_slice(&buffer[..count]);
                self.last_at = Instant::now();
            }
            Err(error) if is_temporary(error.kind()) => {}
            Err(_) => return false,
        }
        self.inbox
            .first_chunk::<2>()
            .is_none_or(|length| usize::from(u16::from_be_bytes(*length)) <= QUERY_BYTES_MAX)
    }

    fn take_query(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes(*self.inbox.first_chunk::<2>()?));
        let query = self.inbox.get(2..2 + length)?.to_vec();
        self.inbox.drain(..2 + length);
        Some(query)
    }

    /// Whether the connection is still good.
    fn flush(&mut self) -> bool {
        while !self.outbox.is_empty() {
            let (front, _) = self.outbox.as_slices();
            match self.socket.write(front) {
                Ok(count) => {
                    self.outbox.drain(..count);
                    self.last_at = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn update_interest(&mut self, poll: &Poll, token: u64) {
        let wanted = match (self.has_ended, self.outbox.is_empty()) {
            (false, true) => Some(Interest::Read),
            // Who doesn't take its replies gets to ask nothing more.
            (_, false) => Some(Interest::Write),
            (true, true) => None,
        };
        if wanted == self.interest {
            return;
        }
        // A failure leaves the connection unheard until it is given up as silent.
        let _ = match (self.interest, wanted) {
            (None, Some(interest)) => poll.add(&self.socket, token, interest),
            (Some(_), Some(interest)) => poll.change(&self.socket, token, interest),
            (_, None) => {
                poll.remove(&self.socket);
                Ok(())
            }
        };
        self.interest = wanted;
    }
}

fn is_temporary(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

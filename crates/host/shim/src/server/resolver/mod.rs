//! The resolver of a container: it answers on 127.0.0.11 in the container's network namespace.
//!
//! In: queries of the container's programs, tables of names, upstream resolvers. Out: one reply for each query. It is part of
//! the shim, and so needs no daemon; it has an epoll of its own, of which the shim's loop sees one descriptor, and each
//! round does a limited amount of work, so that output and end of the container never wait for it.
//!
//! ```text
//!  program ─► 127.0.0.11:53 ─(skep-dns)─► doors ─► resolve::answer ◄── tables ◄── resolver.json, files of names
//!                                           ▲          └─ not ours ─► forward ─► upstreams, from the machine's namespace
//!                                           └────────── replies ◄───────┘
//! ```

mod askers;
mod attempt;
mod doors;
mod forward;
mod map;
mod places;
mod tables;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use resolve::{Answer, Scope, Transport, answer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::poll::{Interest, Poll, Ready};
use askers::Askers;
use doors::Doors;
use forward::{Asker, Forwarder, Means, Reply};
use places::Places;
use tables::Tables;

const DATAGRAMS: u64 = 0;
const STREAMS: u64 = 1;
const FIRST_ASKER: u64 = 16;
const FIRST_ATTEMPT: u64 = 1024;

/// Datagrams taken before the first of them is answered, so that what is answered is what was true when they came; and how
/// often that is done in one round. Chosen: the shim's buffer has room for eight of the longest; a round stays below a
/// millisecond.
const QUERY_BYTES_MAX: usize = 2 * 1024;
const DATAGRAMS_AT_ONCE: usize = 8;
const BATCHES_AT_ONCE: usize = 8;

/// How exactly deadlines are kept while there are any. Chosen: a fraction of the shortest.
const TICK: Duration = Duration::from_millis(50);

/// Descriptors: three for each query under way, and some. What the daemon was started with may be less.
const DESCRIPTORS: u64 = 4096;

pub(crate) struct Resolver {
    poll: Poll,
    places: Places,
    doors: Doors,
    tables: Tables,
    forwarder: Forwarder,
    askers: Askers,
    /// Counts answers.
    rotation: u32,
    /// When deadlines are looked at again; `None` while there are none.
    tick_at: Option<Instant>,
}

impl Resolver {
    /// Opens the resolver of the container to which `pid` belongs. To be called when its loopback is up; queries that come
    /// before the first round wait. `is_new`: the namespace was just made for it.
    pub(crate) fn open(pid: i32, config: PathBuf, is_new: bool) -> io::Result<Self> {
        let places = Places::of(pid)?;
        let doors = Doors::open(&places, is_new)?;
        let poll = Poll::new()?;
        poll.add(&doors.datagrams, DATAGRAMS, Interest::Read)?;
        poll.add(&doors.streams, STREAMS, Interest::Read)?;
        raise_limit();
        Ok(Self {
            poll,
            places,
            doors,
            tables: Tables::new(config),
            forwarder: Forwarder::default(),
            askers: Askers::default(),
            rotation: 0,
            tick_at: None,
        })
    }

    /// Readable when there is something to do.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }

    /// When there is something to do although nothing comes.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Duration> {
        // A little late, so that the deadline has passed for sure.
        self.tick_at.map(|at| at.saturating_duration_since(now) + Duration::from_millis(1))
    }

    /// Does what there is to do, up to a limit.
    pub(crate) fn turn(&mut self, buffer: &mut [u8]) {
        let Ok(ready) = self.poll.wait(Some(Duration::ZERO)) else { return };
        for ready in ready {
            self.handle(ready, buffer);
        }
        self.askers.settle(&self.poll, FIRST_ASKER);
        self.plan_tick();
    }

    /// Keeps deadlines.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.tick_at.is_none_or(|at| now < at) {
            return;
        }
        let means = Means { poll: &self.poll, places: &self.places, first_token: FIRST_ATTEMPT };
        let replies = self.forwarder.tick(now, means);
        replies.into_iter().for_each(|reply| self.deliver(&reply));
        self.askers.tick(now);
        self.askers.settle(&self.poll, FIRST_ASKER);
        self.tick_at = None;
        self.plan_tick();
    }

    fn plan_tick(&mut self) {
        if self.tick_at.is_none() && !(self.forwarder.is_idle() && self.askers.is_empty()) {
            self.tick_at = Some(Instant::now() + TICK);
        }
    }

    fn handle(&mut self, ready: Ready, buffer: &mut [u8]) {
        match ready.token {
            DATAGRAMS => self.answer_datagrams(buffer),
            STREAMS => self.askers.accept(&self.doors.streams, &self.poll, FIRST_ASKER),
            token if token >= FIRST_ATTEMPT => {
                let means = Means { poll: &self.poll, places: &self.places, first_token: FIRST_ATTEMPT };
                let reply = self.forwarder.handle(ready, buffer, means);
                reply.into_iter().for_each(|reply| self.deliver(&reply));
            }
            token => self.answer_stream(token, ready, buffer),
        }
    }

    fn refresh(&mut self) {
        if self.tables.refresh() {
            self.forwarder.use_upstreams(self.tables.upstreams());
        }
    }

    fn answer_datagrams(&mut self, buffer: &mut [u8]) {
        for _ in 0..BATCHES_AT_ONCE {
            let mut queries = [const { None }; DATAGRAMS_AT_ONCE];
            let mut is_drained = true;
            for (room, query) in buffer.chunks_mut(QUERY_BYTES_MAX).zip(&mut queries) {
                *query =
                    self.doors.datagrams.recv_from(room).ok().map(|(length, from)| (&room[..length], from));
                is_drained = query.is_none();
                if is_drained {
                    break;
                }
            }
            self.answer_batch(queries.iter().flatten());
            if is_drained {
                return;
            }
        }
    }

    fn answer_batch<'a>(&mut self, queries: impl Iterator<Item = &'a (&'a [u8], SocketAddr)>) {
        self.refresh();
        let views = self.tables.views();
        let scope = Scope { tables: &views, unknown: self.tables.unknown() };
        let means = Means { poll: &self.poll, places: &self.places, first_token: FIRST_ATTEMPT };
        for (query, from) in queries {
            self.rotation = self.rotation.wrapping_add(1);
            let reply = match answer(query, &scope, Transport::Udp, self.rotation) {
                Answer::Reply(reply) => Some(reply),
                Answer::Forward => self.forwarder.begin(Asker::Datagram(*from), query, means),
                Answer::Ignore => None,
            };
            if let Some(reply) = reply {
                send(&self.doors, &reply, *from);
            }
        }
    }

    fn answer_stream(&mut self, token: u64, ready: Ready, buffer: &mut [u8]) {
        let place = usize::try_from(token.saturating_sub(FIRST_ASKER)).unwrap_or(usize::MAX);
        let queries = self.askers.handle(place, ready, buffer);
        if queries.is_empty() {
            return;
        }
        self.refresh();
        let views = self.tables.views();
        let scope = Scope { tables: &views, unknown: self.tables.unknown() };
        for (id, query) in queries {
            self.rotation = self.rotation.wrapping_add(1);
            match answer(&query, &scope, Transport::Tcp, self.rotation) {
                Answer::Reply(reply) => self.askers.reply(id, &reply),
                Answer::Forward => {
                    let means = Means { poll: &self.poll, places: &self.places, first_token: FIRST_ATTEMPT };
                    match self.forwarder.begin(Asker::Stream(id), &query, means) {
                        Some(reply) => self.askers.reply(id, &reply),
                        None => self.askers.wait(id),
                    }
                }
                Answer::Ignore => {}
            }
        }
    }

    fn deliver(&mut self, reply: &Reply) {
        match reply.asker {
            Asker::Datagram(to) => send(&self.doors, &reply.message, to),
            Asker::Stream(id) => self.askers.reply_late(id, &reply.message),
        }
    }
}

/// A datagram that the kernel has no room for is lost, as on any network; its asker asks again.
fn send(doors: &Doors, message: &[u8], to: SocketAddr) {
    let _ = doors.datagrams.send_to(message, to);
}

fn raise_limit() {
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if now.current.is_some_and(|current| current < wanted) {
        // Refused, queries beyond the limit fail.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum });
    }
}

//! The loop of a shim, from a process that is ready to its end.
//!
//! In: connections, output, signals about children. Out: calls of the parts that handle them. Output waits while an
//! attached client is behind; nothing else ever waits for a client.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use logs::{OutputStream, Writer};
use objects::Timestamp;
use runtime::{Created, Stdio};

use crate::protocol::{Hello, Kind, PROTOCOL, Processes, WANTS_STDERR, WANTS_STDOUT};

use super::client::Client;
use super::ending::Ending;
use super::files::ShimDir;
use super::poll::{Interest, Poll, Ready};
use super::process;
use super::resolver::Resolver;
use super::streams::{ReadOutcome, STDERR, STDIN, STDOUT, Streams};

const LISTENER: u64 = 0;
const PIDFD: u64 = 1;
const CHILDREN: u64 = 2;
/// The resolver's own epoll.
const RESOLVER: u64 = 6;
/// Connections have this token and up.
const FIRST_CLIENT: u64 = 16;
/// The connection the shim was born with.
const BIRTH_CLIENT: usize = 0;

/// Connections at the same time. Chosen: far more than attached terminals of one container; bounds memory.
const MAX_CLIENTS: usize = 64;

/// How many of them may be attached. Chosen: the rest is left for requests, such as those that stop the container.
pub(super) const MAX_ATTACHED: usize = 48;

/// Bytes read at once, from streams and clients. Chosen: what a writer fills in one go; costs memory in every shim.
const BUFFER_BYTES: usize = 16 * 1024;

/// How long the loop rests after an accept that failed for lack of descriptors in the whole system.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What a shim is made of.
pub(crate) struct Parts {
    pub(crate) created: Created,
    pub(crate) stdio: Stdio,
    pub(crate) log: Writer,
    pub(crate) listener: UnixListener,
    pub(crate) processes: Processes,
    pub(crate) stdin_once: bool,
    pub(crate) resolver: Option<Resolver>,
    /// The container's network namespace is its own.
    pub(crate) has_namespace: bool,
}

/// Where the process stands.
#[derive(Debug)]
pub(crate) enum Phase {
    /// It waits to be started.
    Created,
    /// Its program runs.
    Running { started_at: Timestamp },
    /// It has ended; its last output is on its way.
    Ended(Ending),
    /// There is nothing left to wait for.
    Over,
}

pub(crate) struct Shim {
    pub(super) dir: ShimDir,
    pub(super) created: Created,
    pub(super) streams: Streams,
    pub(super) log: Writer,
    pub(super) phase: Phase,
    pub(super) clients: Vec<Option<Client>>,
    pub(super) poll: Poll,
    pub(super) stdin_once: bool,
    /// Closed as soon as the container has ended: its sockets keep the network namespace alive.
    pub(super) resolver: Option<Resolver>,
    pub(super) has_namespace: bool,
    processes: Processes,
    listener: UnixListener,
    children: OwnedFd,
    buffer: Box<[u8; BUFFER_BYTES]>,
}

impl Shim {
    pub(crate) fn new(dir: ShimDir, parts: Parts, connection: UnixStream) -> io::Result<Self> {
        let poll = Poll::new()?;
        let children = process::child_signals()?;
        poll.add(&parts.listener, LISTENER, Interest::Read)?;
        poll.add(&parts.created.pidfd, PIDFD, Interest::Read)?;
        poll.add(&children, CHILDREN, Interest::Read)?;
        let mut streams = Streams::new(parts.stdio)?;
        streams.listen(&poll, true)?;
        let mut shim = Self {
            dir,
            created: parts.created,
            streams,
            log: parts.log,
            phase: Phase::Created,
            clients: Vec::new(),
            poll,
            stdin_once: parts.stdin_once,
            resolver: None,
            has_namespace: parts.has_namespace,
            processes: parts.processes,
            listener: parts.listener,
            children,
            buffer: Box::new([0; BUFFER_BYTES]),
        };
        if let Some(resolver) = parts.resolver {
            shim.use_resolver(resolver)?;
        }
        shim.welcome(connection);
        Ok(shim)
    }

    pub(super) fn use_resolver(&mut self, resolver: Resolver) -> io::Result<()> {
        self.poll.add(resolver.fd(), RESOLVER, Interest::Read)?;
        self.resolver = Some(resolver);
        Ok(())
    }

    /// Runs until the process has ended; whether its end is on record.
    pub(crate) fn serve(mut self) -> bool {
        loop {
            let ready = match self.poll.wait(self.next_deadline()) {
                Ok(ready) => ready,
                // It can only fail for a reason that won't go away; the process ends with us, and the daemon cleans up.
                Err(_) => return false,
            };
            for ready in ready {
                self.handle(ready);
            }
            self.settle();
            if let Some(resolver) = &mut self.resolver {
                resolver.tick(Instant::now());
            }
            if let Phase::Ended(_) = self.phase {
                self.progress_ending();
            }
            if let Phase::Over = self.phase {
                return true;
            }
        }
    }

    /// When something has to be looked at although nothing happened.
    fn next_deadline(&self) -> Option<Duration> {
        match (&self.phase, &self.resolver) {
            (Phase::Ended(ending), _) => Some(ending.next_deadline(Instant::now())),
            (_, Some(resolver)) => resolver.next_deadline(Instant::now()),
            _ => None,
        }
    }

    fn resolve(&mut self) {
        if let Some(resolver) = &mut self.resolver {
            resolver.turn(&mut self.buffer[..]);
        }
    }

    fn handle(&mut self, ready: Ready) {
        match ready.token {
            LISTENER => self.accept(),
            PIDFD | CHILDREN => self.look_after_children(),
            STDOUT => drop(self.read_output(OutputStream::Stdout)),
            STDERR => drop(self.read_output(OutputStream::Stderr)),
            STDIN => self.resume_input(),
            RESOLVER => self.resolve(),
            token => self.handle_client(usize::try_from(token - FIRST_CLIENT).unwrap_or(usize::MAX), ready),
        }
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            Ok((socket, _)) => self.welcome(socket),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // Out of descriptors: the connection stays in the queue and would wake us again at once.
            Err(_) => std::thread::sleep(ACCEPT_REST),
        }
    }

    /// Takes a connection in and introduces the shim. One too many is closed at once.
    fn welcome(&mut self, socket: UnixStream) {
        let place = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
        if place >= MAX_CLIENTS {
            return;
        }
        let Ok(mut client) = Client::new(socket, FIRST_CLIENT + place as u64, &self.poll) else { return };
        let started_at = match &self.phase {
            Phase::Created | Phase::Over => None,
            Phase::Running { started_at } => Some(*started_at),
            Phase::Ended(ending) => Some(ending.started_at()),
        };
        client.send_json(Kind::Hello, &Hello { protocol: PROTOCOL, processes: self.processes, started_at });
        if place == self.clients.len() {
            self.clients.push(Some(client));
        } else {
            self.clients[place] = Some(client);
        }
    }

    fn handle_client(&mut self, place: usize, ready: Ready) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return };
        if ready.can_write {
            client.flush();
        }
        if ready.is_hung_up {
            // What it sent before is still read.
            client.silence();
        }
        if ready.can_read {
            client.receive(&mut self.buffer[..]);
            self.carry_out_requests(place);
        }
    }

    /// Reads once from an output, into the log and to everybody who listens.
    pub(super) fn read_output(&mut self, stream: OutputStream) -> ReadOutcome {
        if self.must_hold_output() {
            return ReadOutcome::Nothing;
        }
        let outcome = self.streams.read(stream, &mut self.buffer[..]);
        if let ReadOutcome::Bytes(count) = outcome {
            let bytes = &self.buffer[..count];
            self.log.write(stream, bytes, process::now());
            let flag = if stream == OutputStream::Stdout { WANTS_STDOUT } else { WANTS_STDERR };
            for client in self.clients.iter_mut().flatten().filter(|client| client.wants(flag)) {
                client.send(Kind::Output, stream.number(), bytes);
            }
        }
        outcome
    }

    /// Whether somebody who listens has not taken the last piece yet.
    pub(super) fn must_hold_output(&self) -> bool {
        let listeners = self.clients.iter().flatten().filter(|c| c.wants(WANTS_STDOUT | WANTS_STDERR));
        listeners.into_iter().any(Client::is_behind)
    }

    fn look_after_children(&mut self) {
        process::drain_signals(&self.children);
        let Some(end) = process::reap(self.created.pid) else { return };
        // The descriptor stays readable, and is still needed.
        self.poll.remove(&self.created.pidfd);
        match self.phase {
            Phase::Running { started_at } => self.begin_ending(started_at, end),
            _ => self.give_up("container process ended before it was started"),
        }
    }

    /// After each round: forgets connections that are over, and waits for what makes sense now.
    fn settle(&mut self) {
        for place in 0..self.clients.len() {
            let Some(client) = &mut self.clients[place] else { continue };
            if client.is_over() {
                self.forget(place);
            } else {
                client.update_interest(&self.poll);
            }
        }
        let listens = !self.must_hold_output();
        let waits = self.clients.iter().flatten().any(|client| client.waits_for_input);
        let changed = self.streams.listen(&self.poll, listens);
        if changed.and_then(|()| self.streams.wait_for_room(&self.poll, waits)).is_err() {
            // Only a lack of kernel memory leads here. Blind to its streams, the container would hang forever.
            let _ = process::send_signal(&self.created.pidfd, libc::SIGKILL);
        }
    }

    fn forget(&mut self, place: usize) {
        let Some(client) = self.clients[place].take() else { return };
        if client.wants & crate::protocol::WANTS_STDIN != 0 {
            self.end_input();
        }
        drop(client);
        if place == BIRTH_CLIENT && matches!(self.phase, Phase::Created) {
            // The daemon is gone and will never say go.
            self.give_up("the daemon has ended");
        }
    }
}

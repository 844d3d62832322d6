//! Carries out what a daemon asks of its shim.
//!
//! In: a request at the front of a connection's inbox. Out: its effect, and one answer. Never waits: a request that can't go
//! on keeps its place.

use runtime::StartError;

use crate::protocol::{Failure, Kind, SIGNAL_ALL, Started};

use super::client::{Client, Request};
use super::process;
use super::resolver::Resolver;
use super::serve::{MAX_ATTACHED, Phase, Shim};
use super::streams::WriteOutcome;

/// Why a request wasn't carried out.
#[derive(Debug, thiserror::Error)]
enum RefuseError {
    #[error("the container is not running")]
    NotRunning,
    #[error("the container is already started")]
    AlreadyStarted,
    #[error("the container has no terminal")]
    NoTerminal,
    #[error("resize the terminal: {0}")]
    Resize(#[source] std::io::Error),
    #[error("send signal {signal}: {source}")]
    Signal { signal: i32, source: std::io::Error },
    #[error("send signal {signal} to all processes: {source}")]
    SignalAll { signal: i32, source: runtime::cgroup::CgroupError },
    #[error("too many clients are attached")]
    TooManyAttached,
    #[error("the container has no network namespace of its own")]
    NoNamespace,
    #[error("open the container's resolver: {0}")]
    OpenResolver(#[source] std::io::Error),
    #[error("the request is malformed")]
    Malformed,
    #[error("this shim does not know the request")]
    Unknown,
    #[error(transparent)]
    Start(StartError),
}

impl RefuseError {
    fn failure(&self) -> Failure {
        let exit_code = if let Self::Start(error) = self { Some(error.exit_code()) } else { None };
        Failure { message: self.to_string(), exit_code }
    }
}

impl Shim {
    /// Carries out what has come from one connection, as far as it goes.
    pub(super) fn carry_out_requests(&mut self, place: usize) {
        while let Some(request) = self.client(place).and_then(Client::request) {
            let is_done = match request.kind {
                Some(Kind::Input) => self.take_input(place),
                Some(Kind::InputEnd) => {
                    self.end_input();
                    true
                }
                _ => {
                    self.answer(place, &request);
                    true
                }
            };
            let Some(client) = self.client(place) else { return };
            if !is_done {
                client.waits_for_input = true;
                return;
            }
            client.complete();
        }
    }

    /// Goes on with input that had to wait for room.
    pub(super) fn resume_input(&mut self) {
        for place in 0..self.clients.len() {
            if self.client(place).is_some_and(|client| client.waits_for_input) {
                self.carry_out_requests(place);
            }
        }
    }

    /// A client has no more input. Source: moby, `stream/attach.go`: with StdinOnce the first end is the end; a terminal is
    /// never closed.
    pub(super) fn end_input(&mut self) {
        if self.stdin_once && !self.streams.is_terminal {
            self.streams.close_input();
        }
    }

    fn client(&mut self, place: usize) -> Option<&mut Client> {
        self.clients.get_mut(place).and_then(Option::as_mut)
    }

    /// Whether all of the input at the front was taken.
    fn take_input(&mut self, place: usize) -> bool {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return true };
        loop {
            let rest = &client.payload()[client.input_done..];
            if rest.is_empty() {
                return true;
            }
            match self.streams.write(rest) {
                WriteOutcome::Taken(count) => client.input_done += count,
                WriteOutcome::Full => return false,
                // As with a pipe in a shell whose reader is gone: the rest is lost.
                WriteOutcome::Closed => return true,
            }
        }
    }

    fn answer(&mut self, place: usize, request: &Request) {
        if request.kind == Some(Kind::Go) {
            self.go(place);
            return;
        }
        let result = match request.kind {
            Some(Kind::Attach) => self.attach(place, request.flags),
            Some(Kind::Resize) => self.resize(place),
            Some(Kind::Signal) => self.signal(place, request.flags),
            Some(Kind::OpenResolver) => self.open_resolver(),
            _ => Err(RefuseError::Unknown),
        };
        let Some(client) = self.client(place) else { return };
        match result {
            Ok(()) => client.send(Kind::Done, 0, &[]),
            Err(error) => client.send_json(Kind::Failed, &error.failure()),
        }
    }

    fn go(&mut self, place: usize) {
        if !matches!(self.phase, Phase::Created) {
            let Some(client) = self.client(place) else { return };
            client.send_json(Kind::Failed, &RefuseError::AlreadyStarted.failure());
            return;
        }
        match self.created.start() {
            Ok(()) => {
                let started_at = process::now();
                self.phase = Phase::Running { started_at };
                let Some(client) = self.client(place) else { return };
                client.send_json(Kind::Done, &Started { started_at });
            }
            Err(error) => self.fail_start(&RefuseError::Start(error).failure()),
        }
    }

    fn attach(&mut self, place: usize, flags: u8) -> Result<(), RefuseError> {
        let attached = self.clients.iter().flatten().filter(|client| client.wants != 0).count();
        if let Some(client) = self.client(place) {
            if client.wants == 0 && attached >= MAX_ATTACHED {
                return Err(RefuseError::TooManyAttached);
            }
            client.wants = flags;
        }
        Ok(())
    }

    fn resize(&mut self, place: usize) -> Result<(), RefuseError> {
        let client = self.client(place).ok_or(RefuseError::Malformed)?;
        let &[r0, r1, c0, c1] = client.payload() else { return Err(RefuseError::Malformed) };
        let (rows, cols) = (u16::from_le_bytes([r0, r1]), u16::from_le_bytes([c0, c1]));
        match self.streams.resize(rows, cols) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RefuseError::NoTerminal),
            Err(source) => Err(RefuseError::Resize(source)),
        }
    }

    fn open_resolver(&mut self) -> Result<(), RefuseError> {
        if !self.has_namespace {
            return Err(RefuseError::NoNamespace);
        }
        if !matches!(self.phase, Phase::Created | Phase::Running { .. }) {
            return Err(RefuseError::NotRunning);
        }
        if self.resolver.is_none() {
            let opened = Resolver::open(self.created.pid, self.dir.resolver_file(), false);
            self.use_resolver(opened.map_err(RefuseError::OpenResolver)?)
                .map_err(RefuseError::OpenResolver)?;
        }
        Ok(())
    }

    fn signal(&mut self, place: usize, flags: u8) -> Result<(), RefuseError> {
        let client = self.client(place).ok_or(RefuseError::Malformed)?;
        let &[a, b, c, d] = client.payload() else { return Err(RefuseError::Malformed) };
        let signal = i32::from_le_bytes([a, b, c, d]);
        let is_alive = match self.phase {
            Phase::Running { .. } => true,
            // Before its program runs, only the end makes sense.
            Phase::Created => signal == libc::SIGKILL,
            Phase::Ended(_) | Phase::Over => false,
        };
        if !is_alive {
            return Err(RefuseError::NotRunning);
        }
        if flags & SIGNAL_ALL != 0 {
            self.signal_all(signal)?;
        }
        process::send_signal(&self.created.pidfd, signal)
            .map_err(|source| RefuseError::Signal { signal, source })
    }

    /// To every process but the first, which has a signal of its own coming.
    fn signal_all(&self, signal: i32) -> Result<(), RefuseError> {
        let Some(cgroup) = &self.created.cgroup else { return Ok(()) };
        let refused = |source| RefuseError::SignalAll { signal, source };
        if signal == libc::SIGKILL {
            return cgroup.kill_all().map_err(refused);
        }
        for pid in cgroup.pids().map_err(refused)? {
            if pid > 1 && pid != self.created.pid {
                // It may have ended meanwhile.
                let _ = process::send_signal_to_pid(pid, signal);
            }
        }
        Ok(())
    }
}

//! The thread that owns the network: applies requests together, and repairs what somebody else breaks.
//!
//! In: requests of the handles, events of the kernel. Out: kernel state, answers. Sleeps until one of both arrives.
//! Never runs a request before the events that came earlier, and never answers before the kernel has the change.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink::watch::{Event, Watch};
use netplan::firewall::{Bridge, Firewall};
use netplan::{PortChange, StuckFlows};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use crate::error::{AttachError, NetworkError};
use crate::kernel::Kernel;
use crate::request::{Reply, Request};
use crate::status::Status;
use crate::wanted::Wanted;
use crate::{NetworkMode, PublishError, show};

/// chosen: as many requests as become one transaction; more wait for the next.
const REQUESTS_AT_ONCE: usize = 128;
/// chosen: datagrams read before requests get their turn.
const EVENTS_AT_ONCE: usize = 256;
/// chosen: two who want different things do not turn the machine into a heater, and 2 s are still kept.
const REPAIR_PAUSE: Duration = Duration::from_millis(100);
/// chosen: how long to wait after the kernel refused.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What the thread owns.
pub(crate) struct Worker {
    pub(crate) kernel: Kernel,
    pub(crate) wanted: Wanted,
    pub(crate) requests: Receiver<Request>,
    pub(crate) wake: Arc<OwnedFd>,
    pub(crate) rules: Watch,
    pub(crate) links: Watch,
    pub(crate) status: Status,
    /// Keeps other daemons away from the bridge.
    pub(crate) lock: UnixListener,
}

impl Worker {
    /// Runs until the last handle is dropped. Leaves the kernel's state as it is.
    pub(crate) fn run(mut self) {
        let mut has_more = false;
        loop {
            if let Err(errno) = self.wait(has_more) {
                tracing::error!(
                    error = &std::io::Error::from(errno) as &dyn std::error::Error,
                    "network thread cannot wait"
                );
                return;
            }
            let more_events = self.read_events();
            let Some(batch) = self.take_requests() else {
                tracing::debug!(lock = ?self.lock, "network thread ends");
                return;
            };
            has_more = more_events || batch.len() == REQUESTS_AT_ONCE;
            self.serve(batch);
            if !more_events {
                self.repair();
            }
        }
    }

    fn wait(&self, has_more: bool) -> Result<(), Errno> {
        let now = Instant::now();
        let pause = match (has_more, self.needs_repair()) {
            (true, _) => Some(Duration::ZERO),
            (false, true) => Some(self.status.not_before.saturating_duration_since(now)),
            (false, false) => None,
        };
        let pause = pause.map(|pause| Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(pause.subsec_nanos()),
        });
        let mut fds = [
            PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.rules.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.links.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, pause.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let is_awake = !fds[0].revents().is_empty();
        if is_awake {
            // Only resets the counter; the requests themselves are in the channel.
            let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        }
        Ok(())
    }

    /// Reads the kernel's events; true when there may be more.
    fn read_events(&mut self) -> bool {
        let Self { kernel, wanted, status, rules, links, .. } = self;
        let mut judge = |event: Event| status.judge(kernel, wanted, &event);
        let more_rules = rules.read(EVENTS_AT_ONCE, &mut judge);
        let more_links = links.read(EVENTS_AT_ONCE, &mut judge);
        match (more_rules, more_links) {
            (Ok(rules), Ok(links)) => rules || links,
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot watch the kernel's network events"
                );
                false
            }
        }
    }

    /// The requests that are there; `None` when no handle is left.
    fn take_requests(&mut self) -> Option<Vec<Request>> {
        let mut batch = Vec::new();
        while batch.len() < REQUESTS_AT_ONCE {
            match self.requests.try_recv() {
                Ok(request) => batch.push(request),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if batch.is_empty() => return None,
                Err(TryRecvError::Disconnected) => break,
            }
        }
        Some(batch)
    }

    fn serve(&mut self, batch: Vec<Request>) {
        if batch.is_empty() {
            return;
        }
        let mut replies = Vec::with_capacity(batch.len());
        for request in batch {
            replies.extend(self.take_in(request));
        }
        let outcome = self.apply();
        for reply in replies {
            self.answer(reply, &outcome);
        }
        if outcome.is_err() {
            // What was rolled back has to leave the kernel too.
            self.status.rules_doubtful = true;
        }
    }

    /// Changes what is wanted; what needs the kernel is answered later, the rest at once.
    fn take_in(&mut self, request: Request) -> Option<Reply> {
        // A caller that went away does not want its answer any more.
        match request {
            Request::Attach(request, reply) => {
                let container_id = request.container_id.clone();
                match self.attach(request) {
                    Ok(endpoint) => return Some(Reply::Attach(container_id, endpoint, reply)),
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            }
            Request::Release(container_id, reply) => {
                self.release(&container_id);
                return Some(Reply::Done(reply));
            }
            Request::Adopt { container_id, name, endpoint, reply } => {
                self.wanted.adopt(&container_id, &name, *endpoint);
                self.status.links_doubtful = true;
                return Some(Reply::Done(reply));
            }
            Request::Rename { container_id, name, reply } => {
                self.wanted.rename(&container_id, &name);
                let _ = reply.send(());
            }
            Request::PublishService { service, ports, reply } => {
                if self.status.is_closed {
                    let _ = reply.send(Err(PublishError::Apply(NetworkError::Closed)));
                    return None;
                }
                let outcome = self.wanted.publish_service(&service, &ports);
                return Some(Reply::Publish(outcome, reply));
            }
            Request::UnpublishService(service, reply) => {
                self.wanted.unpublish_service(&service);
                return Some(Reply::Done(reply));
            }
            Request::UnpublishAllServices(reply) => {
                self.wanted.unpublish_all_services();
                return Some(Reply::Done(reply));
            }
            Request::Hold(reply) => {
                self.status.is_held = true;
                let _ = reply.send(());
            }
            Request::ReleaseHold(reply) => {
                self.status.is_held = false;
                return Some(Reply::ReleaseHold(reply));
            }
            Request::List(reply) => drop(reply.send(show::list(&self.wanted, self.kernel.bridge()))),
            Request::ShutdownRemove(reply) => drop(reply.send(self.shutdown_remove())),
        }
        None
    }

    fn attach(&mut self, request: crate::AttachRequest) -> Result<crate::Endpoint, AttachError> {
        if self.status.is_closed {
            return Err(AttachError::Apply(NetworkError::Closed));
        }
        if request.mode == NetworkMode::Bridge {
            // Also while held: a bridge that is there breaks nothing, and the runtime needs it next.
            self.kernel.ensure_bridge().map_err(AttachError::Apply)?;
        }
        if self.wanted.is_attached(&request.container_id) {
            // A start that was given up half way. Whoever starts the container again knows that it does not run.
            tracing::warn!(
                container.id = request.container_id,
                "container was attached already: its old endpoint is dropped"
            );
            self.release(&request.container_id);
        }
        self.wanted.attach(request)
    }

    fn release(&mut self, container_id: &str) {
        let Some(endpoint) = self.wanted.release(container_id) else { return };
        if let Some(IpAddr::V4(ip)) = endpoint.ip {
            self.status.stuck.push(StuckFlows::ToAddress(ip));
        }
        // Its link goes with its namespace. To delete it here would make everybody wait for the kernel's grace period.
    }

    fn answer(&mut self, reply: Reply, outcome: &Result<(), NetworkError>) {
        match reply {
            Reply::Attach(container_id, endpoint, reply) => {
                let result = outcome.clone().map(|()| endpoint).map_err(AttachError::Apply);
                if result.is_err() {
                    self.release(&container_id);
                }
                if reply.send(result).is_err() {
                    // Nobody knows of this endpoint, so nobody would give it back.
                    self.release(&container_id);
                    self.status.rules_doubtful = true;
                }
            }
            Reply::Publish(result, reply) => {
                let _ = reply.send(result.and_then(|()| outcome.clone().map_err(PublishError::Apply)));
            }
            Reply::ReleaseHold(reply) => drop(reply.send(outcome.clone())),
            Reply::Done(reply) => {
                if let Err(error) = outcome {
                    tracing::warn!(
                        error = error as &dyn std::error::Error,
                        "network change will be tried again"
                    );
                }
                let _ = reply.send(());
            }
        }
    }

    /// Brings the kernel to what is wanted, unless held.
    fn apply(&mut self) -> Result<(), NetworkError> {
        if !self.status.is_serving() {
            return Ok(());
        }
        let result = self.apply_now();
        if result.is_err() {
            self.status.rules_doubtful = true;
            self.status.not_before = Instant::now() + RETRY_PAUSE;
        }
        result
    }

    fn apply_now(&mut self) -> Result<(), NetworkError> {
        if self.kernel.bridge_index().is_none() {
            self.kernel.ensure_bridge()?;
            self.status.links_doubtful = true;
        }
        let changes = self.wanted.published.take_changes();
        self.status.stuck.extend(changes.iter().flat_map(PortChange::stuck_flows));
        if self.status.rules_doubtful {
            self.rebuild()?;
        } else if !changes.is_empty()
            && let Err(error) = self.kernel.change(&changes)
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "rules are not as we left them: rebuilding"
            );
            self.rebuild()?;
        }
        let stuck = std::mem::take(&mut self.status.stuck);
        self.kernel.forget(&stuck);
        if self.status.links_doubtful {
            self.kernel.enslave(self.wanted.links())?;
            self.status.links_doubtful = false;
        }
        if !self.status.is_swept {
            let known = self.wanted.links().map(str::to_owned).collect();
            self.kernel.sweep_links(&known)?;
            self.status.is_swept = true;
        }
        Ok(())
    }

    fn rebuild(&mut self) -> Result<(), NetworkError> {
        let bridge = Bridge { name: self.kernel.bridge().to_owned(), subnet: self.kernel.address().trunc() };
        self.kernel.rebuild(&Firewall::of(&[bridge]), &self.wanted.published)?;
        // A packet that came while the rules were away may have been noted as a connection to this machine, and then
        // would never be translated.
        let ports = self.wanted.published.ports();
        self.status.stuck.extend(ports.map(|(host, _)| StuckFlows::Untranslated(*host)));
        self.status.rules_doubtful = false;
        Ok(())
    }

    fn needs_repair(&self) -> bool {
        let status = &self.status;
        status.is_serving()
            && (status.rules_doubtful
                || status.links_doubtful
                || status.foreign_doubtful
                || self.kernel.bridge_index().is_none())
    }

    /// Puts right what events or failures left doubtful, not too often.
    fn repair(&mut self) {
        if !self.needs_repair() || Instant::now() < self.status.not_before {
            return;
        }
        self.status.not_before = Instant::now() + REPAIR_PAUSE;
        let rules = self.status.rules_doubtful;
        match self.apply() {
            Ok(()) if rules => {
                tracing::warn!(table = self.kernel.table(), "somebody changed our rules: rebuilt")
            }
            Ok(()) => {}
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "could not repair the network, trying again"
                );
            }
        }
        if self.status.foreign_doubtful {
            self.warn_about_others();
        }
    }

    fn warn_about_others(&mut self) {
        self.status.foreign_doubtful = false;
        match self.kernel.foreign_forward_drops() {
            Ok(found) => {
                for chain in found.difference(&self.status.foreign) {
                    tracing::warn!(
                        chain,
                        bridge = self.kernel.bridge(),
                        "a forward chain of another firewall drops by default: containers are cut off unless it accepts packets from and to the bridge"
                    );
                }
                self.status.foreign = found;
            }
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "could not list the chains of others"
                );
            }
        }
    }

    fn shutdown_remove(&mut self) -> bool {
        if !self.wanted.is_idle() || self.status.is_closed {
            return self.status.is_closed;
        }
        match self.kernel.remove(self.wanted.state.is_bridge_ours) {
            Ok(()) => {
                self.status.is_closed = true;
                true
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not remove bridge and rules");
                false
            }
        }
    }
}

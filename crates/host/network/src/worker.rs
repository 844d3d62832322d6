//! The thread that owns the network: applies requests together, and repairs what somebody else breaks.
//!
//! In: requests of the handles, events of the kernel. Out: kernel state, answers. Sleeps until one of both arrives.
//! Never runs a request before the events that came earlier, and never answers before the kernel has the change.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink::watch::{Event, Watch};
use netplan::firewall::{self, Firewall, Uplink};
use netplan::{AddressPool, PortChange, StuckFlows};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use crate::create::Defaults;
use crate::error::{AttachError, CreateError, NetworkError, RemoveError};
use crate::kernel::Kernel;
use crate::local_names::LocalNames;
use crate::registry::{Entry, Kind};
use crate::request::{Reply, Request};
use crate::state_file::State;
use crate::status::Status;
use crate::swarm::Swarm;
use crate::wanted::Wanted;
use crate::{Attachment, NetworkJoin, PublishError, SandboxMode, names, show};

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
    pub(crate) swarm: Swarm,
    /// The link to the ingress namespace that the rules are for.
    pub(crate) uplink: Option<Uplink>,
    /// What is in `networks.json`.
    pub(crate) state: State,
    pub(crate) defaults: Defaults,
    pub(crate) names: LocalNames,
    /// Where `networks.json` is.
    pub(crate) state_dir: PathBuf,
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
                self.swarm.save();
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
        let repair_at = self.needs_repair().then_some(self.status.not_before);
        let next = [repair_at, self.swarm.wake_at()].into_iter().flatten().min();
        let pause =
            if has_more { Some(Duration::ZERO) } else { next.map(|at| at.saturating_duration_since(now)) };
        let pause = pause.map(|pause| Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(pause.subsec_nanos()),
        });
        let own = [self.wake.as_fd(), self.rules.as_fd(), self.links.as_fd()];
        let watched = own.into_iter().chain(self.swarm.watches());
        let mut fds: Vec<_> = watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
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
        if let Err(error) = self.swarm.read_events() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot watch the networks of the swarm"
            );
        }
        self.swarm.tick(Instant::now());
        let Self { kernel, wanted, status, swarm, rules, links, .. } = self;
        let mut judge = |event: Event| {
            swarm.judge(&event);
            status.judge(kernel, wanted, &event);
        };
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
        self.write_names();
        for reply in replies {
            self.answer(reply, &outcome);
        }
        // What was taken back on the way.
        self.write_names();
        if outcome.is_err() {
            // What was rolled back has to leave the kernel too.
            self.status.rules_doubtful = true;
        }
    }

    fn write_names(&mut self) {
        if !self.status.is_held {
            self.names.write(&mut self.wanted);
        }
    }

    /// Changes what is wanted; what needs the kernel is answered later, the rest at once.
    fn take_in(&mut self, request: Request) -> Option<Reply> {
        // A caller that went away does not want its answer any more.
        match request {
            Request::Attach(request, reply) => {
                let container_id = request.container_id.clone();
                match self.attach(request) {
                    Ok(attachment) => return Some(Reply::Attach(container_id, attachment, reply)),
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            }
            Request::Release(container_id, reply) => {
                self.release(&container_id);
                return Some(Reply::Done(reply));
            }
            Request::Adopt { container_id, name, attachment, reply } => {
                self.wanted.adopt(&container_id, &name, *attachment);
                self.status.links_doubtful = true;
                return Some(Reply::Done(reply));
            }
            Request::Rename { container_id, name, reply } => {
                self.wanted.rename(&container_id, &name);
                return Some(Reply::Done(reply));
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
                return Some(Reply::Outcome(reply));
            }
            Request::Tell { .. }
            | Request::TellKeys(..)
            | Request::LeaveSwarm(_)
            | Request::CheckEncryption { .. }
            | Request::Plug { .. } => return self.take_in_of_swarm(request),
            Request::Create(..)
            | Request::EnsureGatewayBridge(_)
            | Request::Remove(..)
            | Request::Connect(..)
            | Request::Disconnect { .. } => return self.take_in_change(request),
            Request::Names(network, reply) => drop(reply.send(names::of_network(&self.wanted, &network))),
            Request::Facts(network, reply) => {
                let found = self.wanted.networks.find(&network).ok();
                let _ = reply.send(found.map(Entry::facts));
            }
            Request::List(reply) => drop(reply.send(show::list(&self.wanted))),
            Request::ShutdownRemove(reply) => drop(reply.send(self.shutdown_remove())),
        }
        None
    }

    /// The same for networks of the swarm.
    fn take_in_of_swarm(&mut self, request: Request) -> Option<Reply> {
        match request {
            Request::Tell { node, told, reply } => {
                self.swarm.take_in(node, &told, &mut self.wanted);
                Some(Reply::Outcome(reply))
            }
            Request::TellKeys(keys, reply) => {
                self.swarm.encryption().take_in_keys(keys);
                Some(Reply::Done(reply))
            }
            Request::CheckEncryption { network, reply } => {
                let _ = reply.send(self.swarm.check_encryption(&network.as_str().into()));
                None
            }
            Request::LeaveSwarm(reply) => {
                self.swarm.leave(&mut self.wanted);
                // The way out of the swarm's networks goes with them, unless a container is still on it or it never was.
                let _ = self.remove(crate::create::GATEWAY_BRIDGE);
                Some(Reply::Done(reply))
            }
            Request::Plug { container_id, pid, reply } => {
                // A caller that went away does not want its answer any more.
                let _ = reply.send(self.plug(&container_id, pid));
                None
            }
            _ => None,
        }
    }

    /// The same for what changes networks, and who is on them.
    fn take_in_change(&mut self, request: Request) -> Option<Reply> {
        match request {
            Request::Create(spec, reply) => match self.create(*spec) {
                Ok(id) => return Some(Reply::Create(id, reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::EnsureGatewayBridge(reply) => match self.ensure_gateway_bridge() {
                Ok(id) => return Some(Reply::Create(id, reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Remove(network, reply) => match self.remove(&network) {
                Ok((name, id)) => return Some(Reply::Remove(name, id, reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Connect(request, reply) => match self.connect(&request) {
                Ok(change) => return Some(Reply::Connect(Box::new(change), reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Disconnect { container_id, network, pid, reply } => {
                match self.disconnect(&container_id, &network, pid) {
                    Ok(change) => return Some(Reply::Connect(Box::new(change), reply)),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            _ => {}
        }
        None
    }

    fn attach(&mut self, request: crate::AttachRequest) -> Result<Attachment, AttachError> {
        if self.status.is_closed {
            return Err(AttachError::Apply(NetworkError::Closed));
        }
        if request.mode == SandboxMode::Own {
            for join in &request.networks {
                self.check_given(&request.container_id, join)?;
            }
            self.ensure_way_out(&request.networks)?;
            // Also while held: a bridge that is there breaks nothing, and the runtime needs it next.
            for join in &request.networks {
                self.ensure_bridge_of(&join.network)?;
            }
        }
        if self.wanted.is_attached(&request.container_id) {
            // A start that was given up half way. Whoever starts the container again knows that it does not run.
            tracing::warn!(
                container.id = request.container_id,
                "container was attached already: its old endpoints are dropped"
            );
            self.release(&request.container_id);
        }
        self.wanted.attach(request)
    }

    /// Addresses on networks of the swarm are the managers' to give: who comes without one would have none, and who
    /// comes with one of its own would take somebody's.
    pub(crate) fn check_given(&self, container_id: &str, join: &NetworkJoin) -> Result<(), AttachError> {
        let entry = self.wanted.networks.find(&join.network)?;
        let id = &entry.record.id;
        let is_given = join.ip.is_some_and(|ip| {
            self.swarm.gave(id, ip.into()) && !self.wanted.has_address(id, ip.into(), container_id)
        });
        if is_given || !matches!(entry.kind, Kind::Overlay(_)) {
            return Ok(());
        }
        let (network, is_attachable) = (entry.record.name.clone(), entry.record.is_attachable);
        Err(AttachError::NotGiven { network, is_attachable })
    }

    pub(crate) fn ensure_bridge_of(&mut self, network: &str) -> Result<(), AttachError> {
        let entry = self.wanted.networks.find(network)?;
        match &entry.kind {
            Kind::Bridge(bridge) => self.kernel.ensure_bridge(&bridge.link).map_err(AttachError::Apply),
            Kind::Overlay(_) => self.swarm.ensure(&entry.record.id).map_err(AttachError::Apply),
            _ => Ok(()),
        }
    }

    /// Gives a container what it needs of the swarm's networks it is on.
    fn plug(&mut self, container_id: &str, pid: u32) -> Result<(), NetworkError> {
        match self.wanted.attachment(container_id) {
            Some(attachment) => self.swarm.plug(container_id, pid, attachment),
            None => Ok(()),
        }
    }

    fn release(&mut self, container_id: &str) {
        self.swarm.unplug(container_id);
        let Some(attachment) = self.wanted.release(container_id) else { return };
        attachment.endpoints.iter().for_each(|endpoint| self.forget_flows(endpoint));
        // Its links go with its namespace. To delete them here would make everybody wait for the kernel's grace period.
    }

    /// Connections to an address that nobody has any more.
    pub(crate) fn forget_flows(&mut self, endpoint: &crate::Endpoint) {
        if let Some(IpAddr::V4(ip)) = endpoint.ipv4().map(|address| address.ip) {
            self.status.stuck.push(StuckFlows::ToAddress(ip));
        }
    }

    fn answer(&mut self, reply: Reply, outcome: &Result<(), NetworkError>) {
        match reply {
            Reply::Attach(container_id, attachment, reply) => {
                let result = outcome.clone().map(|()| attachment).map_err(AttachError::Apply);
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
            Reply::Outcome(reply) => drop(reply.send(outcome.clone())),
            Reply::Create(id, reply) => {
                let result = outcome.clone().map(|()| id.clone()).map_err(CreateError::Apply);
                if result.is_err()
                    && let Err(error) = self.take_away(&id)
                {
                    tracing::error!(
                        network.id = id,
                        error = &error as &dyn std::error::Error,
                        "network is left"
                    );
                }
                let _ = reply.send(result);
            }
            Reply::Remove(name, id, reply) => {
                let _ = reply.send(outcome.clone().map(|()| (name, id)).map_err(RemoveError::Apply));
            }
            Reply::Connect(change, reply) => {
                let result = self.finish(*change, outcome.clone());
                // A caller that went away looks at the container again.
                let _ = reply.send(result);
            }
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
        // What is wrong with one network of the swarm is its own affair, and tried again.
        self.swarm.apply(&self.wanted);
        let uplink = self.swarm.uplink();
        if uplink != self.uplink {
            self.uplink = uplink;
            self.status.rules_doubtful = true;
            self.status.foreign_doubtful = true;
        }
        if self.kernel.ensure_bridges()? {
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
            self.kernel.enslave(self.wanted.interfaces())?;
            self.status.links_doubtful = false;
        }
        if !self.status.is_swept {
            let known = self.wanted.interfaces().map(|interface| interface.host_name.clone()).collect();
            self.kernel.sweep_links(&known)?;
            self.status.is_swept = true;
        }
        Ok(())
    }

    fn rebuild(&mut self) -> Result<(), NetworkError> {
        let bridges = self.wanted.networks.bridges().map(|(record, bridge)| firewall::Bridge {
            name: bridge.link.clone(),
            subnets: bridge.pools.iter().map(AddressPool::subnet).collect(),
            is_internal: record.is_internal,
            joins_containers: bridge.options.joins_containers,
            masquerades: bridge.options.masquerades,
        });
        let bridges: Vec<_> = bridges.collect();
        self.kernel.rebuild(&Firewall::of(&bridges, self.uplink.as_ref()), &self.wanted.published)?;
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
                || self.swarm.needs_work()
                || !self.kernel.has_all_bridges())
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
        let with_ipv6 = self.uplink.as_ref().is_some_and(|uplink| uplink.machine6.is_some());
        match self.kernel.foreign_forward_drops(with_ipv6) {
            Ok(found) => {
                for chain in found.difference(&self.status.foreign) {
                    tracing::warn!(
                        chain,
                        table = self.kernel.table(),
                        "a forward chain of another firewall drops by default: containers are cut off unless it accepts packets from and to our bridges"
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
        match self.remove_all() {
            Ok(()) => {
                self.status.is_closed = true;
                true
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not remove bridges and rules"
                );
                false
            }
        }
    }

    fn remove_all(&mut self) -> Result<(), NetworkError> {
        self.swarm.remove_all()?;
        self.kernel.remove_table()?;
        let bridges = self.wanted.networks.bridges();
        let bridges: Vec<_> =
            bridges.map(|(record, bridge)| (bridge.link.clone(), record.is_link_ours)).collect();
        for (link, is_ours) in bridges {
            self.kernel.remove_bridge(&link, is_ours)?;
        }
        Ok(())
    }
}

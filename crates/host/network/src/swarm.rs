//! The networks of the swarm on this machine: from what managers say to what the kernel, names and containers have.
//!
//! In: words of managers; containers that are attached, run and end. Out: overlays, the routing mesh, virtual addresses,
//! files of names, entries of the registry, published ports. What fails is tried again and harms no other network. Never
//! decides: the plans are `netplan`'s.
//!
//! ```text
//!  managers ─► told ─┬─► netplan::encryption ► Encryption  associations and policies of the machine, before anything is sent
//!                    ├─► netplan::overlay ─► Overlays     one namespace a network
//!                    ├─► netplan::mesh ────► Mesh, published ports of the machine
//!                    ├─► netplan::vip ─────► Vips         a table in each container's namespace
//!                    └─► netplan::names ───► names/<id>   read by the containers' resolvers
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink::namespace;
use netlink::route::{Address, Link};
use netlink::watch::{Event, Subject};
use netplan::firewall::Uplink;
use netplan::mesh::BRIDGE;
use netplan::{LinkSubnet, MeshPlan, OverlayPlan, TaskSide, Underlay};
use objects::{NetworkId, NodeId, ServiceId, Timestamp};
use wire::network::NetworkView;
use wire::session::Assignments;

use crate::encryption::Encryption;
use crate::endpoint::OverlayNetwork;
use crate::ingress;
use crate::kernel::VETH_PREFIX;
use crate::mesh::Mesh;
use crate::names_file::NamesDir;
use crate::overlay::{Overlays, underlay_of};
use crate::registry::Entry;
use crate::task_side::plug_task;
use crate::told::Told;
use crate::vips::Vips;
use crate::wanted::Wanted;
use crate::{Attachment, NetworkConfig, NetworkError, OpenError, ServicePort};

/// How often what the kernel tells nobody about (neighbours, forwarding entries) is looked at.
///
/// chosen: somebody has to go out of their way to break it, and a look costs two lists per network.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// chosen: how long to wait after the kernel refused.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The networks of the swarm.
pub(crate) struct Swarm {
    told: Told,
    overlays: Overlays,
    mesh: Mesh,
    vips: Vips,
    names: NamesDir,
    /// The link between machine and ingress namespace, where all of its versions of IP are there.
    links: [LinkSubnet; 2],
    encryption: Encryption,
    /// Networks that are not as they were told.
    doubtful: BTreeSet<NetworkId>,
    /// Containers in which the mesh has a side, by id.
    behind_mesh: BTreeSet<String>,
    /// The way to other machines; `None` when it may have changed.
    underlay: Option<(IpAddr, Underlay)>,
    look_at: Instant,
    /// Set while something that failed waits to be tried again.
    retry_at: Option<Instant>,
    /// Largest packets of the machine's links, by index.
    known_mtus: BTreeMap<u32, u32>,
    is_swept: bool,
}

impl Swarm {
    /// Reads what was told before a restart. Changes nothing in the kernel.
    pub(crate) fn open(config: &NetworkConfig) -> Result<Self, OpenError> {
        let told = Told::open(&config.state_dir);
        let doubtful = told.networks().keys().cloned().collect();
        Ok(Self {
            overlays: Overlays::open(config.exec_root.join("netns")).map_err(OpenError::Swarm)?,
            mesh: Mesh::open(&config.mesh_link()).map_err(OpenError::Swarm)?,
            vips: Vips::new(),
            names: names_dir(&config.exec_root)?,
            links: config.mesh_subnets(),
            told,
            encryption: Encryption::open(config.exec_root.join("encryption")),
            doubtful,
            behind_mesh: BTreeSet::new(),
            underlay: None,
            look_at: Instant::now() + LOOK_EVERY,
            retry_at: None,
            known_mtus: BTreeMap::new(),
            is_swept: false,
        })
    }

    /// What is known from before a restart becomes wanted.
    pub(crate) fn begin(&mut self, wanted: &mut Wanted) {
        let known: Vec<NetworkId> = self.told.networks().keys().cloned().collect();
        for id in &known {
            if let Some(view) = self.told.networks().get(id) {
                self.vips.put_network(view);
            }
            self.enter(id, wanted);
        }
        self.publish(wanted);
    }

    /// Takes in what a manager said.
    pub(crate) fn take_in(&mut self, node: NodeId, told: &Assignments, wanted: &mut Wanted) {
        let touched = self.told.take_in(node, told);
        // Whoever says everything says what is left behind as well.
        self.is_swept &= !matches!(told, Assignments::Complete(_));
        self.follow(told, &touched);
        for id in &touched {
            self.enter(id, wanted);
        }
        if touched.iter().any(|id| self.is_ingress(id)) || self.ingress().is_none() {
            self.publish(wanted);
        }
        self.doubtful.extend(touched);
        self.encryption.follow();
    }

    /// What the machine does for encrypted networks.
    pub(crate) fn encryption(&mut self) -> &mut Encryption {
        &mut self.encryption
    }

    /// Whether containers can be on a network, as far as its encryption goes.
    pub(crate) fn check_encryption(&self, id: &NetworkId) -> Result<(), NetworkError> {
        self.told.networks().get(id).map_or(Ok(()), |view| self.encryption.check(view))
    }

    /// Outside a swarm there are no such networks. Containers on them have ended.
    pub(crate) fn leave(&mut self, wanted: &mut Wanted) {
        self.encryption.take_in_keys(Vec::new());
        for id in self.told.forget() {
            self.vips.forget_network(&id);
            self.enter(&id, wanted);
            self.doubtful.insert(id);
        }
        self.publish(wanted);
    }

    /// Brings virtual addresses to what was said: news cost what they change.
    fn follow(&mut self, told: &Assignments, touched: &BTreeSet<NetworkId>) {
        let news = match told {
            Assignments::Incremental { update, .. } => update.network_news.as_slice(),
            Assignments::Complete(_) => &[],
        };
        for news in news {
            self.vips.take_in(news);
        }
        let as_news: BTreeSet<&NetworkId> = news.iter().map(|news| &news.id).collect();
        for id in touched.iter().filter(|id| !as_news.contains(id)) {
            match self.told.networks().get(id) {
                Some(view) => self.vips.put_network(view),
                None => self.vips.forget_network(id),
            }
        }
    }

    /// Makes a network known to containers that want to join, with its names; or forgets it.
    fn enter(&mut self, id: &NetworkId, wanted: &mut Wanted) {
        // Before anybody joins it: how large packets may be there depends on the way to the others.
        let local = self.told.networks().get(id).and_then(|view| view.peers.get(self.told.node()));
        if let Some(local) = local.map(|own| own.data_path)
            && let Err(error) = self.underlay(local)
        {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the way to other machines is not known"
            );
        }
        let Some(view) = self.told.networks().get(id) else {
            wanted.networks.remove(id.as_str());
            self.note(id, self.names.remove(id.as_str()));
            return;
        };
        if !view.ingress {
            self.note(id, self.names.write(id.as_str(), &netplan::names::of_view(view)).map(drop));
        }
        let known = overlay_network(view, &self.overlays, self.known_underlay(), self.told.node());
        wanted.networks.insert(Entry::overlay(known));
    }

    fn note(&self, id: &NetworkId, written: std::io::Result<()>) {
        if let Err(error) = written {
            tracing::warn!(network.id = %id, %error, "the names of a network are not up to date");
        }
    }

    fn ingress(&self) -> Option<&NetworkView> {
        self.told.networks().values().find(|view| view.ingress)
    }

    /// The ingress network as it is on this node.
    fn ingress_here(&self) -> Option<Cow<'_, NetworkView>> {
        self.ingress().map(|view| ingress::here(view, mtu(view, self.known_underlay(), self.told.node())))
    }

    fn is_ingress(&self, id: &NetworkId) -> bool {
        self.told.networks().get(id).is_some_and(|view| view.ingress)
    }

    /// Has the machine's published ports lead into the ingress namespace, those without a task that serves them nowhere.
    fn publish(&self, wanted: &mut Wanted) {
        let mut ports: BTreeMap<ServiceId, Vec<ServicePort>> = BTreeMap::new();
        if let Some(view) = self.ingress_here() {
            let (served, links) = (netplan::mesh::served(&view), ingress::links(&self.links, &view));
            let of_service =
                |(id, service)| (ServiceId::clone(id), ingress::service_ports(service, &served, &links));
            ports.extend(view.services.iter().map(of_service));
        }
        for (service, error) in wanted.put_services(&ports) {
            tracing::warn!(service.id = %service, error = &error as &dyn std::error::Error, "ports not published on this node");
        }
    }

    /// Whether a manager gave this address to a container of this node.
    pub(crate) fn gave(&self, id: &str, ip: IpAddr) -> bool {
        let view = self.told.networks().get(&NetworkId::from(id));
        let endpoints = view.into_iter().flat_map(|view| view.endpoints.values());
        let mut own = endpoints.filter(|endpoint| endpoint.node == *self.told.node());
        own.any(|endpoint| endpoint.addresses.contains(&ip))
    }

    /// Makes or repairs a network before a container joins it.
    pub(crate) fn ensure(&mut self, id: &str) -> Result<(), NetworkError> {
        let id = NetworkId::from(id);
        self.check_encryption(&id)?;
        if self.doubtful.contains(&id) {
            self.apply_one(&id)?;
            self.doubtful.remove(&id);
        }
        Ok(())
    }

    /// True when something is not as it was told.
    pub(crate) fn needs_work(&self) -> bool {
        let is_waiting = self.retry_at.is_some_and(|at| at > Instant::now());
        let is_doubtful = self.encryption.is_doubtful() || !self.doubtful.is_empty();
        !is_waiting && (self.retry_at.is_some() || is_doubtful || !self.is_swept)
    }

    /// Judges an event of the machine's own namespace.
    pub(crate) fn judge(&mut self, event: &Event) {
        match event {
            Event::LinkGone(link) if link.name == self.mesh.link() => self.doubt_mesh(),
            Event::Link(link) if link.name == self.mesh.link() && !link.is_up => self.doubt_mesh(),
            // Links of containers come and go all the time, and lead to no machine.
            Event::Link(link) if !link.name.starts_with(VETH_PREFIX) && self.has_news(link) => {
                self.doubt_underlay()
            }
            // Every link has one of its own, those of containers too.
            Event::AddressGone(Address { ip: IpAddr::V6(ip), .. }) if ip.is_unicast_link_local() => {}
            Event::AddressGone(address) if self.mesh.has_link(address.index) => self.doubt_mesh(),
            Event::AddressGone(_) | Event::Lost(Subject::Links) => self.doubt_underlay(),
            _ => {}
        }
    }

    /// Whether packets of another size go through a link than before.
    fn has_news(&mut self, link: &Link) -> bool {
        self.known_mtus.insert(link.index, link.mtu) != Some(link.mtu)
    }

    /// Brings the kernel to what was told. Every network is tried; one that failed just now waits.
    pub(crate) fn apply(&mut self, wanted: &Wanted) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.retry_at = None;
        for id in self.doubtful.clone() {
            match self.apply_one(&id) {
                Ok(()) => drop(self.doubtful.remove(&id)),
                Err(error) => self.failed(&id, &error),
            }
        }
        if !self.is_swept {
            // What a container is on stays, whether it was said or not: its interface would go for good.
            let used = wanted.networks_in_use().map(NetworkId::from);
            let kept: BTreeSet<NetworkId> = self.told.networks().keys().cloned().chain(used).collect();
            match self.sweep(&kept.iter().map(netplan::overlay::namespace_name).collect()) {
                Ok(()) => self.is_swept = true,
                Err(error) => self.failed(&"left behind".into(), &error),
            }
        }
        // Not before the last VXLAN of a network that is used no more is gone: what is left of it would send as it is.
        if self.doubtful.is_empty()
            && self.is_swept
            && let Err(error) = self.encryption.apply(self.told.networks(), self.told.node())
        {
            self.failed(&"encryption".into(), &error);
        }
        if !self.vips.repair() {
            self.retry_at = Some(now + RETRY_PAUSE);
        }
    }

    fn failed(&mut self, id: &NetworkId, error: &NetworkError) {
        tracing::warn!(network.id = %id, error = error as &dyn std::error::Error, "a network of the swarm is not as it should be");
        self.retry_at = Some(Instant::now() + RETRY_PAUSE);
    }

    /// Removes what an earlier daemon left of networks that are used no more.
    fn sweep(&mut self, wanted: &BTreeSet<String>) -> Result<(), NetworkError> {
        if self.ingress().is_none() {
            self.mesh.remove()?;
        }
        self.overlays.keep_only(wanted)
    }

    fn apply_one(&mut self, id: &NetworkId) -> Result<(), NetworkError> {
        let Some(view) = self.told.networks().get(id).cloned() else {
            let name = netplan::overlay::namespace_name(id);
            if self.ingress().is_none() {
                self.mesh.remove()?;
            }
            return self.overlays.remove(&name);
        };
        let Some(own) = view.peers.get(self.told.node()) else { return Ok(()) };
        if view.encrypted {
            if self.encryption.check(&view).is_err() {
                // Its containers are refused, and other networks go on.
                return Ok(());
            }
            // Before anything is sent: nothing leaves a machine plain, not even while keys are not known.
            self.encryption.apply(self.told.networks(), self.told.node())?;
        }
        let underlay = self.underlay(own.data_path)?;
        let view = match view.ingress {
            true => ingress::here(&view, mtu(&view, underlay, self.told.node())).into_owned(),
            false => view,
        };
        let Some(plan) = OverlayPlan::of(&view, self.told.node(), underlay) else { return Ok(()) };
        self.overlays.apply(&plan)?;
        let links = ingress::links(&self.links, &view);
        if view.ingress
            && let Some(mesh) = MeshPlan::of(&view, self.told.node(), plan.mtu, &links)
            && let Some(ingress) = self.overlays.namespace(&plan.name)
        {
            self.mesh.apply(ingress, &mesh)?;
        }
        Ok(())
    }

    /// The way to other machines as far as it is known.
    fn known_underlay(&self) -> Underlay {
        self.underlay.map_or(Underlay { mtu: NetworkConfig::DEFAULT_MTU }, |(_, underlay)| underlay)
    }

    fn underlay(&mut self, local: IpAddr) -> Result<Underlay, NetworkError> {
        match self.underlay {
            Some((of, underlay)) if of == local => Ok(underlay),
            _ => {
                let underlay = underlay_of(local)?;
                self.underlay = Some((local, underlay));
                Ok(underlay)
            }
        }
    }

    /// Gives a container, whose namespace is there and whose program does not run yet, what it needs of its networks.
    pub(crate) fn plug(
        &mut self,
        container: &str,
        pid: u32,
        attachment: &Attachment,
    ) -> Result<(), NetworkError> {
        let ids = attachment.endpoints.iter().map(|endpoint| NetworkId::from(endpoint.network_id.as_str()));
        let networks: Vec<NetworkId> = ids.filter(|id| self.told.networks().contains_key(id)).collect();
        if networks.is_empty() {
            return Ok(());
        }
        let space =
            namespace::of_process(pid).map_err(|error| NetworkError::namespace("enter", container, error))?;
        if let Some(side) = self.task_side(attachment) {
            plug_task(space.as_fd(), &side)?;
            self.behind_mesh.insert(container.to_owned());
        }
        self.vips.plug(container, space.as_fd(), networks)
    }

    /// Forgets a container; what it had goes with its namespace.
    pub(crate) fn unplug(&mut self, container: &str) {
        self.vips.unplug(container);
        self.behind_mesh.remove(container);
    }

    fn task_side(&self, attachment: &Attachment) -> Option<TaskSide> {
        let ingress = self.ingress()?;
        let is_it = |endpoint: &&crate::Endpoint| endpoint.network_id == ingress.id.as_str();
        let endpoint = attachment.endpoints.iter().find(is_it)?;
        let nets = |endpoint: &crate::Endpoint| -> Vec<IpNet> {
            let addresses = endpoint.addresses.iter();
            addresses.filter_map(|address| IpNet::new(address.ip, address.prefix).ok()).collect()
        };
        let others = attachment.endpoints.iter().filter(|endpoint| !is_it(endpoint));
        let outward = attachment.way_out().into_iter().flat_map(|endpoint| &endpoint.addresses);
        Some(TaskSide {
            link: endpoint.interface.as_ref()?.name.clone(),
            own: nets(endpoint),
            node: ingress.peers.get(self.told.node())?.addresses.clone(),
            others: others.flat_map(nets).collect(),
            outward: outward.map(|address| address.ip).collect(),
        })
    }

    /// Descriptors that become readable when something happens in one of our namespaces.
    pub(crate) fn watches(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.overlays.watches().chain(self.mesh.watches())
    }

    /// Reads what happened, and notes which networks have to be looked at.
    pub(crate) fn read_events(&mut self) -> Result<(), NetworkError> {
        let names: BTreeSet<String> = self.overlays.read_events()?.into_iter().collect();
        let is_mesh_doubtful = self.mesh.read_events()?;
        let of_name = |id: &&NetworkId| names.contains(&netplan::overlay::namespace_name(id));
        self.doubtful.extend(self.told.networks().keys().filter(of_name).cloned());
        if is_mesh_doubtful && let Some(ingress) = self.ingress() {
            self.doubtful.insert(ingress.id.clone());
        }
        Ok(())
    }

    /// A link of the machine changed: the way to others may be another one.
    pub(crate) fn doubt_underlay(&mut self) {
        if self.underlay.take().is_some() {
            self.doubtful.extend(self.told.networks().keys().cloned());
        }
    }

    /// The link to the ingress namespace is gone.
    pub(crate) fn doubt_mesh(&mut self) {
        self.mesh.doubt();
        if let Some(ingress) = self.ingress() {
            self.doubtful.insert(ingress.id.clone());
        }
    }

    /// When there is something to do although nothing happens; `None` without networks.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let look = (!self.told.networks().is_empty()).then_some(self.look_at);
        [look, self.told.save_at(), self.retry_at].into_iter().flatten().min()
    }

    /// Does what is due by now.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.told.save_at().is_some_and(|at| at <= now) {
            self.told.save();
        }
        if self.look_at <= now {
            self.look_at = now + LOOK_EVERY;
            self.overlays.doubt_all();
            self.encryption.doubt();
            self.doubtful.extend(self.told.networks().keys().cloned());
        }
    }

    /// What the last second said is not lost when the daemon stops.
    pub(crate) fn save(&mut self) {
        if self.told.save_at().is_some() {
            self.told.save();
        }
    }

    /// The machine's side of the mesh, for its firewall.
    pub(crate) fn uplink(&self) -> Option<Uplink> {
        let view = self.ingress_here()?;
        let own = view.peers.get(self.told.node())?;
        ingress::uplink(self.mesh.link(), &ingress::links(&self.links, &view), own.data_path)
    }

    /// Removes everything when the daemon ends and no container is left. The names are written again at the next start.
    pub(crate) fn remove_all(&mut self) -> Result<(), NetworkError> {
        self.save();
        if let Err(error) = self.names.remove_all() {
            tracing::warn!(error = &error as &dyn std::error::Error, "files of names are left");
        }
        self.mesh.remove()?;
        self.overlays.keep_only(&BTreeSet::new())?;
        self.encryption.remove_all()
    }
}

pub(crate) fn names_dir(exec_root: &Path) -> Result<NamesDir, OpenError> {
    let failed = |source| OpenError::State { path: exec_root.join("names"), source };
    NamesDir::open(exec_root).map_err(failed)
}

/// A network as containers that join it see it.
fn overlay_network(
    view: &NetworkView,
    overlays: &Overlays,
    underlay: Underlay,
    node: &NodeId,
) -> OverlayNetwork {
    let name = netplan::overlay::namespace_name(&view.id);
    OverlayNetwork {
        id: view.id.to_string(),
        name: view.name.clone(),
        created: Timestamp::ZERO,
        is_internal: view.internal,
        is_attachable: view.attachable,
        is_ingress: view.ingress,
        subnets: view.subnets.clone(),
        gateways: view.gateways.clone(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        namespace: overlays.path(&name),
        bridge: BRIDGE.to_owned(),
        mtu: mtu(view, underlay, node),
    }
}

/// Largest packet on a network, in bytes.
fn mtu(view: &NetworkView, underlay: Underlay, node: &NodeId) -> u32 {
    let local = view.peers.get(node).map(|own| own.data_path).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    netplan::overlay::mtu(underlay, local, view.encrypted, view.mtu)
}

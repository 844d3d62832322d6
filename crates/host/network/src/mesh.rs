//! The routing mesh on this machine: the ingress namespace between the machine's published ports and tasks anywhere.
//!
//! In: the namespace of the ingress network, made by [`crate::Overlays`], and a plan. Out: a link to the machine, rules,
//! routes, as planned; changed by difference. Published ports of the machine lead to the link's inner address (that is
//! `netplan::published`'s). Never decides where a port leads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink::NetlinkError;
use netlink::conntrack::{ConntrackSocket, FlowFilter};
use netlink::namespace;
use netlink::nft::NftSocket;
use netlink::port_hold::PortHold;
use netlink::route::{Namespace, PolicyRule, Route, RouteBatch, RouteSocket, VethPair};
use netlink::watch::Watch;
use netplan::mesh::{self, BRIDGE, MeshPlan, UPLINK};
use netplan::table::{Family, Key, Value, Version};
use netplan::{LinkSubnet, Protocol};

use crate::NetworkError;
use crate::apply_table;
use crate::overlay::EVENTS_AT_ONCE;
use crate::sysctl;
use crate::task_side::{default_route, policy_rule};

const MAIN_TABLE: u32 = libc::RT_TABLE_MAIN as u32;
/// What is set in the ingress namespace. Packets come in by other links than their senders are reached by, and go out by the
/// link that they came in by. While somebody has taken the rules away, connections are not tracked: what is acknowledged
/// afterwards may be beyond what was seen to be sent, and the connection would be stuck for ever.
const SETTINGS: [(&str, &str); 10] = [
    ("netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
];
const OF_LINKS: [(&str, &str, &str); 4] = [
    ("ipv4", "rp_filter", "0"),
    ("ipv4", "send_redirects", "0"),
    ("ipv6", "accept_dad", "0"),
    ("ipv6", "accept_ra", "0"),
];

/// The routing mesh of this machine.
#[derive(Debug)]
pub struct Mesh {
    /// Name of the machine's end of the link.
    link: String,
    /// Number of the machine's end, once it was made.
    index: Option<u32>,
    machine: RouteSocket,
    inside: Option<Inside>,
}

/// The ingress namespace.
#[derive(Debug)]
struct Inside {
    route: RouteSocket,
    nft: NftSocket,
    conntrack: ConntrackSocket,
    links: Watch,
    rules: Watch,
    namespace: OwnedFd,
    /// While somebody has taken the rules away, packets to published ports are dropped here, not answered by a reset: they
    /// come again when the rules are back.
    holds: BTreeMap<(Protocol, u16, Version), PortHold>,
    /// What is in the kernel; `None` when that is not known.
    applied: Option<MeshPlan>,
}

/// Routes and rules as the kernel holds them.
#[derive(Default)]
struct Ways {
    routes: BTreeSet<Route>,
    rules: BTreeSet<PolicyRule>,
}

impl Mesh {
    /// A mesh whose link to the machine has the name `link` there. To be called in the machine's network namespace. Changes
    /// nothing.
    pub fn open(link: &str) -> Result<Self, NetworkError> {
        Ok(Self { link: link.to_owned(), index: None, machine: RouteSocket::open()?, inside: None })
    }

    /// Name of the machine's end of the link.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// Whether this is the number of the machine's end of the link.
    pub fn has_link(&self, index: u32) -> bool {
        self.index == Some(index)
    }

    /// Makes or repairs the mesh as planned, in the namespace of the ingress network, which [`crate::Overlays`] applied. To
    /// be called in the machine's network namespace.
    pub fn apply(&mut self, ingress: BorrowedFd<'_>, plan: &MeshPlan) -> Result<(), NetworkError> {
        if self.inside.as_ref().is_some_and(|inside| !is_same(inside.namespace.as_fd(), ingress)) {
            // Another ingress network took the place of the one there was.
            self.remove()?;
        }
        if self.inside.is_none() {
            self.inside = Some(Inside::enter(ingress)?);
        }
        let Self { link, index, machine, inside } = self;
        let Some(inside) = inside else { return Ok(()) };
        if inside.applied.as_ref() == Some(plan) {
            return Ok(());
        }
        let known = inside.applied.take();
        if known.as_ref().is_none_or(|known| known.links != plan.links || known.mtu != plan.mtu) {
            *index = Some(ensure_link(machine, link, inside, ingress, plan)?);
        }
        inside.ensure_ways(known.as_ref(), plan)?;
        inside.ensure_rules(known.as_ref(), plan)?;
        inside.ensure_holds(plan)?;
        inside.applied = Some(plan.clone());
        Ok(())
    }

    /// Removes the link; the rest goes with the namespace. It need not have been applied.
    pub fn remove(&mut self) -> Result<(), NetworkError> {
        (self.inside, self.index) = (None, None);
        delete_link(&mut self.machine, &self.link)
    }

    /// Has the next [`Mesh::apply`] look at the kernel.
    pub fn doubt(&mut self) {
        if let Some(inside) = &mut self.inside {
            inside.applied = None;
        }
    }

    /// Descriptors that become readable when something changes in the ingress namespace; [`Mesh::read_events`] reads them.
    pub fn watches(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.inside.iter().flat_map(|inside| [inside.links.as_fd(), inside.rules.as_fd()])
    }

    /// Reads what happened; true when the mesh is not as it was applied: it is then in doubt.
    pub fn read_events(&mut self) -> Result<bool, NetworkError> {
        let Some(inside) = &mut self.inside else { return Ok(false) };
        let (mut has_links, mut has_rules) = (false, false);
        while inside.links.read(EVENTS_AT_ONCE, |_| has_links = true)? {}
        while inside.rules.read(EVENTS_AT_ONCE, |_| has_rules = true)? {}
        let Some(applied) = inside.applied.take() else { return Ok(false) };
        let is_doubtful = has_rules || (has_links && !inside.is_whole(&applied)?);
        inside.applied = Some(applied).filter(|_| !is_doubtful);
        Ok(is_doubtful)
    }
}

/// Whether two descriptors are of one namespace. Source: namespaces(7).
fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let identity = |fd| rustix::fs::fstat(fd).map(|found| (found.st_dev, found.st_ino));
    identity(one).is_ok_and(|one| identity(other).is_ok_and(|other| one == other))
}

fn ensure_link(
    machine: &mut RouteSocket,
    name: &str,
    inside: &mut Inside,
    ingress: BorrowedFd<'_>,
    plan: &MeshPlan,
) -> Result<u32, NetworkError> {
    let inner = inside.route.link(UPLINK)?.filter(|link| link.kind == "veth");
    let outer = machine.link(name)?;
    if inner.is_none() || outer.is_none() {
        delete_link(machine, name)?;
        delete_link(&mut inside.route, UPLINK)?;
        machine.add_veth(&VethPair {
            name,
            master: None,
            mtu: plan.mtu,
            up: false,
            peer_name: UPLINK,
            peer_mac: None,
            peer_namespace: Some(Namespace::Fd(ingress)),
        })?;
        // Before it is up: without an address that is known to be its own, it would ask for no neighbour.
        sysctl::set_of_link(name, &[("ipv6", "accept_dad", "0")])?;
    }
    let has_ipv6 = plan.links.iter().any(|link| link.ingress.is_ipv6());
    if has_ipv6 {
        // Links may be made without it.
        sysctl::set_of_link(name, &[("ipv6", "disable_ipv6", "0")])?;
    }
    let ends = |pick: fn(&LinkSubnet) -> IpAddr| -> Vec<_> {
        plan.links.iter().map(|link| (pick(link), link.machine.prefix_len())).collect()
    };
    let outer = ensure_end(machine, name, plan.mtu, &ends(|link| link.machine.addr()))?;
    ensure_end(&mut inside.route, UPLINK, plan.mtu, &ends(|link| link.ingress))?;
    sysctl::prepare(name, false)?;
    if has_ipv6 {
        lead_ipv6(machine, outer);
    }
    namespace::within(ingress, || {
        sysctl::set_of_link(UPLINK, &OF_LINKS)?;
        sysctl::set_of_link(BRIDGE, &OF_LINKS)
    })
    .map_err(|e| NetworkError::namespace("enter", UPLINK, e))??;
    Ok(outer)
}

/// Lets packets of IPv6 pass to and fro. What the kernel refuses of it is missing, and harms nothing else.
fn lead_ipv6(machine: &mut RouteSocket, link: u32) {
    if let Err(error) = sysctl::forward_ipv6() {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "published ports do not answer others over IPv6"
        );
    }
    // Answers to who asked at `::1` go there, and come in by this link.
    if let Err(error) = machine.accept_on(link, Ipv6Addr::LOCALHOST.into()) {
        tracing::warn!(error = &error as &dyn std::error::Error, "published ports do not answer at [::1]");
    }
}

fn ensure_end(
    route: &mut RouteSocket,
    name: &str,
    mtu: u32,
    addresses: &[(IpAddr, u8)],
) -> Result<u32, NetworkError> {
    let link = route.link(name)?.ok_or_else(|| NetlinkError::NoLink(name.to_owned()))?;
    if link.mtu != mtu {
        route.set_mtu(link.index, mtu)?;
    }
    let there = route.addresses()?;
    for (ip, prefix) in addresses {
        if !there.iter().any(|address| address.index == link.index && address.ip == *ip) {
            route.add_address(link.index, *ip, *prefix)?;
        }
    }
    if !link.is_up {
        route.set_up(link.index)?;
    }
    Ok(link.index)
}

fn delete_link(route: &mut RouteSocket, name: &str) -> Result<(), NetworkError> {
    let Some(link) = route.link(name)? else { return Ok(()) };
    match route.delete_link(link.index) {
        Err(e) if !e.is_missing() => Err(e.into()),
        _ => Ok(()),
    }
}

impl Inside {
    fn enter(ingress: BorrowedFd<'_>) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::namespace("enter", "ingress", source);
        let own = ingress.try_clone_to_owned().map_err(failed)?;
        namespace::within(ingress, || {
            let nft = NftSocket::open()?;
            let rules = Watch::rules(nft.port())?;
            // Brings connection tracking with it, which some of the settings are for.
            let conntrack = ConntrackSocket::open()?;
            sysctl::set_where_there(&SETTINGS)?;
            Ok(Self {
                route: RouteSocket::open()?,
                nft,
                conntrack,
                links: Watch::links()?,
                rules,
                namespace: own,
                holds: BTreeMap::new(),
                applied: None,
            })
        })
        .map_err(failed)?
    }

    /// Whether links, addresses, routes and routing rules are as planned.
    fn is_whole(&mut self, plan: &MeshPlan) -> Result<bool, NetworkError> {
        let is_up =
            |link: Option<netlink::route::Link>| link.filter(|link| link.is_up).map(|link| link.index);
        let (Some(uplink), Some(bridge)) = (is_up(self.route.link(UPLINK)?), is_up(self.route.link(BRIDGE)?))
        else {
            return Ok(false);
        };
        let addresses = self.route.addresses()?;
        let has = |index: u32, ip: IpAddr| addresses.iter().any(|a| a.index == index && a.ip == ip);
        let has_addresses = plan.links.iter().all(|link| has(uplink, link.ingress))
            && plan.own.iter().all(|own| has(bridge, own.addr()));
        let (there, wanted) = (self.ways_there()?, ways(plan, uplink, bridge));
        Ok(has_addresses && wanted.routes.is_subset(&there.routes) && wanted.rules.is_subset(&there.rules))
    }

    fn ensure_ways(&mut self, known: Option<&MeshPlan>, plan: &MeshPlan) -> Result<(), NetworkError> {
        let uplink = self.route.index(UPLINK)?;
        let bridge = self.route.index(BRIDGE)?;
        let before = match known {
            Some(known) => ways(known, uplink, bridge),
            None => self.ways_there()?,
        };
        let after = ways(plan, uplink, bridge);
        let mut batch = RouteBatch::new();
        before.rules.difference(&after.rules).for_each(|gone| batch.delete_rule(gone));
        before.routes.difference(&after.routes).for_each(|gone| batch.delete_route(gone));
        after.routes.difference(&before.routes).for_each(|new| batch.put_route(new));
        after.rules.difference(&before.rules).for_each(|new| batch.add_rule(new));
        Ok(self.route.commit(batch)?)
    }

    /// Routes and rules that can only be ours: with a next hop, for a mark.
    fn ways_there(&mut self) -> Result<Ways, NetworkError> {
        let routes = self.route.routes()?.into_iter().filter(|route| route.gateway.is_some()).collect();
        Ok(Ways { routes, rules: self.route.policy_rules()?.into_iter().collect() })
    }

    fn ensure_rules(&mut self, known: Option<&MeshPlan>, plan: &MeshPlan) -> Result<(), NetworkError> {
        let is_same = |part: fn(&MeshPlan, &MeshPlan) -> bool| known.is_some_and(|known| part(known, plan));
        if !is_same(|a, b| a.peers == b.peers && a.stations == b.stations) {
            self.nft.commit(apply_table::replace(&plan.port_table()))?;
        }
        let changes = known.map(|known| port_changes(known, plan)).unwrap_or_default();
        let has_same_rest =
            is_same(|a, b| a.peers == b.peers && a.own == b.own && a.links == b.links && a.mtu == b.mtu);
        if !has_same_rest || !self.change_ports(&changes) {
            self.nft.commit(apply_table::replace(&plan.table()))?;
        }
        self.forget(&changes)
    }

    fn ensure_holds(&mut self, plan: &MeshPlan) -> Result<(), NetworkError> {
        let versions: BTreeSet<_> = plan.links.iter().map(|link| Version::of(link.ingress)).collect();
        let wanted: BTreeSet<_> = plan
            .ports
            .keys()
            .flat_map(|(protocol, port)| versions.iter().map(|version| (*protocol, *port, *version)))
            .collect();
        self.holds.retain(|key, _| wanted.contains(key));
        let new: Vec<_> = wanted.into_iter().filter(|key| !self.holds.contains_key(key)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let failed = |source| NetworkError::namespace("hold ports in", "ingress", source);
        let taken = namespace::within(self.namespace.as_fd(), || {
            let take = |key: (Protocol, u16, Version)| {
                let any = unspecified(key.2);
                PortHold::take(key.0.number(), any, key.1).map(|hold| (key, hold))
            };
            new.into_iter().map(take).collect::<io::Result<Vec<_>>>()
        });
        self.holds.extend(taken.and_then(|taken| taken).map_err(failed)?);
        Ok(())
    }

    /// Only what these ports need; false when the table is not what we left.
    fn change_ports(&mut self, changes: &[PortChange<'_>]) -> bool {
        let mut batch = apply_table::batch(Family::Inet, mesh::TABLE);
        for PortChange { protocol, port, before, after } in changes {
            let (chain, key) = (mesh::port_chain(*protocol, *port), Key::Port(*protocol, *port));
            match (before.is_empty(), after.is_empty()) {
                (_, true) => {
                    apply_table::delete_element(&mut batch, mesh::PORTS, &key);
                    batch.delete_chain(&chain);
                }
                (true, false) => {
                    batch.add_chain(&chain);
                    apply_table::put_rules(&mut batch, &chain, &mesh::port_rules(*protocol, after));
                    apply_table::add_elements(&mut batch, mesh::PORTS, &[(key, Value::Chain(chain))]);
                }
                (false, false) => {
                    // The element stays, so that no connection finds the port missing.
                    batch.flush_chain(&chain);
                    apply_table::put_rules(&mut batch, &chain, &mesh::port_rules(*protocol, after));
                }
            }
        }
        self.nft.commit(batch).is_ok()
    }

    /// Datagrams would go on to a backend that left for as long as the client keeps sending.
    fn forget(&mut self, changes: &[PortChange<'_>]) -> Result<(), NetworkError> {
        let datagrams = changes.iter().filter(|change| change.protocol == Protocol::Udp);
        let left = datagrams.flat_map(|c| c.before.iter().filter(|backend| !c.after.contains(backend)));
        let to_backend = |backend: &SocketAddr| FlowFilter {
            protocol: Some(Protocol::Udp.number()),
            answered_by: Some(backend.ip()),
            answered_from_port: Some(backend.port()),
            ..FlowFilter::default()
        };
        let filters: Vec<_> = left.map(to_backend).collect();
        self.conntrack.forget(&filters)?;
        Ok(())
    }
}

/// A published port that leads elsewhere now. Never empty on both sides.
struct PortChange<'a> {
    protocol: Protocol,
    port: u16,
    before: &'a [SocketAddr],
    after: &'a [SocketAddr],
}

fn port_changes<'a>(known: &'a MeshPlan, plan: &'a MeshPlan) -> Vec<PortChange<'a>> {
    let keys: BTreeSet<_> = known.ports.keys().chain(plan.ports.keys()).collect();
    let change = |key: &(Protocol, u16)| PortChange {
        protocol: key.0,
        port: key.1,
        before: known.ports.get(key).map(Vec::as_slice).unwrap_or_default(),
        after: plan.ports.get(key).map(Vec::as_slice).unwrap_or_default(),
    };
    keys.into_iter().map(change).filter(|change| change.before != change.after).collect()
}

fn ways(plan: &MeshPlan, uplink: u32, bridge: u32) -> Ways {
    let mut ways = Ways::default();
    for link in &plan.links {
        ways.routes.insert(Route {
            destination: unspecified(Version::of(link.ingress)),
            prefix: 0,
            gateway: Some(link.machine.addr()),
            index: Some(uplink),
            table: MAIN_TABLE,
        });
    }
    for (task, node) in &plan.routes {
        ways.routes.insert(Route {
            destination: *task,
            prefix: if task.is_ipv4() { 32 } else { 128 },
            gateway: Some(*node),
            index: Some(bridge),
            table: MAIN_TABLE,
        });
    }
    for marked in plan.mark_routes() {
        ways.routes.insert(default_route(&marked, bridge));
        ways.rules.insert(policy_rule(&marked));
    }
    ways
}

fn unspecified(version: Version) -> IpAddr {
    match version {
        Version::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Version::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

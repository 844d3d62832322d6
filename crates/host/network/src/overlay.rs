//! Overlay networks on this machine: a namespace each, with a bridge, a VXLAN, and what is found where.
//!
//! In: plans. Out: kernel objects as planned, changed by difference; adopted when an earlier daemon made them; removed when
//! nobody uses them. Never decides who is on a network, and never touches containers' own ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use netlink::NetlinkError;
use netlink::namespace;
use netlink::route::{
    BridgePort, ForwardingEntry, Mac, Namespace, Neighbour, NewBridge, NewVxlan, RouteBatch, RouteSocket,
    Vxlan,
};
use netlink::watch::Watch;
use netplan::mesh::{BRIDGE, VXLAN};
use netplan::{MacAddress, OverlayPlan, Underlay};

use crate::NetworkError;
use crate::apply_table::mac;
use crate::netns::Namespaces;
use crate::sysctl;

/// chosen: datagrams read in one go.
pub(crate) const EVENTS_AT_ONCE: usize = 256;
/// chosen: an address that is nobody's, for bridges that have no address of their own.
const BRIDGE_MAC: Mac = Mac([0x02, 0x73, 0x6b, 0x65, 0x70, 0x00]);
/// What is set in an overlay's namespace before anything is made there. Bridged frames pass no packet filter; nobody has an
/// address by itself.
const SETTINGS: [(&str, &str); 4] = [
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];
const WITHOUT_IPV6: [(&str, &str); 2] =
    [("ipv6/conf/default/disable_ipv6", "1"), ("ipv6/conf/all/disable_ipv6", "1")];
/// The machine may have it switched off for namespaces that are made.
const WITH_IPV6: [(&str, &str); 2] =
    [("ipv6/conf/default/disable_ipv6", "0"), ("ipv6/conf/all/disable_ipv6", "0")];
/// Links answer for others, and have no address themselves.
const WITHOUT_ADDRESSES: [(&str, &str); 1] = [("ipv6/conf/default/addr_gen_mode", "1")];
/// Keeps the kernel's limits on neighbours away from big networks. Source: moby, `libnetwork/osl/kernel/knobs_linux.go`.
const NEIGHBOUR_LIMITS: [(&str, &str); 3] = [
    ("ipv4/neigh/default/gc_thresh1", "8192"),
    ("ipv4/neigh/default/gc_thresh2", "49152"),
    ("ipv4/neigh/default/gc_thresh3", "65536"),
];

/// The overlay networks of this machine.
#[derive(Debug)]
pub struct Overlays {
    namespaces: Namespaces,
    /// Of the machine's namespace: sockets of VXLANs are there.
    machine: RouteSocket,
    live: BTreeMap<String, Overlay>,
}

/// One of them.
#[derive(Debug)]
struct Overlay {
    namespace: OwnedFd,
    route: RouteSocket,
    links: Watch,
    /// Whether the namespace was set up for IPv6.
    has_ipv6: bool,
    /// What is in the kernel; `None` when that is not known.
    applied: Option<OverlayPlan>,
}

/// Indexes of an overlay's links.
struct Links {
    bridge: u32,
    vxlan: u32,
}

impl Overlays {
    /// Networks in the namespaces of `dir`. To be called in the machine's network namespace. Changes nothing.
    pub fn open(dir: PathBuf) -> Result<Self, NetworkError> {
        let machine = RouteSocket::open()?;
        Ok(Self { namespaces: Namespaces::new(dir), machine, live: BTreeMap::new() })
    }

    /// The file on which a network's namespace is mounted, by the network's name in its plan.
    pub fn path(&self, name: &str) -> PathBuf {
        self.namespaces.path(name)
    }

    /// The namespace of a network that was applied.
    pub fn namespace(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.live.get(name).map(|overlay| overlay.namespace.as_fd())
    }

    /// Makes or repairs the network as planned. What an earlier daemon made is taken over.
    pub fn apply(&mut self, plan: &OverlayPlan) -> Result<(), NetworkError> {
        if self.live.get(&plan.name).is_none_or(|overlay| overlay.has_ipv6 != plan.has_ipv6) {
            let overlay = Overlay::enter(&self.namespaces, plan)?;
            self.live.insert(plan.name.clone(), overlay);
        }
        let Some(overlay) = self.live.get_mut(&plan.name) else { return Ok(()) };
        if overlay.applied.as_ref() == Some(plan) {
            return Ok(());
        }
        let applied = overlay.applied.take();
        let links = match &applied {
            Some(applied) if is_same_link(applied, plan) => overlay.links()?,
            _ => None,
        };
        let known = links.and(applied);
        let links = overlay.ensure_links(&mut self.machine, plan)?;
        let known = known.map(|known| entries(&known, &links));
        overlay.ensure_entries(plan, &links, known)?;
        overlay.applied = Some(plan.clone());
        Ok(())
    }

    /// Removes a network with everything in it. It need not be there, and need not have been applied.
    pub fn remove(&mut self, name: &str) -> Result<(), NetworkError> {
        let namespace = match self.live.remove(name) {
            Some(overlay) => Some(overlay.namespace),
            None => self.namespaces.open(name),
        };
        if let Some(namespace) = namespace {
            // At once: the kernel takes namespaces apart some time later, and the number would be taken until then.
            namespace::within(namespace.as_fd(), || delete_vxlans(&mut RouteSocket::open()?, None))
                .map_err(|e| NetworkError::namespace("enter", name, e))??;
        }
        self.namespaces.remove(name)
    }

    /// Removes every network but these, also those of an earlier daemon. All are tried; the first failure is told.
    pub fn keep_only(&mut self, wanted: &BTreeSet<String>) -> Result<(), NetworkError> {
        let mut names = self.namespaces.names()?;
        names.extend(self.live.keys().cloned());
        let gone: Vec<_> = names.difference(wanted).cloned().collect();
        let mut result = Ok(());
        for name in gone {
            result = result.and(self.remove(&name));
        }
        result
    }

    /// Has the next [`Overlays::apply`] of this network look at the kernel.
    pub fn doubt(&mut self, name: &str) {
        if let Some(overlay) = self.live.get_mut(name) {
            overlay.applied = None;
        }
    }

    /// Has the next [`Overlays::apply`] of every network look at the kernel: for a timer, because changes of neighbours and
    /// forwarding entries are not told.
    pub fn doubt_all(&mut self) {
        self.live.values_mut().for_each(|overlay| overlay.applied = None);
    }

    /// Descriptors that become readable when a link in a network's namespace changes; [`Overlays::read_events`] reads them.
    pub fn watches(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.live.values().map(|overlay| overlay.links.as_fd())
    }

    /// Reads what happened to links; names the networks that were not left as they were applied, which are then in doubt.
    /// Changes of our own, and containers that come and go, put nothing in doubt.
    pub fn read_events(&mut self) -> Result<Vec<String>, NetworkError> {
        let mut doubtful = Vec::new();
        for (name, overlay) in &mut self.live {
            let mut has_events = false;
            while overlay.links.read(EVENTS_AT_ONCE, |_| has_events = true)? {}
            if has_events && overlay.applied.is_some() && !overlay.is_whole()? {
                overlay.applied = None;
                doubtful.push(name.clone());
            }
        }
        Ok(doubtful)
    }
}

impl Overlay {
    fn enter(namespaces: &Namespaces, plan: &OverlayPlan) -> Result<Self, NetworkError> {
        let namespace = namespaces.open_or_make(&plan.name)?;
        let (route, links) = namespace::within(namespace.as_fd(), || {
            sysctl::set_where_there(&SETTINGS)?;
            sysctl::set_where_there(&NEIGHBOUR_LIMITS)?;
            sysctl::set_where_there(if plan.has_ipv6 { &WITH_IPV6 } else { &WITHOUT_IPV6 })?;
            if plan.has_ipv6 && plan.own.is_empty() {
                sysctl::set_where_there(&WITHOUT_ADDRESSES)?;
            }
            Ok::<_, NetworkError>((RouteSocket::open()?, Watch::links()?))
        })
        .map_err(|e| NetworkError::namespace("enter", &plan.name, e))??;
        Ok(Self { namespace, route, links, has_ipv6: plan.has_ipv6, applied: None })
    }

    /// The links, if both are there and belong together.
    fn links(&mut self) -> Result<Option<Links>, NetworkError> {
        let bridge = self.route.link(BRIDGE)?.filter(|link| link.kind == "bridge" && link.is_up);
        let vxlan = self.route.link(VXLAN)?.filter(|link| link.is_up);
        Ok(match (bridge, vxlan) {
            (Some(bridge), Some(vxlan)) if vxlan.master == Some(bridge.index) => {
                Some(Links { bridge: bridge.index, vxlan: vxlan.index })
            }
            _ => None,
        })
    }

    /// Whether links, ports and own addresses are as they were applied.
    fn is_whole(&mut self) -> Result<bool, NetworkError> {
        let Some(links) = self.links()? else { return Ok(false) };
        let ports = self.route.links()?;
        let is_attached = ports
            .iter()
            .filter(|link| is_port(&link.name))
            .all(|link| link.master == Some(links.bridge) && link.is_up);
        let own: Vec<_> = self.applied.iter().flat_map(|plan| plan.own.clone()).collect();
        let addresses = self.route.addresses()?;
        let has = |ip: IpAddr| addresses.iter().any(|a| a.index == links.bridge && a.ip == ip);
        Ok(is_attached && own.iter().all(|own| has(own.addr())))
    }

    fn ensure_links(&mut self, machine: &mut RouteSocket, plan: &OverlayPlan) -> Result<Links, NetworkError> {
        let bridge = self.ensure_bridge(plan)?;
        let vxlan = self.ensure_vxlan(machine, plan, bridge)?;
        for link in self.route.links()?.into_iter().filter(|link| is_port(&link.name)) {
            if link.master == Some(bridge) && link.is_up {
                continue;
            }
            match self.route.enslave(link.index, bridge) {
                // Its container ended meanwhile.
                Err(e) if e.is_missing() => {}
                other => other?,
            }
            let isolated = Some(!plan.own.is_empty());
            self.route.set_bridge_port(link.index, &BridgePort { isolated, ..BridgePort::default() })?;
            tracing::warn!(
                link = link.name,
                network = plan.name,
                "attached a container's link to its network again"
            );
        }
        Ok(Links { bridge, vxlan })
    }

    fn ensure_bridge(&mut self, plan: &OverlayPlan) -> Result<u32, NetworkError> {
        let addresses: Vec<_> = plan.own.iter().map(|own| own.addr()).collect();
        let wanted = MacAddress::of_all(&addresses).map_or(BRIDGE_MAC, mac);
        let found = self.route.link(BRIDGE)?;
        if found.is_none() {
            let bridge = NewBridge { name: BRIDGE, mac: wanted, mtu: plan.mtu, snoops_multicast: false };
            self.route.make_bridge(&bridge)?;
        }
        let link = self.route.link(BRIDGE)?.ok_or_else(|| NetlinkError::NoLink(BRIDGE.to_owned()))?;
        if link.mac != Some(wanted) {
            self.route.set_mac(link.index, wanted)?;
        }
        if link.mtu != plan.mtu {
            self.route.set_mtu(link.index, plan.mtu)?;
        }
        let there = self.route.addresses()?;
        for own in &plan.own {
            if !there.iter().any(|address| address.index == link.index && address.ip == own.addr()) {
                self.route.add_address(link.index, own.addr(), own.prefix_len())?;
            }
        }
        for other in there.iter().filter(|address| address.index == link.index) {
            let is_link_local = matches!(other.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            if !is_link_local && !plan.own.iter().any(|own| own.addr() == other.ip) {
                self.route.delete_address(link.index, other.ip, other.prefix)?;
            }
        }
        if !link.is_up {
            self.route.set_up(link.index)?;
        }
        Ok(link.index)
    }

    fn ensure_vxlan(
        &mut self,
        machine: &mut RouteSocket,
        plan: &OverlayPlan,
        bridge: u32,
    ) -> Result<u32, NetworkError> {
        let wanted = Vxlan { vni: plan.vni, local: plan.local, port: plan.port };
        let is_right = self.route.vxlan(VXLAN)? == Some(wanted);
        delete_vxlans(&mut self.route, is_right.then_some(VXLAN))?;
        if !is_right {
            // Under its last name, a link of the machine could be in its way.
            let name = format!("skvx{:06x}", plan.vni);
            let namespace = Namespace::Fd(self.namespace.as_fd());
            machine.add_vxlan(&NewVxlan { name: &name, vxlan: wanted, mtu: plan.mtu, namespace })?;
            let index = self.route.index(&name)?;
            self.route.set_name(index, VXLAN)?;
        }
        let link = self.route.link(VXLAN)?.ok_or_else(|| NetlinkError::NoLink(VXLAN.to_owned()))?;
        if link.mtu != plan.mtu {
            self.route.set_mtu(link.index, plan.mtu)?;
        }
        if link.master != Some(bridge) || !link.is_up {
            self.route.enslave(link.index, bridge)?;
        }
        // Where an Ethernet address is, is told; learned would be what is no longer true.
        let port = BridgePort { learning: Some(false), hairpin: Some(false), isolated: None };
        self.route.set_bridge_port(link.index, &port)?;
        Ok(link.index)
    }

    /// Brings neighbours and forwarding entries from what is known, or from what is there, to the plan.
    fn ensure_entries(
        &mut self,
        plan: &OverlayPlan,
        links: &Links,
        known: Option<Entries>,
    ) -> Result<(), NetworkError> {
        let before = match known {
            Some(known) => known,
            None => Entries {
                neighbours: self.route.neighbours()?.into_iter().collect(),
                forwarding: self
                    .route
                    .forwarding()?
                    .into_iter()
                    .filter(|entry| entry.index == links.vxlan)
                    .collect(),
            },
        };
        let after = entries(plan, links);
        let mut batch = RouteBatch::new();
        // First what goes: an address that moved has the same key.
        before.neighbours.difference(&after.neighbours).for_each(|gone| batch.delete_neighbour(gone));
        before.forwarding.difference(&after.forwarding).for_each(|gone| batch.delete_forwarding(gone));
        after.neighbours.difference(&before.neighbours).for_each(|new| batch.put_neighbour(new));
        after.forwarding.difference(&before.forwarding).for_each(|new| batch.put_forwarding(new));
        Ok(self.route.commit(batch)?)
    }
}

/// Entries as the kernel holds them.
struct Entries {
    neighbours: BTreeSet<Neighbour>,
    forwarding: BTreeSet<ForwardingEntry>,
}

fn entries(plan: &OverlayPlan, links: &Links) -> Entries {
    // The node itself talks on the ingress network; elsewhere the VXLAN answers for those who are not here.
    let index = if plan.own.is_empty() { links.vxlan } else { links.bridge };
    let neighbours =
        plan.neighbours.iter().map(|(ip, address)| Neighbour { index, ip: *ip, mac: mac(*address) });
    let forwarding = plan.forwarding.iter().flat_map(|(address, machine)| {
        let entry = |remote| ForwardingEntry { index: links.vxlan, mac: mac(*address), remote };
        // The bridge has to know as well, or it would send copies to every container.
        [entry(Some(*machine)), entry(None)]
    });
    Entries { neighbours: neighbours.collect(), forwarding: forwarding.collect() }
}

fn is_same_link(before: &OverlayPlan, after: &OverlayPlan) -> bool {
    let bare = |plan: &OverlayPlan| (plan.vni, plan.port, plan.local, plan.mtu, plan.own.clone());
    bare(before) == bare(after)
}

/// Whether a link is the outer end of a container's.
fn is_port(name: &str) -> bool {
    name.strip_prefix('p')
        .is_some_and(|hex| hex.len() == 8 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn delete_vxlans(route: &mut RouteSocket, but: Option<&str>) -> Result<(), NetworkError> {
    for link in route.links()?.into_iter().filter(|link| link.kind == "vxlan") {
        if but == Some(link.name.as_str()) {
            continue;
        }
        match route.delete_link(link.index) {
            Err(e) if e.is_missing() => {}
            other => other?,
        }
    }
    Ok(())
}

/// The way to other machines from the link that has the address `local`; that of Ethernet when no link has it. To be called
/// in the machine's network namespace.
pub fn underlay_of(local: IpAddr) -> Result<Underlay, NetworkError> {
    let mut route = RouteSocket::open()?;
    let address = route.addresses()?.into_iter().find(|address| address.ip == local);
    let links = route.links()?;
    let link = address.and_then(|address| links.into_iter().find(|link| link.index == address.index));
    Ok(Underlay { mtu: link.map_or(crate::NetworkConfig::DEFAULT_MTU, |link| link.mtu) })
}

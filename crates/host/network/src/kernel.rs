//! Every effect on the kernel: the bridges, their ports, the table, tracked connections.
//!
//! In: names, subnets, plans. Out: kernel objects as wanted. Each call may be repeated. Never decides what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use netlink::NetlinkError;
use netlink::conntrack::{ConntrackSocket, FlowFilter};
use netlink::nft::{Hook, NftSocket};
use netlink::route::{Link, Mac, RouteSocket};
use netplan::{Firewall, PortChange, Published, StuckFlows};

use crate::apply_netplan;
use crate::sysctl;
use crate::{Interface, NetworkError, OpenError};

/// How names of our veths on this machine begin; 12 digits of the endpoint's id follow.
pub(crate) const VETH_PREFIX: &str = "sk-";

/// The sockets through which the kernel is changed, and what they change.
pub(crate) struct Kernel {
    route: RouteSocket,
    nft: NftSocket,
    conntrack: ConntrackSocket,
    table: String,
    bridges: BTreeMap<String, BridgeLink>,
}

/// A bridge as it should be.
struct BridgeLink {
    /// Its own addresses with their prefix lengths, IPv4 first.
    addresses: Vec<IpNet>,
    /// Largest packet in bytes.
    mtu: u32,
    /// Known while it is as wanted.
    index: Option<u32>,
}

/// What the machine looks like before anything is changed.
pub(crate) struct Found {
    /// Subnets of routes and addresses, without the bridge's own.
    pub(crate) in_use: Vec<Ipv4Net>,
    /// The bridge, if it is there.
    pub(crate) bridge: Option<Link>,
    /// Its address, if it has one.
    pub(crate) address: Option<Ipv4Net>,
}

/// Looks at the machine without changing it.
pub(crate) fn look(bridge: &str) -> Result<Found, OpenError> {
    let mut route = RouteSocket::open().map_err(OpenError::Netlink)?;
    let link = route.link(bridge).map_err(OpenError::Netlink)?;
    let index = link.as_ref().map(|link| link.index);
    let network = |ip: IpAddr, prefix: u8| match ip {
        IpAddr::V4(ip) => Ipv4Net::new(ip, prefix).ok(),
        IpAddr::V6(_) => None,
    };
    let addresses = route.addresses().map_err(OpenError::Netlink)?;
    let routes = route.routes().map_err(OpenError::Netlink)?;
    let own = addresses.iter().find(|address| Some(address.index) == index && address.ip.is_ipv4());
    let address = own.and_then(|address| network(address.ip, address.prefix));
    let by_address = addresses.iter().filter(|a| Some(a.index) != index).map(|a| (a.ip, a.prefix));
    // The default route covers everything and excludes nothing.
    let by_route = routes.iter().filter(|r| r.prefix > 0 && (r.index.is_none() || r.index != index));
    let by_route = by_route.map(|r| (r.destination, r.prefix));
    let in_use = by_address.chain(by_route).filter_map(|(ip, prefix)| network(ip, prefix)).collect();
    Ok(Found { in_use, bridge: link, address })
}

impl Kernel {
    /// Opens all sockets in the calling thread's network namespace; changes nothing.
    pub(crate) fn open(table: String) -> Result<Self, NetlinkError> {
        Ok(Self {
            route: RouteSocket::open()?,
            nft: NftSocket::open()?,
            conntrack: ConntrackSocket::open()?,
            table,
            bridges: BTreeMap::new(),
        })
    }

    /// Port of the socket that changes rules; events caused by us carry it.
    pub(crate) fn rules_port(&self) -> u32 {
        self.nft.port()
    }

    /// Name of our table.
    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// From now on there should be this bridge; [`Kernel::ensure_bridge`] makes it.
    pub(crate) fn want_bridge(&mut self, name: &str, addresses: Vec<IpNet>, mtu: u32) {
        self.bridges.insert(name.to_owned(), BridgeLink { addresses, mtu, index: None });
    }

    /// True when there should be a bridge of this name.
    pub(crate) fn wants_bridge(&self, name: &str) -> bool {
        self.bridges.contains_key(name)
    }

    /// True while all bridges are known to be as wanted.
    pub(crate) fn has_all_bridges(&self) -> bool {
        self.bridges.values().all(|bridge| bridge.index.is_some())
    }

    /// Index of a bridge, while it is known to be as wanted.
    pub(crate) fn bridge_index(&self, name: &str) -> Option<u32> {
        self.bridges.get(name)?.index
    }

    /// The bridge of this name may have changed: the next `ensure_bridge` looks.
    pub(crate) fn doubt_bridge(&mut self, name: &str) {
        if let Some(bridge) = self.bridges.get_mut(name) {
            bridge.index = None;
        }
    }

    /// Any bridge may have changed.
    pub(crate) fn doubt_bridges(&mut self) {
        self.bridges.values_mut().for_each(|bridge| bridge.index = None);
    }

    /// The link lost an address: if it is a bridge's own, the bridge has to be looked at.
    pub(crate) fn doubt_address(&mut self, index: u32, ip: IpAddr) {
        for bridge in self.bridges.values_mut() {
            if bridge.index == Some(index) && bridge.addresses.iter().any(|own| own.addr() == ip) {
                bridge.index = None;
            }
        }
    }

    /// Subnets of routes and addresses that are none of our bridges', and the links that are there.
    pub(crate) fn surroundings(&mut self) -> Result<(Vec<Ipv4Net>, Vec<Link>), NetworkError> {
        let links = self.route.links()?;
        let is_ours = |index: u32| {
            links.iter().any(|link| link.index == index && self.bridges.contains_key(&link.name))
        };
        let addresses = self.route.addresses()?.into_iter().filter(|address| !is_ours(address.index));
        let addresses: Vec<_> = addresses.map(|address| (address.ip, address.prefix)).collect();
        let routes = self.route.routes()?.into_iter();
        let routes = routes.filter(|route| route.prefix > 0 && !route.index.is_some_and(is_ours));
        let in_use = routes.map(|route| (route.destination, route.prefix)).chain(addresses);
        let in_use = in_use.filter_map(|(ip, prefix)| match ip {
            IpAddr::V4(ip) => Ipv4Net::new(ip, prefix).ok(),
            IpAddr::V6(_) => None,
        });
        Ok((in_use.collect(), links))
    }

    /// Makes every bridge as wanted; true when one had to be looked at.
    pub(crate) fn ensure_bridges(&mut self) -> Result<bool, NetworkError> {
        let doubtful = self.bridges.iter().filter(|(_, bridge)| bridge.index.is_none());
        let doubtful: Vec<String> = doubtful.map(|(name, _)| name.clone()).collect();
        for name in &doubtful {
            self.ensure_bridge(name)?;
        }
        Ok(!doubtful.is_empty())
    }

    /// Makes a bridge as wanted: there, addressed, up, with its kernel parameters.
    pub(crate) fn ensure_bridge(&mut self, name: &str) -> Result<(), NetworkError> {
        let Some(bridge) = self.bridges.get_mut(name) else { return Ok(()) };
        if bridge.index.is_some() {
            return Ok(());
        }
        let mut link = self.route.link(name)?;
        if link.is_none() {
            let ipv4 = bridge.addresses.iter().find_map(|own| match own {
                IpNet::V4(own) => Some(own.addr()),
                IpNet::V6(_) => None,
            });
            // A fixed address keeps the neighbour entries of running containers right when the bridge is made anew.
            match self.route.add_bridge(
                name,
                container_mac(ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED)),
                bridge.mtu,
            ) {
                Err(e) if !e.is_exists() => return Err(e.into()),
                _ => {}
            }
            link = self.route.link(name)?;
        }
        let link = link.ok_or_else(|| NetlinkError::NoLink(name.to_owned()))?;
        let has_ipv6 = bridge.addresses.iter().any(|own| own.addr().is_ipv6());
        sysctl::prepare(name, has_ipv6)?;
        let found = self.route.addresses()?;
        for own in &bridge.addresses {
            if found.iter().any(|address| address.index == link.index && address.ip == own.addr()) {
                continue;
            }
            match self.route.add_address(link.index, own.addr(), own.prefix_len()) {
                Err(e) if !e.is_exists() => return Err(e.into()),
                _ => {}
            }
        }
        if !link.is_up {
            self.route.set_up(link.index)?;
        }
        bridge.index = Some(link.index);
        Ok(())
    }

    /// Makes the outer ends of these interfaces ports of their bridges again, where they exist and are not.
    pub(crate) fn enslave<'a>(
        &mut self,
        interfaces: impl Iterator<Item = &'a Interface>,
    ) -> Result<(), NetworkError> {
        for interface in interfaces {
            let Some(bridge) = self.bridge_index(&interface.bridge) else { continue };
            let Some(link) = self.route.link(&interface.host_name)? else { continue };
            if link.master != Some(bridge) {
                self.enslave_one(link.index, bridge, interface.isolated)?;
                tracing::warn!(
                    link = interface.host_name,
                    bridge = interface.bridge,
                    "attached a container's link to the bridge again"
                );
            }
        }
        Ok(())
    }

    fn enslave_one(&mut self, link: u32, bridge: u32, isolated: bool) -> Result<(), NetworkError> {
        let mut enslaved = self.route.enslave(link, bridge);
        if enslaved.is_ok() && isolated {
            enslaved = self.route.set_isolated(link);
        }
        match enslaved {
            // Its container ended meanwhile.
            Err(e) if e.is_missing() => Ok(()),
            other => Ok(other?),
        }
    }

    /// Deletes ports of our bridges that are named like ours and belong to no known container.
    pub(crate) fn sweep_links(&mut self, known: &BTreeSet<String>) -> Result<(), NetworkError> {
        let bridges: BTreeSet<u32> = self.bridges.values().filter_map(|bridge| bridge.index).collect();
        for link in self.route.links()? {
            let is_stale = link.master.is_some_and(|master| bridges.contains(&master))
                && link.name.starts_with(VETH_PREFIX)
                && !known.contains(&link.name);
            if !is_stale {
                continue;
            }
            match self.route.delete_link(link.index) {
                Ok(()) => tracing::info!(link = link.name, "removed the link of a container that is gone"),
                Err(e) if e.is_missing() => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Replaces the whole table.
    pub(crate) fn rebuild(&mut self, firewall: &Firewall, published: &Published) -> Result<(), NetworkError> {
        let batch = apply_netplan::rebuild(&self.table, firewall, published.ports());
        Ok(self.nft.commit(batch)?)
    }

    /// Applies changes of ports; fails as a whole when the table is not what we left.
    pub(crate) fn change(&mut self, changes: &[PortChange]) -> Result<(), NetworkError> {
        Ok(self.nft.commit(apply_netplan::change(&self.table, changes))?)
    }

    /// Forgets tracked connections; what cannot be forgotten ends by its own timeout, so failures are only logged.
    pub(crate) fn forget(&mut self, flows: &[StuckFlows]) {
        if flows.is_empty() {
            return;
        }
        let own = self.own_addresses();
        let filters: Vec<_> = flows.iter().map(|flow| filter_of(flow, &own)).collect();
        match self.conntrack.forget(&filters) {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "forgot tracked connections"),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not forget tracked connections"
                );
            }
        }
    }

    /// Addresses of this machine; none when they cannot be read, and then fewer connections are forgotten.
    fn own_addresses(&mut self) -> Vec<IpAddr> {
        self.route.addresses().unwrap_or_default().into_iter().map(|address| address.ip).collect()
    }

    /// Forward chains of other tables that drop what none of their rules accepts, as `table chain`. Those for IPv6 alone count
    /// when something of ours is led on `with_ipv6`.
    pub(crate) fn foreign_forward_drops(
        &mut self,
        with_ipv6: bool,
    ) -> Result<BTreeSet<String>, NetworkError> {
        const SEES_IPV4: [u8; 2] = [1, 2];
        const SEES_IPV6_ALONE: u8 = 10;
        let chains = self.nft.base_chains()?.into_iter().filter(|chain| {
            chain.hook == Hook::Forward as u32
                && chain.drops_by_default
                && (SEES_IPV4.contains(&chain.family) || (with_ipv6 && chain.family == SEES_IPV6_ALONE))
                && chain.table != self.table
        });
        let mut found: BTreeSet<_> = chains.map(|chain| format!("{} {}", chain.table, chain.name)).collect();
        match netlink::legacy::forward_drops_by_default() {
            Ok(true) => {
                found.insert("iptables-legacy filter FORWARD".to_owned());
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "could not ask the old packet filter"
                );
            }
        }
        Ok(found)
    }

    /// Removes the table.
    pub(crate) fn remove_table(&mut self) -> Result<(), NetworkError> {
        Ok(self.nft.commit(apply_netplan::remove(&self.table))?)
    }

    /// From now on there should be no such bridge. Removes it when it `is_ours` and nothing else is attached to it.
    pub(crate) fn remove_bridge(&mut self, name: &str, is_ours: bool) -> Result<(), NetworkError> {
        let wanted = self.bridges.remove(name);
        if !is_ours {
            return Ok(());
        }
        let Some(link) = self.route.link(name)? else { return Ok(()) };
        let is_port = |port: &Link| port.master == Some(link.index);
        for port in self.route.links()?.into_iter().filter(is_port) {
            // No container is left, but the kernel may still be taking their namespaces apart.
            let is_left = port.name.starts_with(VETH_PREFIX);
            match if is_left { self.route.delete_link(port.index) } else { Ok(()) } {
                Err(e) if !e.is_missing() => return Err(e.into()),
                _ => {}
            }
        }
        if self.route.links()?.iter().any(is_port) {
            tracing::warn!(bridge = name, "not removed: something else is attached to it");
            return Ok(());
        }
        match self.route.delete_link(link.index) {
            Err(e) if !e.is_missing() => {
                // Whoever asked may ask again.
                self.bridges.extend(wanted.map(|wanted| (name.to_owned(), wanted)));
                Err(e.into())
            }
            _ => Ok(()),
        }
    }
}

fn filter_of(flow: &StuckFlows, own: &[IpAddr]) -> FlowFilter {
    match *flow {
        StuckFlows::Untranslated(host) => FlowFilter {
            protocol: Some(host.protocol.number()),
            asked_port: Some(host.port),
            // Connections of containers to the same port elsewhere are none of ours.
            untranslated_to: Some(match host.ip.is_unspecified() {
                false => vec![host.ip],
                true => own.iter().copied().filter(|ip| ip.is_ipv4() == host.ip.is_ipv4()).collect(),
            }),
            ..FlowFilter::default()
        },
        StuckFlows::ToBackend(protocol, backend) => FlowFilter {
            protocol: Some(protocol.number()),
            answered_by: Some(backend.ip),
            answered_from_port: Some(backend.port),
            ..FlowFilter::default()
        },
        StuckFlows::ToAddress(ip) => FlowFilter { answered_by: Some(ip.into()), ..FlowFilter::default() },
    }
}

/// Ethernet address of the container with this address: bound to it, so that neighbours need not learn a new one when
/// the address goes to another container.
pub(crate) fn container_mac(ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    Mac([0x02, 0x42, a, b, c, d])
}

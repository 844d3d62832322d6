//! Every effect on the kernel: the bridge, its ports, the table, tracked connections.
//!
//! In: names, subnets, plans. Out: kernel objects as wanted. Each call may be repeated. Never decides what is wanted.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use netlink::NetlinkError;
use netlink::conntrack::{ConntrackSocket, FlowFilter};
use netlink::nft::{Hook, NftSocket};
use netlink::route::{Link, Mac, RouteSocket};
use netplan::{Firewall, PortChange, Published, StuckFlows};

use crate::apply_netplan;
use crate::sysctl;
use crate::{NetworkError, OpenError};

/// How names of our veths on this machine begin; 12 digits of the endpoint's id follow.
pub(crate) const VETH_PREFIX: &str = "sk-";

/// The sockets through which the kernel is changed, and what they change.
pub(crate) struct Kernel {
    route: RouteSocket,
    nft: NftSocket,
    conntrack: ConntrackSocket,
    table: String,
    bridge: String,
    /// The bridge's own address with its prefix length.
    address: Ipv4Net,
    mtu: u32,
    /// Known while the bridge is as wanted.
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
    pub(crate) fn open(
        table: String,
        bridge: String,
        address: Ipv4Net,
        mtu: u32,
    ) -> Result<Self, NetlinkError> {
        Ok(Self {
            route: RouteSocket::open()?,
            nft: NftSocket::open()?,
            conntrack: ConntrackSocket::open()?,
            table,
            bridge,
            address,
            mtu,
            index: None,
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

    /// Name of the bridge.
    pub(crate) fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Index of the bridge, while it is known to be as wanted.
    pub(crate) fn bridge_index(&self) -> Option<u32> {
        self.index
    }

    /// The bridge's own address.
    pub(crate) fn address(&self) -> Ipv4Net {
        self.address
    }

    /// The bridge may have changed: the next `ensure_bridge` looks.
    pub(crate) fn doubt_bridge(&mut self) {
        self.index = None;
    }

    /// Makes the bridge as wanted: there, addressed, up, with its kernel parameters. True when it had to be made.
    pub(crate) fn ensure_bridge(&mut self) -> Result<bool, NetworkError> {
        if self.index.is_some() {
            return Ok(false);
        }
        let mut made = false;
        let mut link = self.route.link(&self.bridge)?;
        if link.is_none() {
            let [a, b, c, d] = self.address.addr().octets();
            // A fixed address keeps the neighbour entries of running containers right when the bridge is made anew.
            match self.route.add_bridge(&self.bridge, Mac([0x02, 0x42, a, b, c, d]), self.mtu) {
                Ok(()) => made = true,
                Err(e) if e.is_exists() => {}
                Err(e) => return Err(e.into()),
            }
            link = self.route.link(&self.bridge)?;
        }
        let link = link.ok_or_else(|| NetlinkError::NoLink(self.bridge.clone()))?;
        let ip = IpAddr::V4(self.address.addr());
        let has_address = self.route.addresses()?.iter().any(|a| a.index == link.index && a.ip == ip);
        if !has_address {
            match self.route.add_address(link.index, ip, self.address.prefix_len()) {
                Err(e) if !e.is_exists() => return Err(e.into()),
                _ => {}
            }
        }
        if !link.is_up {
            self.route.set_up(link.index)?;
        }
        sysctl::prepare(&self.bridge)?;
        self.index = Some(link.index);
        Ok(made)
    }

    /// Makes these links ports of the bridge again, where they exist and are not.
    pub(crate) fn enslave<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> Result<(), NetworkError> {
        let Some(bridge) = self.index else { return Ok(()) };
        for name in names {
            let Some(link) = self.route.link(name)? else { continue };
            if link.master != Some(bridge) {
                self.enslave_one(link.index, bridge)?;
                tracing::warn!(
                    link = name,
                    bridge = self.bridge,
                    "attached a container's link to the bridge again"
                );
            }
        }
        Ok(())
    }

    fn enslave_one(&mut self, link: u32, bridge: u32) -> Result<(), NetworkError> {
        match self.route.enslave(link, bridge) {
            // Its container ended meanwhile.
            Err(e) if e.is_missing() => Ok(()),
            other => Ok(other?),
        }
    }

    /// Deletes ports of the bridge that are named like ours and belong to no known container.
    pub(crate) fn sweep_links(&mut self, known: &BTreeSet<String>) -> Result<(), NetworkError> {
        let Some(bridge) = self.index else { return Ok(()) };
        for link in self.route.links()? {
            let is_stale = link.master == Some(bridge)
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
    fn own_addresses(&mut self) -> Vec<Ipv4Addr> {
        let addresses = self.route.addresses().unwrap_or_default().into_iter();
        addresses
            .filter_map(|address| if let IpAddr::V4(ip) = address.ip { Some(ip) } else { None })
            .collect()
    }

    /// Forward chains of other tables that drop what none of their rules accepts, as `table chain`.
    pub(crate) fn foreign_forward_drops(&mut self) -> Result<BTreeSet<String>, NetworkError> {
        const SEES_IPV4: [u8; 2] = [1, 2];
        let chains = self.nft.base_chains()?.into_iter().filter(|chain| {
            chain.hook == Hook::Forward as u32
                && chain.drops_by_default
                && SEES_IPV4.contains(&chain.family)
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

    /// Removes the table, and the bridge when `remove_bridge` and nothing else is attached to it.
    pub(crate) fn remove(&mut self, remove_bridge: bool) -> Result<(), NetworkError> {
        self.nft.commit(apply_netplan::remove(&self.table))?;
        if !remove_bridge {
            return Ok(());
        }
        let Some(link) = self.route.link(&self.bridge)? else { return Ok(()) };
        self.index = Some(link.index);
        // No container is left, but the kernel may still be taking their namespaces apart.
        self.sweep_links(&BTreeSet::new())?;
        self.index = None;
        let has_ports = self.route.links()?.iter().any(|port| port.master == Some(link.index));
        if has_ports {
            return Ok(());
        }
        match self.route.delete_link(link.index) {
            Err(e) if !e.is_missing() => Err(e.into()),
            _ => Ok(()),
        }
    }
}

fn filter_of(flow: &StuckFlows, own: &[Ipv4Addr]) -> FlowFilter {
    match *flow {
        StuckFlows::Untranslated(host) => FlowFilter {
            protocol: Some(host.protocol.number()),
            asked_port: Some(host.port),
            // Connections of containers to the same port elsewhere are none of ours.
            untranslated_to: Some(match host.ip {
                IpAddr::V4(ip) if !ip.is_unspecified() => vec![ip],
                _ => own.to_vec(),
            }),
            ..FlowFilter::default()
        },
        StuckFlows::ToBackend(protocol, backend) => FlowFilter {
            protocol: Some(protocol.number()),
            answered_by: Some(backend.ip),
            answered_from_port: Some(backend.port),
            ..FlowFilter::default()
        },
        StuckFlows::ToAddress(ip) => FlowFilter { answered_by: Some(ip), ..FlowFilter::default() },
    }
}

/// Ethernet address of the container with this address: bound to it, so that neighbours need not learn a new one when
/// the address goes to another container.
pub(crate) fn container_mac(ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    Mac([0x02, 0x42, a, b, c, d])
}

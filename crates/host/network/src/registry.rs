//! The networks of this machine, by id and name, and the addresses of each.
//!
//! In: networks as they are made and removed, wishes of containers. Out: endpoints with addresses of their network. Holds
//! addresses, never ports, and never changes a link.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use netplan::AddressPool;
use netplan::addresses::AddressError;
use netplan::bridge_options::{self, BridgeOptions};
use netplan::ipam::Subnet;
use netplan::macvlan_options::MacvlanOptions;

use crate::endpoint::{EndpointAddress, OverlayNetwork};
use crate::error::{AttachError, UnknownNetwork};
use crate::ingress;
use crate::kernel::{VETH_PREFIX, container_mac};
use crate::record::NetworkRecord;
use crate::{Endpoint, Interface, MacvlanParent, NetworkFacts, NetworkJoin};

/// All networks by id.
#[derive(Default)]
pub(crate) struct Networks {
    entries: BTreeMap<String, Entry>,
}

/// One network.
pub(crate) struct Entry {
    /// How it was made.
    pub(crate) record: NetworkRecord,
    /// What it is on this machine.
    pub(crate) kind: Kind,
}

/// What a network is on this machine. A container's endpoint depends on this alone.
pub(crate) enum Kind {
    /// A bridge of this machine with a subnet of its own.
    Bridge(Bridge),
    /// The wire of a link of this machine.
    Macvlan(Macvlan),
    /// The machine's own network.
    Host,
    /// No network at all.
    None,
    /// A network across machines, whose addresses the swarm's managers choose.
    Overlay(Overlay),
}

/// A bridge network.
pub(crate) struct Bridge {
    /// The bridge's name.
    pub(crate) link: String,
    /// One for each subnet, IPv4 first.
    pub(crate) pools: Vec<AddressPool>,
    /// Largest packet in bytes.
    pub(crate) mtu: u32,
    /// What its options mean.
    pub(crate) options: BridgeOptions,
}

/// A network on the wire of a link of this machine. Addresses are ours to hand out, and the gateway is somebody else's.
pub(crate) struct Macvlan {
    parent: MacvlanParent,
    /// One for each subnet, IPv4 first.
    pools: Vec<AddressPool>,
    /// Largest packet in bytes; 0 is the link's.
    mtu: u32,
}

/// A network across machines. What makes its namespace, its bridge and its tunnel stands elsewhere: here is only what a
/// container's interface needs.
pub(crate) struct Overlay {
    /// The pinned namespace with the bridge.
    pub(crate) namespace: PathBuf,
    /// The bridge in there.
    pub(crate) bridge: String,
    /// For the prefix lengths of its endpoints' addresses.
    pub(crate) subnets: Vec<IpNet>,
    /// Largest packet in bytes.
    pub(crate) mtu: u32,
    /// Its containers don't reach each other through it, as on the ingress network.
    pub(crate) isolated: bool,
}

impl Networks {
    pub(crate) fn insert(&mut self, entry: Entry) {
        self.entries.insert(entry.record.id.clone(), entry);
    }

    /// Forgets a network.
    pub(crate) fn remove(&mut self, id: &str) -> Option<Entry> {
        self.entries.remove(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The network with this full id.
    pub(crate) fn by_id(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// The network with this full id, name, or unambiguous id prefix, in this order.
    pub(crate) fn find(&self, name_or_id: &str) -> Result<&Entry, UnknownNetwork> {
        let unknown = || UnknownNetwork(name_or_id.to_owned());
        if name_or_id.is_empty() {
            return Err(unknown());
        }
        if let Some(found) = self.by_id(name_or_id) {
            return Ok(found);
        }
        if let Some(found) = self.iter().find(|entry| entry.record.name == name_or_id) {
            return Ok(found);
        }
        let mut fitting = self.iter().filter(|entry| entry.record.id.starts_with(name_or_id));
        fitting.next().filter(|_| fitting.next().is_none()).ok_or_else(unknown)
    }

    /// All bridge networks.
    pub(crate) fn bridges(&self) -> impl Iterator<Item = (&NetworkRecord, &Bridge)> {
        self.iter().filter_map(|entry| match &entry.kind {
            Kind::Bridge(bridge) => Some((&entry.record, bridge)),
            Kind::Macvlan(_) | Kind::Host | Kind::None | Kind::Overlay(_) => None,
        })
    }

    /// True when the address belongs to a network whose containers this machine reaches by itself.
    pub(crate) fn reaches(&self, ip: IpAddr) -> bool {
        self.subnets().any(|subnet| subnet.contains(&ip))
    }

    /// The subnets of all networks.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.iter().flat_map(|entry| entry.record.subnets.iter().map(|subnet| subnet.subnet))
    }

    /// Makes an endpoint, with an interface that has no name yet.
    pub(crate) fn endpoint(
        &mut self,
        join: &NetworkJoin,
        endpoint_id: String,
    ) -> Result<Endpoint, AttachError> {
        let id = self.find(&join.network)?.record.id.clone();
        let entry = self.entries.get_mut(&id).expect("it was found just now");
        let mut endpoint = Endpoint {
            network_id: id,
            network_name: entry.record.name.clone(),
            driver: entry.record.driver.clone(),
            endpoint_id,
            addresses: Vec::new(),
            mac: None,
            aliases: join.aliases.clone(),
            gateway_priority: join.gateway_priority,
            is_for_way_out: false,
            interface: None,
        };
        match &mut entry.kind {
            Kind::Host | Kind::None => {}
            Kind::Bridge(bridge) => {
                let addressed = address(&mut bridge.pools, &entry.record, &mut endpoint, join);
                if let Err(error) = addressed.and_then(|()| bridge.equip(&mut endpoint, join)) {
                    self.give_back(&endpoint);
                    return Err(error);
                }
            }
            Kind::Macvlan(macvlan) => {
                let addressed = address(&mut macvlan.pools, &entry.record, &mut endpoint, join);
                if let Err(error) = addressed.and_then(|()| macvlan.equip(&mut endpoint, join)) {
                    self.give_back(&endpoint);
                    return Err(error);
                }
            }
            Kind::Overlay(overlay) => overlay.equip(&mut endpoint, join)?,
        }
        Ok(endpoint)
    }

    /// Takes the addresses of an endpoint that an earlier daemon made.
    pub(crate) fn take_again(&mut self, endpoint: &Endpoint) -> Result<(), AddressError> {
        let pools = self.pools(&endpoint.network_id);
        for (pool, address) in pools.iter_mut().zip(&endpoint.addresses) {
            pool.take_exact(address.ip)?;
        }
        Ok(())
    }

    /// Gives an endpoint's addresses back.
    pub(crate) fn give_back(&mut self, endpoint: &Endpoint) {
        for pool in self.pools(&endpoint.network_id) {
            for address in &endpoint.addresses {
                // The other family's pool does not have it.
                let _ = pool.release(address.ip);
            }
        }
    }

    fn pools(&mut self, id: &str) -> &mut [AddressPool] {
        match self.entries.get_mut(id).map(|entry| &mut entry.kind) {
            Some(Kind::Bridge(bridge)) => &mut bridge.pools,
            Some(Kind::Macvlan(macvlan)) => &mut macvlan.pools,
            Some(Kind::Host | Kind::None | Kind::Overlay(_)) | None => &mut [],
        }
    }
}

impl Entry {
    /// A bridge network, from how it was made.
    pub(crate) fn bridge(record: NetworkRecord, options: BridgeOptions, daemon_mtu: u32) -> Self {
        let kind = Kind::Bridge(Bridge {
            link: record.link.clone(),
            pools: pools(&record),
            mtu: options.mtu.unwrap_or(daemon_mtu),
            options,
        });
        Self { record, kind }
    }

    /// A network on the wire of a link of this machine, from how it was made.
    pub(crate) fn macvlan(record: NetworkRecord, options: MacvlanOptions) -> Self {
        let mtu = record.options.get(bridge_options::MTU).and_then(|mtu| mtu.parse().ok());
        let kind = Kind::Macvlan(Macvlan {
            parent: MacvlanParent { link: options.parent, mode: options.mode },
            pools: pools(&record),
            mtu: mtu.unwrap_or(0),
        });
        Self { record, kind }
    }

    /// A network across machines.
    pub(crate) fn overlay(told: OverlayNetwork) -> Self {
        let subnets = told.subnets.iter().zip(&told.gateways).map(|(subnet, gateway)| Subnet {
            subnet: *subnet,
            gateway: *gateway,
            range: None,
            reserved: BTreeMap::new(),
            is_asked: true,
        });
        let record = NetworkRecord {
            is_internal: told.is_internal,
            is_attachable: told.is_attachable,
            is_ingress: told.is_ingress,
            has_ipv6: told.subnets.iter().any(|subnet| subnet.addr().is_ipv6()),
            options: told.options,
            labels: told.labels,
            subnets: subnets.collect(),
            ..NetworkRecord::built_in(&told.id, &told.name, "overlay", told.created)
        };
        let kind = Kind::Overlay(Overlay {
            namespace: told.namespace,
            bridge: told.bridge,
            subnets: told.subnets,
            mtu: told.mtu,
            isolated: told.is_ingress,
        });
        Self { record, kind }
    }

    /// Every machine has it.
    pub(crate) fn is_predefined(&self) -> bool {
        matches!(self.record.name.as_str(), "bridge" | "host" | "none")
    }

    /// What is looked at before a container asks for it.
    pub(crate) fn facts(&self) -> NetworkFacts {
        let asked = self.record.subnets.iter().filter(|subnet| subnet.is_asked);
        NetworkFacts {
            id: self.record.id.clone(),
            name: self.record.name.clone(),
            driver: self.record.driver.clone(),
            is_predefined: self.is_predefined(),
            asked_subnets: asked.map(|subnet| subnet.subnet).collect(),
        }
    }
}

impl Bridge {
    /// The bridge's own addresses.
    pub(crate) fn addresses(&self) -> Vec<IpNet> {
        let own = |pool: &AddressPool| IpNet::new(pool.gateway(), pool.subnet().prefix_len());
        self.pools.iter().map(|pool| own(pool).expect("the prefix length is the subnet's")).collect()
    }

    fn equip(&self, endpoint: &mut Endpoint, join: &NetworkJoin) -> Result<(), AttachError> {
        let mac = mac(endpoint, join)?;
        endpoint.interface = Some(Interface {
            bridge: self.link.clone(),
            isolated: !self.options.joins_containers,
            mtu: self.mtu,
            ..interface(endpoint, &mac)
        });
        endpoint.mac = Some(mac);
        Ok(())
    }
}

impl Macvlan {
    /// The link whose wire its containers share.
    pub(crate) fn parent(&self) -> &str {
        &self.parent.link
    }

    fn equip(&self, endpoint: &mut Endpoint, join: &NetworkJoin) -> Result<(), AttachError> {
        let mac = mac(endpoint, join)?;
        endpoint.interface = Some(Interface {
            macvlan: Some(self.parent.clone()),
            mtu: self.mtu,
            ..interface(endpoint, &mac)
        });
        endpoint.mac = Some(mac);
        Ok(())
    }
}

impl Overlay {
    fn equip(&self, endpoint: &mut Endpoint, join: &NetworkJoin) -> Result<(), AttachError> {
        // On the ingress network every task is given one, on other networks those whose users asked for IPv6.
        let ip6 = join.ip6.filter(|_| !self.isolated || ingress::is_fit_for_ipv6(self.mtu));
        let asked = join.ip.map(IpAddr::V4).into_iter().chain(ip6.map(IpAddr::V6));
        for ip in asked {
            let subnet = self.subnets.iter().find(|subnet| subnet.contains(&ip));
            let prefix = subnet.map_or(if ip.is_ipv4() { 32 } else { 128 }, IpNet::prefix_len);
            endpoint.addresses.push(EndpointAddress { ip, prefix, gateway: None });
        }
        // The other machines know no other address: it follows from the IPv4 address, as the name of the outer end does,
        // which rules at the ports of the bridge go by.
        let mac = join.ip.map(|ip| container_mac(ip).to_string()).unwrap_or_default();
        let addresses: Vec<_> = endpoint.addresses.iter().map(|address| address.ip).collect();
        let made = interface(endpoint, &mac);
        endpoint.interface = Some(Interface {
            host_name: netplan::overlay::port_name(&addresses).unwrap_or(made.host_name),
            bridge: self.bridge.clone(),
            namespace: Some(self.namespace.clone()),
            isolated: self.isolated,
            mtu: self.mtu,
            ..made
        });
        endpoint.mac = Some(mac);
        Ok(())
    }
}

/// A pool for each subnet.
fn pools(record: &NetworkRecord) -> Vec<AddressPool> {
    let pool = |subnet: &Subnet| {
        let pool = AddressPool::new(subnet.subnet, subnet.gateway);
        let pool = pool.without(subnet.reserved.values().copied());
        subnet.range.into_iter().fold(pool, AddressPool::within)
    };
    record.subnets.iter().map(pool).collect()
}

/// Takes an address of each subnet. On an error, what was taken is in the endpoint.
fn address(
    pools: &mut [AddressPool],
    record: &NetworkRecord,
    endpoint: &mut Endpoint,
    join: &NetworkJoin,
) -> Result<(), AttachError> {
    for pool in pools {
        let asked = match pool.subnet() {
            IpNet::V4(_) => join.ip.map(IpAddr::V4),
            IpNet::V6(_) => join.ip6.map(IpAddr::V6),
        };
        let taken = match asked {
            Some(ip) => pool.take_exact(ip).map(|()| ip),
            None => pool.take(),
        };
        let network = record.name.clone();
        let ip = taken.map_err(|source| AttachError::Address { network, source })?;
        let gateway = (!record.is_internal).then(|| pool.gateway());
        endpoint.addresses.push(EndpointAddress { ip, prefix: pool.subnet().prefix_len(), gateway });
    }
    Ok(())
}

/// The Ethernet address asked for, or the one that comes from the endpoint's IPv4 address.
fn mac(endpoint: &Endpoint, join: &NetworkJoin) -> Result<String, AttachError> {
    if let Some(text) = join.mac.as_deref().filter(|mac| !mac.is_empty()) {
        let mac: netlink::route::Mac = text.parse().map_err(|_| AttachError::Mac(text.to_owned()))?;
        return Ok(mac.to_string());
    }
    match endpoint.ipv4().map(|address| address.ip) {
        Some(IpAddr::V4(ip)) => Ok(container_mac(ip).to_string()),
        _ => Ok(String::new()),
    }
}

/// An interface of a pair without a bridge, and without a name inside yet.
fn interface(endpoint: &Endpoint, mac: &str) -> Interface {
    Interface {
        host_name: format!("{VETH_PREFIX}{}", &endpoint.endpoint_id[..12]),
        bridge: String::new(),
        macvlan: None,
        namespace: None,
        isolated: false,
        name: String::new(),
        mac: mac.to_owned(),
        addresses: endpoint.addresses.iter().map(|address| (address.ip, address.prefix)).collect(),
        gateways: Vec::new(),
        mtu: 0,
    }
}

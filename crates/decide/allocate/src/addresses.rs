//! Which addresses of the swarm's networks are taken, and which one comes next.
//!
//! In: every change of a task, service or node, in order. Out: a free address of each family of a network, or none. It goes
//! upward from the highest address that the store knows; below that only when the end is reached, and to addresses of tasks
//! that ended and are still remembered last. A step may assume addresses of its own draft; they are taken back at its end, as
//! their commit may be refused. All of it can be made anew from the store with [`Addresses::of`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use objects::{Network, NetworkId, Node, Service, Subnet, Task};
use store::Store;

/// A network has no address left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no available {family} addresses on network {network} ({subnets})")]
pub struct NoAddress {
    /// The network.
    pub id: NetworkId,
    /// Its name.
    pub network: String,
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// What it has of that family.
    pub subnets: String,
}

/// The addresses of one network.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    /// Of live tasks, services and nodes, with how many of them say so.
    taken: BTreeMap<IpAddr, u32>,
    /// Of tasks that ended and are remembered.
    resting: BTreeMap<IpAddr, u32>,
}

/// The addresses that the store knows, by network.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    networks: BTreeMap<NetworkId, Known>,
    /// What the current step assumes.
    assumed: Vec<(NetworkId, IpAddr)>,
    /// Per subnet that was gone through to its end in this step: nothing is free below.
    searched: BTreeMap<(NetworkId, IpNet), u128>,
}

impl PartialEq for Addresses {
    fn eq(&self, other: &Self) -> bool {
        self.networks == other.networks
    }
}

/// Addresses somebody has, with their network and whether they are in use.
type Held = Vec<(NetworkId, IpAddr, bool)>;

impl Addresses {
    /// What the store knows.
    pub fn of(store: &Store) -> Self {
        let mut addresses = Self::default();
        store.nodes().for_each(|node| addresses.add(&of_node(node)));
        store.services().for_each(|service| addresses.add(&of_service(service)));
        store.tasks().for_each(|task| addresses.add(&of_task(task)));
        addresses
    }

    /// Takes note of a task that was made, changed or removed; the networks on which that made an address free.
    pub fn note_task(&mut self, before: Option<&Task>, after: Option<&Task>) -> Vec<NetworkId> {
        let state = |task: &Task| (task.networks_attachments.is_empty(), task.holds_addresses());
        if let (Some(before), Some(after)) = (before, after)
            && state(before) == state(after)
            && before.networks_attachments == after.networks_attachments
        {
            return Vec::new();
        }
        self.swap(before.map(of_task).unwrap_or_default(), after.map(of_task).unwrap_or_default())
    }

    /// Takes note of a service; the networks on which that made an address free.
    pub fn note_service(&mut self, before: Option<&Service>, after: Option<&Service>) -> Vec<NetworkId> {
        self.swap(before.map(of_service).unwrap_or_default(), after.map(of_service).unwrap_or_default())
    }

    /// Takes note of a node; the networks on which that made an address free.
    pub fn note_node(&mut self, before: Option<&Node>, after: Option<&Node>) -> Vec<NetworkId> {
        self.swap(before.map(of_node).unwrap_or_default(), after.map(of_node).unwrap_or_default())
    }

    /// How much is assumed so far: what [`Addresses::give_back`] goes back to.
    pub fn assumed(&self) -> usize {
        self.assumed.len()
    }

    /// Takes back what was assumed since `mark`.
    pub fn give_back(&mut self, mark: usize) {
        self.searched.clear();
        for (network, address) in self.assumed.split_off(mark) {
            self.remove(&[(network, address, true)]);
        }
    }

    fn assume_one(&mut self, network: &NetworkId, address: IpAddr) {
        *self.networks.entry(network.clone()).or_default().taken.entry(address).or_default() += 1;
        self.assumed.push((network.clone(), address));
    }

    /// Takes back what was assumed.
    pub fn forget_assumed(&mut self) {
        self.give_back(0);
    }

    /// Assumes a free address of each family of a network, and gives them with their prefix lengths. All or none.
    pub fn take(&mut self, network: &Network) -> Result<Vec<String>, NoAddress> {
        self.take_with(network, &[])
    }

    /// As [`Addresses::take`], with these where they are of a family; that they are free was looked at.
    pub(crate) fn take_with(
        &mut self,
        network: &Network,
        chosen: &[(IpAddr, u8)],
    ) -> Result<Vec<String>, NoAddress> {
        let subnets = network.subnets();
        let mut found: Vec<(IpAddr, u8)> = Vec::new();
        for is_v6 in [false, true] {
            if let Some(chosen) = chosen.iter().find(|(address, _)| address.is_ipv6() == is_v6) {
                found.push(*chosen);
                continue;
            }
            let of_family: Vec<Subnet> =
                subnets.iter().filter(|subnet| subnet.net.addr().is_ipv6() == is_v6).copied().collect();
            if of_family.is_empty() && (is_v6 || !subnets.is_empty()) {
                continue;
            }
            let free = of_family.iter().find_map(|subnet| {
                let address = self.next(&network.id, &of_family, subnet)?;
                Some((address, subnet.net.prefix_len()))
            });
            found.push(free.ok_or_else(|| no_address(network, is_v6, &of_family))?);
        }
        for (address, _) in &found {
            self.assume_one(&network.id, *address);
        }
        Ok(found.into_iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect())
    }

    /// Whether somebody has this address, as far as the store and the step know.
    pub(crate) fn is_taken(&self, network: &NetworkId, address: IpAddr) -> bool {
        self.networks.get(network).is_some_and(|known| known.taken.contains_key(&address))
    }

    /// The next free address of a subnet.
    fn next(&mut self, id: &NetworkId, all: &[Subnet], subnet: &Subnet) -> Option<IpAddr> {
        let (first, last) = bounds(subnet)?;
        let is_v6 = subnet.net.addr().is_ipv6();
        let as_address = |bits| from_bits(bits, is_v6);
        let known = self.networks.get(id);
        let range = as_address(first)..=as_address(last);
        let taken = known.into_iter().flat_map(|known| known.taken.range(range.clone()));
        let resting = known.into_iter().flat_map(|known| known.resting.range(range.clone()));
        let highest =
            taken.clone().next_back().max(resting.clone().next_back()).map(|(address, _)| bits(address));
        let is_gateway = |bits: u128| all.iter().any(|it| it.gateway == as_address(bits));
        let mut next = highest.map_or(first, |highest| highest + 1);
        while next <= last && is_gateway(next) {
            next += 1;
        }
        if next <= last {
            return Some(as_address(next));
        }
        let is_taken = |bits: u128| known.is_some_and(|known| known.taken.contains_key(&as_address(bits)));
        let is_resting =
            |bits: u128| known.is_some_and(|known| known.resting.contains_key(&as_address(bits)));
        let key = (id.clone(), subnet.net);
        let from = self.searched.get(&key).copied().unwrap_or(first);
        let free = (from..=last).find(|bits| !is_taken(*bits) && !is_resting(*bits) && !is_gateway(*bits));
        let used_again =
            || resting.map(|(address, _)| bits(address)).find(|it| !is_taken(*it) && !is_gateway(*it));
        let found = free.or_else(used_again).map(as_address);
        self.searched.insert(key, free.unwrap_or(last + 1));
        found
    }

    fn swap(&mut self, before: Held, after: Held) -> Vec<NetworkId> {
        if before.is_empty() && after.is_empty() {
            return Vec::new();
        }
        debug_assert!(self.assumed.is_empty(), "nothing is assumed between steps");
        self.add(&after);
        self.remove(&before);
        let is_kept = |one: &(NetworkId, IpAddr, bool)| after.contains(one);
        before.into_iter().filter(|one| one.2 && !is_kept(one)).map(|(network, ..)| network).collect()
    }

    fn add(&mut self, held: &[(NetworkId, IpAddr, bool)]) {
        for (network, address, is_in_use) in held {
            let known = self.networks.entry(network.clone()).or_default();
            let of = if *is_in_use { &mut known.taken } else { &mut known.resting };
            *of.entry(*address).or_default() += 1;
        }
    }

    fn remove(&mut self, held: &[(NetworkId, IpAddr, bool)]) {
        for (network, address, is_in_use) in held {
            let Some(known) = self.networks.get_mut(network) else { continue };
            let of = if *is_in_use { &mut known.taken } else { &mut known.resting };
            if let Some(count) = of.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    of.remove(address);
                }
            }
            if known.taken.is_empty() && known.resting.is_empty() {
                self.networks.remove(network);
            }
        }
    }
}

fn no_address(network: &Network, is_v6: bool, subnets: &[Subnet]) -> NoAddress {
    let subnets: Vec<String> = subnets.iter().map(|subnet| subnet.net.to_string()).collect();
    NoAddress {
        id: network.id.clone(),
        network: network.spec.name.clone(),
        family: if is_v6 { "IPv6" } else { "IPv4" },
        subnets: subnets.join(", "),
    }
}

/// The first and the last address that somebody may have: not those of the subnet as a whole.
fn bounds(subnet: &Subnet) -> Option<(u128, u128)> {
    let (net, range) = (subnet.net, subnet.range);
    let first = bits(&range.network()).max(bits(&net.network()) + 1);
    let reserved = u128::from(net.addr().is_ipv4());
    let last = bits(&range.broadcast()).min(bits(&net.broadcast()).checked_sub(reserved)?);
    (first <= last).then_some((first, last))
}

fn bits(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_bits(bits: u128, is_v6: bool) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if !is_v6 => IpAddr::from(bits.to_be_bytes()),
        _ => IpAddr::from(bits.to_be_bytes()),
    }
}

/// The address of a text such as `10.0.0.9/24`.
fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

fn of_task(task: &Task) -> Held {
    let is_in_use = task.holds_addresses();
    let attachments = task.networks_attachments.iter();
    let addresses = attachments.flat_map(|it| it.addresses.iter().map(|text| (&it.network, text)));
    addresses.filter_map(|(id, text)| Some((id.clone(), address(text)?, is_in_use))).collect()
}

fn of_service(service: &Service) -> Held {
    let vips = service.endpoint.virtual_ips.iter();
    vips.filter_map(|vip| Some((vip.network_id.clone(), address(&vip.addr)?, true))).collect()
}

fn of_node(node: &Node) -> Held {
    let Some(own) = &node.internal.ingress else { return Held::new() };
    own.addresses.iter().filter_map(|text| Some((own.network.clone(), address(text)?, true))).collect()
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;

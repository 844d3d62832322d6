//! The network that machines are plugged into: a bridge out here, with the way to the rest of the world.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::nft::{BaseChain, Batch, ChainKind, Direction, Family, Hook, IpField, NftSocket, Rule};
use netlink::route::{Mac, RouteSocket};
use serde::{Deserialize, Serialize};

use crate::error::{MachineError, file, network};
use crate::spec::has_ipv6;

/// First half of a network's prefix of IPv6: a unique local one (RFC 4193) whose random part is `skp`. What is behind it is
/// the network's prefix of IPv4, so that networks here don't meet.
const PREFIX6: u32 = 0xfd73_6b70;
/// Source: RFC 4291, 2.5.1.
const PREFIX6_LENGTH: u8 = 64;

/// Largest packet. Source: IEEE 802.3.
const MTU: u32 = 1500;

/// Lets this machine forward packets of machines on it.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// A bridge with an address, and a rule that hides machines behind this one's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lan {
    /// Name of the bridge and of the table with its rule; at most 15 bytes.
    pub name: String,
    /// The bridge's address, with the length of the network.
    pub address: Ipv4Net,
}

impl Lan {
    /// The first of `choices` that no route of this machine leads into.
    pub fn free(choices: impl IntoIterator<Item = Ipv4Net>) -> Result<Option<Ipv4Net>, MachineError> {
        let routes = RouteSocket::open().and_then(|mut socket| socket.routes());
        let routes = routes.map_err(network("list routes"))?;
        let taken: Vec<Ipv4Net> = routes
            .iter()
            .filter_map(|route| match route.destination {
                // The default route leads everywhere.
                IpAddr::V4(ip) if route.prefix > 0 => Ipv4Net::new(ip, route.prefix).ok(),
                _ => None,
            })
            .collect();
        let overlaps = |a: &Ipv4Net, b: &Ipv4Net| a.contains(&b.network()) || b.contains(&a.network());
        Ok(choices.into_iter().find(|choice| !taken.iter().any(|route| overlaps(choice, route))))
    }

    /// The address of IPv6 of who has this one of IPv4 on it.
    #[must_use]
    pub fn address6(&self, ip: Ipv4Addr) -> Ipv6Net {
        let network = self.address.network().to_bits();
        let host = ip.to_bits() ^ network;
        let prefix = u128::from(PREFIX6) << 96 | u128::from(network) << 64;
        let ip = Ipv6Addr::from_bits(prefix | u128::from(host));
        Ipv6Net::new(ip, PREFIX6_LENGTH).expect("64 is a prefix length of IPv6")
    }

    /// Makes it, or what is missing of it.
    pub fn make(&self) -> Result<(), MachineError> {
        let failed = "make the machines' network";
        let mut socket = RouteSocket::open().map_err(network(failed))?;
        let ip = self.address.addr();
        if socket.link(&self.name).map_err(network(failed))?.is_none() {
            let [_, b, c, d] = ip.octets();
            // Locally administered; the address keeps several of these apart.
            socket.add_bridge(&self.name, Mac([0x02, 0x53, 0, b, c, d]), MTU).map_err(network(failed))?;
        }
        let index = socket.index(&self.name).map_err(network(failed))?;
        let address6 = has_ipv6().then(|| IpNet::V6(self.address6(ip)));
        for own in [IpNet::V4(self.address)].into_iter().chain(address6) {
            match socket.add_address(index, own.addr(), own.prefix_len()) {
                Err(error) if !error.is_exists() => return Err(network(failed)(error)),
                _ => {}
            }
        }
        socket.set_up(index).map_err(network(failed))?;
        fs::write(FORWARDING, "1").map_err(file("write", Path::new(FORWARDING)))?;
        let mut batch = Batch::new(Family::Ip, &self.name);
        batch.replace_table();
        let base = BaseChain { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: 100 };
        batch.add_base_chain("out", base);
        let outbound = Rule::new()
            .address(IpField::Source, self.address.network(), self.address.prefix_len())
            .interface(Direction::Out, &self.name, false);
        batch.add_rule("out", &outbound.masquerade());
        NftSocket::open().and_then(|mut socket| socket.commit(batch)).map_err(network(failed))
    }

    /// Removes it; nothing happens when it is not there.
    pub fn remove(&self) -> Result<(), MachineError> {
        let failed = "remove the machines' network";
        let mut batch = Batch::new(Family::Ip, &self.name);
        batch.add_table();
        batch.delete_table();
        NftSocket::open().and_then(|mut socket| socket.commit(batch)).map_err(network(failed))?;
        let mut socket = RouteSocket::open().map_err(network(failed))?;
        match socket.link(&self.name).map_err(network(failed))? {
            Some(link) => socket.delete_link(link.index).map_err(network(failed)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_machines_have_ipv6_of_their_own() {
        let lan = |address: &str| Lan { name: "x".to_owned(), address: address.parse().expect("a network") };
        let check = |address: &str, ip: &str, expect: &str| {
            let ip = ip.parse().expect("an address");
            assert_eq!(lan(address).address6(ip).to_string(), expect);
        };
        check("10.99.3.1/24", "10.99.3.1", "fd73:6b70:a63:300::1/64");
        check("10.99.3.1/24", "10.99.3.11", "fd73:6b70:a63:300::b/64");
        check("10.99.4.1/24", "10.99.4.11", "fd73:6b70:a63:400::b/64");
    }
}

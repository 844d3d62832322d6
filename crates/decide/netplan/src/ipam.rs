//! Decides the subnets of a network that somebody makes.
//!
//! In: what was asked for, as text; the pools; what the machine and other networks use. Out: subnets with their gateways,
//! or Docker's refusals. Never hands out an address of a container: that is [`crate::AddressPool`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::subnet::{self, PoolRange};

/// A subnet as a user asks for it; empty texts leave the choice to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskedSubnet {
    /// `10.1.0.0/24`.
    pub subnet: String,
    /// The part of it that addresses are handed out from.
    pub range: String,
    /// The bridge's own address.
    pub gateway: String,
    /// Addresses that belong to something else, by name.
    pub reserved: BTreeMap<String, String>,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// All addresses.
    pub subnet: IpNet,
    /// The bridge's own address.
    pub gateway: IpAddr,
    /// Where addresses are handed out from; `None` is the whole subnet.
    pub range: Option<IpNet>,
    /// Addresses that belong to something else, by name.
    pub reserved: BTreeMap<String, IpAddr>,
    /// The user chose it: then containers may ask for particular addresses.
    pub is_asked: bool,
}

/// What limits the choice.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Pools for networks that ask for no subnet.
    pub pools: &'a [PoolRange],
    /// Subnets that the machine routes or has addresses of.
    pub routed: &'a [Ipv4Net],
    /// Subnets of other networks.
    pub others: &'a [IpNet],
    /// The subnet for an IPv6 network that asks for none.
    pub ipv6: IpNet,
}

/// Why a network can't have its subnets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// The request is wrong. Source of the texts: moby, `api/types/network/ipam.go`, `ValidateIPAM`.
    #[error("invalid network config:\n{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// Another network has some of these addresses. Source: moby, `daemon/libnetwork/ipamapi/contract.go`.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    Overlap,
    /// Every subnet of the pools is in use. Source: as above.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    NoSubnet,
    /// More than a bridge can have.
    #[error("bridge driver doesn't support multiple subnets")]
    Several,
}

/// The subnets of a bridge network: one of IPv4, and one of IPv6 if it is to have that.
pub fn settle(
    asked: &[AskedSubnet],
    has_ipv6: bool,
    around: &Surroundings<'_>,
) -> Result<Vec<Subnet>, IpamError> {
    let mut wrong = Vec::new();
    let read: Vec<Subnet> = asked
        .iter()
        .filter(|asked| **asked != AskedSubnet::default())
        .filter_map(|asked| read(asked, has_ipv6, &mut wrong))
        .collect();
    if !wrong.is_empty() {
        return Err(IpamError::Invalid(wrong));
    }
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = read.into_iter().partition(|subnet| subnet.subnet.addr().is_ipv4());
    if ipv4.len() > 1 || ipv6.len() > 1 {
        return Err(IpamError::Several);
    }
    let mut settled = Vec::new();
    match ipv4.into_iter().next() {
        Some(subnet) => settled.push(subnet),
        None => {
            let others = around.others.iter().filter_map(|net| match net {
                IpNet::V4(net) => Some(*net),
                IpNet::V6(_) => None,
            });
            let in_use: Vec<_> = around.routed.iter().copied().chain(others).collect();
            let chosen = subnet::choose(around.pools, &in_use).ok_or(IpamError::NoSubnet)?;
            settled.push(chosen_subnet(IpNet::V4(chosen)));
        }
    }
    if has_ipv6 {
        settled.push(ipv6.into_iter().next().unwrap_or_else(|| chosen_subnet(around.ipv6)));
    }
    let overlaps = |subnet: &Subnet| around.others.iter().any(|other| overlap(&subnet.subnet, other));
    if settled.iter().any(overlaps) { Err(IpamError::Overlap) } else { Ok(settled) }
}

fn chosen_subnet(subnet: IpNet) -> Subnet {
    Subnet { subnet, gateway: first(subnet), range: None, reserved: BTreeMap::new(), is_asked: false }
}

/// The first address that may belong to something.
fn first(subnet: IpNet) -> IpAddr {
    match subnet.network() {
        IpAddr::V4(network) if subnet.prefix_len() >= 31 => network.into(),
        IpAddr::V4(network) => Ipv4Addr::from_bits(network.to_bits() + 1).into(),
        IpAddr::V6(network) => Ipv6Addr::from_bits(network.to_bits() | 1).into(),
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// Nothing when it is wrong, and then why; nothing also for IPv6 that the network is not to have, as dockerd does.
fn read(asked: &AskedSubnet, has_ipv6: bool, wrong: &mut Vec<String>) -> Option<Subnet> {
    let text = &asked.subnet;
    let Ok(subnet) = text.parse::<IpNet>() else {
        wrong.push(format!("invalid subnet {text}: invalid CIDR block notation"));
        return None;
    };
    if subnet.addr().is_ipv6() && !has_ipv6 {
        return None;
    }
    if subnet != subnet.trunc() {
        wrong.push(format!("invalid subnet {subnet}: it should be {}", subnet.trunc()));
    }
    let range = match asked.range.as_str() {
        "" => None,
        text => read_range(text, &subnet)
            .map_err(|why| wrong.push(format!("invalid ip-range {text}: {why}")))
            .ok(),
    };
    let gateway = match asked.gateway.as_str() {
        "" => Some(first(subnet)),
        text => read_address(text, &subnet)
            .map_err(|why| wrong.push(format!("invalid gateway {text}: {why}")))
            .ok(),
    };
    let mut reserved = BTreeMap::new();
    for (name, text) in &asked.reserved {
        match read_address(text, &subnet) {
            Ok(ip) => drop(reserved.insert(name.clone(), ip)),
            Err(why) => wrong.push(format!("invalid auxiliary address {name}: {why}")),
        }
    }
    Some(Subnet { subnet, gateway: gateway?, range, reserved, is_asked: true })
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn read_range(text: &str, subnet: &IpNet) -> Result<IpNet, String> {
    let range: IpNet = text.parse().map_err(|_| "invalid CIDR block notation".to_owned())?;
    if range.addr().is_ipv4() != subnet.addr().is_ipv4() {
        return Err(format!("parent subnet is an {} block", family(subnet.addr())));
    }
    if range != range.trunc() {
        return Err(format!("it should be {}", range.trunc()));
    }
    if range.prefix_len() < subnet.prefix_len() {
        return Err(format!("CIDR block is bigger than its parent subnet {subnet}"));
    }
    if !subnet.contains(&range) {
        return Err(format!("parent subnet {subnet} doesn't contain ip-range"));
    }
    Ok(range)
}

fn read_address(text: &str, subnet: &IpNet) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| "invalid address".to_owned())?;
    if ip.is_ipv4() != subnet.addr().is_ipv4() {
        return Err(format!("parent subnet is an {} block", family(subnet.addr())));
    }
    if !subnet.contains(&ip) {
        return Err(format!("parent subnet {subnet} doesn't contain this address"));
    }
    Ok(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(subnet: &str, range: &str, gateway: &str, reserved: &[(&str, &str)]) -> AskedSubnet {
        let reserved = reserved.iter().map(|(name, ip)| ((*name).to_owned(), (*ip).to_owned()));
        AskedSubnet {
            subnet: subnet.into(),
            range: range.into(),
            gateway: gateway.into(),
            reserved: reserved.collect(),
        }
    }

    fn settled(asked: &[AskedSubnet], has_ipv6: bool) -> Result<Vec<String>, String> {
        let pools = subnet::default_pools();
        let around = Surroundings {
            pools: &pools,
            routed: &["172.18.0.0/16".parse().unwrap()],
            others: &["172.17.0.0/16".parse().unwrap(), "10.9.0.0/24".parse().unwrap()],
            ipv6: "fd12:3456:789a::/64".parse().unwrap(),
        };
        let show = |subnet: Subnet| format!("{} via {}", subnet.subnet, subnet.gateway);
        let settled = settle(asked, has_ipv6, &around);
        settled.map(|subnets| subnets.into_iter().map(show).collect()).map_err(|error| error.to_string())
    }

    fn check(asked: &[AskedSubnet], expect: &[&str]) {
        assert_eq!(settled(asked, false).unwrap(), expect);
    }

    fn refused(subnet: AskedSubnet, expect: &str) {
        assert_eq!(settled(&[subnet], true).unwrap_err(), format!("invalid network config:\n{expect}"));
    }

    #[test]
    fn a_network_gets_what_was_asked_for_or_the_next_free_subnet() {
        check(&[], &["172.19.0.0/16 via 172.19.0.1"]);
        check(&[AskedSubnet::default()], &["172.19.0.0/16 via 172.19.0.1"]);
        check(&[asked("10.1.0.0/24", "", "", &[])], &["10.1.0.0/24 via 10.1.0.1"]);
        check(&[asked("10.1.0.0/24", "10.1.0.128/25", "10.1.0.9", &[])], &["10.1.0.0/24 via 10.1.0.9"]);
        // The machine's own routes only limit our choice, not the user's.
        check(&[asked("172.18.3.0/24", "", "", &[])], &["172.18.3.0/24 via 172.18.3.1"]);
        check(
            &[asked("10.1.0.0/24", "", "", &[]), asked("fd00::/64", "", "", &[])],
            &["10.1.0.0/24 via 10.1.0.1"],
        );
        assert_eq!(
            settled(&[asked("fd00::/64", "", "", &[])], true).unwrap(),
            ["172.19.0.0/16 via 172.19.0.1", "fd00::/64 via fd00::1"]
        );
        assert_eq!(
            settled(&[], true).unwrap(),
            ["172.19.0.0/16 via 172.19.0.1", "fd12:3456:789a::/64 via fd12:3456:789a::1"]
        );
    }

    #[test]
    fn what_can_not_be_is_refused_in_docker_s_words() {
        refused(asked("10.1.0.0", "", "", &[]), "invalid subnet 10.1.0.0: invalid CIDR block notation");
        refused(asked("10.1.0.7/24", "", "", &[]), "invalid subnet 10.1.0.7/24: it should be 10.1.0.0/24");
        let range = |range: &str, why: &str| {
            refused(asked("10.1.0.0/24", range, "", &[]), &format!("invalid ip-range {range}: {why}"));
        };
        range("x", "invalid CIDR block notation");
        range("fd00::/64", "parent subnet is an IPv4 block");
        range("10.1.0.1/25", "it should be 10.1.0.0/25");
        range("10.0.0.0/8", "CIDR block is bigger than its parent subnet 10.1.0.0/24");
        range("10.2.0.0/25", "parent subnet 10.1.0.0/24 doesn't contain ip-range");
        refused(
            asked("10.1.0.0/24", "", "10.2.0.1", &[("router", "::1")]),
            "invalid gateway 10.2.0.1: parent subnet 10.1.0.0/24 doesn't contain this address\n\
             invalid auxiliary address router: parent subnet is an IPv4 block",
        );
        let text = |asked: &[AskedSubnet]| settled(asked, false).unwrap_err();
        let overlap = "invalid pool request: Pool overlaps with other one on this address space";
        assert_eq!(text(&[asked("10.9.0.128/25", "", "", &[])]), overlap);
        assert_eq!(text(&[asked("10.0.0.0/8", "", "", &[])]), overlap);
        let several = [asked("10.1.0.0/24", "", "", &[]), asked("10.2.0.0/24", "", "", &[])];
        assert_eq!(text(&several), "bridge driver doesn't support multiple subnets");
    }
}

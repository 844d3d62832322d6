//! Decides which address of a subnet an endpoint gets.
//!
//! In: the subnet, what is taken. Out: a free address, or none. Walks upward from the last one handed out, so that an
//! address just freed is not reused before the others were: caches of its neighbours and tracked connections have time
//! to forget it. Never knows who holds an address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The addresses of one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPool {
    subnet: IpNet,
    gateway: u128,
    /// What `take` may hand out; the subnet, unless somebody narrowed it.
    range: IpNet,
    /// Addresses that belong to something else than endpoints (`--aux-address`).
    reserved: BTreeSet<u128>,
    /// Taken addresses without the gateway and what is reserved.
    taken: BTreeSet<u128>,
    /// The last address handed out by `take`.
    cursor: u128,
}

/// Why one particular address cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Source: moby, `daemon/libnetwork/ipamapi/contract.go`.
    #[error("no available {0} addresses on this network's address pools")]
    Exhausted(&'static str),
    /// Source: moby, `daemon/libnetwork/ipamapi/contract.go`.
    #[error("Address already in use")]
    Taken,
    /// Source: moby, `daemon/libnetwork/ipamapi/contract.go`.
    #[error("Invalid address {0}: It does not belong to any of this network's subnets")]
    Outside(IpAddr),
}

impl AddressPool {
    /// All addresses of `subnet` except its network, broadcast and `gateway` address.
    pub fn new(subnet: IpNet, gateway: IpAddr) -> Self {
        let subnet = subnet.trunc();
        Self {
            subnet,
            gateway: bits(gateway),
            range: subnet,
            reserved: BTreeSet::new(),
            taken: BTreeSet::new(),
            cursor: bits(subnet.network()),
        }
    }

    /// Lets `take` hand out addresses of `range` only.
    pub fn within(mut self, range: IpNet) -> Self {
        self.range = range.trunc();
        self
    }

    /// Keeps these addresses from endpoints.
    pub fn without(mut self, reserved: impl IntoIterator<Item = IpAddr>) -> Self {
        self.reserved.extend(reserved.into_iter().map(bits));
        self
    }

    /// The subnet.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The address that belongs to the bridge.
    pub fn gateway(&self) -> IpAddr {
        self.address(self.gateway)
    }

    /// How many addresses are taken, without the gateway.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Takes the next free address after the last one taken, starting over at the end.
    pub fn take(&mut self) -> Result<IpAddr, AddressError> {
        let (first, last) = self.bounds();
        let first = first.max(bits(self.range.network()));
        let last = last.min(bits(self.range.broadcast()));
        let start = if self.cursor >= first && self.cursor < last { self.cursor + 1 } else { first };
        let found = self.first_free(start, last).or_else(|| self.first_free(first, last));
        let family = if self.subnet.addr().is_ipv4() { "IPv4" } else { "IPv6" };
        let address = found.ok_or(AddressError::Exhausted(family))?;
        self.taken.insert(address);
        self.cursor = address;
        Ok(self.address(address))
    }

    /// Takes one particular address.
    pub fn take_exact(&mut self, address: IpAddr) -> Result<(), AddressError> {
        let is_inside = self.subnet.contains(&address);
        let (first, last) = self.bounds();
        let address_bits = bits(address);
        if !is_inside || !(first..=last).contains(&address_bits) {
            return Err(AddressError::Outside(address));
        }
        let is_free = !self.is_special(address_bits) && self.taken.insert(address_bits);
        if is_free { Ok(()) } else { Err(AddressError::Taken) }
    }

    /// Gives an address back; false when it was not taken.
    pub fn release(&mut self, address: IpAddr) -> bool {
        self.subnet.contains(&address) && self.taken.remove(&bits(address))
    }

    fn address(&self, bits: u128) -> IpAddr {
        match self.subnet {
            IpNet::V4(_) => {
                Ipv4Addr::from_bits(u32::try_from(bits).expect("it lies in an IPv4 subnet")).into()
            }
            IpNet::V6(_) => Ipv6Addr::from_bits(bits).into(),
        }
    }

    /// First and last address that may belong to somebody.
    fn bounds(&self) -> (u128, u128) {
        let first = bits(self.subnet.network());
        let last = bits(self.subnet.broadcast());
        match self.subnet {
            // Point-to-point subnets (31 and 32 bits) have neither a network nor a broadcast address.
            IpNet::V4(subnet) if subnet.prefix_len() >= 31 => (first, last),
            IpNet::V4(_) => (first + 1, last - 1),
            IpNet::V6(subnet) if subnet.prefix_len() >= 127 => (first, last),
            // The first one means any router of the subnet (RFC 4291).
            IpNet::V6(_) => (first + 1, last),
        }
    }

    /// True for the gateway and what is reserved.
    fn is_special(&self, address: u128) -> bool {
        address == self.gateway || self.reserved.contains(&address)
    }

    fn first_free(&self, from: u128, last: u128) -> Option<u128> {
        let mut candidate = from;
        if from > last {
            return None;
        }
        let mut taken = self.taken.range(from..=last).copied().peekable();
        while candidate <= last {
            while taken.next_if(|address| *address < candidate).is_some() {}
            if self.is_special(candidate) || taken.next_if_eq(&candidate).is_some() {
                candidate = candidate.checked_add(1)?;
            } else {
                return Some(candidate);
            }
        }
        None
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    fn ip(octets: [u8; 4]) -> IpAddr {
        octets.into()
    }

    /// The last byte of an address.
    fn last_byte(ip: IpAddr) -> u8 {
        u8::try_from(bits(ip) & 0xff).unwrap()
    }

    fn pool(subnet: &str, gateway: &str) -> AddressPool {
        AddressPool::new(subnet.parse().unwrap(), gateway.parse().unwrap())
    }

    #[test]
    fn an_address_just_freed_is_reused_only_after_the_others() {
        let mut pool = pool("10.0.0.0/29", "10.0.0.1");
        let first = pool.take().unwrap();
        assert_eq!(first, ip([10, 0, 0, 2]));
        assert!(pool.release(first));
        let rest: Vec<_> = std::iter::from_fn(|| pool.take().ok()).map(last_byte).collect();
        assert_eq!(rest, [3, 4, 5, 6, 2]);
        assert_eq!(pool.take(), Err(AddressError::Exhausted("IPv4")));
    }

    #[test]
    fn a_subnet_without_room_beside_its_gateway_is_exhausted() {
        assert_eq!(pool("10.0.0.1/32", "10.0.0.1").take(), Err(AddressError::Exhausted("IPv4")));
        assert_eq!(pool("10.0.0.0/31", "10.0.0.0").take(), Ok(ip([10, 0, 0, 1])));
        let mut last = pool("255.255.255.252/30", "255.255.255.253");
        assert_eq!(last.take(), Ok(ip([255, 255, 255, 254])));
        assert_eq!(last.take(), Err(AddressError::Exhausted("IPv4")));
    }

    #[test]
    fn a_range_narrows_the_choice_but_not_what_may_be_asked_for() {
        let free = |pool: &mut AddressPool| {
            std::iter::from_fn(|| pool.take().ok()).map(last_byte).collect::<Vec<_>>()
        };
        let mut pool = pool("10.0.0.0/24", "10.0.0.1")
            .within("10.0.0.8/30".parse().unwrap())
            .without(["10.0.0.9".parse().unwrap(), "10.0.0.20".parse().unwrap()]);
        assert_eq!(free(&mut pool), [8, 10, 11]);
        let exact = |pool: &mut AddressPool, last| pool.take_exact(ip([10, 0, 0, last]));
        assert_eq!(exact(&mut pool, 21), Ok(()));
        assert_eq!(exact(&mut pool, 20), Err(AddressError::Taken));
        assert_eq!(exact(&mut pool, 1), Err(AddressError::Taken));
    }

    #[test]
    fn addresses_of_both_families_are_handed_out() {
        let mut pool = pool("fd00:1::/64", "fd00:1::1");
        let first = pool.take().unwrap();
        assert_eq!(first.to_string(), "fd00:1::2");
        assert_eq!(pool.take_exact(first), Err(AddressError::Taken));
        assert_eq!(
            pool.take_exact("fd00:1::".parse().unwrap()),
            Err(AddressError::Outside("fd00:1::".parse().unwrap()))
        );
        assert_eq!(pool.take_exact(ip([10, 0, 0, 1])), Err(AddressError::Outside(ip([10, 0, 0, 1]))));
        assert!(pool.release(first));
        assert_eq!(pool.take().unwrap().to_string(), "fd00:1::3");
    }

    proptest! {
        #[test]
        fn nobody_gets_the_gateway_or_an_address_somebody_has(
            prefix in 24u8..=32,
            gateway_offset in 0u32..256,
            steps in proptest::collection::vec((0u8..3, 0u32..260), 0..200),
        ) {
            let subnet = Ipv4Net::new(Ipv4Addr::new(172, 17, 0, 0), prefix).unwrap();
            let size = 1u32 << (32 - u32::from(prefix));
            let gateway = Ipv4Addr::from_bits(subnet.network().to_bits() + gateway_offset % size);
            let mut pool = AddressPool::new(IpNet::V4(subnet), gateway.into());
            let mut held = BTreeSet::new();
            for (action, offset) in steps {
                let exact = IpAddr::V4(Ipv4Addr::from_bits(subnet.network().to_bits() + offset));
                match action {
                    0 => match pool.take() {
                        Ok(ip) => {
                            prop_assert!(IpNet::V4(subnet).contains(&ip) && ip != IpAddr::V4(gateway));
                            prop_assert!(held.insert(ip));
                        }
                        Err(_) => {
                            let usable = if prefix >= 31 { size } else { size - 2 };
                            let gateway_inside = prefix >= 31
                                || (gateway != subnet.network() && gateway != subnet.broadcast());
                            prop_assert_eq!(held.len() as u32, usable - u32::from(gateway_inside));
                        }
                    },
                    1 => match pool.take_exact(exact) {
                        Ok(()) => prop_assert!(held.insert(exact)),
                        Err(AddressError::Taken) => prop_assert!(held.contains(&exact) || exact == IpAddr::V4(gateway)),
                        Err(_) => prop_assert!(!held.contains(&exact)),
                    },
                    _ => prop_assert_eq!(pool.release(exact), held.remove(&exact)),
                }
                prop_assert_eq!(pool.taken(), held.len());
            }
        }
    }
}

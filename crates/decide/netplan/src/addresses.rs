//! Decides which address of a subnet an endpoint gets.
//!
//! In: the subnet, what is taken. Out: a free address, or none. Walks upward from the last one handed out, so that an
//! address just freed is not reused before the others were: caches of its neighbours and tracked connections have time
//! to forget it. Never knows who holds an address.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The addresses of one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPool {
    subnet: Ipv4Net,
    gateway: u32,
    /// Taken addresses without the gateway.
    taken: BTreeSet<u32>,
    /// The last address handed out by `take`.
    cursor: u32,
}

/// Why one particular address cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Source: moby, `daemon/libnetwork/ipamapi/contract.go`.
    #[error("no available IPv4 addresses on this network's address pools")]
    Exhausted,
    /// Source: moby, `daemon/libnetwork/ipamapi/contract.go`.
    #[error("Address already in use")]
    Taken,
    /// Source: moby, `daemon/libnetwork/ipamapi/contract.go`.
    #[error("Invalid address {0}: It does not belong to any of this network's subnets")]
    Outside(Ipv4Addr),
}

impl AddressPool {
    /// All addresses of `subnet` except its network, broadcast and `gateway` address.
    pub fn new(subnet: Ipv4Net, gateway: Ipv4Addr) -> Self {
        let subnet = subnet.trunc();
        Self {
            subnet,
            gateway: gateway.to_bits(),
            taken: BTreeSet::new(),
            cursor: subnet.network().to_bits(),
        }
    }

    /// The subnet.
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// The address that belongs to the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.gateway)
    }

    /// How many addresses are taken, without the gateway.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Takes the next free address after the last one taken, starting over at the end.
    pub fn take(&mut self) -> Result<Ipv4Addr, AddressError> {
        let (first, last) = self.bounds().ok_or(AddressError::Exhausted)?;
        let start = if self.cursor >= first && self.cursor < last { self.cursor + 1 } else { first };
        let found = self.first_free(start, last).or_else(|| self.first_free(first, last));
        let address = found.ok_or(AddressError::Exhausted)?;
        self.taken.insert(address);
        self.cursor = address;
        Ok(Ipv4Addr::from_bits(address))
    }

    /// Takes one particular address.
    pub fn take_exact(&mut self, address: Ipv4Addr) -> Result<(), AddressError> {
        let bits = address.to_bits();
        match self.bounds() {
            Some((first, last)) if (first..=last).contains(&bits) => {}
            _ => return Err(AddressError::Outside(address)),
        }
        if bits == self.gateway || !self.taken.insert(bits) { Err(AddressError::Taken) } else { Ok(()) }
    }

    /// Gives an address back; false when it was not taken.
    pub fn release(&mut self, address: Ipv4Addr) -> bool {
        self.taken.remove(&address.to_bits())
    }

    /// First and last address that may belong to somebody.
    fn bounds(&self) -> Option<(u32, u32)> {
        let first = self.subnet.network().to_bits();
        let last = self.subnet.broadcast().to_bits();
        // Point-to-point subnets (31 and 32 bits) have neither a network nor a broadcast address.
        if self.subnet.prefix_len() >= 31 { Some((first, last)) } else { Some((first + 1, last - 1)) }
    }

    fn first_free(&self, from: u32, last: u32) -> Option<u32> {
        let mut candidate = from;
        let mut taken = self.taken.range(from..=last).copied().peekable();
        while candidate <= last {
            while taken.next_if(|address| *address < candidate).is_some() {}
            if candidate == self.gateway || taken.next_if_eq(&candidate).is_some() {
                candidate = candidate.checked_add(1)?;
            } else {
                return Some(candidate);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(subnet: &str, gateway: &str) -> AddressPool {
        AddressPool::new(subnet.parse().unwrap(), gateway.parse().unwrap())
    }

    #[test]
    fn an_address_just_freed_is_reused_only_after_the_others() {
        let mut pool = pool("10.0.0.0/29", "10.0.0.1");
        let first = pool.take().unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 0, 0, 2));
        assert!(pool.release(first));
        let rest: Vec<_> = std::iter::from_fn(|| pool.take().ok()).map(|ip| ip.octets()[3]).collect();
        assert_eq!(rest, [3, 4, 5, 6, 2]);
        assert_eq!(pool.take(), Err(AddressError::Exhausted));
    }

    #[test]
    fn a_subnet_without_room_beside_its_gateway_is_exhausted() {
        assert_eq!(pool("10.0.0.1/32", "10.0.0.1").take(), Err(AddressError::Exhausted));
        assert_eq!(pool("10.0.0.0/31", "10.0.0.0").take(), Ok(Ipv4Addr::new(10, 0, 0, 1)));
        let mut last = pool("255.255.255.252/30", "255.255.255.253");
        assert_eq!(last.take(), Ok(Ipv4Addr::new(255, 255, 255, 254)));
        assert_eq!(last.take(), Err(AddressError::Exhausted));
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
            let mut pool = AddressPool::new(subnet, gateway);
            let mut held = BTreeSet::new();
            for (action, offset) in steps {
                let exact = Ipv4Addr::from_bits(subnet.network().to_bits() + offset);
                match action {
                    0 => match pool.take() {
                        Ok(ip) => {
                            prop_assert!(subnet.contains(&ip) && ip != gateway);
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
                        Err(AddressError::Taken) => prop_assert!(held.contains(&exact) || exact == gateway),
                        Err(_) => prop_assert!(!held.contains(&exact)),
                    },
                    _ => prop_assert_eq!(pool.release(exact), held.remove(&exact)),
                }
                prop_assert_eq!(pool.taken(), held.len());
            }
        }
    }
}

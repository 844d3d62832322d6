//! Decides which subnet a bridge gets.
//!
//! In: the address pools and the subnets the machine's routes and addresses use already. Out: the first subnet of the
//! pools that overlaps none of them. Never looks at the machine itself.

use ipnet::Ipv4Net;

/// A pool of equally sized subnets, as in `--default-address-pool base=172.30.0.0/16,size=24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolRange {
    /// All subnets lie in here.
    pub base: Ipv4Net,
    /// Prefix length of each subnet.
    pub size: u8,
}

/// Pools that cannot be cut as asked. Source: moby, `daemon/libnetwork/ipamutils/utils.go`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid pool size {size} for base {base}: it must lie between the length of the base and 30")]
pub struct PoolError {
    /// The base as given.
    pub base: Ipv4Net,
    /// The size as given.
    pub size: u8,
}

impl PoolRange {
    /// Checks that `base` can be cut into subnets of `size` with room for a gateway and a container each.
    pub fn new(base: Ipv4Net, size: u8) -> Result<Self, PoolError> {
        if size < base.prefix_len() || size > 30 {
            return Err(PoolError { base, size });
        }
        Ok(Self { base: base.trunc(), size })
    }
}

/// The pools dockerd uses when it is told none: 172.17 to 172.31 as /16, 192.168 as /20.
///
/// Source: moby, `daemon/libnetwork/ipamutils/utils.go`.
pub fn default_pools() -> Vec<PoolRange> {
    let range = |octets: [u8; 4], prefix, size| PoolRange {
        base: Ipv4Net::new(octets.into(), prefix).expect("prefix lengths below 33 are valid"),
        size,
    };
    let mut pools =
        vec![range([172, 17, 0, 0], 16, 16), range([172, 18, 0, 0], 16, 16), range([172, 19, 0, 0], 16, 16)];
    pools.extend([
        range([172, 20, 0, 0], 14, 16),
        range([172, 24, 0, 0], 14, 16),
        range([172, 28, 0, 0], 14, 16),
    ]);
    pools.push(range([192, 168, 0, 0], 16, 20));
    pools
}

/// The first subnet of `pools` that overlaps none of `in_use`, or none.
pub fn choose(pools: &[PoolRange], in_use: &[Ipv4Net]) -> Option<Ipv4Net> {
    pools.iter().find_map(|pool| {
        pool.base.subnets(pool.size).ok()?.find(|subnet| in_use.iter().all(|used| !overlap(subnet, used)))
    })
}

fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(other) || other.contains(one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(in_use: &[&str], expect: Option<&str>) {
        let in_use: Vec<Ipv4Net> = in_use.iter().map(|net| net.parse().unwrap()).collect();
        assert_eq!(choose(&default_pools(), &in_use), expect.map(|net| net.parse().unwrap()));
    }

    #[test]
    fn the_first_pool_that_overlaps_no_route_is_taken() {
        check(&[], Some("172.17.0.0/16"));
        check(&["172.17.5.0/24"], Some("172.18.0.0/16"));
        check(&["172.16.0.0/12"], Some("192.168.0.0/20"));
        check(&["172.16.0.0/12", "192.168.1.0/24", "192.168.16.9/32"], Some("192.168.32.0/20"));
        check(&["172.16.0.0/12", "192.0.0.0/8"], None);
    }

    #[test]
    fn a_pool_smaller_than_its_subnets_is_refused() {
        let base = "10.0.0.0/16".parse().unwrap();
        assert!(PoolRange::new(base, 15).is_err());
        assert!(PoolRange::new(base, 31).is_err());
        assert!(PoolRange::new(base, 16).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_chosen_overlaps_nothing_in_use(nets in proptest::collection::vec((any::<u32>(), 8u8..=32), 0..40)) {
            let in_use: Vec<_> = nets.iter()
                .map(|(ip, prefix)| Ipv4Net::new((0xAC10_0000 | (ip & 0x000F_FFFF)).into(), *prefix).unwrap().trunc())
                .collect();
            if let Some(subnet) = choose(&default_pools(), &in_use) {
                prop_assert!(in_use.iter().all(|used| !used.contains(&subnet.network()) && !subnet.contains(&used.network())));
            }
        }
    }
}

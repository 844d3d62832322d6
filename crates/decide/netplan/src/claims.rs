//! Decides which port of this machine a request gets, and whether it is still free.
//!
//! In: requests and the claims so far. Out: the next port to try, or Docker's reason why there is none. A port that a
//! foreign process holds is found out by the caller, who then asks for the next one. Never binds anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use crate::port::{HostPort, PortRequest, Protocol};

/// The ports of this machine that are published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortClaims {
    claimed: BTreeMap<(Protocol, u16), BTreeSet<IpAddr>>,
    /// The last ephemeral port claimed, per protocol.
    cursor: BTreeMap<Protocol, u16>,
}

/// Why there is no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The one port asked for is claimed. Source: moby, `daemon/libnetwork/portallocator/portallocator.go`.
    #[error("Bind for {ip}:{port} failed: port is already allocated", ip = .0.ip, port = .0.port)]
    Allocated(HostPort),
    /// No port of the range is left. Source: as above.
    #[error("all ports are allocated")]
    Exhausted,
}

impl PortClaims {
    /// The next port that would do for `request`, after the one `tried` before (which a foreign process holds).
    ///
    /// A port asked for by number is itself; of a range, the first free one; without a number, the one after the last
    /// given out of `ephemeral`, wrapping around.
    pub fn candidate(
        &self,
        request: &PortRequest,
        ephemeral: &RangeInclusive<u16>,
        tried: Option<u16>,
    ) -> Result<HostPort, ClaimError> {
        let ip = request.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let at = |port| HostPort { protocol: request.protocol, ip, port };
        let is_free = |port: &u16| !self.is_claimed(&at(*port));
        let found = match (request.host_port, request.host_port_last) {
            (0, _) => self.next_ephemeral(request.protocol, ephemeral, tried, is_free),
            (first, last) if last <= first => {
                if tried.is_some() {
                    return Err(ClaimError::Exhausted);
                }
                return if is_free(&first) { Ok(at(first)) } else { Err(ClaimError::Allocated(at(first))) };
            }
            (first, last) => (tried.map_or(first, |port| port.saturating_add(1))..=last).find(is_free),
        };
        found.map(at).ok_or(ClaimError::Exhausted)
    }

    /// Claims a port; false when an overlapping one is claimed already.
    pub fn claim(&mut self, host: HostPort) -> bool {
        if self.is_claimed(&host) {
            return false;
        }
        self.claimed.entry((host.protocol, host.port)).or_default().insert(host.ip)
    }

    /// Remembers that `port` was the last one given out of the ephemeral range.
    pub fn advance(&mut self, protocol: Protocol, port: u16) {
        self.cursor.insert(protocol, port);
    }

    /// Gives a port back; false when it was not claimed.
    pub fn release(&mut self, host: &HostPort) -> bool {
        let key = (host.protocol, host.port);
        let Some(addresses) = self.claimed.get_mut(&key) else { return false };
        let was_claimed = addresses.remove(&host.ip);
        if addresses.is_empty() {
            self.claimed.remove(&key);
        }
        was_claimed
    }

    /// True when `host` or something that overlaps it is claimed.
    pub fn is_claimed(&self, host: &HostPort) -> bool {
        self.claimed
            .get(&(host.protocol, host.port))
            .is_some_and(|addresses| addresses.iter().any(|ip| HostPort { ip: *ip, ..*host }.overlaps(host)))
    }

    fn next_ephemeral(
        &self,
        protocol: Protocol,
        range: &RangeInclusive<u16>,
        tried: Option<u16>,
        is_free: impl Fn(&u16) -> bool,
    ) -> Option<u16> {
        // The walk begins after the cursor and ends at it; `tried` tells how far it got.
        let cursor =
            self.cursor.get(&protocol).copied().filter(|port| range.contains(port)).unwrap_or(*range.end());
        let after = |port: u16| if port >= *range.end() { *range.start() } else { port + 1 };
        if tried == Some(cursor) {
            return None;
        }
        let mut port = after(tried.unwrap_or(cursor));
        for _ in range.clone() {
            if is_free(&port) {
                return Some(port);
            }
            if port == cursor {
                return None;
            }
            port = after(port);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(host_ip: Option<&str>, first: u16, last: u16) -> PortRequest {
        PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: first,
            host_port_last: last,
        }
    }

    fn claims(taken: &[(&str, u16)]) -> PortClaims {
        let mut claims = PortClaims::default();
        for (ip, port) in taken {
            assert!(claims.claim(HostPort { protocol: Protocol::Tcp, ip: ip.parse().unwrap(), port: *port }));
        }
        claims
    }

    #[test]
    fn a_taken_port_is_refused_in_docker_s_words() {
        let taken = claims(&[("127.0.0.1", 8080)]);
        let refused = taken.candidate(&request(None, 8080, 8080), &(32768..=60999), None).unwrap_err();
        assert_eq!(refused.to_string(), "Bind for 0.0.0.0:8080 failed: port is already allocated");
        assert!(taken.candidate(&request(Some("127.0.0.2"), 8080, 8080), &(32768..=60999), None).is_ok());
    }

    #[test]
    fn the_same_port_of_another_protocol_or_family_is_free() {
        let taken = claims(&[("0.0.0.0", 53)]);
        let udp = HostPort { protocol: Protocol::Udp, ip: Ipv4Addr::UNSPECIFIED.into(), port: 53 };
        let v6 = HostPort { protocol: Protocol::Tcp, ip: std::net::Ipv6Addr::UNSPECIFIED.into(), port: 53 };
        assert!(!taken.is_claimed(&udp));
        assert!(!taken.is_claimed(&v6));
    }

    #[test]
    fn a_range_gives_its_first_port_that_is_free_here_and_elsewhere() {
        let taken = claims(&[("0.0.0.0", 8000), ("0.0.0.0", 8002)]);
        let range = request(None, 8000, 8003);
        let first = taken.candidate(&range, &(1..=2), None).unwrap();
        assert_eq!(first.port, 8001);
        let second = taken.candidate(&range, &(1..=2), Some(8001)).unwrap();
        assert_eq!(second.port, 8003);
        assert_eq!(taken.candidate(&range, &(1..=2), Some(8003)), Err(ClaimError::Exhausted));
    }

    #[test]
    fn ephemeral_ports_go_round() {
        let mut claims = claims(&[("0.0.0.0", 101)]);
        let any = request(None, 0, 0);
        let mut given = Vec::new();
        for _ in 0..4 {
            let Ok(host) = claims.candidate(&any, &(100..=103), None) else { break };
            assert!(claims.claim(host));
            claims.advance(host.protocol, host.port);
            given.push(host.port);
        }
        assert_eq!(given, [100, 102, 103]);
        claims.release(&HostPort { protocol: Protocol::Tcp, ip: Ipv4Addr::UNSPECIFIED.into(), port: 102 });
        assert_eq!(claims.candidate(&any, &(100..=103), None).unwrap().port, 102);
        assert_eq!(claims.candidate(&any, &(100..=103), Some(102)), Err(ClaimError::Exhausted));
    }

    #[test]
    fn ports_that_foreign_processes_hold_are_each_tried_once() {
        let claims = claims(&[]);
        let any = request(None, 0, 0);
        let mut tried = None;
        let mut seen = Vec::new();
        while let Ok(host) = claims.candidate(&any, &(100..=103), tried) {
            tried = Some(host.port);
            seen.push(host.port);
            assert!(seen.len() < 10);
        }
        assert_eq!(seen, [100, 101, 102, 103]);
    }

    proptest! {
        #[test]
        fn no_two_claims_overlap(
            steps in proptest::collection::vec((any::<bool>(), 0u8..3, 0u8..2, 1u16..5), 0..100)
        ) {
            let addresses: [IpAddr; 3] = ["0.0.0.0", "127.0.0.1", "10.0.0.1"].map(|ip| ip.parse().unwrap());
            let mut claims = PortClaims::default();
            let mut held: Vec<HostPort> = Vec::new();
            for (add, ip, protocol, port) in steps {
                let protocol = if protocol == 0 { Protocol::Tcp } else { Protocol::Udp };
                let host = HostPort { protocol, ip: addresses[usize::from(ip)], port };
                if add {
                    prop_assert_eq!(claims.claim(host), !held.iter().any(|other| other.overlaps(&host)));
                    if !held.iter().any(|other| other.overlaps(&host)) { held.push(host); }
                } else {
                    prop_assert_eq!(claims.release(&host), held.contains(&host));
                    held.retain(|other| *other != host);
                }
            }
        }
    }
}

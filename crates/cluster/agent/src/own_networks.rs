//! Networks that this machine has by itself: the swarm's own keep clear of them.
//!
//! In: the machine's routes, addresses and resolvers. Out: their networks, sorted, each once. What cannot be read is left out:
//! the swarm then knows less, and nothing fails. Never changes a route.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink::route::RouteSocket;

/// Where the machine's resolvers are listed.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Networks told at most. chosen: a machine with more routes than that is a router, and its finest ones matter least.
const MOST: usize = 1024;

/// What this machine uses now.
pub(crate) fn of_this_machine() -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = Vec::new();
    match RouteSocket::open() {
        Ok(mut socket) => {
            let addresses = socket.addresses().unwrap_or_default();
            nets.extend(addresses.iter().filter_map(|address| IpNet::new(address.ip, address.prefix).ok()));
            let routes = socket.routes().unwrap_or_default();
            nets.extend(routes.iter().filter_map(|route| IpNet::new(route.destination, route.prefix).ok()));
        }
        Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "routes are not known"),
    }
    let resolvers = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    nets.extend(resolvers_of(&resolvers).map(IpNet::from));
    sorted(nets)
}

/// The addresses of the resolvers in the text of `resolv.conf`.
fn resolvers_of(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_resolver = words.next() == Some("nameserver");
        words.next().filter(|_| is_resolver)?.parse().ok()
    })
}

/// Without what no network of the swarm could be: everything, this machine alone, one link.
fn sorted(nets: Vec<IpNet>) -> Vec<IpNet> {
    let is_told = |net: &IpNet| {
        let is_link_local = match net.addr() {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let ip = net.addr();
        net.prefix_len() > 0 && !ip.is_loopback() && !ip.is_multicast() && !is_link_local
    };
    let mut nets: Vec<IpNet> = nets.into_iter().map(|net| net.trunc()).filter(is_told).collect();
    nets.sort_by_key(|net| (net.prefix_len(), *net));
    nets.dedup();
    // A network within another one says nothing new.
    let mut kept: Vec<IpNet> = Vec::new();
    for net in nets {
        if kept.iter().all(|wider| !wider.contains(&net)) && kept.len() < MOST {
            kept.push(net);
        }
    }
    kept.sort();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_told_once_and_only_those_that_matter() {
        let check = |nets: &[&str], expect: &[&str]| {
            let nets = nets.iter().map(|net| net.parse().expect("a network")).collect();
            let shown: Vec<String> = sorted(nets).iter().map(ToString::to_string).collect();
            assert_eq!(shown, expect);
        };
        check(&["10.0.1.7/24", "10.0.0.0/16", "10.0.0.0/16"], &["10.0.0.0/16"]);
        check(&["0.0.0.0/0", "127.0.0.1/8", "169.254.0.0/16", "fe80::/64", "ff00::/8"], &[]);
        check(&["192.168.1.5/32", "fd00::1/64"], &["192.168.1.5/32", "fd00::/64"]);
    }

    #[test]
    fn resolvers_are_those_of_the_file() {
        let text =
            "# nameserver 1.1.1.1\nsearch a\nnameserver 10.0.0.53\n nameserver fd00::53 \nnameserver x\n";
        let found: Vec<String> = resolvers_of(text).map(|ip| ip.to_string()).collect();
        assert_eq!(found, ["10.0.0.53", "fd00::53"]);
    }
}

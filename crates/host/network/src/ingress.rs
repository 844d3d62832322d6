//! What of this machine leads into its ingress namespace.
//!
//! In: the ingress network as managers tell of it, the largest packet on it, whether kernel and machine have IPv6. Out: the
//! addresses of the link, what the firewall has to know of it, the places of published ports. Never touches the kernel.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use netplan::firewall::Uplink;
use netplan::mesh::{self, MTU_MIN_V6};
use netplan::table::Version;
use netplan::{Backend, LinkSubnet, Protocol};
use wire::network::{NetworkView, ServiceView};

use crate::{ServicePort, sysctl};

/// The network as it is on this node: without IPv6 where the kernel has none, or packets are too small for it.
pub(crate) fn here(view: &NetworkView, mtu: u32) -> Cow<'_, NetworkView> {
    let has_ipv6 = view.subnets.iter().any(|subnet| subnet.addr().is_ipv6());
    if has_ipv6 && !is_fit_for_ipv6(mtu) {
        return Cow::Owned(mesh::without_ipv6(view.clone()));
    }
    Cow::Borrowed(view)
}

/// Whether this node can have addresses of IPv6 on an ingress network with packets of `mtu` bytes.
pub(crate) fn is_fit_for_ipv6(mtu: u32) -> bool {
    mtu >= MTU_MIN_V6 && sysctl::kernel_has_ipv6()
}

/// The addresses of the link: of each version that the network has here, and of IPv6 if the machine itself has it, too.
pub(crate) fn links(usual: &[LinkSubnet], here: &NetworkView) -> Vec<LinkSubnet> {
    let has = |version| here.subnets.iter().any(|subnet| Version::of(subnet.addr()) == version);
    let is_there = |link: &&LinkSubnet| match Version::of(link.ingress) {
        Version::V4 => true,
        Version::V6 => has(Version::V6) && sysctl::machine_has_ipv6(),
    };
    usual.iter().filter(is_there).copied().collect()
}

/// The machine's side of the mesh, for its firewall: the link, and the addresses that stand for clients that only this
/// machine knows. That is its own address in the swarm, unless that means nothing in there either: then the one on the link
/// does, for which the ingress namespace puts the node's.
pub(crate) fn uplink(name: &str, links: &[LinkSubnet], data_path: IpAddr) -> Option<Uplink> {
    let (mut machine, mut machine6) = (None, None);
    for link in links {
        match link.machine.addr() {
            IpAddr::V4(ip) => machine = Some(ip),
            IpAddr::V6(ip) => machine6 = Some(ip),
        }
    }
    match data_path {
        own if own.is_loopback() => {}
        IpAddr::V4(own) => machine = Some(own),
        IpAddr::V6(own) => machine6 = machine6.map(|_| own),
    }
    Some(Uplink { name: name.to_owned(), machine: machine?, machine6 })
}

/// A service's ports on this machine, of each version that the link has; those that some task serves lead to the same port of
/// the ingress namespace.
pub(crate) fn service_ports(
    service: &ServiceView,
    served: &BTreeSet<(Protocol, u16, Version)>,
    links: &[LinkSubnet],
) -> Vec<ServicePort> {
    let of_link = |link: &LinkSubnet| {
        let (ip, version) = (link.ingress, Version::of(link.ingress));
        let of_port = move |port| {
            let (protocol, published) = mesh::published(port)?;
            let backends = match served.contains(&(protocol, published, version)) {
                true => vec![Backend { ip, port: published }],
                false => Vec::new(),
            };
            Some(ServicePort { protocol, published, version, backends })
        };
        service.ports.iter().filter_map(of_port).collect::<Vec<_>>()
    };
    links.iter().flat_map(of_link).collect()
}

#[cfg(test)]
mod tests {
    use objects::{PortConfig, PortProtocol};

    use super::*;

    #[test]
    fn clients_known_here_alone_get_the_address_in_the_swarm_or_the_link_s() {
        let check = |with_ipv6, data_path: &str, expect: (&str, Option<&str>)| {
            let found = uplink("up", &LinkSubnet::usual(with_ipv6), data_path.parse().unwrap()).unwrap();
            let expect = (expect.0.parse().unwrap(), expect.1.map(|ip| ip.parse().unwrap()));
            assert_eq!((found.machine, found.machine6), expect, "{data_path}");
        };
        check(false, "192.0.2.1", ("192.0.2.1", None));
        check(true, "192.0.2.1", ("192.0.2.1", Some("fd73:6b65:7000::1")));
        check(true, "127.0.0.1", ("169.254.73.1", Some("fd73:6b65:7000::1")));
        check(true, "2001:db8::1", ("169.254.73.1", Some("2001:db8::1")));
        check(false, "2001:db8::1", ("169.254.73.1", None));
    }

    #[test]
    fn a_port_has_a_place_for_each_version_of_the_link_and_leads_on_where_it_is_served() {
        let port = PortConfig {
            protocol: PortProtocol::Tcp,
            published_port: 80,
            target_port: 8080,
            ..PortConfig::default()
        };
        let service = ServiceView { ports: vec![port], ..ServiceView::default() };
        let served = [(Protocol::Tcp, 80, Version::V4)].into();
        let shown = |with_ipv6| -> Vec<_> {
            let ports = service_ports(&service, &served, &LinkSubnet::usual(with_ipv6));
            ports.iter().map(|port| (port.version, port.backends.len())).collect()
        };
        assert_eq!(shown(false), [(Version::V4, 1)]);
        assert_eq!(shown(true), [(Version::V4, 1), (Version::V6, 0)]);
    }
}

//! Which addresses this node listens on and tells others.
//!
//! In: what the user wrote, the machine's interfaces. Out: addresses, or Docker's words why none could be chosen.
//! Source: moby, `daemon/cluster/listen_addr.go`.

use std::net::IpAddr;

use netlink::route::RouteSocket;

/// The control port. Source: reference 4.4.
pub(crate) const CONTROL_PORT: u16 = 2377;

/// Kinds of links whose addresses are the machine's inner affair.
const INNER_KINDS: [&str; 7] = ["bridge", "veth", "vxlan", "dummy", "ifb", "tun", "wireguard"];

/// Why no address could be chosen. The CLI matches on the first two texts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("could not find the system's IP address")]
    NoAddress,
    #[error(
        "could not choose an IP address to advertise since this system has multiple addresses on {place} ({first} and {second})"
    )]
    Several { place: String, first: String, second: String },
    #[error("could not parse the given address `{text}`")]
    Malformed { text: String },
    #[error(
        "advertise address must be a non-zero IP address or network interface (with optional port number)"
    )]
    UnspecifiedAdvertise,
    #[error("data path address must be a non-zero IP address or network interface")]
    UnspecifiedDataPath,
    #[error("interface {name} has no usable IP address")]
    InterfaceWithout { name: String },
    #[error("could not find the interface or address `{text}`")]
    Unknown { text: String },
    #[error("list the machine's addresses")]
    List(#[source] netlink::NetlinkError),
}

/// An address of a link of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkAddress {
    pub(crate) link: String,
    pub(crate) kind: String,
    pub(crate) is_up: bool,
    pub(crate) ip: IpAddr,
}

/// Addresses a member uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// `host:port`.
    pub(crate) listen: String,
    /// The address that others are told.
    pub(crate) advertise: IpAddr,
    /// Its port.
    pub(crate) port: u16,
    /// Of the data path.
    pub(crate) data_path: IpAddr,
}

/// All addresses of this machine's links.
pub(crate) fn of_this_machine() -> Result<Vec<LinkAddress>, AddressError> {
    let mut socket = RouteSocket::open().map_err(AddressError::List)?;
    let links = socket.links().map_err(AddressError::List)?;
    let addresses = socket.addresses().map_err(AddressError::List)?;
    let found = addresses.into_iter().filter_map(|address| {
        let link = links.iter().find(|link| link.index == address.index)?;
        Some(LinkAddress {
            link: link.name.clone(),
            kind: link.kind.clone(),
            is_up: link.is_up,
            ip: address.ip,
        })
    });
    Ok(found.collect())
}

/// Chooses the addresses of a member; empty texts ask for the usual.
pub(crate) fn choose(
    listen: &str,
    advertise: &str,
    data_path: &str,
    default_advertise: Option<&str>,
    machine: &[LinkAddress],
) -> Result<Addresses, AddressError> {
    let (listen_host, listen_port) = split(if listen.is_empty() { "0.0.0.0:2377" } else { listen })?;
    let listen_ip = resolve(&listen_host, machine)?;
    let wanted = if advertise.is_empty() { default_advertise.unwrap_or_default() } else { advertise };
    let (advertise, port) = if wanted.is_empty() {
        let ip = if listen_ip.is_unspecified() { only_address(machine)? } else { listen_ip };
        (ip, listen_port)
    } else {
        let (host, port) = split_with(wanted, listen_port)?;
        (resolve(&host, machine)?, port)
    };
    if advertise.is_unspecified() {
        return Err(AddressError::UnspecifiedAdvertise);
    }
    let data_path = if data_path.is_empty() { advertise } else { resolve(data_path, machine)? };
    if data_path.is_unspecified() {
        return Err(AddressError::UnspecifiedDataPath);
    }
    Ok(Addresses { listen: joined(listen_ip, listen_port), advertise, port, data_path })
}

/// `ip:port`, with brackets where they are needed.
pub(crate) fn joined(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

fn split(text: &str) -> Result<(String, u16), AddressError> {
    split_with(text, CONTROL_PORT)
}

/// `host`, `host:port` or `:port`, with a port for the first.
fn split_with(text: &str, port: u16) -> Result<(String, u16), AddressError> {
    let malformed = || AddressError::Malformed { text: text.to_owned() };
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text.to_owned(), port));
    }
    match text.rsplit_once(':') {
        None => Ok((text.to_owned(), port)),
        Some((host, number)) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let host = if host.is_empty() { "0.0.0.0" } else { host };
            Ok((host.to_owned(), number.parse().map_err(|_| malformed())?))
        }
    }
}

/// An address as it is, or the only one of the interface of that name.
fn resolve(text: &str, machine: &[LinkAddress]) -> Result<IpAddr, AddressError> {
    if let Ok(ip) = text.parse() {
        return Ok(ip);
    }
    let mut on_link = machine.iter().filter(|address| address.link == text).peekable();
    if on_link.peek().is_none() {
        return Err(AddressError::Unknown { text: text.to_owned() });
    }
    let usable: Vec<&LinkAddress> = on_link.filter(|address| is_usable(address.ip)).collect();
    pick(&usable)?.ok_or_else(|| AddressError::InterfaceWithout { name: text.to_owned() })
}

fn only_address(machine: &[LinkAddress]) -> Result<IpAddr, AddressError> {
    let is_outer = |address: &&LinkAddress| {
        address.is_up && !INNER_KINDS.contains(&address.kind.as_str()) && is_usable(address.ip)
    };
    let outer: Vec<&LinkAddress> = machine.iter().filter(is_outer).collect();
    pick(&outer)?.ok_or(AddressError::NoAddress)
}

/// The one IPv4 address among them, or else the one IPv6 address.
fn pick(addresses: &[&LinkAddress]) -> Result<Option<IpAddr>, AddressError> {
    for is_v4 in [true, false] {
        let of_family: Vec<_> = addresses.iter().filter(|address| address.ip.is_ipv4() == is_v4).collect();
        match of_family.as_slice() {
            [] => {}
            [one] => return Ok(Some(one.ip)),
            [first, second, ..] if first.link == second.link => {
                return Err(AddressError::Several {
                    place: format!("interface {}", first.link),
                    first: first.ip.to_string(),
                    second: second.ip.to_string(),
                });
            }
            [first, second, ..] => {
                return Err(AddressError::Several {
                    place: "different interfaces".to_owned(),
                    first: format!("{} on {}", first.ip, first.link),
                    second: format!("{} on {}", second.ip, second.link),
                });
            }
        }
    }
    Ok(None)
}

fn is_usable(ip: IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_loopback() && !ip.is_unspecified() && !is_link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(link: &str, kind: &str, ip: &str) -> LinkAddress {
        LinkAddress { link: link.to_owned(), kind: kind.to_owned(), is_up: true, ip: ip.parse().unwrap() }
    }

    fn chosen(listen: &str, advertise: &str, machine: &[LinkAddress]) -> Result<String, String> {
        let chosen = choose(listen, advertise, "", None, machine).map_err(|error| error.to_string())?;
        Ok(format!("{} {}", chosen.listen, joined(chosen.advertise, chosen.port)))
    }

    #[test]
    fn the_only_outer_address_is_advertised() {
        let machine =
            [on("lo", "", "127.0.0.1"), on("skep0", "bridge", "172.17.0.1"), on("eth0", "", "10.0.2.15")];
        assert_eq!(chosen("", "", &machine).unwrap(), "0.0.0.0:2377 10.0.2.15:2377");
        assert_eq!(chosen("0.0.0.0:4000", "", &machine).unwrap(), "0.0.0.0:4000 10.0.2.15:4000");
        assert_eq!(chosen("", "127.0.0.1", &machine).unwrap(), "0.0.0.0:2377 127.0.0.1:2377");
        assert_eq!(chosen("127.0.0.1", "", &machine).unwrap(), "127.0.0.1:2377 127.0.0.1:2377");
        assert_eq!(chosen("", "eth0:99", &machine).unwrap(), "0.0.0.0:2377 10.0.2.15:99");
    }

    #[test]
    fn several_addresses_are_refused_in_the_words_the_cli_knows() {
        let machine = [on("eth0", "", "10.0.2.15"), on("eth1", "", "192.168.0.1")];
        let expect = "could not choose an IP address to advertise since this system has multiple addresses on different interfaces (10.0.2.15 on eth0 and 192.168.0.1 on eth1)";
        assert_eq!(chosen("", "", &machine).unwrap_err(), expect);
        assert_eq!(chosen("", "", &[]).unwrap_err(), "could not find the system's IP address");
        assert!(chosen("", "0.0.0.0", &machine).is_err());
        assert!(chosen("", "eth7", &machine).is_err());
        assert!(chosen("", "10.0.0.1:x", &machine).is_err());
    }
}

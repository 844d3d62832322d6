//! Which addresses this node listens on and tells others.
//!
//! In: what the user wrote, the machine's interfaces. Out: addresses, or Docker's words why none could be chosen.
//! Source: moby, `daemon/cluster/listen_addr.go`.

use std::net::IpAddr;

use netlink::route::RouteSocket;
use tokio::net::UdpSocket;

use crate::state_file::{Membership, Requested};

/// The control port. Source: reference 4.4.
pub(crate) const CONTROL_PORT: u16 = 2377;

/// Kinds of links whose addresses are the machine's inner affair. A veth with an address is how a machine in a namespace
/// is reached; those that lead to containers have none.
const INNER_KINDS: [&str; 6] = ["bridge", "vxlan", "dummy", "ifb", "tun", "wireguard"];

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
    #[error("data path address must be a non-zero IP address or network interface (without a port number)")]
    UnspecifiedDataPath,
    #[error("listen address must be an IP address or network interface (with optional port number)")]
    Listen,
    #[error("invalid remoteAddr \"\": invalid empty address")]
    EmptyRemote,
    #[error("interface {name} has no usable IP address")]
    InterfaceWithout { name: String },
    #[error("neither an address nor an interface")]
    Unknown,
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
    /// The link that has the advertised address; empty for one that is not this machine's own, as behind a translation.
    pub(crate) link: String,
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

/// Chooses the addresses of a member; empty texts ask for the usual: the address that leads to a manager, or the only
/// one there is.
pub(crate) fn choose(
    requested: &Requested,
    default_advertise: Option<&str>,
    machine: &[LinkAddress],
    towards_manager: Option<IpAddr>,
) -> Result<Addresses, AddressError> {
    let Requested { listen_addr: listen, advertise_addr: advertise, data_path_addr: data_path, .. } =
        requested;
    let (listen_host, listen_port) = split(if listen.is_empty() { "0.0.0.0:2377" } else { listen })?;
    let listen_ip = resolve(&listen_host, machine).map_err(unknown_is(AddressError::Listen))?;
    let wanted = if advertise.is_empty() { default_advertise.unwrap_or_default() } else { advertise };
    let (advertise, port) = if wanted.is_empty() {
        let ip = match (listen_ip.is_unspecified(), towards_manager) {
            (false, _) => listen_ip,
            (true, Some(ip)) => ip,
            (true, None) => only_address(machine)?,
        };
        (ip, listen_port)
    } else {
        let (host, port) = split_with(wanted, listen_port)?;
        let unspecified = AddressError::UnspecifiedAdvertise;
        let ip = resolve(&host, machine).map_err(unknown_is(unspecified))?;
        // An address of this machine's own that is gone was given up for another one.
        let is_gone = !requested.link.is_empty() && link_of(ip, machine).is_none();
        (if is_gone { resolve(&requested.link, machine)? } else { ip }, port)
    };
    if advertise.is_unspecified() {
        return Err(AddressError::UnspecifiedAdvertise);
    }
    let data_path = match data_path.as_str() {
        "" => advertise,
        text => resolve(text, machine).map_err(unknown_is(AddressError::UnspecifiedDataPath))?,
    };
    if data_path.is_unspecified() {
        return Err(AddressError::UnspecifiedDataPath);
    }
    let link = link_of(advertise, machine).unwrap_or_default().to_owned();
    Ok(Addresses { listen: joined(listen_ip, listen_port), advertise, port, data_path, link })
}

fn link_of(ip: IpAddr, machine: &[LinkAddress]) -> Option<&str> {
    machine.iter().find(|address| address.ip == ip).map(|address| address.link.as_str())
}

impl Addresses {
    /// Puts them into the membership; whether anything about it is new.
    pub(crate) fn apply(self, membership: &mut Membership) -> bool {
        let before = membership.clone();
        membership.listen_addr = self.listen;
        membership.node_addr = self.advertise.to_string();
        membership.control_addr = joined(self.advertise, self.port);
        membership.data_path_addr = self.data_path.to_string();
        membership.requested.link = self.link;
        *membership != before
    }
}

/// The address from which this machine reaches `remote` (`host:port`); nothing is sent.
pub(crate) async fn towards(remote: &str) -> Option<IpAddr> {
    for remote in tokio::net::lookup_host(remote).await.ok()? {
        let any: IpAddr = if remote.is_ipv4() {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        let Ok(socket) = UdpSocket::bind((any, 0)).await else { continue };
        if socket.connect(remote).await.is_ok()
            && let Ok(local) = socket.local_addr()
            && !local.ip().is_unspecified()
        {
            return Some(local.ip());
        }
    }
    None
}

/// Chooses the addresses of a member anew: an interface may have another one since the last start. Those it had stay
/// when no choice can be made now.
pub(crate) async fn refresh(membership: &mut Membership, default_advertise: Option<&str>) -> bool {
    let mut towards_manager = None;
    for manager in membership.managers.iter().filter(|manager| manager.node_id != membership.node_id) {
        towards_manager = towards(&manager.addr).await;
        if towards_manager.is_some() {
            break;
        }
    }
    let chosen = of_this_machine()
        .and_then(|machine| choose(&membership.requested, default_advertise, &machine, towards_manager));
    match chosen {
        Ok(addresses) => addresses.apply(membership),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                address = membership.node_addr,
                "this node keeps the address it had"
            );
            false
        }
    }
}

/// `ip:port`, with brackets where they are needed.
pub(crate) fn joined(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

/// `host:port` of a manager; the port may be left out.
pub(crate) fn with_control_port(text: &str) -> Result<String, AddressError> {
    if text.is_empty() {
        return Err(AddressError::EmptyRemote);
    }
    let (host, port) = split(text)?;
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
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

/// What is neither an address nor an interface gets the words for its place in the request.
fn unknown_is(words: AddressError) -> impl FnOnce(AddressError) -> AddressError {
    |error| if matches!(error, AddressError::Unknown) { words } else { error }
}

/// An address as it is, or the only one of the interface of that name.
fn resolve(text: &str, machine: &[LinkAddress]) -> Result<IpAddr, AddressError> {
    if let Ok(ip) = text.parse() {
        return Ok(ip);
    }
    let mut on_link = machine.iter().filter(|address| address.link == text).peekable();
    if on_link.peek().is_none() {
        return Err(AddressError::Unknown);
    }
    // One that is named may be the loopback, for a swarm that is only tried out.
    let usable: Vec<&LinkAddress> =
        on_link.filter(|address| is_usable(address.ip) || address.ip.is_loopback()).collect();
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
        chosen_towards(listen, advertise, machine, None)
    }

    fn chosen_towards(
        listen: &str,
        advertise: &str,
        machine: &[LinkAddress],
        manager: Option<IpAddr>,
    ) -> Result<String, String> {
        let requested = Requested {
            listen_addr: listen.to_owned(),
            advertise_addr: advertise.to_owned(),
            ..Requested::default()
        };
        let chosen = choose(&requested, None, machine, manager).map_err(|error| error.to_string())?;
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
    fn a_node_that_joins_is_known_by_the_address_that_leads_to_the_manager() {
        let machine = [on("eth0", "", "10.0.2.15"), on("eth1", "", "192.168.0.1")];
        let manager = Some("192.168.0.1".parse().unwrap());
        let check = |listen, advertise, expect: &str| {
            assert_eq!(chosen_towards(listen, advertise, &machine, manager).unwrap(), expect);
        };
        check("", "", "0.0.0.0:2377 192.168.0.1:2377");
        check("", "eth0", "0.0.0.0:2377 10.0.2.15:2377");
        check("10.0.2.15:99", "", "10.0.2.15:99 10.0.2.15:99");
    }

    #[test]
    fn an_address_that_the_machine_lost_gives_way_to_the_one_its_link_has_now() {
        let mut membership = Membership::default();
        let other = on("eth1", "", "192.168.0.1");
        membership.requested.advertise_addr = "10.0.2.15:99".to_owned();
        let mut start = |machine: &[LinkAddress]| {
            choose(&membership.requested, None, machine, None).unwrap().apply(&mut membership);
            membership.control_addr.clone()
        };
        assert_eq!(start(&[on("eth0", "", "10.0.2.15"), other.clone()]), "10.0.2.15:99");
        assert_eq!(start(&[on("eth0", "", "10.0.2.77"), other.clone()]), "10.0.2.77:99");
        assert_eq!(start(&[on("eth0", "", "10.0.2.15"), other.clone()]), "10.0.2.15:99");
        // One that is translated on the way was never this machine's own.
        membership.requested = Requested { advertise_addr: "203.0.113.7".to_owned(), ..Requested::default() };
        let machine = [on("eth0", "", "10.0.2.77"), other];
        for _ in 0..2 {
            choose(&membership.requested, None, &machine, None).unwrap().apply(&mut membership);
            assert_eq!(membership.control_addr, "203.0.113.7:2377");
        }
    }

    #[test]
    fn several_addresses_are_refused_in_the_words_the_cli_knows() {
        let machine = [on("eth0", "", "10.0.2.15"), on("eth1", "", "192.168.0.1")];
        let expect = "could not choose an IP address to advertise since this system has multiple addresses on different interfaces (10.0.2.15 on eth0 and 192.168.0.1 on eth1)";
        assert_eq!(chosen("", "", &machine).unwrap_err(), expect);
        assert_eq!(chosen("", "", &[]).unwrap_err(), "could not find the system's IP address");
        let advertise = "advertise address must be a non-zero IP address or network interface (with optional port number)";
        assert_eq!(chosen("", "0.0.0.0", &machine).unwrap_err(), advertise);
        assert_eq!(chosen("", "eth7:1", &machine).unwrap_err(), advertise);
        let listen = "listen address must be an IP address or network interface (with optional port number)";
        assert_eq!(chosen("eth7", "", &machine).unwrap_err(), listen);
        assert_eq!(chosen("lo", "", &[on("lo", "", "127.0.0.1")]).unwrap(), "127.0.0.1:2377 127.0.0.1:2377");
        assert_eq!(
            with_control_port("").unwrap_err().to_string(),
            "invalid remoteAddr \"\": invalid empty address"
        );
        assert!(chosen("", "10.0.0.1:x", &machine).is_err());
    }
}

//! Connects a container: a veth pair made by the creator, and its inner end configured by the new process.
//!
//! In: the interfaces of a spec. Out: links, addresses and routes. Never chooses an address or a name, and never touches
//! the bridge beyond adding a port to it.

use std::net::IpAddr;
use std::path::Path;

use netlink::NetlinkError;
use netlink::route::{self, Mac, Macvlan, Namespace, RouteSocket, VethPair};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::error::{StartError, Step};
use crate::inside::Inside;
use crate::spec::{Interface, MacvlanMode, MacvlanParent};
use crate::sys;
use crate::wire::Failure;

/// Largest packet when a spec leaves it open. Source: Ethernet.
const DEFAULT_MTU: u32 = 1500;

/// Makes the pairs, with their inner ends in the network namespace of `pid`. To be called by the creator, which has one
/// thread: it visits the namespaces in which outer ends lie.
pub(crate) fn connect(interfaces: &[Interface], pid: i32) -> Result<(), StartError> {
    for (index, interface) in interfaces.iter().enumerate() {
        if let Err(error) = connect_one(interface, pid) {
            disconnect(&interfaces[..index]);
            return Err(error);
        }
    }
    Ok(())
}

fn connect_one(interface: &Interface, pid: i32) -> Result<(), StartError> {
    let mut socket = outer_socket(interface)?;
    let mut make = || -> Result<(), NetlinkError> {
        if let Some(macvlan) = &interface.macvlan {
            return share_wire(&mut socket, interface, macvlan, pid);
        }
        let master = interface.bridge.as_deref().map(|bridge| socket.index(bridge)).transpose()?;
        socket.add_veth(&VethPair {
            name: &interface.host_name,
            master,
            mtu: mtu_of(interface),
            up: true,
            peer_name: &interface.name,
            peer_mac: interface.mac.map(Mac),
            peer_namespace: Some(Namespace::Pid(pid.unsigned_abs())),
        })?;
        if interface.isolated {
            let index = socket.index(&interface.host_name)?;
            socket.set_isolated(index)?;
        }
        Ok(())
    };
    make().map_err(|source| failed(&interface.host_name, source))
}

fn share_wire(
    socket: &mut RouteSocket,
    interface: &Interface,
    macvlan: &MacvlanParent,
    pid: i32,
) -> Result<(), NetlinkError> {
    let parent = socket.index(&macvlan.link)?;
    socket.add_macvlan(&Macvlan {
        name: &interface.name,
        parent,
        mode: match macvlan.mode {
            MacvlanMode::Private => route::MacvlanMode::Private,
            MacvlanMode::Vepa => route::MacvlanMode::Vepa,
            MacvlanMode::Bridge => route::MacvlanMode::Bridge,
            MacvlanMode::Passthru => route::MacvlanMode::Passthru,
        },
        mac: interface.mac.map(Mac),
        mtu: interface.mtu,
        namespace: Namespace::Pid(pid.unsigned_abs()),
    })
}

fn mtu_of(interface: &Interface) -> u32 {
    if interface.mtu == 0 { DEFAULT_MTU } else { interface.mtu }
}

/// A socket where the interface's outer end lies; it stays there when the visit is over.
fn outer_socket(interface: &Interface) -> Result<RouteSocket, StartError> {
    let opened = |opened: Result<RouteSocket, NetlinkError>| {
        opened.map_err(|source| failed(&interface.host_name, source))
    };
    let Some(path) = &interface.namespace else { return opened(RouteSocket::open()) };
    let open = |path: &Path, step| {
        openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| StartError::System { step, cause: errno.into() })
    };
    let home = open(Path::new("/proc/self/ns/net"), "open own network namespace")?;
    let there = open(path, "open network namespace")?;
    let enter = |namespace, step| {
        sys::setns(namespace, libc::CLONE_NEWNET)
            .map_err(|errno| StartError::System { step, cause: errno.into() })
    };
    enter(&there, "enter network namespace")?;
    let socket = RouteSocket::open();
    enter(&home, "leave network namespace")?;
    opened(socket)
}

/// Removes the host's ends, so that nothing is left of a container that failed. The kernel would do so itself, but only
/// some time after the container's namespace is gone.
pub(crate) fn disconnect(interfaces: &[Interface]) {
    for interface in interfaces {
        let Ok(mut socket) = outer_socket(interface) else { continue };
        if let Ok(Some(link)) = socket.link(&interface.host_name) {
            // It may have vanished together with the namespace just now.
            drop(socket.delete_link(link.index));
        }
    }
}

fn failed(interface: &str, source: NetlinkError) -> StartError {
    StartError::Network { interface: interface.to_owned(), cause: source }
}

/// Brings up loopback and the inner ends. To be called in the container's network namespace, with its `/proc` mounted.
pub(crate) fn configure(inside: &Inside, interfaces: &[Interface]) -> Result<(), Failure> {
    /// The kernel gives loopback this number in every namespace.
    const LOOPBACK: u32 = 1;
    let mut socket = RouteSocket::open().map_err(|error| refused("lo", &error))?;
    socket.set_up(LOOPBACK).map_err(|error| refused("lo", &error))?;
    for interface in interfaces {
        // Without addresses, the kernel would give it one of its own and talk to routers. With them, links may still be made
        // without IPv6. Source: moby, `libnetwork/osl`, `setIPv6`. Kernels without IPv6 have no such file.
        let has_ipv6 = interface.addresses.iter().any(|address| address.ip.is_ipv6());
        let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", interface.name);
        let _ = crate::sysctl::write(inside, Path::new(&path), if has_ipv6 { "0" } else { "1" });
        configure_one(&mut socket, interface).map_err(|error| refused(&interface.name, &error))?;
    }
    Ok(())
}

fn configure_one(socket: &mut RouteSocket, interface: &Interface) -> Result<(), NetlinkError> {
    let index = socket.index(&interface.name)?;
    for address in &interface.addresses {
        socket.add_address(index, address.ip, address.prefix_len)?;
    }
    socket.set_up(index)?;
    for gateway in &interface.gateways {
        let out = match gateway {
            // A link-local next hop means nothing without its link.
            IpAddr::V6(_) => Some(index),
            IpAddr::V4(_) => None,
        };
        socket.add_default_route(*gateway, out)?;
    }
    Ok(())
}

fn refused(interface: &str, error: &NetlinkError) -> Failure {
    let errno = error.errno().map_or(Errno::IO, Errno::from_raw_os_error);
    Failure::Step { step: Step::Network, subject: interface.to_owned(), errno }
}

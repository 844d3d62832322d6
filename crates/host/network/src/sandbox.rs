//! The interfaces of a running container: they come and go with its networks, and the default route moves.
//!
//! In: what the container had and what it has now, the process that stands for its namespace. Out: links, addresses and
//! routes in there. What exists when the container starts is the runtime's. Never decides which network leads out.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use netlink::route::{self, Macvlan, Namespace, Route, RouteSocket, VethPair};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Attachment, Interface, MacvlanMode, MacvlanParent, NetworkError};

/// A socket in the pinned namespace of an interface's outer end, or in this one.
type Outside = Result<RouteSocket, NetworkError>;

/// Brings a container from `before` to `after`: new interfaces first, then default routes, then those that go.
pub(crate) fn change(before: &Attachment, after: &Attachment, pid: i32) -> Result<(), NetworkError> {
    let file = File::open(format!("/proc/{pid}/ns/net")).map_err(|e| NetworkError::Sandbox(Arc::new(e)))?;
    let is_in = |attachment: &Attachment, interface: &Interface| {
        attachment.interfaces().any(|other| other.host_name == interface.host_name)
    };
    for interface in after.interfaces().filter(|interface| !is_in(before, interface)) {
        plug(interface, &file)?;
    }
    // Inside is a matter of another thread: this one stays where it is.
    std::thread::scope(|scope| scope.spawn(|| arrange(before, after, &file)).join())
        .unwrap_or(Err(NetworkError::Closed))
}

/// The pair, with its inner end in the container, still down.
fn plug(interface: &Interface, container: &File) -> Result<(), NetworkError> {
    let mut route = outside(interface)?;
    if let Some(macvlan) = &interface.macvlan {
        return share_wire(&mut route, interface, macvlan, container);
    }
    let master = route.index(&interface.bridge)?;
    let mac = interface.mac.parse().ok();
    route.add_veth(&VethPair {
        name: &interface.host_name,
        master: Some(master),
        mtu: interface.mtu,
        up: true,
        peer_name: &interface.name,
        peer_mac: mac,
        peer_namespace: Some(Namespace::Fd(container.as_fd())),
    })?;
    if interface.isolated {
        let index = route.index(&interface.host_name)?;
        route.set_isolated(index)?;
    }
    Ok(())
}

fn share_wire(
    route: &mut RouteSocket,
    interface: &Interface,
    macvlan: &MacvlanParent,
    container: &File,
) -> Result<(), NetworkError> {
    let parent = route.index(&macvlan.link)?;
    Ok(route.add_macvlan(&Macvlan {
        name: &interface.name,
        parent,
        mode: match macvlan.mode {
            MacvlanMode::Private => route::MacvlanMode::Private,
            MacvlanMode::Vepa => route::MacvlanMode::Vepa,
            MacvlanMode::Bridge => route::MacvlanMode::Bridge,
            MacvlanMode::Passthru => route::MacvlanMode::Passthru,
        },
        mac: interface.mac.parse().ok(),
        mtu: interface.mtu,
        namespace: Namespace::Fd(container.as_fd()),
    })?)
}

fn outside(interface: &Interface) -> Outside {
    let Some(path) = &interface.namespace else { return Ok(RouteSocket::open()?) };
    let file = File::open(path).map_err(|e| NetworkError::Sandbox(Arc::new(e)))?;
    let visit = || -> Outside {
        enter(&file)?;
        Ok(RouteSocket::open()?)
    };
    // The socket stays there when the thread that opened it is gone.
    std::thread::scope(|scope| scope.spawn(visit).join()).unwrap_or(Err(NetworkError::Closed))
}

fn enter(namespace: &File) -> Result<(), NetworkError> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| NetworkError::Sandbox(Arc::new(errno.into())))
}

fn arrange(before: &Attachment, after: &Attachment, container: &File) -> Result<(), NetworkError> {
    enter(container)?;
    let mut route = RouteSocket::open()?;
    for interface in after.interfaces() {
        if !before.interfaces().any(|other| other.host_name == interface.host_name) {
            configure(&mut route, interface)?;
        }
    }
    route_out(&mut route, before, after)?;
    for interface in before.interfaces() {
        if after.interfaces().any(|other| other.host_name == interface.host_name) {
            continue;
        }
        // Of a pair, both ends go.
        match route.link(&interface.name)?.map_or(Ok(()), |link| route.delete_link(link.index)) {
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn configure(route: &mut RouteSocket, interface: &Interface) -> Result<(), NetworkError> {
    if !interface.addresses.iter().any(|(ip, _)| ip.is_ipv6()) {
        // As the runtime does; kernels without IPv6 have no such file. `/proc/sys/net` is the calling thread's namespace's.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", interface.name), "1");
    }
    let index = route.index(&interface.name)?;
    for (ip, prefix) in &interface.addresses {
        route.add_address(index, *ip, *prefix)?;
    }
    Ok(route.set_up(index)?)
}

/// The default routes as `after` has them.
fn route_out(route: &mut RouteSocket, before: &Attachment, after: &Attachment) -> Result<(), NetworkError> {
    let mut families = [false, false];
    for interface in after.interfaces() {
        for gateway in &interface.gateways {
            let index = route.index(&interface.name)?;
            route.replace_default_route(*gateway, index)?;
            families[usize::from(gateway.is_ipv6())] = true;
        }
    }
    let had = before.interfaces().flat_map(|interface| &interface.gateways);
    for gateway in had.filter(|gateway| !families[usize::from(gateway.is_ipv6())]) {
        match route.delete_route(&default_route(*gateway)) {
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn default_route(gateway: IpAddr) -> Route {
    let destination = match gateway {
        IpAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
        IpAddr::V6(_) => IpAddr::from([0u16; 8]),
    };
    Route { destination, prefix: 0, gateway: Some(gateway), index: None, table: route::MAIN_TABLE }
}

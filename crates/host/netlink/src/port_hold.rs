//! Sockets that hold a port of this machine so that nobody else gets it, and hear nothing.
//!
//! In: protocol, address, port. Out: a held port, or the reason why somebody else has it. Packets to a published port
//! are translated before they reach a socket; those that arrive while the rules are away are dropped by a filter, not
//! answered by a reset: the client tries again, and connections under way survive. Never accepts or reads anything.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, listen, socket_with, sockopt,
};

use crate::filter;

/// A port that is ours until this is dropped.
#[derive(Debug)]
pub struct PortHold {
    /// Absent when the kernel has no sockets of that protocol: then nobody can take the port either.
    socket: Option<OwnedFd>,
}

impl PortHold {
    /// Takes the port; 0 takes any free one. `protocol` is an IP protocol number: TCP and UDP are held, others are left
    /// alone.
    pub fn take(protocol: u8, ip: IpAddr, port: u16) -> io::Result<Self> {
        const TCP: u8 = 6;
        const UDP: u8 = 17;
        let (kind, number) = match protocol {
            TCP => (SocketType::STREAM, ipproto::TCP),
            UDP => (SocketType::DGRAM, ipproto::UDP),
            _ => return Ok(Self { socket: None }),
        };
        let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
        if ip.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        filter::drop_everything(socket.as_fd())?;
        if protocol == TCP {
            // Connections that just ended must not keep the port; a listening socket excludes every other all the same.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &SocketAddr::new(ip, port))?;
        if protocol == TCP {
            listen(&socket, 0)?;
        }
        Ok(Self { socket: Some(socket) })
    }

    /// The port that was taken; `None` when nothing had to be.
    pub fn port(&self) -> Option<u16> {
        let address = getsockname(self.socket.as_ref()?).ok()?;
        SocketAddr::try_from(address).ok().map(|address| address.port())
    }
}

//! Sockets with the options that both ends want.
//!
//! In: addresses. Out: sockets that don't wait for more to send, and that the kernel gives up when the other machine is
//! gone. Never reads or writes.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};

/// Connections that wait to be accepted. Chosen: all agents of a large swarm come back after a manager's restart.
const BACKLOG: i32 = 1024;

/// Silence after which the kernel asks a client's machine whether it is there. Chosen: clients ask every second
/// themselves, so this costs nothing while they do.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(4);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);

/// How long something that was sent may stay unacknowledged. Chosen: a machine that is gone holds memory no longer.
const UNACKNOWLEDGED_MS: u32 = 10_000;

/// Listens for connections.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // A daemon that restarts finds its port, though connections of before linger.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    TcpListener::from_std(StdListener::from(socket))
}

/// Sets the options of an accepted connection.
pub(crate) fn settle(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS)?;
    Ok(())
}

//! Finds the process that has a port of this machine, for errors that name it.
//!
//! In: protocol and port; what `/proc` shows. Out: pid and program. Looked up only after a port was found to be taken, since
//! it reads the descriptors of every process. Never takes a port.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink::port_hold::PortHold;
use netplan::Protocol;

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// `None` when no process of this machine's process namespace has it.
    pub process: Option<(u32, String)>,
}

impl std::fmt::Display for PortOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.process {
            Some((pid, program)) => write!(f, "process '{program}' (pid {pid})"),
            None => f.write_str("a process"),
        }
    }
}

/// Who, other than this process, has the port on some address of this machine. Blocks for as long as `/proc` does.
pub fn foreign_owner(protocol: Protocol, port: u16) -> Option<PortOwner> {
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let is_taken = |ip| match PortHold::take(protocol.number(), ip, port) {
        Err(error) => error.kind() == io::ErrorKind::AddrInUse,
        Ok(_) => false,
    };
    if !any.into_iter().any(is_taken) {
        return None;
    }
    let process = process_with(&sockets(protocol, port));
    let is_ours = process.as_ref().is_some_and(|(pid, _)| *pid == std::process::id());
    (!is_ours).then_some(PortOwner { process })
}

/// Numbers of the sockets that are bound to the port and hear what comes.
fn sockets(protocol: Protocol, port: u16) -> Vec<u64> {
    let tables: &[&str] = match protocol {
        Protocol::Tcp => &["tcp", "tcp6"],
        Protocol::Udp => &["udp", "udp6"],
        Protocol::Sctp => &[],
    };
    let read =
        |table: &&str| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    tables.iter().map(read).flat_map(|text| listeners(&text, protocol, port)).collect()
}

/// The rows of one of the kernel's tables of sockets that listen on the port. Source: linux, `proc_net_tcp.rst`.
fn listeners(table: &str, protocol: Protocol, port: u16) -> Vec<u64> {
    /// `TCP_LISTEN`; a UDP socket that hears anybody is in `TCP_CLOSE`. Source: linux/net/tcp_states.h.
    const LISTEN: &str = "0A";
    const UNCONNECTED: &str = "07";
    let state = if protocol == Protocol::Tcp { LISTEN } else { UNCONNECTED };
    let of_row = |row: &str| {
        let columns: Vec<&str> = row.split_ascii_whitespace().collect();
        let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local_port, 16) == Ok(port) && columns.get(3) == Some(&state);
        columns.get(9).filter(|_| is_it)?.parse().ok()
    };
    table.lines().skip(1).filter_map(of_row).collect()
}

/// The first process that has one of the sockets open. Processes that end meanwhile are passed over.
fn process_with(sockets: &[u64]) -> Option<(u32, String)> {
    let wanted: Vec<String> = sockets.iter().map(|socket| format!("socket:[{socket}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_it = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        let mut names = targets.filter_map(|target| target.into_os_string().into_string().ok());
        names.any(|name| wanted.contains(&name))
    };
    let pid = pids.into_iter().find(has_it)?;
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, program.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn rows_of_listeners_are_told_from_connections_and_other_ports() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n   \
            1: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n   \
            2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n";
        assert_eq!(listeners(table, Protocol::Tcp, 8080), [4711]);
        assert_eq!(listeners(table, Protocol::Udp, 8080), [0u64; 0]);
        assert_eq!(listeners("garbage\nmore", Protocol::Tcp, 8080), [0u64; 0]);
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let udp = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let ports = [(Protocol::Tcp, tcp.local_addr().unwrap()), (Protocol::Udp, udp.local_addr().unwrap())];
        for (protocol, address) in ports {
            let (pid, program) = process_with(&sockets(protocol, address.port())).expect("a process has it");
            assert_eq!(pid, std::process::id());
            assert!(!program.is_empty());
            // What is ours is in nobody's way.
            assert_eq!(foreign_owner(protocol, address.port()), None);
        }
    }
}

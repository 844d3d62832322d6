//! Reads and sets kernel parameters of this network namespace.
//!
//! In: names below `/proc/sys/net`. Out: their values. Writes only what differs, so that a read-only `/proc/sys` that
//! an operator prepared is good enough.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::NetworkError;

/// What Linux uses when nothing else is set; also what Docker falls back to.
///
/// Source: moby, `daemon/libnetwork/portallocator/portallocator_linux.go`.
const DEFAULT_EPHEMERAL: RangeInclusive<u16> = 49153..=65535;

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(name)
}

/// Lets this machine pass packets on, and its own loopback clients reach containers of `bridge`.
pub(crate) fn prepare(bridge: &str, has_ipv6: bool) -> Result<(), NetworkError> {
    if has_ipv6 {
        prepare_ipv6(bridge)?;
    }
    if set("ipv4/ip_forward", "1").map_err(|e| failure("net.ipv4.ip_forward", e))? {
        tracing::info!("turned on forwarding of IPv4 packets (net.ipv4.ip_forward)");
    }
    set(&format!("ipv4/conf/{bridge}/route_localnet"), "1")
        .map_err(|e| failure("net.ipv4.conf.<bridge>.route_localnet", e))?;
    // Strict checking of senders would drop nothing of ours, but a bridge needs no routes advertised by a container.
    match set(&format!("ipv6/conf/{bridge}/accept_ra"), "0") {
        Ok(_) => {}
        // A kernel without IPv6 has no such parameter and accepts no advertisement.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failure("net.ipv6.conf.<bridge>.accept_ra", e)),
    }
    Ok(())
}

/// The same for IPv6, which may be switched off for links that are made.
fn prepare_ipv6(bridge: &str) -> Result<(), NetworkError> {
    set(&format!("ipv6/conf/{bridge}/disable_ipv6"), "0")
        .map_err(|e| failure("net.ipv6.conf.<bridge>.disable_ipv6", e))?;
    keep_advertisements().map_err(|e| failure("net.ipv6.conf.<link>.accept_ra", e))?;
    // Source: moby, `daemon/libnetwork/drivers/bridge/setup_ip_forwarding.go`.
    for name in ["ipv6/conf/default/forwarding", "ipv6/conf/all/forwarding"] {
        if set(name, "1").map_err(|e| failure("net.ipv6.conf.all.forwarding", e))? {
            tracing::info!(parameter = name, "turned on forwarding of IPv6 packets");
        }
    }
    Ok(())
}

/// Whether the kernel knows IPv6 at all.
pub(crate) fn kernel_has_ipv6() -> bool {
    path("ipv6").exists()
}

/// Whether links of this machine may have IPv6.
pub(crate) fn machine_has_ipv6() -> bool {
    fs::read_to_string(path("ipv6/conf/all/disable_ipv6")).is_ok_and(|value| value.trim() == "0")
}

/// Has links that take their addresses and routes from routers go on with that: who passes packets on takes no
/// advertisements, unless it is told to (2), and forgets the routes that it had from them.
///
/// Source: linux, `Documentation/networking/ip-sysctl.rst`, `accept_ra`.
fn keep_advertisements() -> io::Result<()> {
    let links = match fs::read_dir(path("ipv6/conf")) {
        Ok(links) => links,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for link in links {
        let link = link?.path();
        let is = |name: &str, value: &str| {
            fs::read_to_string(link.join(name)).is_ok_and(|found| found.trim() == value)
        };
        // What is said of all links means none of them here.
        if link.ends_with("all") || !is("forwarding", "0") || !is("accept_ra", "1") {
            continue;
        }
        match fs::write(link.join("accept_ra"), "2") {
            // The link went away meanwhile.
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Lets this machine pass packets of IPv6 on.
pub(crate) fn forward_ipv6() -> Result<(), NetworkError> {
    keep_advertisements().map_err(|e| failure("net.ipv6.conf.<link>.accept_ra", e))?;
    if set("ipv6/conf/all/forwarding", "1").map_err(|e| failure("net.ipv6.conf.all.forwarding", e))? {
        tracing::info!("turned on forwarding of IPv6 packets (net.ipv6.conf.all.forwarding)");
    }
    Ok(())
}

/// Sets parameters that are files below `/proc/sys/net`. What this kernel does not have is skipped: it then has nothing to
/// be told about (IPv6, the bridge's own packet filter).
pub(crate) fn set_where_there(wanted: &[(&'static str, &str)]) -> Result<(), NetworkError> {
    for (name, value) in wanted {
        match set(name, value) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failure(name, e)),
        }
    }
    Ok(())
}

/// The same of one link: `name` is what comes behind `conf/LINK/`.
pub(crate) fn set_of_link(
    link: &str,
    wanted: &[(&'static str, &'static str, &str)],
) -> Result<(), NetworkError> {
    for (family, name, value) in wanted {
        match set(&format!("{family}/conf/{link}/{name}"), value) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failure(name, e)),
        }
    }
    Ok(())
}

/// The range for ports that nobody asked for by number.
pub(crate) fn ephemeral_ports() -> RangeInclusive<u16> {
    let Ok(text) = fs::read_to_string(path("ipv4/ip_local_port_range")) else { return DEFAULT_EPHEMERAL };
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first > 0 && first <= last => first..=last,
        _ => DEFAULT_EPHEMERAL,
    }
}

/// True when the value had to be changed.
fn set(name: &str, value: &str) -> io::Result<bool> {
    let path = path(name);
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(false);
    }
    fs::write(&path, value)?;
    Ok(true)
}

fn failure(name: &'static str, source: io::Error) -> NetworkError {
    NetworkError::Sysctl { name, source: Arc::new(source) }
}

//! What can go wrong on the way from a wish to a working network.
//!
//! Texts that clients match on are Docker's; the cause stays as `source`.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use netlink::NetlinkError;
use netplan::HostPort;

/// A network name nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network {0} not found")]
pub struct UnknownNetwork(pub String);

/// The network could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No netlink socket (usually: not root).
    #[error("open the kernel's network interface")]
    Netlink(#[source] NetlinkError),
    /// Another daemon runs in this network namespace with the same bridge.
    #[error(
        "bridge `{bridge}` is managed by another skep daemon in this network namespace: choose another with --bridge"
    )]
    InUse {
        /// The bridge.
        bridge: String,
    },
    /// The state file cannot be read or written.
    #[error("network state file `{path}`")]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Every subnet of the pools overlaps a route. Source: moby, `daemon/libnetwork/ipamapi/contract.go`.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    NoSubnet,
    /// `--bip` is not an address inside its subnet.
    #[error("invalid --bip `{0}`: it must be the address of the bridge inside its subnet")]
    Bip(ipnet::Ipv4Net),
    /// The link of that name is something else than a bridge.
    #[error("link `{0}` exists and is not a bridge")]
    NotABridge(String),
    /// The thread or one of its descriptors could not be made.
    #[error("start the network thread")]
    Thread(#[source] io::Error),
}

/// A change could not be applied to the kernel. Cheap to clone: changes that were applied together fail together.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused.
    #[error("apply network change")]
    Kernel(#[source] Arc<NetlinkError>),
    /// A kernel setting could not be written.
    #[error("set kernel parameter `{name}`")]
    Sysctl {
        /// File below `/proc/sys`.
        name: &'static str,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The network was shut down.
    #[error("the network is shut down")]
    Closed,
}

/// A port of this machine could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another container or service has it. Source: moby, `daemon/libnetwork/portallocator`.
    #[error("Bind for {ip}:{port} failed: port is already allocated", ip = .0.ip, port = .0.port)]
    Allocated(HostPort),
    /// Every port of the range or of the ephemeral range is taken. Source: as above.
    #[error("all ports are allocated")]
    Exhausted,
    /// A foreign process has it, or the address is not ours. Source: as above; the reason is part of Docker's text.
    #[error("failed to bind host port {host}: {reason}")]
    Bind {
        /// What was to be bound.
        host: HostPort,
        /// The system's reason in Go's words (`address already in use`).
        reason: String,
        /// The same as an error.
        #[source]
        source: io::Error,
    },
    /// A v6 address cannot be published on.
    #[error("publishing on the IPv6 address {0} is not supported yet")]
    Ipv6(std::net::Ipv6Addr),
}

/// A container could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A port could not be published; the cause is part of Docker's text.
    #[error(
        "driver failed programming external connectivity on endpoint {container_name} ({endpoint_id}): {source}"
    )]
    Port {
        /// Who wanted it.
        container_name: String,
        /// The endpoint that was to be.
        endpoint_id: String,
        /// Why not.
        #[source]
        source: PortError,
    },
    /// No address left, or the wanted one is taken.
    #[error("failed to allocate an address on network bridge: {0}")]
    Address(#[source] netplan::addresses::AddressError),
    /// The wanted Ethernet address is none.
    #[error("invalid MAC address: {0}")]
    Mac(String),
    /// No random ids.
    #[error("draw an endpoint id")]
    Random(#[source] io::Error),
    /// The kernel refused.
    #[error(transparent)]
    Apply(#[from] NetworkError),
}

/// A service's ports could not be published. Whatever could be is in place.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A port could not be had.
    #[error("port '{published}' is already in use by another process or container on this node: {source}")]
    Port {
        /// The published port.
        published: u16,
        /// Why not.
        #[source]
        source: PortError,
    },
    /// A backend lies outside the networks of this machine.
    #[error("backend {0} does not belong to a network of this machine")]
    Backend(Ipv4Addr),
    /// The kernel refused.
    #[error(transparent)]
    Apply(#[from] NetworkError),
}

impl From<NetlinkError> for NetworkError {
    fn from(error: NetlinkError) -> Self {
        Self::Kernel(Arc::new(error))
    }
}

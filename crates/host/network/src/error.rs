//! What can go wrong on the way from a wish to a working network.
//!
//! Texts that clients match on are Docker's; the cause stays as `source`.

use std::io;
use std::net::IpAddr;
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
    /// The networks of a swarm that this machine is in could not be looked at.
    #[error("open the swarm's networks")]
    Swarm(#[source] NetworkError),
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
    /// The network namespace of a container, or of a network, could not be entered.
    #[error("enter network namespace")]
    Sandbox(#[source] Arc<io::Error>),
    /// A pinned network namespace could not be made, opened or removed.
    #[error("{action} network namespace `{name}`")]
    Namespace {
        /// What was tried, as a verb.
        action: &'static str,
        /// Its name, or whose it is.
        name: String,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The network is encrypted, and this kernel cannot.
    #[error("network {network} is encrypted, and the kernel of this node has no ESP with AES-GCM")]
    NoEncryption {
        /// Its name.
        network: String,
        /// What the kernel said.
        #[source]
        source: Arc<NetlinkError>,
    },
    /// The network was shut down.
    #[error("the network is shut down")]
    Closed,
}

impl NetworkError {
    pub(crate) fn namespace(action: &'static str, name: &str, source: io::Error) -> Self {
        Self::Namespace { action, name: name.to_owned(), source: Arc::new(source) }
    }
}

fn not_given(network: &str, is_attachable: bool) -> String {
    match is_attachable {
        false => format!("network {network} not manually attachable"),
        true => format!(
            "only tasks of services can be on network {network}: attaching other containers is not supported yet"
        ),
    }
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
    #[error("failed to allocate an address on network {network}: {source}")]
    Address {
        /// The network's name.
        network: String,
        /// Why not.
        #[source]
        source: netplan::addresses::AddressError,
    },
    /// No such network.
    #[error(transparent)]
    Unknown(#[from] UnknownNetwork),
    /// A network of the swarm on which no manager gave the container an address. Source of the text: moby,
    /// `daemon/container_operations.go`, and swarmkit, `manager/resourceapi/allocator.go`.
    #[error(
        "Could not attach to network {network}: rpc error: code = PermissionDenied desc = {}",
        not_given(.network, *.is_attachable)
    )]
    NotGiven {
        /// The network's name.
        network: String,
        /// A user said that plain containers may attach, which is not supported yet.
        is_attachable: bool,
    },
    /// The network by which swarm networks lead out could not be made.
    #[error("make the network docker_gwbridge")]
    WayOut(#[source] Box<CreateError>),
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

/// A network could not be made. Source of the texts: moby, `daemon/network.go` and `daemon/libnetwork`.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// It has no name.
    #[error("invalid name: name is empty")]
    NoName,
    /// Every machine has a network of this name. The blank at the end is Docker's.
    #[error("operation is not permitted on predefined {0} network ")]
    Predefined(String),
    /// There is one of this driver, and never two.
    #[error("only one instance of \"{0}\" network is allowed")]
    OnlyOne(String),
    /// A driver that we don't have.
    #[error("plugin \"{0}\" not found")]
    NoDriver(String),
    /// The name is taken.
    #[error("network with name {0} already exists")]
    Exists(String),
    /// Another network has this bridge.
    #[error(
        "cannot create network {name} ({link}): conflicts with network {other_id} ({other}): networks have same bridge name"
    )]
    LinkTaken {
        /// The network that was to be.
        name: String,
        /// Its bridge.
        link: String,
        /// The network that has it.
        other: String,
        /// That one's id.
        other_id: String,
    },
    /// The link of that name is something else.
    #[error("link `{0}` exists and is not a bridge")]
    NotABridge(String),
    /// The link of a macvlan network isn't there. Source: moby, `daemon/libnetwork/drivers/macvlan/macvlan_setup.go`.
    #[error("invalid subinterface vlan name {0}, example formatting is eth0.10")]
    NoParent(String),
    /// Another network uses the wire of that link. Source: as above, `macvlan_network.go`.
    #[error("network dm-{other} is already using parent interface {parent}")]
    ParentTaken {
        /// That network's id.
        other: String,
        /// The link.
        parent: String,
    },
    /// A driver that most kernels have and we don't.
    #[error("ipvlan networks are not supported by this engine: use macvlan")]
    NoIpvlan,
    /// The options of a macvlan network are wrong.
    #[error(transparent)]
    Macvlan(#[from] netplan::macvlan_options::MacvlanOptionError),
    /// Its subnets are wrong or not to be had.
    #[error(transparent)]
    Ipam(#[from] netplan::ipam::IpamError),
    /// Its options are wrong.
    #[error(transparent)]
    Option(#[from] netplan::bridge_options::OptionError),
    /// No random id.
    #[error("draw a network id")]
    Random(#[source] io::Error),
    /// It could not be written down.
    #[error("keep network")]
    State(#[source] Box<OpenError>),
    /// The kernel refused.
    #[error(transparent)]
    Apply(#[from] NetworkError),
}

/// A network could not be removed. Source of the texts: moby, `daemon/network.go` and `daemon/libnetwork/error.go`.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// No such network.
    #[error(transparent)]
    Unknown(#[from] UnknownNetwork),
    /// Every machine has it.
    #[error("{0} is a pre-defined network and cannot be removed")]
    Predefined(String),
    /// Containers are on it.
    #[error("error while removing network: network {name} id {id} has active endpoints")]
    InUse {
        /// Its name.
        name: String,
        /// Its id.
        id: String,
    },
    /// It could not be written down.
    #[error("forget network")]
    State(#[source] Box<OpenError>),
    /// The kernel refused.
    #[error(transparent)]
    Apply(#[from] NetworkError),
}

/// A running container could not be connected to a network, or disconnected from it. Source of the texts: moby,
/// `daemon/container_operations.go` and `daemon/libnetwork/network.go`.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It is there already.
    #[error("endpoint with name {container} already exists in network {network}")]
    Connected {
        /// The container's name.
        container: String,
        /// The network's name.
        network: String,
    },
    /// It is not there.
    #[error("container {container_id} is not connected to network {network}")]
    NotConnected {
        /// The container.
        container_id: String,
        /// The network as it was asked for.
        network: String,
    },
    /// It has nothing: it ended meanwhile.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// No address, a wrong wish, or the kernel refused.
    #[error(transparent)]
    Attach(#[from] AttachError),
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
    Backend(IpAddr),
    /// The kernel refused.
    #[error(transparent)]
    Apply(#[from] NetworkError),
}

impl From<NetlinkError> for NetworkError {
    fn from(error: NetlinkError) -> Self {
        Self::Kernel(Arc::new(error))
    }
}

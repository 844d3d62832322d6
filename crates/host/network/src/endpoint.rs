//! What a container asks of the network and what it gets.
//!
//! In and out: plain values; an `Endpoint` is remembered by the engine and handed back through `Network::adopt` after a
//! restart of the daemon.

use std::net::{IpAddr, Ipv4Addr};

use netplan::{Backend, BoundPort, PortRequest, Protocol};
use serde::{Deserialize, Serialize};

use crate::error::UnknownNetwork;

/// The networks of one machine that a container can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// An interface on the default bridge.
    Bridge,
    /// The machine's own network namespace.
    Host,
    /// A namespace with nothing but a loopback.
    None,
}

impl NetworkMode {
    /// The network's name as Docker shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

impl std::str::FromStr for NetworkMode {
    type Err = UnknownNetwork;

    /// Reads `HostConfig.NetworkMode`: empty and `default` are the bridge. `container:<id>` is the engine's business.
    fn from_str(text: &str) -> Result<Self, UnknownNetwork> {
        match text {
            "" | "default" | "bridge" => Ok(Self::Bridge),
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            _ => Err(UnknownNetwork(text.to_owned())),
        }
    }
}

/// What a container asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// 64 hex digits.
    pub container_id: String,
    /// Name without leading slash, shown by network inspect and in errors.
    pub container_name: String,
    /// Which network.
    pub mode: NetworkMode,
    /// Ports to publish; ignored unless the mode is bridge (as Docker does).
    pub ports: Vec<PortRequest>,
    /// A particular Ethernet address (`--mac-address`).
    pub mac: Option<String>,
    /// A particular address. Docker refuses it on the default bridge, and so does the engine; kept for later networks.
    pub ip: Option<Ipv4Addr>,
}

/// What a container got. Serialised by the engine and given back to `Network::adopt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Which network.
    pub mode: NetworkMode,
    /// Its id, 64 hex digits.
    pub network_id: String,
    /// Id of this attachment, 64 hex digits.
    pub endpoint_id: String,
    /// Address, absent for host and none.
    pub ip: Option<IpAddr>,
    /// Length of the network part in bits, 0 without address.
    pub prefix: u8,
    /// Next hop, absent for host and none.
    pub gateway: Option<IpAddr>,
    /// Ethernet address as text, absent for host and none.
    pub mac: Option<String>,
    /// Interfaces the runtime has to make; empty for host and none.
    pub interfaces: Vec<Interface>,
    /// Ports as they were bound.
    pub ports: Vec<BoundPort>,
}

/// One interface of a container: a veth pair between the bridge and the container's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name of the end on this machine.
    pub host_name: String,
    /// Bridge that end becomes a port of.
    pub bridge: String,
    /// Name inside the container.
    pub name: String,
    /// Ethernet address inside the container.
    pub mac: String,
    /// Addresses with prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default routes.
    pub gateways: Vec<IpAddr>,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// A port that a service publishes on this machine, and its local tasks behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The protocol.
    pub protocol: Protocol,
    /// Port of this machine, on every address.
    pub published: u16,
    /// Where each task listens: while an update changes the port inside the tasks, old and new ones differ. Order and
    /// duplicates do not matter.
    pub backends: Vec<Backend>,
}

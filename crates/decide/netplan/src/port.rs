//! The words for published ports: what is asked for, where it is bound, where it leads.
//!
//! In and out: plain values with Docker's text forms. Decides nothing.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A transport protocol whose ports can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The default.
    Tcp,
    /// Datagrams; a "connection" is what the kernel tracks as one.
    Udp,
    /// Needs the kernel's SCTP tracking.
    Sctp,
}

impl Protocol {
    /// The number in the IP header. Source: IANA protocol numbers.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A protocol name that Docker does not know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid proto: {0}")]
pub struct UnknownProtocol(pub String);

impl std::str::FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" | "" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(UnknownProtocol(text.to_owned())),
        }
    }
}

/// A port that a container wants to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// The protocol of both sides.
    pub protocol: Protocol,
    /// Port inside the container.
    pub container_port: u16,
    /// Address of this machine to publish on; `None` means every one.
    pub host_ip: Option<IpAddr>,
    /// First port of this machine that will do; 0 lets the engine choose from the ephemeral range.
    pub host_port: u16,
    /// Last port that will do (a range `8000-8010` takes the first free one); equal to `host_port` without a range.
    pub host_port_last: u16,
}

/// A published port as it was bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BoundPort {
    /// The protocol of both sides.
    pub protocol: Protocol,
    /// Port inside the container.
    pub container_port: u16,
    /// Address of this machine; unspecified means every one.
    pub host_ip: IpAddr,
    /// Port of this machine.
    pub host_port: u16,
}

impl BoundPort {
    /// The place on this machine, without where it leads.
    pub fn host(&self) -> HostPort {
        HostPort { protocol: self.protocol, ip: self.host_ip, port: self.host_port }
    }
}

/// A place on this machine that can be published once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// The protocol.
    pub protocol: Protocol,
    /// Address of this machine; unspecified means every one of its family.
    pub ip: IpAddr,
    /// The port, never 0.
    pub port: u16,
}

impl HostPort {
    /// True when both cannot be published at once.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.port == other.port
            && self.ip.is_ipv4() == other.ip.is_ipv4()
            && (self.ip == other.ip || self.ip.is_unspecified() || other.ip.is_unspecified())
    }
}

/// `0.0.0.0:8080/tcp`, `[::]:8080/udp`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", std::net::SocketAddr::new(self.ip, self.port), self.protocol)
    }
}

/// Where connections to a published port go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Backend {
    /// Address of the container; of the version of the place that leads there.
    pub ip: IpAddr,
    /// Port inside the container.
    pub port: u16,
}

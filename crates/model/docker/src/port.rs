//! Ports of containers: keys like `80/tcp`, host bindings, and the rows of a list.
//!
//! In: the keys and values of `ExposedPorts` and `PortBindings`. Out: numbers. Never allocates a port.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::shape::is_default;

/// Container port (`80/tcp`) to where it is bound; `None` is exposed but not bound.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

shape! {
    /// Where a container port is bound on the host.
    pub struct PortBinding {
        /// Empty: all addresses.
        pub host_ip: String,
        /// A port, a range `8000-8010`, or empty or `0` for any free one.
        pub host_port: String,
    }

    /// A port as `GET /containers/json` shows it.
    pub struct Port {
        #[serde(rename = "IP", skip_serializing_if = "is_default")]
        pub ip: String,
        pub private_port: u16,
        #[serde(skip_serializing_if = "is_default")]
        pub public_port: u16,
        #[serde(rename = "Type")]
        pub protocol: String,
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// The default where none is written.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
    /// Parsed, so that the refusal can name it.
    Sctp,
}

impl Protocol {
    /// Lower case, as in `80/tcp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// One port inside a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPort {
    /// 0 is refused by whoever needs a real port.
    pub port: u16,
    /// `tcp` where none was written.
    pub protocol: Protocol,
}

impl fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol.as_str())
    }
}

/// Why a text is no port. Source: go-connections, `nat/nat.go`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not `number[/protocol]`.
    #[error("invalid containerPort: {0}")]
    Number(String),
    /// A protocol we do not know.
    #[error("invalid proto: {0}")]
    Protocol(String),
    /// `b-a`, or not numbers.
    #[error("invalid range specified for port: {0}")]
    Range(String),
}

impl FromStr for ContainerPort {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        let (number, protocol) = match text.split_once('/') {
            Some((number, protocol)) => (number, protocol_of(protocol)?),
            None => (text, Protocol::Tcp),
        };
        let port = parse_port(number).ok_or_else(|| PortError::Number(text.to_owned()))?;
        Ok(Self { port, protocol })
    }
}

/// The ports of `80`, `80/udp` or `8000-8010/tcp`, in order.
pub fn expand(text: &str) -> Result<Vec<ContainerPort>, PortError> {
    let (numbers, protocol) = match text.split_once('/') {
        Some((numbers, protocol)) => (numbers, protocol_of(protocol)?),
        None => (text, Protocol::Tcp),
    };
    let (first, last) = parse_range(numbers).ok_or_else(|| match numbers.contains('-') {
        true => PortError::Range(text.to_owned()),
        false => PortError::Number(text.to_owned()),
    })?;
    Ok((first..=last).map(|port| ContainerPort { port, protocol }).collect())
}

/// First and last of `80` or `8000-8010`.
pub fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (parse_port(first)?, parse_port(last)?),
        None => {
            let port = parse_port(text)?;
            (port, port)
        }
    };
    (first <= last).then_some((first, last))
}

fn protocol_of(text: &str) -> Result<Protocol, PortError> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(PortError::Protocol(text.to_owned())),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_as_docker_reads_them() {
        let tcp = |port| ContainerPort { port, protocol: Protocol::Tcp };
        assert_eq!("80".parse(), Ok(tcp(80)));
        assert_eq!("80/TCP".parse(), Ok(tcp(80)));
        assert_eq!("53/udp".parse::<ContainerPort>().unwrap().to_string(), "53/udp");
        for bad in ["", "x", "-1", "70000", "80-81/tcp", "/tcp", "+80"] {
            assert!(matches!(bad.parse::<ContainerPort>(), Err(PortError::Number(_))), "{bad}");
        }
        assert_eq!("80/foo".parse::<ContainerPort>(), Err(PortError::Protocol("foo".into())));
        assert_eq!(expand("8000-8002/tcp").unwrap(), [tcp(8000), tcp(8001), tcp(8002)]);
        assert!(matches!(expand("9-8"), Err(PortError::Range(_))));
    }
}

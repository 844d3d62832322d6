//! What a container asks of the networks and what it gets.
//!
//! In and out: plain values; an [`Attachment`] is remembered by the engine and handed back through `Network::adopt` after
//! a restart of the daemon, which may be one of a newer version.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use netplan::macvlan_options::MacvlanMode;
use netplan::table::Version;
use netplan::{Backend, BoundPort, PortRequest, Protocol};
use objects::Timestamp;
use serde::{Deserialize, Serialize};

/// Whose network namespace a container's processes are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxMode {
    /// One of its own, with an interface for each network that has interfaces.
    #[serde(alias = "bridge")]
    Own,
    /// The machine's own.
    Host,
    /// One of its own with nothing but a loopback.
    None,
}

impl SandboxMode {
    /// What a network mode means that is no `container:<id>`: that is the engine's business.
    pub fn of(network_mode: &str) -> Self {
        match network_mode {
            "host" => Self::Host,
            "none" => Self::None,
            _ => Self::Own,
        }
    }
}

/// What a container asks for when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// 64 hex digits.
    pub container_id: String,
    /// Name without leading slash, shown by network inspect and in errors.
    pub container_name: String,
    /// Its own name for itself, one of those under which others find it.
    pub hostname: String,
    /// Whose namespace.
    pub mode: SandboxMode,
    /// The networks in the order of its interfaces; ignored unless the mode is its own namespace.
    pub networks: Vec<NetworkJoin>,
    /// Ports to publish; ignored unless a network leads out of the container (as Docker does).
    pub ports: Vec<PortRequest>,
}

/// What a container asks of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkJoin {
    /// Name or id.
    pub network: String,
    /// A particular address.
    pub ip: Option<Ipv4Addr>,
    /// A particular IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// A particular Ethernet address (`--mac-address`).
    pub mac: Option<String>,
    /// More names under which others on this network find it.
    pub aliases: Vec<String>,
    /// Driver options of the endpoint.
    pub driver_opts: BTreeMap<String, String>,
    /// Of several networks, the one with the highest number has the default route.
    pub gateway_priority: i64,
}

impl NetworkJoin {
    /// Nothing particular of this network.
    pub fn plain(network: &str) -> Self {
        Self { network: network.to_owned(), ..Self::default() }
    }
}

/// What a running container asks for when it is connected to one network more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// A container that is attached.
    pub container_id: String,
    /// A process in its network namespace, which stays there until the answer.
    pub pid: i32,
    /// The network.
    pub join: NetworkJoin,
    /// All ports of the container, for when this is its first network that leads out.
    pub ports: Vec<PortRequest>,
}

/// What is looked at of a network before a container asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkFacts {
    /// 64 hex digits, or a swarm network's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `bridge`, `host`, `null`, `overlay`, …
    pub driver: String,
    /// Every machine has it.
    pub is_predefined: bool,
    /// Subnets that the user chose: there, containers may ask for particular addresses.
    pub asked_subnets: Vec<IpNet>,
}

impl NetworkFacts {
    /// Somebody made it: then its containers have names there, and may ask for addresses.
    pub fn is_made_by_user(&self) -> bool {
        !self.is_predefined
    }
}

/// A network across machines as far as containers of this one need it. Whoever tells it has made the namespace and the
/// bridge, or makes them before a container with such an interface is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OverlayNetwork {
    /// The swarm's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Nothing leaves it or comes in from elsewhere.
    pub is_internal: bool,
    /// Containers that belong to no task may join.
    pub is_attachable: bool,
    /// Containers don't reach each other through it: published ports come in by it.
    pub is_ingress: bool,
    /// Its subnets; endpoints ask for the addresses that the managers chose.
    pub subnets: Vec<IpNet>,
    /// The addresses that nobody else gets there, in the order of the subnets.
    pub gateways: Vec<IpAddr>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The pinned namespace with the bridge.
    pub namespace: PathBuf,
    /// The bridge in there.
    pub bridge: String,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// What a container got. Serialised by the engine and given back to `Network::adopt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Attachment {
    /// Whose namespace.
    pub mode: SandboxMode,
    /// The container's own name for itself.
    pub hostname: String,
    /// One for each network.
    pub endpoints: Vec<Endpoint>,
    /// Ports as they were bound.
    pub ports: Vec<BoundPort>,
}

/// A container's place in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's id, 64 hex digits.
    pub network_id: String,
    /// The network's name at that time.
    pub network_name: String,
    /// The network's driver: `bridge`, `host`, `null`, `overlay`, …
    pub driver: String,
    /// Id of this attachment, 64 hex digits.
    pub endpoint_id: String,
    /// IPv4 first; none for host and none.
    pub addresses: Vec<EndpointAddress>,
    /// Ethernet address as text, absent for host and none.
    pub mac: Option<String>,
    /// What was asked for, see [`NetworkJoin`].
    pub aliases: Vec<String>,
    /// What was asked for, see [`NetworkJoin`].
    pub gateway_priority: i64,
    /// It is there only for the way out of swarm networks; inspect of the container does not show it.
    pub is_for_way_out: bool,
    /// The interface that the runtime has to make; none for host and none.
    pub interface: Option<Interface>,
}

/// An address of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointAddress {
    /// The address itself.
    pub ip: IpAddr,
    /// Length of the network part in bits.
    pub prefix: u8,
    /// Next hop to elsewhere; absent when the network leads nowhere.
    pub gateway: Option<IpAddr>,
}

/// One interface of a container: a veth pair between a bridge and the container's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name of the end outside the container.
    pub host_name: String,
    /// Bridge that end becomes a port of.
    pub bridge: String,
    /// There is no pair and no bridge: the interface shares the wire of a link of the machine.
    #[serde(default)]
    pub macvlan: Option<MacvlanParent>,
    /// The pinned network namespace of end and bridge; `None` is the machine's.
    #[serde(default)]
    pub namespace: Option<PathBuf>,
    /// The end exchanges no frames with other isolated ports of the bridge.
    #[serde(default)]
    pub isolated: bool,
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

/// How an interface shares the wire of a link of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacvlanParent {
    /// The link's name.
    pub link: String,
    /// Which of its siblings the interface reaches.
    pub mode: MacvlanMode,
}

/// A port that a service publishes on this machine, and its local tasks behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The protocol.
    pub protocol: Protocol,
    /// Port of this machine, on every address of `version`.
    pub published: u16,
    /// The version of IP.
    pub version: Version,
    /// Where each task listens: while an update changes the port inside the tasks, old and new ones differ. Order and
    /// duplicates do not matter.
    pub backends: Vec<Backend>,
}

impl Attachment {
    /// The interfaces that the runtime has to make.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.interface.as_ref())
    }

    /// The endpoint in the network of this name or id.
    pub fn endpoint(&self, network: &str) -> Option<&Endpoint> {
        self.endpoints
            .iter()
            .find(|endpoint| endpoint.network_id == network || endpoint.network_name == network)
    }

    /// The endpoint with the default route, which is also where published ports lead.
    pub fn way_out(&self) -> Option<&Endpoint> {
        let places: Vec<_> = self.endpoints.iter().map(Endpoint::place).collect();
        netplan::way_out::choose(&places).map(|index| &self.endpoints[index])
    }

    /// Gives the default routes to the interface that should have them, and names to interfaces without.
    pub(crate) fn arrange(&mut self) {
        let way_out = self.way_out().map(|endpoint| endpoint.endpoint_id.clone());
        let mut taken: Vec<String> = self.interfaces().map(|interface| interface.name.clone()).collect();
        for endpoint in &mut self.endpoints {
            let is_way_out = way_out.as_ref() == Some(&endpoint.endpoint_id);
            let Some(interface) = &mut endpoint.interface else { continue };
            interface.gateways = match is_way_out {
                true => endpoint.addresses.iter().filter_map(|address| address.gateway).collect(),
                false => Vec::new(),
            };
            if interface.name.is_empty() {
                let mut names = (0..).map(|number: u32| format!("eth{number}"));
                interface.name = names.find(|name| !taken.contains(name)).expect("numbers don't run out");
                taken.push(interface.name.clone());
            }
        }
    }
}

impl Endpoint {
    /// Its IPv4 address.
    pub fn ipv4(&self) -> Option<&EndpointAddress> {
        self.addresses.iter().find(|address| address.ip.is_ipv4())
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> Option<&EndpointAddress> {
        self.addresses.iter().find(|address| address.ip.is_ipv6())
    }

    fn place(&self) -> netplan::way_out::Place<'_> {
        netplan::way_out::Place {
            leads_out: self.addresses.iter().any(|address| address.gateway.is_some()),
            priority: self.gateway_priority,
            is_for_that: self.is_for_way_out,
            network: &self.network_name,
        }
    }
}

/// An attachment as this version or the one before wrote it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Several { mode: SandboxMode, hostname: String, endpoints: Vec<Endpoint>, ports: Vec<BoundPort> },
    Single(SingleEndpoint),
}

/// What a container got while there was one network for each.
#[derive(Deserialize)]
struct SingleEndpoint {
    mode: SandboxMode,
    network_id: String,
    endpoint_id: String,
    ip: Option<IpAddr>,
    prefix: u8,
    gateway: Option<IpAddr>,
    mac: Option<String>,
    interfaces: Vec<Interface>,
    ports: Vec<BoundPort>,
}

impl From<Stored> for Attachment {
    fn from(stored: Stored) -> Self {
        let old = match stored {
            Stored::Several { mode, hostname, endpoints, ports } => {
                return Self { mode, hostname, endpoints, ports };
            }
            Stored::Single(old) => old,
        };
        let (name, driver) = match old.mode {
            SandboxMode::Own => ("bridge", "bridge"),
            SandboxMode::Host => ("host", "host"),
            SandboxMode::None => ("none", "null"),
        };
        let address = |ip| EndpointAddress { ip, prefix: old.prefix, gateway: old.gateway };
        let endpoint = Endpoint {
            network_id: old.network_id,
            network_name: name.to_owned(),
            driver: driver.to_owned(),
            endpoint_id: old.endpoint_id,
            addresses: old.ip.map(address).into_iter().collect(),
            mac: old.mac,
            aliases: Vec::new(),
            gateway_priority: 0,
            is_for_way_out: false,
            interface: old.interfaces.into_iter().next(),
        };
        Self { mode: old.mode, hostname: String::new(), endpoints: vec![endpoint], ports: old.ports }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_version_with_one_network_wrote_is_read() {
        let old = r#"{"mode":"bridge","network_id":"n","endpoint_id":"e","ip":"172.17.0.2","prefix":16,
            "gateway":"172.17.0.1","mac":"02:42:ac:11:00:02","interfaces":[{"host_name":"sk-e","bridge":"skep0",
            "name":"eth0","mac":"02:42:ac:11:00:02","addresses":[["172.17.0.2",16]],"gateways":["172.17.0.1"],
            "mtu":1500}],"ports":[{"protocol":"tcp","container_port":80,"host_ip":"0.0.0.0","host_port":8080}]}"#;
        let read: Attachment = serde_json::from_str(old).unwrap();
        assert_eq!(read.mode, SandboxMode::Own);
        assert_eq!(read.ports[0].host_port, 8080);
        let endpoint = read.endpoint("bridge").unwrap();
        assert_eq!(endpoint.ipv4().unwrap().ip, IpAddr::from([172, 17, 0, 2]));
        let interface = endpoint.interface.as_ref().unwrap();
        assert_eq!((interface.namespace.as_ref(), interface.isolated), (None, false));
        let again: Attachment = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }
}

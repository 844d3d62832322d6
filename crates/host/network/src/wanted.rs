//! What the network of this machine should be: endpoints, services, published ports.
//!
//! In: what engine and agent ask for. Out: endpoints, and the published ports that result. Holds ports through sockets
//! but never changes a link or a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use netplan::{AddressPool, Backend, BoundPort, HostPort, Published};
use objects::ServiceId;

use crate::error::{AttachError, PublishError};
use crate::kernel::{VETH_PREFIX, container_mac};
use crate::ports::{self, Ports};
use crate::state_file::{State, random_id};
use crate::{AttachRequest, Endpoint, Interface, NetworkMode, ServicePort};

/// A container with its endpoint.
pub(crate) struct Attached {
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
}

/// Everything that is wanted.
pub(crate) struct Wanted {
    pub(crate) state: State,
    pub(crate) published: Published,
    bridge: String,
    mtu: u32,
    addresses: AddressPool,
    ports: Ports,
    endpoints: BTreeMap<String, Attached>,
    services: BTreeMap<ServiceId, BTreeSet<HostPort>>,
}

impl Wanted {
    pub(crate) fn new(state: State, bridge: String, mtu: u32, addresses: AddressPool) -> Self {
        Self {
            state,
            published: Published::default(),
            bridge,
            mtu,
            addresses,
            ports: Ports::default(),
            endpoints: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }

    /// Containers by id.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (&String, &Attached)> {
        self.endpoints.iter()
    }

    /// The subnet of the bridge.
    pub(crate) fn addresses(&self) -> &AddressPool {
        &self.addresses
    }

    /// Largest packet in bytes.
    pub(crate) fn mtu(&self) -> u32 {
        self.mtu
    }

    /// True when no container is left. Ports of services lead nowhere then.
    pub(crate) fn is_idle(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Names of the containers' links on this machine.
    pub(crate) fn links(&self) -> impl Iterator<Item = &str> {
        let interfaces = self.endpoints.values().flat_map(|attached| &attached.endpoint.interfaces);
        interfaces.map(|interface| interface.host_name.as_str())
    }

    /// True when the container has an endpoint.
    pub(crate) fn is_attached(&self, container_id: &str) -> bool {
        self.endpoints.contains_key(container_id)
    }

    /// Gives a container, which has none, its endpoint.
    pub(crate) fn attach(&mut self, request: AttachRequest) -> Result<Endpoint, AttachError> {
        let endpoint_id = random_id().map_err(AttachError::Random)?;
        let endpoint = match request.mode {
            NetworkMode::Bridge => self.bridge_endpoint(&request, endpoint_id)?,
            NetworkMode::Host => bare_endpoint(NetworkMode::Host, &self.state.host_id, endpoint_id),
            NetworkMode::None => bare_endpoint(NetworkMode::None, &self.state.none_id, endpoint_id),
        };
        self.publish_endpoint(&endpoint);
        let attached = Attached { name: request.container_name, endpoint: endpoint.clone() };
        self.endpoints.insert(request.container_id, attached);
        Ok(endpoint)
    }

    /// Takes over an endpoint of an earlier daemon.
    pub(crate) fn adopt(&mut self, container_id: &str, name: &str, mut endpoint: Endpoint) {
        self.release(container_id);
        if let Some(IpAddr::V4(ip)) = endpoint.ip
            && let Err(error) = self.addresses.take_exact(ip)
        {
            tracing::warn!(container.id = container_id, %ip, %error, "a running container's address is not ours to give");
        }
        endpoint.ports.retain(|port| {
            let is_ours = self.ports.take_again(port.host());
            if !is_ours {
                tracing::error!(container.id = container_id, port = %port.host(), "a running container's port is published by another");
            }
            is_ours
        });
        self.publish_endpoint(&endpoint);
        self.endpoints.insert(container_id.to_owned(), Attached { name: name.to_owned(), endpoint });
    }

    /// Takes a container's endpoint away and returns it.
    pub(crate) fn release(&mut self, container_id: &str) -> Option<Endpoint> {
        let attached = self.endpoints.remove(container_id)?;
        for port in &attached.endpoint.ports {
            self.published.remove(&port.host());
            self.ports.give_back(&port.host());
        }
        if let Some(IpAddr::V4(ip)) = attached.endpoint.ip {
            self.addresses.release(ip);
        }
        Some(attached.endpoint)
    }

    pub(crate) fn rename(&mut self, container_id: &str, name: &str) {
        if let Some(attached) = self.endpoints.get_mut(container_id) {
            name.clone_into(&mut attached.name);
        }
    }

    /// Wants exactly these ports and backends of a service. Ports that can be had are published even if others cannot.
    pub(crate) fn publish_service(
        &mut self,
        service: &ServiceId,
        wanted: &[ServicePort],
    ) -> Result<(), PublishError> {
        let subnet = self.addresses.subnet();
        let mut backends = wanted.iter().flat_map(|port| &port.backends);
        if let Some(stray) = backends.find(|backend| !subnet.contains(&backend.ip)) {
            return Err(PublishError::Backend(stray.ip));
        }
        let mut held = self.services.remove(service).unwrap_or_default();
        let is_wanted = |held: &HostPort| wanted.iter().any(|port| place(port) == *held);
        for place in held.extract_if(.., |place| !is_wanted(place)) {
            self.published.remove(&place);
            self.ports.give_back(&place);
        }
        let mut failure = None;
        let mut now = BTreeSet::new();
        for port in wanted {
            let is_held = held.contains(&place(port));
            if !is_held && let Err(source) = self.ports.take(&ports::exactly(port.protocol, port.published)) {
                failure.get_or_insert(PublishError::Port { published: port.published, source });
                continue;
            }
            self.published.set(place(port), port.backends.clone());
            now.insert(place(port));
        }
        if !now.is_empty() {
            self.services.insert(service.clone(), now);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Takes a service's ports away.
    pub(crate) fn unpublish_service(&mut self, service: &ServiceId) {
        for place in self.services.remove(service).unwrap_or_default() {
            self.published.remove(&place);
            self.ports.give_back(&place);
        }
    }

    /// Takes the ports of every service away.
    pub(crate) fn unpublish_all_services(&mut self) {
        for place in std::mem::take(&mut self.services).into_values().flatten() {
            self.published.remove(&place);
            self.ports.give_back(&place);
        }
    }

    fn bridge_endpoint(
        &mut self,
        request: &AttachRequest,
        endpoint_id: String,
    ) -> Result<Endpoint, AttachError> {
        let ip = match request.ip {
            Some(ip) => self.addresses.take_exact(ip).map(|()| ip),
            None => self.addresses.take(),
        };
        let ip = ip.map_err(AttachError::Address)?;
        let bound = self.mac_and_ports(request, ip, &endpoint_id);
        let (mac, ports) = bound.inspect_err(|_| {
            self.addresses.release(ip);
        })?;
        let prefix = self.addresses.subnet().prefix_len();
        let gateway = IpAddr::V4(self.addresses.gateway());
        let interface = Interface {
            host_name: format!("{VETH_PREFIX}{}", &endpoint_id[..12]),
            bridge: self.bridge.clone(),
            name: "eth0".to_owned(),
            mac: mac.clone(),
            addresses: vec![(ip.into(), prefix)],
            gateways: vec![gateway],
            mtu: self.mtu,
        };
        Ok(Endpoint {
            mode: NetworkMode::Bridge,
            network_id: self.state.bridge_id.clone(),
            endpoint_id,
            ip: Some(ip.into()),
            prefix,
            gateway: Some(gateway),
            mac: Some(mac),
            interfaces: vec![interface],
            ports,
        })
    }

    fn mac_and_ports(
        &mut self,
        request: &AttachRequest,
        ip: Ipv4Addr,
        endpoint_id: &str,
    ) -> Result<(String, Vec<BoundPort>), AttachError> {
        let mac = match request.mac.as_deref().filter(|mac| !mac.is_empty()) {
            Some(text) => text.parse().map_err(|_| AttachError::Mac(text.to_owned()))?,
            None => container_mac(ip),
        };
        let ports = self.ports.take_all(&request.ports).map_err(|source| AttachError::Port {
            container_name: request.container_name.clone(),
            endpoint_id: endpoint_id.to_owned(),
            source,
        })?;
        Ok((mac.to_string(), ports))
    }

    fn publish_endpoint(&mut self, endpoint: &Endpoint) {
        let Some(IpAddr::V4(ip)) = endpoint.ip else { return };
        for port in &endpoint.ports {
            self.published.set(port.host(), vec![Backend { ip, port: port.container_port }]);
        }
    }
}

fn bare_endpoint(mode: NetworkMode, network_id: &str, endpoint_id: String) -> Endpoint {
    Endpoint {
        mode,
        network_id: network_id.to_owned(),
        endpoint_id,
        ip: None,
        prefix: 0,
        gateway: None,
        mac: None,
        interfaces: Vec::new(),
        ports: Vec::new(),
    }
}

/// Where a service's port lies on this machine.
fn place(port: &ServicePort) -> HostPort {
    HostPort { protocol: port.protocol, ip: Ipv4Addr::UNSPECIFIED.into(), port: port.published }
}

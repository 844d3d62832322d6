//! What the network of this machine should be: networks, attachments, services, published ports.
//!
//! In: what engine and agent ask for. Out: attachments, and the published ports that result. Holds ports through sockets
//! but never changes a link or a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netplan::table::Version;
use netplan::{Backend, HostPort, Published};
use objects::ServiceId;

use crate::create::GATEWAY_BRIDGE;
use crate::error::{AttachError, ConnectError, PublishError};
use crate::ports::{self, Ports};
use crate::registry::{Kind, Networks};
use crate::state_file::random_id;
use crate::{
    AttachRequest, Attachment, ConnectRequest, Endpoint, Interface, NetworkJoin, SandboxMode, ServicePort,
};

/// A container with what it got.
pub(crate) struct Attached {
    pub(crate) name: String,
    pub(crate) attachment: Attachment,
}

/// Everything that is wanted.
pub(crate) struct Wanted {
    pub(crate) networks: Networks,
    pub(crate) published: Published,
    ports: Ports,
    containers: BTreeMap<String, Attached>,
    services: BTreeMap<ServiceId, BTreeSet<HostPort>>,
    /// Ids of networks whose names may be others than those that were written.
    renamed: BTreeSet<String>,
}

impl Wanted {
    pub(crate) fn new(networks: Networks) -> Self {
        Self {
            networks,
            published: Published::default(),
            ports: Ports::default(),
            containers: BTreeMap::new(),
            services: BTreeMap::new(),
            renamed: BTreeSet::new(),
        }
    }

    /// Whether another container has an address on a network.
    pub(crate) fn has_address(&self, network: &str, ip: IpAddr, but: &str) -> bool {
        let others = self.containers.iter().filter(|(id, _)| *id != but);
        let mut endpoints = others.filter_map(|(_, attached)| attached.attachment.endpoint(network));
        endpoints.any(|endpoint| endpoint.addresses.iter().any(|address| address.ip == ip))
    }

    /// Containers by id.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (&String, &Attached)> {
        self.containers.iter()
    }

    /// True when no container is left. Ports of services lead nowhere then.
    pub(crate) fn is_idle(&self) -> bool {
        self.containers.is_empty()
    }

    /// The containers' interfaces with their outer end in the machine's namespace.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        let interfaces = self.containers.values().flat_map(|attached| attached.attachment.interfaces());
        interfaces.filter(|interface| interface.namespace.is_none())
    }

    /// True when the container has an attachment.
    pub(crate) fn is_attached(&self, container_id: &str) -> bool {
        self.containers.contains_key(container_id)
    }

    /// Gives a container, which has nothing, its endpoints and ports.
    pub(crate) fn attach(&mut self, request: AttachRequest) -> Result<Attachment, AttachError> {
        let mut attachment = Attachment {
            mode: request.mode,
            hostname: request.hostname.clone(),
            endpoints: Vec::new(),
            ports: Vec::new(),
        };
        if let Err(error) = self.fill(&mut attachment, &request) {
            self.give_back(&attachment);
            return Err(error);
        }
        self.publish_attachment(&attachment);
        self.note_names(&attachment);
        let attached = Attached { name: request.container_name, attachment: attachment.clone() };
        self.containers.insert(request.container_id, attached);
        Ok(attachment)
    }

    /// On an error, what was taken is in `attachment`.
    fn fill(&mut self, attachment: &mut Attachment, request: &AttachRequest) -> Result<(), AttachError> {
        let built_in = |name| vec![NetworkJoin::plain(name)];
        let joins = match request.mode {
            SandboxMode::Own => request.networks.clone(),
            SandboxMode::Host => built_in("host"),
            SandboxMode::None => built_in("none"),
        };
        for join in &joins {
            let endpoint_id = random_id().map_err(AttachError::Random)?;
            attachment.endpoints.push(self.networks.endpoint(join, endpoint_id)?);
        }
        self.provide_way_out(attachment)?;
        self.take_ports(attachment, &request.container_name, &request.ports)
    }

    /// Adds or takes away the endpoint that is there only for the way out, and arranges the interfaces. A container needs
    /// it while it is on a network across machines that is not internal, and on no other network that leads out.
    fn provide_way_out(&mut self, attachment: &mut Attachment) -> Result<(), AttachError> {
        let (mut is_on_overlay, mut leads_out) = (false, false);
        for endpoint in attachment.endpoints.iter().filter(|endpoint| !endpoint.is_for_way_out) {
            let entry = self.networks.by_id(&endpoint.network_id);
            is_on_overlay |= entry
                .is_some_and(|entry| matches!(entry.kind, Kind::Overlay(_)) && !entry.record.is_internal);
            leads_out |= endpoint.addresses.iter().any(|address| address.gateway.is_some());
        }
        let present = attachment.endpoints.iter().position(|endpoint| endpoint.is_for_way_out);
        match (is_on_overlay && !leads_out, present) {
            (true, None) => {
                let endpoint_id = random_id().map_err(AttachError::Random)?;
                let endpoint = self.networks.endpoint(&NetworkJoin::plain(GATEWAY_BRIDGE), endpoint_id)?;
                attachment.endpoints.push(Endpoint { is_for_way_out: true, ..endpoint });
            }
            (false, Some(index)) => drop(attachment.endpoints.remove(index)),
            (true, Some(_)) | (false, None) => {}
        }
        attachment.arrange();
        Ok(())
    }

    /// Ids of the networks that containers are on, as often as they are.
    pub(crate) fn networks_in_use(&self) -> impl Iterator<Item = &str> {
        let endpoints = self.containers.values().flat_map(|attached| &attached.attachment.endpoints);
        endpoints.map(|endpoint| endpoint.network_id.as_str())
    }

    /// What the container has.
    pub(crate) fn attachment(&self, container_id: &str) -> Option<&Attachment> {
        self.containers.get(container_id).map(|attached| &attached.attachment)
    }

    /// True when a container is on the network.
    pub(crate) fn uses(&self, network_id: &str) -> bool {
        let mut endpoints = self.containers.values().flat_map(|attached| &attached.attachment.endpoints);
        endpoints.any(|endpoint| endpoint.network_id == network_id)
    }

    /// Gives an attached container one endpoint more; returns all that it has then.
    pub(crate) fn connect(&mut self, request: &ConnectRequest) -> Result<Attachment, ConnectError> {
        let attached = self.containers.get(&request.container_id);
        let attached = attached.ok_or_else(|| ConnectError::NotRunning(request.container_id.clone()))?;
        let (name, before) = (attached.name.clone(), attached.attachment.clone());
        let network = &self.networks.find(&request.join.network).map_err(AttachError::Unknown)?.record;
        if before.endpoint(&network.id).is_some_and(|endpoint| !endpoint.is_for_way_out) {
            return Err(ConnectError::Connected { container: name, network: network.name.clone() });
        }
        let mut after = before.clone();
        if let Err(error) = self.add(&mut after, request, &name) {
            self.give_back_beyond(&before, &after);
            return Err(ConnectError::Attach(error));
        }
        self.replace(&request.container_id, &before, after.clone());
        Ok(after)
    }

    fn add(
        &mut self,
        after: &mut Attachment,
        request: &ConnectRequest,
        name: &str,
    ) -> Result<(), AttachError> {
        let endpoint_id = random_id().map_err(AttachError::Random)?;
        after.endpoints.push(self.networks.endpoint(&request.join, endpoint_id)?);
        self.provide_way_out(after)?;
        if after.ports.is_empty() { self.take_ports(after, name, &request.ports) } else { Ok(()) }
    }

    /// Takes one endpoint of an attached container away; returns what it has left.
    pub(crate) fn disconnect(&mut self, container_id: &str, endpoint_id: &str) -> Attachment {
        let before = self.attachment(container_id).cloned().expect("the caller has looked");
        let mut after = before.clone();
        after.endpoints.retain(|endpoint| endpoint.endpoint_id != endpoint_id);
        if let Err(error) = self.provide_way_out(&mut after) {
            tracing::error!(
                container.id = container_id,
                error = &error as &dyn std::error::Error,
                "container has no way out"
            );
        }
        if after.way_out().is_none() {
            after.ports.clear();
        }
        self.replace(container_id, &before, after.clone());
        after
    }

    /// Undoes a change of an attached container.
    pub(crate) fn put_back(&mut self, container_id: &str, before: &Attachment) {
        let Some(now) = self.attachment(container_id).cloned() else { return };
        for endpoint in before.endpoints.iter().filter(|endpoint| !now.endpoints.contains(endpoint)) {
            // Nobody else was asked since.
            let _ = self.networks.take_again(endpoint);
        }
        for port in before.ports.iter().filter(|port| !now.ports.contains(port)) {
            self.ports.take_again(port.host());
        }
        self.replace(container_id, &now, before.clone());
    }

    fn replace(&mut self, container_id: &str, before: &Attachment, after: Attachment) {
        self.give_back_beyond(&after, before);
        self.publish_attachment(&after);
        self.note_names(before);
        self.note_names(&after);
        if let Some(attached) = self.containers.get_mut(container_id) {
            attached.attachment = after;
        }
    }

    /// Gives back what is in `left` and not in `kept`.
    fn give_back_beyond(&mut self, kept: &Attachment, left: &Attachment) {
        let is_kept = |id: &str| kept.endpoints.iter().any(|endpoint| endpoint.endpoint_id == id);
        let gone = Attachment {
            endpoints: left.endpoints.iter().filter(|one| !is_kept(&one.endpoint_id)).cloned().collect(),
            ports: left.ports.iter().filter(|port| !kept.ports.contains(port)).copied().collect(),
            ..left.clone()
        };
        self.give_back(&gone);
    }

    /// Binds ports where the container's way out leads; without one, none.
    fn take_ports(
        &mut self,
        attachment: &mut Attachment,
        container_name: &str,
        requests: &[netplan::PortRequest],
    ) -> Result<(), AttachError> {
        let Some(way_out) = attachment.way_out() else { return Ok(()) };
        let binding = match self.networks.by_id(&way_out.network_id).map(|entry| &entry.kind) {
            // Whoever is on the wire answers there itself.
            Some(Kind::Macvlan(_)) => return Ok(()),
            Some(Kind::Bridge(bridge)) if !bridge.options.host_binding.is_unspecified() => {
                Some(IpAddr::V4(bridge.options.host_binding))
            }
            _ => None,
        };
        let requests: Vec<_> = requests
            .iter()
            .map(|port| netplan::PortRequest { host_ip: port.host_ip.or(binding), ..*port })
            .collect();
        attachment.ports = self.ports.take_all(&requests).map_err(|source| AttachError::Port {
            container_name: container_name.to_owned(),
            endpoint_id: way_out.endpoint_id.clone(),
            source,
        })?;
        Ok(())
    }

    fn give_back(&mut self, attachment: &Attachment) {
        for port in &attachment.ports {
            self.published.remove(&port.host());
            self.ports.give_back(&port.host());
        }
        for endpoint in &attachment.endpoints {
            self.networks.give_back(endpoint);
        }
    }

    /// Takes over an attachment of an earlier daemon.
    pub(crate) fn adopt(&mut self, container_id: &str, name: &str, mut attachment: Attachment) {
        self.release(container_id);
        for endpoint in &attachment.endpoints {
            if let Err(error) = self.networks.take_again(endpoint) {
                let ip = endpoint.ipv4().map(|address| address.ip);
                tracing::warn!(container.id = container_id, ?ip, %error, "a running container's address is not ours to give");
            }
        }
        attachment.ports.retain(|port| {
            let is_ours = self.ports.take_again(port.host());
            if !is_ours {
                tracing::error!(container.id = container_id, port = %port.host(), "a running container's port is published by another");
            }
            is_ours
        });
        self.publish_attachment(&attachment);
        self.note_names(&attachment);
        self.containers.insert(container_id.to_owned(), Attached { name: name.to_owned(), attachment });
    }

    /// Takes everything of a container away and returns it.
    pub(crate) fn release(&mut self, container_id: &str) -> Option<Attachment> {
        let attached = self.containers.remove(container_id)?;
        self.give_back(&attached.attachment);
        self.note_names(&attached.attachment);
        Some(attached.attachment)
    }

    pub(crate) fn rename(&mut self, container_id: &str, name: &str) {
        let Some(attached) = self.containers.get_mut(container_id) else { return };
        name.clone_into(&mut attached.name);
        let attachment = attached.attachment.clone();
        self.note_names(&attachment);
    }

    fn note_names(&mut self, attachment: &Attachment) {
        self.renamed.extend(attachment.endpoints.iter().map(|endpoint| endpoint.network_id.clone()));
    }

    /// Says that the names of a network have to be written.
    pub(crate) fn note_renamed(&mut self, network_id: &str) {
        self.renamed.insert(network_id.to_owned());
    }

    /// The networks whose names have to be written; they count as written then.
    pub(crate) fn take_renamed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.renamed)
    }

    /// Wants exactly these ports and backends of a service. Ports that can be had are published even if others cannot.
    pub(crate) fn publish_service(
        &mut self,
        service: &ServiceId,
        wanted: &[ServicePort],
    ) -> Result<(), PublishError> {
        let mut backends = wanted.iter().flat_map(|port| &port.backends);
        if let Some(stray) = backends.find(|backend| !self.networks.reaches(backend.ip)) {
            return Err(PublishError::Backend(stray.ip));
        }
        self.put_service(service, wanted)
    }

    /// Wants exactly these services to have exactly these ports; those that could not be had, with the reason.
    pub(crate) fn put_services(
        &mut self,
        wanted: &BTreeMap<ServiceId, Vec<ServicePort>>,
    ) -> Vec<(ServiceId, PublishError)> {
        let gone: Vec<_> = self.services.keys().filter(|id| !wanted.contains_key(*id)).cloned().collect();
        gone.iter().for_each(|service| self.unpublish_service(service));
        let put = |(service, ports): (&ServiceId, &Vec<ServicePort>)| {
            Some((service.clone(), self.put_service(service, ports).err()?))
        };
        wanted.iter().filter_map(put).collect()
    }

    fn put_service(&mut self, service: &ServiceId, wanted: &[ServicePort]) -> Result<(), PublishError> {
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
            if !is_held && let Err(source) = self.ports.take(&ports::exactly(place(port))) {
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

    fn publish_attachment(&mut self, attachment: &Attachment) {
        let way_out = attachment.way_out().and_then(|endpoint| endpoint.ipv4());
        let Some(IpAddr::V4(ip)) = way_out.map(|address| address.ip) else { return };
        for port in &attachment.ports {
            self.published.set(port.host(), vec![Backend { ip: ip.into(), port: port.container_port }]);
        }
    }
}

/// Where a service's port lies on this machine.
fn place(port: &ServicePort) -> HostPort {
    let ip = match port.version {
        Version::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Version::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    HostPort { protocol: port.protocol, ip, port: port.published }
}

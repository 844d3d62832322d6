//! What users ask for of networks: create and remove them, and use them in services.
//!
//! In: the store and a request. Out: the writes to propose, or the error in Docker's wording. Whoever proposes them decides
//! beside nobody else: that a network is unused is more than its version says.

use std::sync::Arc;

use objects::validate;
use objects::{
    NODE_NETWORKS, Network, NetworkAttachmentConfig, NetworkId, NetworkSpec, Node, Service, ServiceSpec,
    UpdateState,
};
use store::{FindError, Kind, Store, Write};

use crate::request::RequestError;

/// Makes a network with its subnets and its number.
pub fn create(store: &Store, id: NetworkId, spec: NetworkSpec) -> Result<Vec<Write>, RequestError> {
    validate::network(&spec)?;
    if store.network_named(&spec.name).is_some() {
        return Err(RequestError::NetworkExists { name: spec.name });
    }
    if let Some(known) = store.ingress().filter(|_| spec.ingress) {
        return Err(RequestError::IngressPresent { id: known.id.clone() });
    }
    Ok(vec![Write::Create(store::Object::from(allocate::network(store, id, spec)?))])
}

/// Removes a network that nobody uses.
pub fn remove(store: &Store, id: &NetworkId) -> Result<Vec<Write>, RequestError> {
    let not_found = || FindError::NotFound { kind: Kind::Network, text: id.to_string() };
    let network = store.network(id).ok_or_else(not_found)?;
    if network.spec.ingress
        && let Some(service) = store.services().find(|service| service.spec.needs_ingress())
    {
        return Err(RequestError::IngressNeeded { service: service.id.clone() });
    }
    if let Some(by) = user(store, id) {
        return Err(RequestError::NetworkInUse { id: id.clone(), by });
    }
    let forget = store.nodes().filter(|node| is_on(node, id)).map(|node| {
        let mut next = Node::clone(node);
        next.internal.ingress = None;
        Write::update(next)
    });
    Ok(forget.chain([Write::remove(Arc::clone(network))]).collect())
}

/// Whether nobody uses a network, so that pruning removes it.
pub fn is_unused(store: &Store, network: &Network) -> bool {
    !network.spec.ingress && user(store, &network.id).is_none()
}

/// The first who uses a network, in Docker's words. A task that is to stop does not count.
fn user(store: &Store, id: &NetworkId) -> Option<String> {
    if let Some(service) = store.services_on_network(id).next() {
        return Some(format!("service {}", service.id));
    }
    // An update that fails returns to the spec of before by itself.
    let is_returned_to = |service: &&Arc<Service>| {
        let status = service.update_status.as_ref();
        let previous = service.previous_spec.as_ref();
        status.is_some_and(|status| status.state == UpdateState::Updating)
            && previous.is_some_and(|spec| spec.networks().iter().any(|it| it.target == id.as_str()))
    };
    if let Some(service) = store.services().find(is_returned_to) {
        return Some(format!("service {}", service.id));
    }
    let mut tasks = store.tasks_on_network(id).filter(|task| task.is_wanted());
    tasks.next().map(|task| format!("task {}", task.id))
}

fn is_on(node: &Node, network: &NetworkId) -> bool {
    node.internal.ingress.as_ref().is_some_and(|own| own.network == *network)
}

/// The spec with ids in the place of names of networks, which have to be there. Source: moby,
/// `daemon/cluster/services.go` (`populateNetworkID`) and swarmkit, `manager/controlapi/service.go`.
pub fn resolved(store: &Store, mut spec: ServiceSpec) -> Result<ServiceSpec, RequestError> {
    let networks = spec.networks.iter_mut().chain(&mut spec.task_template.networks);
    networks.into_iter().try_for_each(|network| resolve(store, network))?;
    if spec.needs_ingress() && store.ingress().is_none() && !is_apart(&spec) {
        return Err(RequestError::NoIngress);
    }
    Ok(spec)
}

/// Whether its tasks have no place on ingress: they are in the namespace of their node, or without a network.
fn is_apart(spec: &ServiceSpec) -> bool {
    spec.networks().iter().any(|network| matches!(network.target.as_str(), "host" | "none"))
}

fn resolve(store: &Store, asked: &mut NetworkAttachmentConfig) -> Result<(), RequestError> {
    if NODE_NETWORKS.contains(&asked.target.as_str()) {
        return Ok(());
    }
    let network = store.find_network(&asked.target)?;
    if network.spec.ingress {
        return Err(RequestError::IngressAttached { name: network.spec.name.clone() });
    }
    asked.target = network.id.to_string();
    Ok(())
}

/// Refuses an update that changes networks in the place where only old versions have them.
pub(crate) fn refuse_legacy(service: &Service, spec: &ServiceSpec) -> Result<(), RequestError> {
    let is_legacy = spec.task_template.networks.is_empty() && !spec.networks.is_empty();
    if is_legacy && spec.networks != service.spec.networks {
        Err(RequestError::LegacyNetworks)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Code, create_service, update_service};
    use objects::{ContainerSpec, EndpointSpec, IdSource, PortConfig, TaskSpec, Timestamp, Version};

    fn apply(store: &mut Store, writes: &[Write]) {
        store.apply(store.applied() + 1, Timestamp(1), writes).unwrap();
    }

    fn with_networks(names: &[(&str, bool)]) -> Store {
        let mut store = Store::new();
        for (name, ingress) in names {
            let spec = NetworkSpec { name: (*name).to_owned(), ingress: *ingress, ..Default::default() };
            let writes = create(&store, format!("id-{name}").as_str().into(), spec).unwrap();
            apply(&mut store, &writes);
        }
        store
    }

    fn service(name: &str, networks: &[&str], ports: &[u32]) -> ServiceSpec {
        let container = ContainerSpec { image: "nginx".to_owned(), ..Default::default() };
        let target =
            |name: &&str| NetworkAttachmentConfig { target: (*name).to_owned(), ..Default::default() };
        let task_template = TaskSpec {
            container_spec: Some(container),
            networks: networks.iter().map(target).collect(),
            ..Default::default()
        };
        let port = |port: &u32| PortConfig { published_port: *port, target_port: 80, ..Default::default() };
        let ports = ports.iter().map(port).collect();
        let endpoint_spec = Some(EndpointSpec { ports, ..Default::default() });
        ServiceSpec { name: name.to_owned(), task_template, endpoint_spec, ..Default::default() }
    }

    fn make(store: &mut Store, spec: ServiceSpec) -> Result<objects::ServiceId, RequestError> {
        let mut ids = IdSource::from_seed([store.applied() as u8; 32]);
        let (id, writes) = create_service(store, spec, &mut ids)?;
        apply(store, &writes);
        Ok(id)
    }

    #[test]
    fn networks_of_a_service_are_kept_by_their_ids() {
        let mut store = with_networks(&[("ingress", true), ("a", false), ("b", false)]);
        let id = make(&mut store, service("web", &["b", "id-a"], &[80])).unwrap();
        let made = store.service(&id).unwrap();
        let targets = made.spec.networks().iter().map(|network| network.target.as_str());
        assert!(targets.eq(["id-b", "id-a"]));
    }

    #[test]
    fn networks_of_services_are_refused_in_dockers_wording() {
        let mut store = with_networks(&[("a", false)]);
        let mut check = |networks: &[&str], ports: &[u32], expect: &str, code| {
            let error = make(&mut store, service("web", networks, ports)).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.code()), (expect, code));
        };
        check(&["x"], &[], "network x not found", Code::NotFound);
        let text = "service needs ingress network, but no ingress network is present";
        check(&["a"], &[80], text, Code::FailedPrecondition);
        let mut store = with_networks(&[("ingress", true)]);
        let error = make(&mut store, service("web", &["ingress"], &[])).unwrap_err();
        let text = "Service cannot be explicitly attached to the ingress network \"ingress\"";
        assert_eq!((error.to_string().as_str(), error.code()), (text, Code::InvalidArgument));
    }

    #[test]
    fn networks_in_the_old_place_stay_as_they_are() {
        let mut store = with_networks(&[("a", false), ("b", false)]);
        let mut spec = service("web", &["a"], &[]);
        spec.networks = std::mem::take(&mut spec.task_template.networks);
        let id = make(&mut store, spec.clone()).unwrap();
        let version = Version { index: store.applied() };
        assert!(update_service(&store, &id, version, spec.clone()).is_ok());
        spec.networks[0].target = "b".to_owned();
        let error = update_service(&store, &id, version, spec).unwrap_err();
        assert_eq!(error.to_string(), "networks must be migrated to TaskSpec before being changed");
    }

    #[test]
    fn a_network_in_use_stays() {
        let mut store = with_networks(&[("ingress", true), ("a", false), ("b", false)]);
        let id = make(&mut store, service("web", &["a"], &[80])).unwrap();
        let check = |store: &Store, network: &str, expect: &str| {
            let removed = remove(store, &network.into());
            assert_eq!(removed.map_or_else(|error| error.to_string(), |_| "ok".to_owned()), expect);
        };
        check(&store, "id-a", &format!("network id-a is in use by service {id}"));
        let needed = format!("ingress network cannot be removed because service {id} depends on it");
        check(&store, "id-ingress", &needed);
        check(&store, "id-b", "ok");
        check(&store, "id-x", "network id-x not found");
        let spec = NetworkSpec { name: "other".to_owned(), ingress: true, ..Default::default() };
        let error = create(&store, "x".into(), spec).unwrap_err();
        assert_eq!(error.to_string(), "ingress network (id-ingress) is already present");
        let spec = NetworkSpec { name: "A".to_owned(), ..Default::default() };
        let error = create(&store, "x".into(), spec).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.code()),
            ("network with name A already exists", Code::AlreadyExists)
        );
        let unused: Vec<_> =
            store.networks().filter(|it| is_unused(&store, it)).map(|it| &it.spec.name).collect();
        assert_eq!(unused, ["b"]);
    }
}

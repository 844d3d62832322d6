//! What users ask for: create, update, roll back and remove services, update nodes.
//!
//! In: the store and a request. Out: the writes to propose, or the error in Docker's wording. Each write names the version
//! that was read, so that a request that lost a race is refused when it is applied.

use std::sync::Arc;

use membership::{Managers, trust};
use objects::validate::{self, SpecError};
use objects::{
    IdSource, NetworkId, Node, NodeId, NodeRole, NodeSpec, NodeState, Service, ServiceId, ServiceSpec,
    Timestamp, Version,
};
use store::{FindError, Kind, Store, Write};

use crate::networks;

/// Why a request is refused. [`RequestError::code`] tells the status code.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The spec cannot work.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A published port is taken.
    #[error(transparent)]
    Port(#[from] allocate::PortError),
    /// Nothing or too much has this name.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The name is taken.
    #[error("name conflicts with an existing object: service {name} already exists")]
    NameConflict {
        /// The name.
        name: String,
    },
    /// The caller read an older version.
    #[error("update out of sequence")]
    OutOfSequence,
    /// Services keep their names.
    #[error("renaming services is not supported")]
    Rename,
    /// Services keep their modes.
    #[error("service mode change is not allowed")]
    ModeChange,
    /// There is nothing to roll back to.
    #[error("service {id} does not have a previous spec")]
    NoPreviousSpec {
        /// The service.
        id: ServiceId,
    },
    /// The network's addresses or its number are taken.
    #[error(transparent)]
    Network(#[from] allocate::NetworkError),
    /// The network's name is taken. Source: moby, `daemon/server/router/network/network_routes.go`.
    #[error("network with name {name} already exists")]
    NetworkExists {
        /// The name.
        name: String,
    },
    /// A swarm has one ingress network. Source: moby/swarmkit, `manager/controlapi/network.go`.
    #[error("ingress network ({id}) is already present")]
    IngressPresent {
        /// The one it has.
        id: NetworkId,
    },
    /// Services publish ports. Source: moby/swarmkit, `manager/controlapi/network.go`.
    #[error("ingress network cannot be removed because service {service} depends on it")]
    IngressNeeded {
        /// One of them.
        service: ServiceId,
    },
    /// Somebody uses the network. Source: moby/swarmkit, `manager/controlapi/network.go`.
    #[error("network {id} is in use by {by}")]
    NetworkInUse {
        /// The network.
        id: NetworkId,
        /// `service …` or `task …`.
        by: String,
    },
    /// Ports cannot be published on every node. Source: moby/swarmkit, `manager/controlapi/service.go`.
    #[error("service needs ingress network, but no ingress network is present")]
    NoIngress,
    /// Services get onto ingress by their ports. Source: moby/swarmkit, `manager/controlapi/service.go`.
    #[error("Service cannot be explicitly attached to the ingress network \"{name}\"")]
    IngressAttached {
        /// Its name.
        name: String,
    },
    /// Only services are on the network. Source: moby/swarmkit, `manager/resourceapi/allocator.go`.
    #[error("network {name} not manually attachable")]
    NotAttachable {
        /// Its name.
        name: String,
    },
    /// Networks are changed in the task template only. Source: moby/swarmkit, `manager/controlapi/service.go`.
    #[error("networks must be migrated to TaskSpec before being changed")]
    LegacyNetworks,
    /// The managers that are left could not decide anything.
    #[error(transparent)]
    Role(#[from] membership::RoleError),
    /// Nodes that are up must be drained and stopped, or removed by force.
    #[error("node {id} is not down and can't be removed")]
    NodeNotDown {
        /// The node.
        id: NodeId,
    },
    /// Managers must be demoted first.
    #[error(
        "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
    )]
    NodeIsManager {
        /// The node.
        id: NodeId,
    },
}

/// Names of status codes, as `rpc error: code = … desc = …` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 400
    InvalidArgument,
    /// 400
    FailedPrecondition,
    /// 404
    NotFound,
    /// 403
    PermissionDenied,
    /// 409
    AlreadyExists,
    /// 501
    Unimplemented,
    /// 500
    Unknown,
}

impl RequestError {
    /// The status code that swarmkit gives the error.
    pub fn code(&self) -> Code {
        match self {
            Self::Spec(SpecError::Unsupported(_)) => Code::Unimplemented,
            Self::Spec(SpecError::Constraint(_)) => Code::Unknown,
            Self::Spec(SpecError::Forbidden(_)) | Self::NotAttachable { .. } => Code::PermissionDenied,
            Self::Spec(_) | Self::Port(_) | Self::Network(_) | Self::IngressAttached { .. } => {
                Code::InvalidArgument
            }
            Self::Find(FindError::NotFound { .. }) => Code::NotFound,
            Self::Find(FindError::Ambiguous { .. }) => Code::InvalidArgument,
            Self::NameConflict { .. } | Self::NetworkExists { .. } | Self::IngressPresent { .. } => {
                Code::AlreadyExists
            }
            Self::OutOfSequence => Code::Unknown,
            Self::Rename | Self::ModeChange | Self::LegacyNetworks => Code::Unimplemented,
            Self::NoPreviousSpec { .. }
            | Self::IngressNeeded { .. }
            | Self::NetworkInUse { .. }
            | Self::NoIngress
            | Self::NodeNotDown { .. }
            | Self::NodeIsManager { .. }
            | Self::Role(_) => Code::FailedPrecondition,
        }
    }
}

/// Makes a service with its published ports; one without a name is given one.
pub fn create_service(
    store: &Store,
    spec: ServiceSpec,
    ids: &mut IdSource,
) -> Result<(ServiceId, Vec<Write>), RequestError> {
    let mut spec = spec.normalised();
    if spec.name.is_empty() {
        spec.name = free_name(store, ids);
    }
    validate::service(&spec)?;
    if store.service_named(&spec.name).is_some() {
        return Err(RequestError::NameConflict { name: spec.name });
    }
    let spec = networks::resolved(store, spec)?;
    let service = with_endpoint(store, Service::new(ids.next(), spec))?;
    Ok((service.id.clone(), vec![Write::Create(service.into())]))
}

/// Replaces the spec of a service that the caller read at `version`.
pub fn update_service(
    store: &Store,
    id: &ServiceId,
    version: Version,
    spec: ServiceSpec,
) -> Result<Vec<Write>, RequestError> {
    let spec = spec.normalised();
    validate::service(&spec)?;
    let service = read_service(store, id, version)?;
    if spec.name != service.spec.name {
        return Err(RequestError::Rename);
    }
    if spec.mode.as_str() != service.spec.mode.as_str() {
        return Err(RequestError::ModeChange);
    }
    let spec = networks::resolved(store, spec)?;
    networks::refuse_legacy(service, &spec)?;
    Ok(vec![Write::update(with_endpoint(store, service.updated(spec))?)])
}

/// Swaps the spec of a service with its previous one.
pub fn rollback_service(
    store: &Store,
    id: &ServiceId,
    version: Version,
    now: Timestamp,
) -> Result<Vec<Write>, RequestError> {
    let service = read_service(store, id, version)?;
    let rolled_back =
        service.rolled_back(now).ok_or_else(|| RequestError::NoPreviousSpec { id: id.clone() })?;
    networks::resolved(store, rolled_back.spec.clone())?;
    Ok(vec![Write::update(with_endpoint(store, rolled_back)?)])
}

/// Removes a service; its tasks are stopped and removed by the steps that follow.
pub fn remove_service(store: &Store, id: &ServiceId) -> Result<Vec<Write>, RequestError> {
    let service = store.service(id).ok_or_else(|| not_found(Kind::Service, id.as_str()))?;
    Ok(vec![Write::remove(Arc::clone(service))])
}

/// Replaces the spec of a node that the caller read at `version`; a new role is carried out step by step from then on.
pub fn update_node(
    store: &Store,
    id: &NodeId,
    version: Version,
    spec: NodeSpec,
) -> Result<Vec<Write>, RequestError> {
    let node = store.node(id).ok_or_else(|| not_found(Kind::Node, id.as_str()))?;
    if node.meta.version != version {
        return Err(RequestError::OutOfSequence);
    }
    membership::roles::may_change(store, &Managers::of_store(store), node, &spec)?;
    Ok(vec![Write::update(Node { spec, ..(**node).clone() })])
}

/// Removes a node; one that is not down only with `force`. Its certificate is worth nothing from then on.
pub fn remove_node(
    store: &Store,
    id: &NodeId,
    force: bool,
    now: Timestamp,
) -> Result<Vec<Write>, RequestError> {
    let node = store.node(id).ok_or_else(|| not_found(Kind::Node, id.as_str()))?;
    if node.manager_status.is_some() || node.spec.role == NodeRole::Manager {
        return Err(RequestError::NodeIsManager { id: id.clone() });
    }
    if !force && node.status.state != NodeState::Down {
        return Err(RequestError::NodeNotDown { id: id.clone() });
    }
    let cluster = store.cluster().map(|cluster| Write::update(trust::removed(cluster, node, now)));
    Ok(cluster.into_iter().chain([Write::remove(Arc::clone(node))]).collect())
}

fn read_service<'a>(
    store: &'a Store,
    id: &ServiceId,
    version: Version,
) -> Result<&'a Arc<Service>, RequestError> {
    let service = store.service(id).ok_or_else(|| not_found(Kind::Service, id.as_str()))?;
    if service.meta.version == version { Ok(service) } else { Err(RequestError::OutOfSequence) }
}

/// A random name that no service has.
fn free_name(store: &Store, ids: &mut IdSource) -> String {
    let draw = |attempt| {
        let [first, second, third, ..] = ids.next_u64().to_le_bytes();
        objects::random_name([first, second, third], attempt)
    };
    let mut drawn = (0..=u32::MAX / 10).map(draw);
    drawn.find(|name| store.service_named(name).is_none()).expect("there are fewer services than names")
}

/// A new or changed service with ports for its spec. Virtual addresses come from the steps that follow: all addresses are given
/// in one place, so that no two decisions give the same one.
fn with_endpoint(store: &Store, mut service: Service) -> Result<Service, RequestError> {
    service.endpoint = allocate::endpoint(store, &service)?;
    Ok(service)
}

fn not_found(kind: Kind, text: &str) -> RequestError {
    RequestError::Find(FindError::NotFound { kind, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use objects::{
        ContainerSpec, EndpointSpec, ManagerStatus, PortConfig, Reachability, ServiceMode, TaskSpec,
    };

    fn spec(name: &str) -> ServiceSpec {
        let container = ContainerSpec { image: "nginx".to_owned(), ..Default::default() };
        let task_template = TaskSpec { container_spec: Some(container), ..Default::default() };
        ServiceSpec { name: name.to_owned(), task_template, ..Default::default() }
    }

    fn store_with(name: &str) -> (Store, ServiceId) {
        let mut store = Store::new();
        let (id, writes) = create_service(&store, spec(name), &mut IdSource::from_seed([1; 32])).unwrap();
        store.apply(1, Timestamp(1), &writes).unwrap();
        (store, id)
    }

    #[test]
    fn a_created_service_has_one_replica_and_its_name_for_itself() {
        let (store, id) = store_with("web");
        assert_eq!(store.service(&id).unwrap().spec.mode, ServiceMode::replicas(1));
        let error = create_service(&store, spec("WEB"), &mut IdSource::from_seed([2; 32])).unwrap_err();
        assert_eq!(error.to_string(), "name conflicts with an existing object: service WEB already exists");
        assert_eq!(error.code(), Code::AlreadyExists);
    }

    #[test]
    fn services_without_a_name_get_one_that_no_other_has() {
        let mut store = Store::new();
        // The same seed draws the same names again: only the store tells that they are taken.
        for index in 1..=20 {
            let mut ids = IdSource::from_seed([1; 32]);
            let (_, writes) = create_service(&store, spec(""), &mut ids).unwrap();
            store.apply(index, Timestamp(1), &writes).unwrap();
        }
        let names: BTreeSet<_> = store.services().map(|service| &service.spec.name).collect();
        assert_eq!(names.len(), 20);
    }

    #[test]
    fn an_update_keeps_one_previous_spec_and_a_rollback_toggles() {
        let (mut store, id) = store_with("web");
        let mut next = spec("web");
        next.labels.insert("a".to_owned(), "b".to_owned());
        let writes = update_service(&store, &id, Version { index: 1 }, next.clone()).unwrap();
        store.apply(2, Timestamp(2), &writes).unwrap();
        for (index, expect) in [(2, spec("web")), (3, next)] {
            let writes = rollback_service(&store, &id, Version { index }, Timestamp(3)).unwrap();
            store.apply(index + 1, Timestamp(3), &writes).unwrap();
            assert_eq!(store.service(&id).unwrap().spec, expect.normalised());
        }
    }

    #[test]
    fn updates_are_refused_in_dockers_wording() {
        let (store, id) = store_with("web");
        let check = |version, spec, expect: &str, code| {
            let error = update_service(&store, &id, Version { index: version }, spec).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.code()), (expect, code));
        };
        check(9, spec("web"), "update out of sequence", Code::Unknown);
        check(1, spec("www"), "renaming services is not supported", Code::Unimplemented);
        let global = ServiceSpec { mode: ServiceMode::global(), ..spec("web") };
        check(1, global, "service mode change is not allowed", Code::Unimplemented);
        let error = rollback_service(&store, &id, Version { index: 1 }, Timestamp(1)).unwrap_err();
        assert_eq!(error.to_string(), format!("service {id} does not have a previous spec"));
    }

    #[test]
    fn a_taken_port_refuses_the_service() {
        let publish = |name| {
            let ports = vec![PortConfig { published_port: 80, target_port: 80, ..Default::default() }];
            ServiceSpec { endpoint_spec: Some(EndpointSpec { ports, ..Default::default() }), ..spec(name) }
        };
        let mut ids = IdSource::from_seed([1; 32]);
        let mut store = Store::new();
        let ingress =
            objects::NetworkSpec { name: "ingress".to_owned(), ingress: true, ..Default::default() };
        store.apply(1, Timestamp(1), &networks::create(&store, ids.next(), ingress).unwrap()).unwrap();
        let (id, writes) = create_service(&store, publish("a"), &mut ids).unwrap();
        store.apply(2, Timestamp(1), &writes).unwrap();
        let error = create_service(&store, publish("b"), &mut ids).unwrap_err();
        let expect = format!("port '80' is already in use by service 'a' ({id}) as an ingress port");
        assert_eq!((error.to_string(), error.code()), (expect, Code::InvalidArgument));
    }

    /// A cluster, and nodes as `(id, role, state)`; managers have a vote and are reachable while they are ready.
    fn swarm(nodes: &[(&str, NodeRole, NodeState)]) -> Store {
        let mut writes =
            vec![Write::Create(objects::Cluster { id: "c".into(), ..Default::default() }.into())];
        writes.extend(nodes.iter().map(|(id, role, state)| {
            let mut node = Node { id: (*id).into(), ..Default::default() };
            node.spec.role = *role;
            node.status.state = *state;
            let is_up = *state == NodeState::Ready;
            let reachability = if is_up { Reachability::Reachable } else { Reachability::Unreachable };
            let is_manager = *role == NodeRole::Manager;
            node.manager_status = is_manager.then(|| ManagerStatus { reachability, ..Default::default() });
            node.internal.raft_id =
                if is_manager { id.len() as u64 + u64::from(id.as_bytes()[0]) } else { 0 };
            Write::Create(node.into())
        }));
        let mut store = Store::new();
        store.apply(1, Timestamp(1), &writes).unwrap();
        store
    }

    #[test]
    fn nodes_are_demoted_and_removed_only_when_the_swarm_survives_it() {
        use NodeRole::{Manager, Worker};
        use NodeState::{Down, Ready};
        let demote = |store: &Store, id: &str| {
            let spec = NodeSpec { role: Worker, ..Default::default() };
            update_node(store, &id.into(), Version { index: 1 }, spec).map(|writes| writes.len())
        };
        let remove = |store: &Store, id: &str, force| {
            remove_node(store, &id.into(), force, Timestamp(5)).map(|writes| writes.len())
        };
        let check = |found: Result<usize, RequestError>, expect: &str| {
            let error = found.unwrap_err();
            assert_eq!((error.to_string().as_str(), error.code()), (expect, Code::FailedPrecondition));
        };
        let one = swarm(&[("a", Manager, Ready), ("w", Worker, Ready), ("x", Worker, Down)]);
        check(demote(&one, "a"), "attempting to demote the last manager of the swarm");
        check(
            remove(&one, "a", true),
            "node a is a cluster manager and is a member of the raft cluster. It must be demoted to worker before \
             removal",
        );
        check(remove(&one, "w", false), "node w is not down and can't be removed");
        assert_eq!((remove(&one, "w", true), remove(&one, "x", false)), (Ok(2), Ok(2)));
        let three = swarm(&[("a", Manager, Ready), ("b", Manager, Ready), ("c", Manager, Down)]);
        check(
            demote(&three, "b"),
            "can't remove member from the raft: this would result in a loss of quorum",
        );
        assert_eq!(demote(&three, "c"), Ok(1));
    }

    #[test]
    fn a_removed_node_is_remembered_for_its_certificate() {
        let mut store = swarm(&[("w", NodeRole::Worker, NodeState::Down)]);
        let writes = remove_node(&store, &"w".into(), false, Timestamp(5)).unwrap();
        store.apply(2, Timestamp(5), &writes).unwrap();
        assert_eq!(store.nodes().count(), 0);
        assert!(trust::is_removed(store.cluster().unwrap(), &"w".into()));
    }
}

//! The swarm's part of the routes of networks: overlays, which managers know.
//!
//! In: requests that `networks.rs` sorted out. Out: calls of this node's manager. A node that is no manager has none of them
//! to show. Never touches a network of the machine.

use docker::{Filters, NetworkCreateRequest, NetworkCreateResponse, NetworkInspect};
use http::StatusCode;
use manager::{Code, Manager, ManagerError};
use objects::{
    Driver, IpamConfig, IpamOptions, NODE_NETWORKS, NetworkAttachmentConfig, NetworkSpec, OVERLAY,
    ServiceSpec,
};

use crate::AppState;
use crate::answer::{Answer, json_with};
use crate::call::Call;
use crate::error::ApiError;

/// Source: moby, `daemon/libnetwork/controller.go` `NewNetwork`.
const FROM_A_WORKER: &str =
    "cannot create a multi-host network from a worker node. Please create the network from a manager node";

/// Whether a network is to be one of the swarm.
pub(super) fn is_meant(request: &NetworkCreateRequest) -> bool {
    request.driver == OVERLAY || request.scope == "swarm" || request.ingress
}

/// The networks of the swarm, without who is on them; none on a node that is no manager.
pub(super) async fn list(call: &Call) -> Result<Vec<NetworkInspect>, ApiError> {
    match call.state.swarm.manager() {
        Ok(_) => Ok(call.reader().await?.networks()?),
        Err(_) => Ok(Vec::new()),
    }
}

/// A network of the swarm by id, name or id prefix; `None` when there is none, or when nobody here can tell.
pub(super) async fn find(call: &Call, wanted: &str) -> Result<Option<NetworkInspect>, ApiError> {
    if call.state.swarm.manager().is_err() {
        return Ok(None);
    }
    match call.reader().await?.network(wanted, call.query.flag("verbose")) {
        Ok(network) => Ok(Some(network)),
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A network that every node has of its own as services name it: by its name, which is its id in the swarm.
///
/// Source: moby, `daemon/cluster/networks.go`: swarm mirrors these networks.
pub(super) fn of_nodes(network: NetworkInspect) -> Option<NetworkInspect> {
    let is_predefined = NODE_NETWORKS.contains(&network.name.as_str());
    is_predefined.then(|| NetworkInspect {
        id: network.name.clone(),
        scope: "swarm".to_owned(),
        containers: Default::default(),
        ..network
    })
}

/// Creates a network of the swarm.
pub(super) async fn create(state: &AppState, request: NetworkCreateRequest) -> Result<Answer, ApiError> {
    let manager = state.swarm.manager().map_err(|error| match error {
        agent::SwarmError::IsWorker => ApiError::Forbidden(FROM_A_WORKER.to_owned()),
        agent::SwarmError::NotInSwarm => ApiError::Forbidden(error.to_string()),
        error => error.into(),
    })?;
    let id = manager.create_network(spec(request)?).await?;
    json_with(StatusCode::CREATED, &NetworkCreateResponse { id: id.to_string(), warning: String::new() })
}

/// Removes a network of the swarm; `false` when there is no such one.
pub(super) async fn remove(state: &AppState, wanted: &str) -> Result<bool, ApiError> {
    let Ok(manager) = state.swarm.manager() else { return Ok(false) };
    match manager.remove_network(wanted).await {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Code::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes the networks of the swarm that nobody uses; their names.
pub(super) async fn prune(state: &AppState, filters: &Filters) -> Result<Vec<String>, ApiError> {
    let Ok(manager) = state.swarm.manager() else { return Ok(Vec::new()) };
    manager.barrier().await?;
    Ok(manager.prune_networks(|network| Manager::is_network_meant(filters, network)).await?)
}

/// What names of networks in a service mean on this machine: those that every node has are named by their names. A
/// network of this machine alone is refused; of others the manager knows.
///
/// Source: moby, `daemon/cluster/services.go` `populateNetworkID`.
pub(super) async fn resolve(state: &AppState, spec: &mut ServiceSpec) -> Result<(), ApiError> {
    let manager = state.swarm.manager()?;
    for network in spec.networks.iter_mut().chain(&mut spec.task_template.networks) {
        resolve_one(state, &manager, network).await?;
    }
    Ok(())
}

async fn resolve_one(
    state: &AppState,
    manager: &Manager,
    asked: &mut NetworkAttachmentConfig,
) -> Result<(), ApiError> {
    let is_swarms = match manager.network(&asked.target, false) {
        Ok(_) => true,
        Err(ManagerError::Find(_)) => false,
        Err(error) => return Err(error.into()),
    };
    if is_swarms || NODE_NETWORKS.contains(&asked.target.as_str()) {
        return Ok(());
    }
    let Some(local) = state.engine.network().inspect(&asked.target).await else { return Ok(()) };
    if NODE_NETWORKS.contains(&local.name.as_str()) {
        asked.target = local.name;
        return Ok(());
    }
    if local.scope != "local" {
        return Ok(());
    }
    Err(ApiError::Forbidden(format!(
        "The network {} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.",
        local.name
    )))
}

/// A request as swarm's spec. Source: moby, `daemon/cluster/convert/network.go` (`BasicNetworkCreateToGRPC`).
fn spec(request: NetworkCreateRequest) -> Result<NetworkSpec, ApiError> {
    if request.config_only {
        return Err(ApiError::Unimplemented(
            "config-only networks of the swarm are not supported".to_owned(),
        ));
    }
    if request.enable_ipv4 == Some(false) {
        return Err(ApiError::Unimplemented(
            "networks of the swarm without IPv4 are not supported".to_owned(),
        ));
    }
    let driver = if request.driver.is_empty() { OVERLAY.to_owned() } else { request.driver };
    let ipam_options = request.ipam.map(ipam).transpose()?;
    let from = request.config_from.filter(|from| !from.network.is_empty());
    Ok(NetworkSpec {
        name: request.name,
        driver_configuration: Some(Driver { name: driver, options: request.options }),
        ipv6_enabled: request.enable_ipv6.unwrap_or_default(),
        internal: request.internal,
        attachable: request.attachable,
        ingress: request.ingress,
        ipam_options,
        config_from: from.map(|from| objects::ConfigFrom { network: from.network }),
        scope: "swarm".to_owned(),
        labels: request.labels,
    })
}

fn ipam(asked: docker::Ipam) -> Result<IpamOptions, ApiError> {
    let configs = asked.config.unwrap_or_default();
    if configs.iter().any(|config| !config.auxiliary_addresses.is_empty()) {
        let text = "auxiliary addresses of networks of the swarm are not supported";
        return Err(ApiError::Unimplemented(text.to_owned()));
    }
    let configs = configs.into_iter().map(|config| IpamConfig {
        subnet: config.subnet,
        range: config.ip_range,
        gateway: config.gateway,
    });
    let driver = Driver { name: asked.driver, options: asked.options.unwrap_or_default() };
    Ok(IpamOptions { driver, configs: configs.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_becomes_the_spec_of_swarm() {
        let body = serde_json::json!({
            "Name": "net", "Driver": "overlay", "Attachable": true, "EnableIPv6": true, "Labels": {"a": "b"},
            "Options": {"com.docker.network.driver.mtu": "1400"},
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.5.0.0/16", "IPRange": "10.5.1.0/24"}]},
        });
        let request: NetworkCreateRequest = serde_json::from_value(body).expect("a request");
        assert!(is_meant(&request));
        let spec = spec(request).expect("it is supported");
        assert!(spec.attachable && spec.ipv6_enabled && !spec.internal);
        assert_eq!(spec.driver_option("com.docker.network.driver.mtu"), Some("1400"));
        let config = &spec.ipam_options.expect("it has some").configs[0];
        assert_eq!((config.subnet.as_str(), config.range.as_str()), ("10.5.0.0/16", "10.5.1.0/24"));
    }

    #[test]
    fn what_is_to_be_encrypted_is_so_whatever_the_value_says() {
        for value in ["", "true"] {
            let body =
                serde_json::json!({"Name": "net", "Driver": "overlay", "Options": {"encrypted": value}});
            let request: NetworkCreateRequest = serde_json::from_value(body).expect("a request");
            let spec = spec(request).expect("it is supported");
            assert!(objects::Network { spec, ..objects::Network::default() }.is_encrypted());
        }
    }

    #[test]
    fn networks_of_nodes_are_known_by_their_names() {
        let network =
            |name: &str| NetworkInspect { id: "123".into(), name: name.into(), ..Default::default() };
        let shown = of_nodes(network("host")).expect("every node has it");
        assert_eq!((shown.id.as_str(), shown.scope.as_str()), ("host", "swarm"));
        assert!(of_nodes(network("mine")).is_none());
    }
}

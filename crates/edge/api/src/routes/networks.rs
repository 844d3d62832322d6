//! Routes of networks: those of this machine, and those of its swarm.
//!
//! In: requests. Out: calls of whoever has the network. Lists and look-ups go over both sources, swarm networks first.
//! Never touches a bridge.

use std::collections::BTreeMap;

use docker::{Filters, NetworkConnect, NetworkCreateRequest, NetworkDisconnect, NetworkInspect};
use http::StatusCode;

use super::swarm_networks;
use crate::AppState;
use crate::answer::{Answer, empty, json, json_with, no_content};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, serve};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/networks", 24, list, "list networks"),
        serve!(GET "/networks/", 24, list, "list networks, as old clients write it"),
        serve!(GET "/networks/{id}", 24, inspect, "inspect a network"),
        serve!(POST "/networks/create", 24, create, "create a network"),
        serve!(POST "/networks/{id}/connect", 24, connect, "connect a container to a network"),
        serve!(POST "/networks/{id}/disconnect", 24, disconnect, "disconnect a container from a network"),
        serve!(POST "/networks/prune", 25, prune, "remove networks nobody uses"),
        serve!(DELETE "/networks/{id}", 24, remove, "remove a network"),
    ]
}

/// Source: moby, `daemon/network/filter.go`.
const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

async fn list(call: Call) -> Result<Answer, ApiError> {
    let filters = call.query.filters()?;
    filters.validate(FILTERS)?;
    filters.validate_values("type", &["builtin", "custom"])?;
    filters.validate_values("scope", &["local", "swarm", "global"])?;
    let dangling = filters.boolean("dangling")?;
    let mut networks = all(&call).await?;
    networks.retain(|network| passes(&filters, dangling, network));
    for network in &mut networks {
        // A list does not show endpoints. Source: moby, `network_routes.go` `getNetworksList`.
        network.containers.clear();
    }
    json(&networks)
}

/// Every network that can be named here. What the swarm says of one comes before what this machine has of it.
async fn all(call: &Call) -> Result<Vec<NetworkInspect>, ApiError> {
    let swarm = swarm_networks::list(call).await?;
    Ok(merged([swarm, call.state.engine.network().list().await]))
}

/// Networks of several sources; of those with one id, the first is shown with the containers of all.
fn merged(sources: [Vec<NetworkInspect>; 2]) -> Vec<NetworkInspect> {
    let mut by_id: BTreeMap<String, NetworkInspect> = BTreeMap::new();
    for network in sources.into_iter().flatten() {
        match by_id.get_mut(&network.id) {
            Some(known) => known.containers.extend(network.containers),
            None => drop(by_id.insert(network.id.clone(), network)),
        }
    }
    by_id.into_values().collect()
}

fn passes(filters: &Filters, dangling: Option<bool>, network: &NetworkInspect) -> bool {
    let is_builtin = is_predefined(&network.name);
    let kind = if is_builtin { "builtin" } else { "custom" };
    // What is built in never dangles. Source: moby, `daemon/network/filter.go`, `filterNetworkByUse`. Nor does ingress, which
    // its machine is on.
    let is_dangling = !is_builtin && !network.ingress && network.containers.is_empty();
    filters.matches_exactly("driver", &network.driver)
        && filters.matches_pattern("name", &network.name)
        && filters.matches_prefix("id", &network.id)
        && filters.matches_exactly("scope", &network.scope)
        && filters.matches_exactly("type", kind)
        && dangling.is_none_or(|wanted| wanted == is_dangling)
        && filters.matches_labels("label", &network.labels)
}

fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none")
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    let scope = call.query.text("scope");
    let mut networks = all(&call).await?;
    if scope == "swarm" {
        let of_swarm = |network: NetworkInspect| match network.scope.as_str() {
            "swarm" => Some(network),
            _ => swarm_networks::of_nodes(network),
        };
        networks = networks.into_iter().filter_map(of_swarm).collect();
    } else {
        networks.retain(|network| scope.is_empty() || scope == network.scope);
    }
    let found = find(&networks, call.param("id"))?;
    match swarm_networks::find(&call, &found.id).await? {
        // With who is on it, if that was asked for.
        Some(whole) => json(&NetworkInspect { containers: found.containers.clone(), ..whole }),
        None => json(found),
    }
}

/// By full id, then by name, then by the beginning of an id. Source: moby, `network_routes.go` `getNetwork`.
fn find<'a>(networks: &'a [NetworkInspect], wanted: &str) -> Result<&'a NetworkInspect, ApiError> {
    let missing = || ApiError::NotFound(format!("network {wanted} not found"));
    if let Some(found) = networks.iter().find(|network| network.id == wanted) {
        return Ok(found);
    }
    let by_name: Vec<_> = networks.iter().filter(|network| network.name == wanted).collect();
    let by_prefix = || networks.iter().filter(|network| !wanted.is_empty() && network.id.starts_with(wanted));
    match by_name[..] {
        [found] => Ok(found),
        [] => match by_prefix().collect::<Vec<_>>()[..] {
            [found] => Ok(found),
            [] => Err(missing()),
            ref several => Err(ambiguous(wanted, several.len(), "ID prefix")),
        },
        ref several => Err(ambiguous(wanted, several.len(), "name")),
    }
}

fn ambiguous(wanted: &str, count: usize, by: &str) -> ApiError {
    ApiError::invalid(format!("network {wanted} is ambiguous ({count} matches found based on {by})"))
}

async fn create(mut call: Call) -> Result<Answer, ApiError> {
    let request: NetworkCreateRequest = call.json().await?.value;
    if swarm_networks::is_meant(&request) {
        return swarm_networks::create(&call.state, request).await;
    }
    json_with(StatusCode::CREATED, &call.state.engine.network_create(request).await?)
}

async fn connect(mut call: Call) -> Result<Answer, ApiError> {
    let NetworkConnect { container, endpoint_config } = call.json().await?.value;
    call.state.engine.network_connect(call.param("id"), &container, endpoint_config).await?;
    Ok(empty(StatusCode::OK))
}

async fn disconnect(mut call: Call) -> Result<Answer, ApiError> {
    // Nothing of a container is ever left on a network for `force` to take away.
    let NetworkDisconnect { container, force: _ } = call.json().await?.value;
    call.state.engine.network_disconnect(call.param("id"), &container).await?;
    Ok(empty(StatusCode::OK))
}

async fn remove(call: Call) -> Result<Answer, ApiError> {
    let networks = all(&call).await?;
    let found = find(&networks, call.param("id"))?;
    if found.scope != "swarm" || !swarm_networks::remove(&call.state, &found.id).await? {
        call.state.engine.network_remove(&found.id).await?;
    }
    Ok(no_content())
}

async fn prune(call: Call) -> Result<Answer, ApiError> {
    let filters = call.query.filters()?;
    let mut report = call.state.engine.networks_prune(&filters).await?;
    // How old a network of the swarm is, and what labels it lacks, is not asked of the managers: those then stay.
    if filters.validate(&["label"]).is_ok() {
        let names = swarm_networks::prune(&call.state, &filters).await?;
        report.networks_deleted.get_or_insert_default().extend(names);
    }
    json(&report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(id: &str, name: &str) -> NetworkInspect {
        NetworkInspect { id: id.into(), name: name.into(), scope: "local".into(), ..Default::default() }
    }

    #[test]
    fn networks_are_found_by_id_then_name_then_prefix() {
        let networks =
            [network("abc1", "one"), network("abd2", "two"), network("ff", "abd2"), network("fe", "two")];
        let check = |wanted: &str, expect: Result<&str, &str>| {
            let found = find(&networks, wanted);
            assert_eq!(
                found.map(|network| network.id.as_str()).map_err(|e| e.to_string()),
                expect.map_err(str::to_owned)
            );
        };
        check("abd2", Ok("abd2"));
        check("one", Ok("abc1"));
        check("abc", Ok("abc1"));
        check("ab", Err("network ab is ambiguous (2 matches found based on ID prefix)"));
        check("two", Err("network two is ambiguous (2 matches found based on name)"));
        check("nope", Err("network nope not found"));
        check("", Err("network  not found"));
    }

    #[test]
    fn one_network_of_two_sources_is_shown_once_with_all_its_containers() {
        let with = |mut network: NetworkInspect, container: &str| {
            network.containers.insert(container.into(), Default::default());
            network
        };
        let swarm = NetworkInspect { scope: "swarm".into(), ..network("a", "web") };
        let sources = [vec![swarm], vec![with(network("a", "web"), "c1"), network("b", "bridge")]];
        let all = merged(sources);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].scope.as_str(), all[0].containers.len()), ("swarm", 1));
    }
}

//! Routes of networks: the three every machine has. Others come in a later version.
//!
//! In: requests. Out: what the network part shows, and 501 by name for what changes networks. Never touches a bridge.

use docker::{Filters, NetworkInspect};

use crate::AppState;
use crate::answer::{Answer, json};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, refuse, serve};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/networks", 24, list, "list networks"),
        serve!(GET "/networks/", 24, list, "list networks, as old clients write it"),
        serve!(GET "/networks/{id}", 24, inspect, "inspect a network"),
        refuse!(POST "/networks/create", 24, "networks of one's own come in a later version"),
        refuse!(POST "/networks/{id}/connect", 24, "networks of one's own come in a later version"),
        refuse!(POST "/networks/{id}/disconnect", 24, "networks of one's own come in a later version"),
        refuse!(POST "/networks/prune", 25, "networks of one's own come in a later version"),
        refuse!(DELETE "/networks/{id}", 24, "the networks bridge, host and none are part of the machine"),
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
    let mut networks = call.state.engine.network().list().await;
    networks.retain(|network| passes(&filters, dangling, network));
    for network in &mut networks {
        // A list does not show endpoints. Source: moby, `network_routes.go` `getNetworksList`.
        network.containers.clear();
    }
    json(&networks)
}

fn passes(filters: &Filters, dangling: Option<bool>, network: &NetworkInspect) -> bool {
    filters.matches_exactly("driver", &network.driver)
        && filters.matches_pattern("name", &network.name)
        && filters.matches_prefix("id", &network.id)
        && filters.matches_exactly("scope", &network.scope)
        // All three are built in, and what is built in never dangles.
        && filters.matches_exactly("type", "builtin")
        && dangling != Some(true)
        && filters.matches_labels("label", &network.labels)
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    let wanted = call.param("id");
    let scope = call.query.text("scope");
    let found = call.state.engine.network().inspect(wanted).await;
    match found.filter(|network| scope.is_empty() || scope == network.scope) {
        Some(network) => json(&network),
        None => Err(ApiError::NotFound(format!("network {wanted} not found"))),
    }
}

//! Routes of nodes.
//!
//! In: requests. Out: calls of this node's manager. Never decides what a role or an availability means.

use objects::NodeSpec;

use crate::AppState;
use crate::answer::{Answer, json, ok};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, serve};
use crate::versions;

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/nodes", 24, list, "list nodes"),
        serve!(GET "/nodes/{id}", 24, inspect, "inspect a node"),
        serve!(POST "/nodes/{id}/update", 24, update, "update a node's labels, role and availability"),
        serve!(DELETE "/nodes/{id}", 24, remove, "remove a node"),
    ]
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let filters = call.query.filters()?;
    json(&call.state.swarm.manager()?.nodes(&filters)?)
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    json(&call.state.swarm.manager()?.node(call.param("id"))?)
}

async fn update(mut call: Call) -> Result<Answer, ApiError> {
    let spec: NodeSpec = call.json().await?.value;
    let version = versions::object_version(&call.query, "node")?;
    call.state.swarm.manager()?.update_node(call.param("id"), version, spec).await?;
    Ok(ok())
}

async fn remove(call: Call) -> Result<Answer, ApiError> {
    let force = call.query.flag("force");
    call.state.swarm.manager()?.remove_node(call.param("id"), force).await?;
    Ok(ok())
}

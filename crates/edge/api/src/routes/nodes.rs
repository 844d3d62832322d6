//! Routes of nodes.
//!
//! In: requests. Out: calls of this node's manager. Never decides what a role or an availability means.

use objects::NodeSpec;
use serde::Deserialize;

use crate::AppState;
use crate::answer::{Answer, json, ok};
use crate::call::{Call, parse_json};
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
    json(&call.reader().await?.nodes(&filters)?)
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    json(&call.reader().await?.node(call.param("id"))?)
}

async fn update(mut call: Call) -> Result<Answer, ApiError> {
    let body = call.json_bytes().await?;
    let spec: NodeSpec = parse_json(&body)?.value;
    refuse_defaults(parse_json(&body)?.value)?;
    let version = versions::object_version(&call.query, "node")?;
    call.state.swarm.manager()?.update_node(call.param("id"), version, spec).await?;
    Ok(ok())
}

/// What a spec must say: it replaces the whole one, and a manager would be demoted by a word that was left out.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Said {
    #[serde(deserialize_with = "docker::null_as_default")]
    role: String,
    #[serde(deserialize_with = "docker::null_as_default")]
    availability: String,
}

/// Source: docker 20.10, observed.
fn refuse_defaults(said: Said) -> Result<(), ApiError> {
    for (name, word) in [("Role", said.role), ("Availability", said.availability)] {
        if word.is_empty() {
            return Err(ApiError::invalid(format!("invalid {name}: \"\"")));
        }
    }
    Ok(())
}

async fn remove(call: Call) -> Result<Answer, ApiError> {
    let force = call.query.flag("force");
    call.state.swarm.manager()?.remove_node(call.param("id"), force).await?;
    Ok(ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_that_leaves_out_role_or_availability_changes_nothing() {
        let check = |body: &str, expect: &str| {
            let said = parse_json(body.as_bytes()).unwrap().value;
            let refused = refuse_defaults(said).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(refused, expect, "{body}");
        };
        check("{}", "invalid Role: \"\"");
        check(r#"{"Availability":"drain","Role":null}"#, "invalid Role: \"\"");
        check(r#"{"Role":"worker"}"#, "invalid Availability: \"\"");
        check(r#"{"role":"manager","Availability":"active","Labels":null}"#, "");
    }
}

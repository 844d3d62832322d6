//! Routes of services. Their logs are in `task_logs.rs`.
//!
//! In: requests. Out: calls of this node's manager, with fields newer than the request's version dropped. Never makes a
//! task.

use http::StatusCode;
use manager::{RegistryAuthFrom, ServiceUpdate};
use objects::ServiceSpec;
use serde::Serialize;

use crate::AppState;
use crate::answer::{Answer, json, json_with, ok};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, serve};
use crate::versions;

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/services", 24, list, "list services"),
        serve!(POST "/services/create", 24, create, "create a service"),
        serve!(GET "/services/{id}", 24, inspect, "inspect a service"),
        serve!(POST "/services/{id}/update", 24, update, "update a service or roll it back"),
        serve!(DELETE "/services/{id}", 24, remove, "remove a service"),
    ]
}

/// Answer of an update.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Updated {
    warnings: Option<Vec<String>>,
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let filters = call.query.filters()?;
    let status = call.is_at_least(41) && call.query.flag("status");
    json(&call.state.swarm.manager()?.services(&filters, status)?)
}

async fn create(mut call: Call) -> Result<Answer, ApiError> {
    let manager = call.state.swarm.manager()?;
    let body = call.json::<ServiceSpec>().await?;
    let mut spec = body.value;
    versions::adjust_service(&mut spec, call.version);
    let mut created = manager.create_service(spec, call.registry_auth_header()?).await?;
    created.warnings.extend(versions::unknown_warnings(&body.unknown));
    json_with(StatusCode::CREATED, &created)
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    let defaults = call.query.flag("insertDefaults");
    json(&call.state.swarm.manager()?.service(call.param("id"), defaults)?)
}

async fn update(mut call: Call) -> Result<Answer, ApiError> {
    let manager = call.state.swarm.manager()?;
    let body = call.json::<ServiceSpec>().await?;
    let mut spec = body.value;
    versions::adjust_service(&mut spec, call.version);
    let update = ServiceUpdate {
        version: versions::object_version(&call.query, "service")?,
        spec,
        registry_auth: call.registry_auth_header()?,
        registry_auth_from: auth_from(call.query.text("registryAuthFrom"))?,
        rollback: is_rollback(call.query.text("rollback"))?,
    };
    let mut warnings = manager.update_service(call.param("id"), update).await?;
    warnings.extend(versions::unknown_warnings(&body.unknown));
    json(&Updated { warnings: (!warnings.is_empty()).then_some(warnings) })
}

async fn remove(call: Call) -> Result<Answer, ApiError> {
    call.state.swarm.manager()?.remove_service(call.param("id")).await?;
    Ok(ok())
}

/// Source: moby, `daemon/cluster/services.go` `UpdateService`.
fn auth_from(text: &str) -> Result<RegistryAuthFrom, ApiError> {
    match text {
        "" | "spec" => Ok(RegistryAuthFrom::Spec),
        "previous-spec" => Ok(RegistryAuthFrom::PreviousSpec),
        _ => Err(ApiError::invalid("unsupported registryAuthFrom value")),
    }
}

/// Source: moby, `daemon/cluster/services.go` `UpdateService`.
fn is_rollback(text: &str) -> Result<bool, ApiError> {
    match text {
        "" | "none" => Ok(false),
        "previous" => Ok(true),
        _ => Err(ApiError::invalid(format!("unrecognized rollback option {text}"))),
    }
}

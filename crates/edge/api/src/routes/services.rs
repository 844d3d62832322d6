//! Routes of services. Their logs are in `task_logs.rs`.
//!
//! In: requests. Out: calls of this node's manager, with fields newer than the request's version dropped. Never makes a
//! task.

use http::StatusCode;
use manager::{RegistryAuthFrom, ServiceUpdate};
use objects::{PortConfig, PortProtocol, PublishMode, ServiceSpec};
use serde::Serialize;

use super::swarm_networks;
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
    json(&call.reader().await?.services(&filters, status)?)
}

async fn create(mut call: Call) -> Result<Answer, ApiError> {
    let manager = call.state.swarm.manager()?;
    let body = call.json::<ServiceSpec>().await?;
    let mut spec = body.value;
    versions::adjust_service(&mut spec, call.version);
    refuse_taken_ports(spec.ports().to_vec()).await?;
    swarm_networks::resolve(&call.state, &mut spec).await?;
    let mut created = manager.create_service(spec, call.registry_auth_header()?).await?;
    created.warnings.extend(versions::unknown_warnings(&body.unknown));
    json_with(StatusCode::CREATED, &created)
}

/// Refuses ingress ports that a foreign process of this machine has: to publish port 22 would cut everybody off.
async fn refuse_taken_ports(ports: Vec<PortConfig>) -> Result<(), ApiError> {
    if ports.is_empty() {
        return Ok(());
    }
    let found = tokio::task::spawn_blocking(move || ports.iter().find_map(taken)).await;
    // Fails when the daemon stops, and then the service is not made anyway.
    match found.ok().flatten() {
        None => Ok(()),
        Some((port, owner)) => {
            Err(ApiError::invalid(format!("port '{port}' is already in use by {owner} on this node")))
        }
    }
}

fn taken(port: &PortConfig) -> Option<(u16, network::PortOwner)> {
    let number = u16::try_from(port.published_port).ok().filter(|number| *number != 0)?;
    if port.publish_mode != PublishMode::Ingress {
        // Its tasks may run where the port is free.
        return None;
    }
    let protocol = match port.protocol {
        PortProtocol::Tcp => network::Protocol::Tcp,
        PortProtocol::Udp => network::Protocol::Udp,
        PortProtocol::Sctp => network::Protocol::Sctp,
    };
    network::foreign_owner(protocol, number).map(|owner| (number, owner))
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    let defaults = call.query.flag("insertDefaults");
    json(&call.reader().await?.shown_service(call.param("id"), defaults)?)
}

async fn update(mut call: Call) -> Result<Answer, ApiError> {
    let manager = call.state.swarm.manager()?;
    let body = call.json::<ServiceSpec>().await?;
    let mut spec = body.value;
    versions::adjust_service(&mut spec, call.version);
    swarm_networks::resolve(&call.state, &mut spec).await?;
    let update = ServiceUpdate {
        version: versions::object_version(&call.query, "service")?,
        spec,
        registry_auth: call.registry_auth_header()?.map(Into::into),
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

//! Routes of volumes.
//!
//! In: requests. Out: calls of the engine. Never touches a directory.

use docker::{Filters, VolumeCreateRequest, VolumeInspect};
use http::StatusCode;

use crate::AppState;
use crate::answer::{Answer, json, json_with, no_content};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, refuse, serve};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/volumes", 24, list, "list volumes"),
        serve!(POST "/volumes/create", 24, create, "create a volume"),
        serve!(POST "/volumes/prune", 25, prune, "remove volumes nobody uses"),
        serve!(GET "/volumes/{name}", 24, inspect, "inspect a volume"),
        serve!(DELETE "/volumes/{name}", 24, remove, "remove a volume"),
        refuse!(PUT "/volumes/{name}", 42, "there are no cluster volumes"),
    ]
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    json(&call.state.engine.volume_list(&call.query.filters()?).await?)
}

/// Every volume, for `GET /system/df`.
pub(super) async fn all(state: &AppState) -> Result<Vec<VolumeInspect>, ApiError> {
    Ok(state.engine.volume_list(&Filters::default()).await?.volumes)
}

async fn create(mut call: Call) -> Result<Answer, ApiError> {
    let request: VolumeCreateRequest = call.json().await?.value;
    json_with(StatusCode::CREATED, &call.state.engine.volume_create(request).await?)
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    json(&call.state.engine.volume_inspect(call.param("name")).await?)
}

async fn remove(call: Call) -> Result<Answer, ApiError> {
    call.state.engine.volume_remove(call.param("name"), call.query.flag("force")).await?;
    Ok(no_content())
}

async fn prune(call: Call) -> Result<Answer, ApiError> {
    let mut filters = call.query.filters()?;
    // Before 1.42 named volumes were meant as well. Source: moby, `volume_routes.go` `postVolumesPrune`.
    if !call.is_at_least(42) && !filters.contains("all") {
        filters.add("all", "true");
    }
    json(&call.state.engine.volumes_prune(&filters).await?)
}

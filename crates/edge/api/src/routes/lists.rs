//! Lists of containers, and their removal in bulk.
//!
//! In: requests. Out: calls of the engine. Never formats a status.

use docker::ContainerSummary;
use engine::ListOptions;

use crate::AppState;
use crate::answer::{Answer, json};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, serve};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/containers/json", 24, list, "list containers"),
        serve!(POST "/containers/prune", 25, prune, "remove stopped containers"),
    ]
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let limit = call.query.integer("limit")?.filter(|limit| *limit > 0);
    let options = ListOptions {
        all: call.query.flag("all"),
        limit: limit.and_then(|limit| usize::try_from(limit).ok()),
        size: call.query.flag("size"),
        filters: call.query.filters()?,
    };
    json(&call.state.engine.list(options).await?)
}

/// Every container with its size, for `GET /system/df`.
pub(super) async fn all_with_size(state: &AppState) -> Result<Vec<ContainerSummary>, ApiError> {
    let options = ListOptions { all: true, size: true, ..ListOptions::default() };
    Ok(state.engine.list(options).await?)
}

async fn prune(call: Call) -> Result<Answer, ApiError> {
    json(&call.state.engine.containers_prune(&call.query.filters()?).await?)
}

//! Routes of tasks. Their logs are in `task_logs.rs`.
//!
//! In: requests. Out: calls of this node's manager. Never touches a container.

use crate::AppState;
use crate::answer::{Answer, json};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, serve};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/tasks", 24, list, "list tasks"),
        serve!(GET "/tasks/{id}", 24, inspect, "inspect a task"),
    ]
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let filters = call.query.filters()?;
    json(&call.reader().await?.tasks(&filters)?)
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    json(&call.reader().await?.task(call.param("id"))?)
}

//! The one route table: every method and path of the API, with what becomes of it.
//!
//! One file per noun; each lists its rows and holds their handlers. Handlers translate: path, query and body into a call
//! of the engine, the images or the swarm, and the result into an answer. Never decide anything about containers or
//! services.

mod archive;
mod attach;
mod auth;
mod build;
mod commit;
mod containers;
mod events;
mod exec;
mod images;
mod lists;
mod logs;
mod networks;
mod nodes;
mod refused;
mod services;
mod stats;
mod swarm;
mod swarm_networks;
mod system;
pub(crate) mod task_logs;
mod tasks;
mod volumes;

use crate::AppState;
use crate::route::Route;

/// All rows; the first that fits answers.
pub(crate) fn all() -> Vec<Route<AppState>> {
    let mut rows = Vec::new();
    rows.extend(system::routes());
    rows.extend(events::routes());
    rows.extend(auth::routes());
    rows.extend(containers::routes());
    rows.extend(archive::routes());
    rows.extend(stats::routes());
    rows.extend(commit::routes());
    rows.extend(lists::routes());
    rows.extend(logs::routes());
    rows.extend(attach::routes());
    rows.extend(exec::routes());
    rows.extend(images::routes());
    rows.extend(build::routes());
    rows.extend(volumes::routes());
    rows.extend(networks::routes());
    rows.extend(swarm::routes());
    rows.extend(nodes::routes());
    rows.extend(services::routes());
    rows.extend(tasks::routes());
    rows.extend(task_logs::routes());
    rows.extend(refused::routes());
    rows
}

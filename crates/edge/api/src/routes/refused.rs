//! Parts of the Engine API that this version does not have: each answers 501 and says so.
//!
//! In: nothing. Out: rows of the route table. A route that gets a handler moves to the file of its noun.

use crate::AppState;
use crate::route::{Route, refuse};

pub(super) fn routes() -> Vec<Route<AppState>> {
    let mut rows = containers();
    rows.extend(plugins());
    rows.extend(swarm());
    rows
}

fn containers() -> Vec<Route<AppState>> {
    vec![
        refuse!(GET "/containers/{name}/attach/ws", 24, "attaching over a WebSocket is not served; use the attach route"),
        refuse!(POST "/containers/{name}/copy", 24, "removed from the API in 1.24"),
        refuse!(POST "/containers/{name}/checkpoints", 25, "checkpoints are not made"),
        refuse!(GET "/containers/{name}/checkpoints", 25, "checkpoints are not made"),
        refuse!(DELETE "/containers/{name}/checkpoints/{checkpoint}", 25, "checkpoints are not made"),
    ]
}

fn plugins() -> Vec<Route<AppState>> {
    vec![
        refuse!(GET "/plugins/privileges", 24, "there are no plugins"),
        refuse!(POST "/plugins/pull", 24, "there are no plugins"),
        refuse!(POST "/plugins/create", 24, "there are no plugins"),
        refuse!(GET "/plugins/{name...}/json", 24, "there are no plugins"),
        refuse!(POST "/plugins/{name...}/enable", 24, "there are no plugins"),
        refuse!(POST "/plugins/{name...}/disable", 24, "there are no plugins"),
        refuse!(POST "/plugins/{name...}/upgrade", 26, "there are no plugins"),
        refuse!(POST "/plugins/{name...}/push", 24, "there are no plugins"),
        refuse!(POST "/plugins/{name...}/set", 24, "there are no plugins"),
        refuse!(DELETE "/plugins/{name...}", 24, "there are no plugins"),
    ]
}

fn swarm() -> Vec<Route<AppState>> {
    vec![
        refuse!(GET "/secrets", 25, "secrets come in a later version"),
        refuse!(POST "/secrets/create", 25, "secrets come in a later version"),
        refuse!(GET "/secrets/{id}", 25, "secrets come in a later version"),
        refuse!(POST "/secrets/{id}/update", 25, "secrets come in a later version"),
        refuse!(DELETE "/secrets/{id}", 25, "secrets come in a later version"),
        refuse!(GET "/configs", 30, "configs come in a later version"),
        refuse!(POST "/configs/create", 30, "configs come in a later version"),
        refuse!(GET "/configs/{id}", 30, "configs come in a later version"),
        refuse!(POST "/configs/{id}/update", 30, "configs come in a later version"),
        refuse!(DELETE "/configs/{id}", 30, "configs come in a later version"),
    ]
}

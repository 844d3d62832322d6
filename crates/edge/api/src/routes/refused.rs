//! Parts of the Engine API that this version does not have: each answers 501 and says so.
//!
//! In: nothing. Out: rows of the route table. A route that gets a handler moves to the file of its noun.

use crate::AppState;
use crate::route::{Route, refuse};

pub(super) fn routes() -> Vec<Route<AppState>> {
    let mut rows = builds();
    rows.extend(containers());
    rows.extend(images());
    rows.extend(plugins());
    rows.extend(swarm());
    rows
}

fn builds() -> Vec<Route<AppState>> {
    vec![
        refuse!(POST "/build", 24, "images are built elsewhere and pulled or loaded"),
        refuse!(POST "/build/prune", 31, "there is no build cache"),
        refuse!(POST "/build/cancel", 31, "there are no builds"),
        refuse!(POST "/session", 31, "there is no BuildKit"),
        refuse!(POST "/grpc", 40, "there is no BuildKit"),
        refuse!(POST "/commit", 24, "containers are not turned into images"),
    ]
}

fn containers() -> Vec<Route<AppState>> {
    vec![
        refuse!(GET "/containers/{name}/changes", 24, "changes of a container's file system are not listed yet"),
        refuse!(GET "/containers/{name}/export", 24, "containers are not exported yet"),
        refuse!(HEAD "/containers/{name}/archive", 24, "files are not copied out of containers yet"),
        refuse!(GET "/containers/{name}/archive", 24, "files are not copied out of containers yet"),
        refuse!(PUT "/containers/{name}/archive", 24, "files are not copied into containers yet"),
        refuse!(GET "/containers/{name}/attach/ws", 24, "attaching over a WebSocket is not served; use the attach route"),
        refuse!(POST "/containers/{name}/copy", 24, "removed from the API in 1.24"),
        refuse!(POST "/containers/{name}/checkpoints", 25, "checkpoints are not made"),
        refuse!(GET "/containers/{name}/checkpoints", 25, "checkpoints are not made"),
        refuse!(DELETE "/containers/{name}/checkpoints/{checkpoint}", 25, "checkpoints are not made"),
    ]
}

fn images() -> Vec<Route<AppState>> {
    vec![
        refuse!(GET "/images/search", 24, "registries are not searched"),
        refuse!(GET "/images/get", 24, "images are not saved yet"),
        refuse!(GET "/images/{name...}/get", 24, "images are not saved yet"),
        refuse!(POST "/images/{name...}/push", 24, "images are not pushed yet"),
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

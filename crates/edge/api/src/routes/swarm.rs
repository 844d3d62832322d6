//! Routes of the swarm itself: init, join, leave, inspect, update, unlock key.
//!
//! In: requests. Out: calls of `agent::SwarmNode` and of this node's manager. Never decides who may lead.

use agent::{InitRequest, JoinRequest, UnlockRequest};
use manager::ClusterUpdate;
use objects::ClusterSpec;
use serde::Serialize;

use crate::AppState;
use crate::answer::{Answer, json, ok};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, serve};
use crate::versions;

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/swarm", 24, inspect, "inspect the swarm"),
        serve!(POST "/swarm/init", 24, init, "found a swarm"),
        serve!(POST "/swarm/join", 24, join, "join a swarm"),
        serve!(POST "/swarm/leave", 24, leave, "leave the swarm"),
        serve!(POST "/swarm/update", 24, update, "update the swarm and rotate its tokens"),
        serve!(GET "/swarm/unlockkey", 24, unlock_key, "read the unlock key"),
        serve!(POST "/swarm/unlock", 24, unlock, "unlock a manager"),
    ]
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    json(&call.reader().await?.swarm()?)
}

async fn init(mut call: Call) -> Result<Answer, ApiError> {
    let request: InitRequest = call.json().await?.value;
    json(&call.state.swarm.init(request).await?)
}

async fn join(mut call: Call) -> Result<Answer, ApiError> {
    let request: JoinRequest = call.json().await?.value;
    call.state.swarm.join(request).await?;
    Ok(ok())
}

async fn unlock(mut call: Call) -> Result<Answer, ApiError> {
    let request: UnlockRequest = call.json().await?.value;
    call.state.swarm.unlock(request).await?;
    Ok(ok())
}

async fn leave(call: Call) -> Result<Answer, ApiError> {
    call.state.swarm.leave(call.query.flag("force")).await?;
    Ok(ok())
}

async fn update(mut call: Call) -> Result<Answer, ApiError> {
    let spec: ClusterSpec = call.json().await?.value;
    let version = versions::object_version(&call.query, "swarm")?;
    let rotate = ClusterUpdate {
        rotate_worker_token: call.query.flag("rotateWorkerToken"),
        rotate_manager_token: call.query.flag("rotateManagerToken"),
        rotate_manager_unlock_key: call.query.flag("rotateManagerUnlockKey"),
    };
    call.state.swarm.manager()?.update_cluster(version, spec, rotate).await?;
    Ok(ok())
}

async fn unlock_key(call: Call) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct UnlockKey {
        unlock_key: String,
    }
    json(&UnlockKey { unlock_key: call.reader().await?.unlock_key()? })
}

//! `POST /commit`: an image of what a container has changed.
//!
//! In: a request. Out: a call of the engine, and the new image's id.

use docker::{ContainerConfig, IdResponse};
use engine::CommitRequest;
use http::StatusCode;

use super::images::with_tag;
use crate::AppState;
use crate::answer::{Answer, json_with};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, serve};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![serve!(POST "/commit", 24, commit, "make an image of what a container has changed")]
}

/// Source: moby, `api/server/router/image/image_routes.go`, `postCommit`.
async fn commit(mut call: Call) -> Result<Answer, ApiError> {
    // Clients that want nothing else than the container's config send `null`.
    let config: Option<ContainerConfig> = call.json::<Option<ContainerConfig>>().await?.value;
    let query = &call.query;
    let repository = query.text("repo");
    let request = CommitRequest {
        reference: (!repository.is_empty()).then(|| with_tag(repository, query.text("tag"))),
        config,
        changes: query.all("changes").flat_map(str::lines).map(str::to_owned).collect(),
        comment: query.text("comment").to_owned(),
        author: query.text("author").to_owned(),
        pause: query.get("pause").is_none_or(|text| text.is_empty()) || query.flag("pause"),
    };
    let id = call.state.engine.commit(query.text("container"), request).await?;
    json_with(StatusCode::CREATED, &IdResponse { id })
}

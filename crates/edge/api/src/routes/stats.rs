//! What a container uses, and what it has changed.
//!
//! In: requests. Out: calls of the engine; readings as lines of JSON, no faster than the client takes them.

use engine::{StatsOptions, StatsStream};
use futures_util::stream::unfold;

use crate::AppState;
use crate::answer::{Answer, JSON, json, line, stream_until};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, serve};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/containers/{name}/stats", 24, stats, "stream what a container uses"),
        serve!(GET "/containers/{name}/changes", 24, changes, "what a container has changed of its image's files"),
    ]
}

async fn stats(call: Call) -> Result<Answer, ApiError> {
    let options = StatsOptions {
        stream: call.query.get("stream").is_none_or(|text| text.is_empty()) || call.query.flag("stream"),
        one_shot: call.is_at_least(41) && call.query.flag("one-shot"),
    };
    let stats = call.state.engine.stats(call.param("name"), options)?;
    Ok(stream_until(&call.state.shutdown, JSON, unfold(stats, next)))
}

async fn next(mut stats: StatsStream) -> Option<(bytes::Bytes, StatsStream)> {
    match stats.next().await {
        Ok(reading) => Some((line(&reading?, b"\n"), stats)),
        Err(error) => {
            // The head has been sent: all that is left is to end early.
            tracing::warn!(error = crate::error::chain(&error), "read what a container uses");
            None
        }
    }
}

async fn changes(call: Call) -> Result<Answer, ApiError> {
    json(&call.state.engine.changes(call.param("name")).await?)
}

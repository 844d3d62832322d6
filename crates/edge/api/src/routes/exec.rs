//! Exec: a further process in a running container.
//!
//! In: requests. Out: calls of the engine, and for a start that is not detached a raw conversation.

use docker::{ExecConfig, ExecStart};
use engine::{ExecStartOptions, ExecStarted};
use http::StatusCode;

use crate::AppState;
use crate::answer::{Answer, json, json_with, ok};
use crate::call::Call;
use crate::converse::{Conversation, converse};
use crate::detach::DetachKeys;
use crate::error::ApiError;
use crate::route::{Route, serve};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(POST "/containers/{name}/exec", 24, create, "create an exec"),
        serve!(POST "/exec/{id}/start", 24, start, "start an exec"),
        serve!(POST "/exec/{id}/resize", 24, resize, "set the size of an exec's terminal"),
        serve!(GET "/exec/{id}/json", 24, inspect, "inspect an exec"),
    ]
}

async fn create(mut call: Call) -> Result<Answer, ApiError> {
    let mut config: ExecConfig = call.json().await?.value;
    DetachKeys::parse(&config.detach_keys)?;
    if !call.is_at_least(42) {
        config.console_size = None;
    }
    json_with(StatusCode::CREATED, &call.state.engine.exec_create(call.param("name"), config).await?)
}

async fn start(mut call: Call) -> Result<Answer, ApiError> {
    let body: ExecStart = call.json().await?.value;
    let console_size = body.console_size.filter(|_| call.is_at_least(42) && body.tty);
    let console_size = match console_size {
        Some([rows, columns]) => Some((side(rows)?, side(columns)?)),
        None => None,
    };
    let id = call.param("id").to_owned();
    let keys = DetachKeys::parse(&call.state.engine.exec_inspect(&id).await?.detach_keys)?;
    let options = ExecStartOptions { detach: body.detach, console_size };
    if body.detach {
        call.state.engine.exec_start(&id, options).await?;
        return Ok(ok());
    }
    let engine = call.state.engine.clone();
    // The streams first, the process second, and why there is none as its output: clients count on this order, and the
    // SDK for Python loses what comes with the head of the answer. Source: moby, `exec.go` `postContainerExecStart`.
    Ok(super::attach::out_of_http(&call, !body.tty, move |raw| {
        Box::pin(async move {
            match engine.exec_start(&id, options).await {
                Ok(ExecStarted::Attached(attached)) => {
                    let keys = attached.tty.then_some(keys);
                    converse(raw, Conversation { attached, keys, before: Vec::new(), is_live: true }).await;
                }
                Ok(ExecStarted::Detached) => {}
                Err(error) => {
                    let text = format!("{}\r\n", images::message(&error)).into_bytes();
                    super::attach::last_words(raw, text, !body.tty).await;
                }
            }
        })
    }))
}

fn side(size: u32) -> Result<u16, ApiError> {
    u16::try_from(size).map_err(|_| ApiError::invalid(format!("invalid console size {size}")))
}

async fn resize(call: Call) -> Result<Answer, ApiError> {
    let (rows, columns) = super::attach::size(&call.query)?;
    call.state.engine.exec_resize(call.param("id"), rows, columns).await?;
    Ok(ok())
}

async fn inspect(call: Call) -> Result<Answer, ApiError> {
    json(&call.state.engine.exec_inspect(call.param("id")).await?)
}

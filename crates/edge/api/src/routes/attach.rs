//! Attach to a container, and the size of its terminal.
//!
//! In: which streams a client wants. Out: a raw conversation. Never buffers: see `converse.rs`.

use std::collections::BTreeMap;
use std::pin::Pin;

use engine::{AttachOptions, LogsOptions};
use logs::{OutputStream, Tail};
use tokio::io::AsyncWriteExt;

use crate::AppState;
use crate::answer::{Answer, ok};
use crate::call::Call;
use crate::converse::{Conversation, converse};
use crate::detach::DetachKeys;
use crate::error::ApiError;
use crate::log_lines::{RAW, Style, Writer, content_type};
use crate::query::Query;
use crate::route::{Route, serve};
use crate::takeover::{Raw, Takeover};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(POST "/containers/{name}/attach", 24, attach, "attach to a container's streams"),
        serve!(POST "/containers/{name}/resize", 24, resize, "set the size of a container's terminal"),
    ]
}

async fn attach(mut call: Call) -> Result<Answer, ApiError> {
    // The body is what follows the request: only what is declared as such is read away.
    call.bytes().await?;
    let query = &call.query;
    let options = AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let keys = DetachKeys::parse(query.text("detachKeys"))?;
    let (wants_logs, is_live) = (query.flag("logs"), query.flag("stream"));
    let name = call.param("name").to_owned();
    let attached = call.state.engine.attach(&name, options).await?;
    let framed = !attached.tty;
    let before = if wants_logs { past(&call.state, &name, options, framed).await? } else { Vec::new() };
    let keys = attached.tty.then_some(keys);
    Ok(taken_over(&call, Conversation { attached, keys, before, is_live }))
}

/// The way out of HTTP into a conversation.
fn taken_over(call: &Call, conversation: Conversation) -> Answer {
    out_of_http(call, !conversation.attached.tty, |raw| Box::pin(converse(raw, conversation)))
}

/// The way out of HTTP; `speak` has the connection from then on.
pub(super) fn out_of_http(
    call: &Call,
    framed: bool,
    speak: impl FnOnce(Raw) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static,
) -> Answer {
    let upgrade = call.wants_upgrade();
    let kind = if upgrade { content_type(framed, call.is_at_least(42)) } else { RAW };
    Answer::Takeover(Takeover { upgrade, kind, speak: Box::new(speak) })
}

/// Says one thing on stdout and closes.
pub(super) async fn last_words(mut raw: Raw, text: Vec<u8>, framed: bool) {
    let said = if framed { logs::frame(OutputStream::Stdout, &text) } else { text };
    // A client that is gone reads nothing.
    let _ = raw.write_all(&said).await;
    let _ = raw.shutdown().await;
}

/// What the container said before now.
async fn past(
    state: &AppState,
    name: &str,
    wanted: AttachOptions,
    framed: bool,
) -> Result<Vec<u8>, ApiError> {
    if !wanted.stdout && !wanted.stderr {
        return Ok(Vec::new());
    }
    let options = LogsOptions {
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        tail: Tail::All,
        ..LogsOptions::default()
    };
    let mut source = state.engine.logs(name, options).await?;
    let mut writer = Writer::new(Style { framed, ..Style::default() });
    let mut out = Vec::new();
    while let Some(entry) = source.next().await? {
        writer.append(&entry, &BTreeMap::new(), &mut out);
        if out.len() > LONGEST_PAST {
            return Err(ApiError::invalid("the log is too long to be sent ahead; use the logs route"));
        }
    }
    Ok(out)
}

/// Longest log sent ahead of an attach, which is held in memory. chosen: far more than a person reads.
const LONGEST_PAST: usize = 16 * 1024 * 1024;

async fn resize(call: Call) -> Result<Answer, ApiError> {
    let (rows, columns) = size(&call.query)?;
    call.state.engine.resize(call.param("name"), rows, columns).await?;
    Ok(ok())
}

/// Rows and columns of a resize. Source: moby, `container_routes.go` `postContainersResize`.
pub(super) fn size(query: &Query) -> Result<(u16, u16), ApiError> {
    let side = |key: &str, name: &str| {
        let text = query.text(key);
        text.parse::<u16>()
            .map_err(|_| ApiError::invalid(format!("invalid resize {name} \"{text}\": invalid syntax")))
    };
    Ok((side("h", "height")?, side("w", "width")?))
}

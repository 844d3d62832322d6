//! `GET /containers/{name}/logs`.
//!
//! In: which part of a log, and how. Out: its entries as they are read, no faster than the client takes them. Never holds
//! more than one batch.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::LogStream;
use futures_util::FutureExt;
use futures_util::stream::unfold;

use crate::AppState;
use crate::answer::{Answer, stream_until};
use crate::call::Call;
use crate::error::ApiError;
use crate::log_lines::{LogRequest, Writer, content_header};
use crate::route::{Route, serve};

/// Bytes after which a batch is sent. chosen: one read of the client, as large as a pipe.
const BATCH: usize = 64 * 1024;

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![serve!(GET "/containers/{name}/logs", 24, logs, "read and follow a container's log")]
}

async fn logs(call: Call) -> Result<Answer, ApiError> {
    let LogRequest { options, mut style } = LogRequest::read(&call)?;
    let source = call.state.engine.logs(call.param("name"), options).await?;
    style.framed = !source.tty;
    let kind = content_header(style.framed, call.is_at_least(42));
    let pieces = unfold((source, Writer::new(style)), |(mut source, mut writer)| async move {
        let batch = next_batch(&mut source, &mut writer, &BTreeMap::new()).await?;
        Some((batch, (source, writer)))
    });
    Ok(stream_until(&call.state.shutdown, kind, pieces))
}

/// The next entries that are there without waiting, at least one; `None` at the end.
pub(super) async fn next_batch(
    source: &mut LogStream,
    writer: &mut Writer,
    extra: &BTreeMap<String, String>,
) -> Option<Bytes> {
    let mut out = Vec::new();
    let mut found = source.next().await;
    loop {
        match found {
            Ok(Some(entry)) => writer.append(&entry, extra, &mut out),
            Ok(None) => break,
            Err(error) => {
                // The head has been sent: all that is left is to end early.
                tracing::warn!(error = crate::error::chain(&error), "read a container's log");
                break;
            }
        }
        if out.len() >= BATCH {
            break;
        }
        match source.next().now_or_never() {
            Some(next) => found = next,
            None => break,
        }
    }
    (!out.is_empty()).then(|| Bytes::from(out))
}

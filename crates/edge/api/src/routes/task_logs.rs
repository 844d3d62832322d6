//! Logs of services and tasks: those of their containers on this node, merged.
//!
//! In: a service or task, and which part of the logs. Out: entries of all its containers as they come, each with node,
//! service and task among its details. A container that starts while a client follows joins in. Never asks another node:
//! this version has one.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use engine::{ContainerState, Engine, LogStream, StateChange, StateChanges, Status};
use futures_util::stream::{SelectAll, unfold};
use futures_util::{Stream, StreamExt};

use super::logs::next_batch;
use crate::AppState;
use crate::answer::{Answer, stream_until};
use crate::call::Call;
use crate::error::ApiError;
use crate::log_lines::{LogRequest, Style, Writer, content_header};
use crate::route::{Route, serve};

/// Labels of a task's container. Source: moby, `daemon/cluster/executor/container/container.go`.
const SERVICE_ID: &str = "com.docker.swarm.service.id";
const TASK_ID: &str = "com.docker.swarm.task.id";
const NODE_ID: &str = "com.docker.swarm.node.id";

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/services/{id}/logs", 29, of_service, "read and follow the logs of a service's tasks"),
        serve!(GET "/tasks/{id}/logs", 29, of_task, "read and follow a task's log"),
    ]
}

async fn of_service(call: Call) -> Result<Answer, ApiError> {
    let service = call.state.swarm.manager()?.service(call.param("id"), false)?;
    let id = service["ID"].as_str().unwrap_or_default().to_owned();
    let has_terminal = service["Spec"]["TaskTemplate"]["ContainerSpec"]["TTY"] == true;
    answer(&call, Source { label: SERVICE_ID, id, ends_with_its_container: false }, has_terminal)
}

async fn of_task(call: Call) -> Result<Answer, ApiError> {
    let task = call.state.swarm.manager()?.task(call.param("id"))?;
    let id = task["ID"].as_str().unwrap_or_default().to_owned();
    let has_terminal = task["Spec"]["ContainerSpec"]["TTY"] == true;
    answer(&call, Source { label: TASK_ID, id, ends_with_its_container: true }, has_terminal)
}

/// Whose containers are read.
struct Source {
    label: &'static str,
    id: String,
    ends_with_its_container: bool,
}

impl Source {
    /// Whether the container is one of them, and has or had a process.
    fn has(&self, state: &ContainerState) -> bool {
        let was_started =
            matches!(state.status, Status::Running | Status::Paused | Status::Restarting | Status::Exited);
        was_started && state.labels.get(self.label) == Some(&self.id)
    }
}

type Pieces = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

fn answer(call: &Call, source: Source, has_terminal: bool) -> Result<Answer, ApiError> {
    let mut request = LogRequest::read(call)?;
    request.style.framed = !has_terminal;
    let engine = call.state.engine.clone();
    // Watched from before the first look, so that no container falls between.
    let changes = request.options.follow.then(|| engine.watch());
    let kind = content_header(request.style.framed, call.is_at_least(42));
    let merge = Merge {
        engine,
        source,
        request,
        changes,
        known: BTreeSet::new(),
        streams: SelectAll::new(),
        is_begun: false,
    };
    let pieces = unfold(merge, |mut merge| async move { Some((merge.next().await?, merge)) });
    Ok(stream_until(&call.state.shutdown, kind, pieces))
}

/// The logs of several containers as one.
struct Merge {
    engine: Engine,
    source: Source,
    request: LogRequest,
    changes: Option<StateChanges>,
    known: BTreeSet<String>,
    streams: SelectAll<Pieces>,
    is_begun: bool,
}

impl Merge {
    /// The next entries of any container; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.is_begun {
            self.is_begun = true;
            self.look().await;
        }
        loop {
            let is_over = self.source.ends_with_its_container && !self.known.is_empty();
            if self.streams.is_empty() && (self.changes.is_none() || is_over) {
                return None;
            }
            let has_streams = !self.streams.is_empty();
            tokio::select! {
                piece = self.streams.next(), if has_streams => {
                    // The last stream ended: the top of the loop says what that means.
                    let Some(piece) = piece else { continue };
                    return Some(piece);
                }
                change = next_change(&mut self.changes) => match change {
                    Some(StateChange::Changed(state)) => self.add(&state).await,
                    Some(StateChange::Missed) => self.look().await,
                    None => self.changes = None,
                },
            }
        }
    }

    /// Adds every container there is.
    async fn look(&mut self) {
        for state in self.engine.states() {
            self.add(&state).await;
        }
    }

    /// Adds a container if it belongs and is not there yet.
    async fn add(&mut self, state: &Arc<ContainerState>) {
        if !self.source.has(state) || self.known.contains(&state.id) {
            return;
        }
        match self.engine.logs(&state.id, self.request.options).await {
            Ok(log) => {
                self.known.insert(state.id.clone());
                self.streams.push(pieces(log, self.request.style, details(state)));
            }
            // It was removed meanwhile, or its log driver keeps nothing: the others are still worth reading.
            Err(error) => tracing::debug!(container.id = %state.id, %error, "skip a task's log"),
        }
    }
}

/// Waits for ever when nothing is followed.
async fn next_change(changes: &mut Option<StateChanges>) -> Option<StateChange> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

/// What tells a client whose entry it reads. Source: moby, `daemon/cluster/services.go` `ServiceLogs`.
fn details(state: &ContainerState) -> BTreeMap<String, String> {
    let label = |key: &str| Some((key.to_owned(), state.labels.get(key)?.clone()));
    [NODE_ID, SERVICE_ID, TASK_ID].into_iter().filter_map(label).collect()
}

fn pieces(log: LogStream, style: Style, details: BTreeMap<String, String>) -> Pieces {
    let from = (log, Writer::new(style), details);
    Box::pin(unfold(from, |(mut log, mut writer, details)| async move {
        let batch = next_batch(&mut log, &mut writer, &details).await?;
        Some((batch, (log, writer, details)))
    }))
}

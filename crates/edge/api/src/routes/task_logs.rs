//! Logs of services and tasks, wherever they run.
//!
//! ```text
//!  client ─► here: the manager asks the tasks' nodes ─► their `TaskLogs` ─► pieces of entries ─► here ─► client
//! ```
//!
//! In: a service or task, and which part of the logs. Out: entries of all its containers as they come, each with node,
//! service and task among its details. A container that starts while a client follows joins in.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use engine::{ContainerState, Engine, LogStream, LogsOptions, StateChange, StateChanges, Status};
use futures_util::stream::{SelectAll, unfold};
use futures_util::{Stream, StreamExt};
use logs::Tail;
use wire::logs::{LogPart, LogsOf};

use super::logs::next_batch;
use crate::AppState;
use crate::answer::{Answer, stream_until};
use crate::call::Call;
use crate::error::ApiError;
use crate::log_lines::{LogRequest, Style, Writer, content_header, system_error};
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
    let service = call.reader().await?.service(call.param("id"), false)?;
    let id = service["ID"].as_str().unwrap_or_default();
    let has_terminal = service["Spec"]["TaskTemplate"]["ContainerSpec"]["TTY"] == true;
    answer(&call, LogsOf::Service { id: id.into() }, has_terminal)
}

async fn of_task(call: Call) -> Result<Answer, ApiError> {
    let task = call.reader().await?.task(call.param("id"))?;
    let id = task["ID"].as_str().unwrap_or_default();
    let has_terminal = task["Spec"]["ContainerSpec"]["TTY"] == true;
    answer(&call, LogsOf::Task { id: id.into() }, has_terminal)
}

fn answer(call: &Call, of: LogsOf, has_terminal: bool) -> Result<Answer, ApiError> {
    let mut request = LogRequest::read(call)?;
    request.style.framed = !has_terminal;
    let framed = request.style.framed;
    let kind = content_header(framed, call.is_at_least(42));
    let reader = call.state.swarm.manager()?.read_logs(of, part(&request));
    let pieces = unfold(reader, move |mut reader| async move {
        let piece = match reader.next().await? {
            Ok(piece) => piece,
            Err(incomplete) if framed => system_error(&incomplete.to_string()),
            // A raw stream has no place for words that are not the container's.
            Err(incomplete) => {
                tracing::warn!("{incomplete}");
                return None;
            }
        };
        Some((piece, reader))
    });
    Ok(stream_until(&call.state.shutdown, kind, pieces))
}

/// The request as nodes are asked it.
fn part(request: &LogRequest) -> LogPart {
    let LogRequest { options, style } = request;
    LogPart {
        follow: options.follow,
        stdout: options.stdout,
        stderr: options.stderr,
        since: options.since,
        until: options.until,
        tail: match options.tail {
            Tail::All => None,
            Tail::Last(count) => Some(count),
        },
        timestamps: style.timestamps,
        details: style.details,
        framed: style.framed,
    }
}

/// The same, read by a node.
fn request(part: &LogPart) -> LogRequest {
    let options = LogsOptions {
        follow: part.follow,
        stdout: part.stdout,
        stderr: part.stderr,
        since: part.since,
        until: part.until,
        tail: part.tail.map_or(Tail::All, Tail::Last),
    };
    let style = Style { timestamps: part.timestamps, details: part.details, framed: part.framed };
    LogRequest { options, style }
}

/// Reads logs of this machine's tasks for managers, this machine's own among them.
pub struct TaskLogs {
    engine: Engine,
}

impl TaskLogs {
    /// Of this engine's containers.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }
}

impl agent::LogSource for TaskLogs {
    fn read(&self, of: &LogsOf, part: &LogPart) -> agent::Entries {
        let source = match of {
            LogsOf::Service { id } => {
                Source { label: SERVICE_ID, id: id.to_string(), ends_with_its_container: false }
            }
            LogsOf::Task { id } => {
                Source { label: TASK_ID, id: id.to_string(), ends_with_its_container: true }
            }
            LogsOf::Unknown => return Box::pin(futures_util::stream::empty()),
        };
        let merge = Merge {
            // Watched from before the first look, so that no container falls between.
            changes: part.follow.then(|| self.engine.watch()),
            engine: self.engine.clone(),
            source,
            request: request(part),
            known: BTreeSet::new(),
            streams: SelectAll::new(),
            is_begun: false,
        };
        Box::pin(unfold(merge, |mut merge| async move { Some((merge.next().await?, merge)) }))
    }
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

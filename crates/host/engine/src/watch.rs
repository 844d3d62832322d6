//! Tells the agent (and whoever else is level-triggered) how containers are, and that they changed.
//!
//! In: a container's state after each change. Out: a stream of such states; a reader that is too slow is told that it
//! missed some, and reads all of them again. Never stores anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use lifecycle::health;
use objects::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Chosen: 200 containers that start and end at once stay far below it.
const BACKLOG: usize = 4096;

/// What a container is doing. Docker's words in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process ended, and it waits to be started again by its restart policy.
    Restarting,
    /// Its process ended.
    Exited,
    /// It is being removed.
    Removing,
    /// It is gone; the last state anybody sees of it.
    Removed,
}

impl Status {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
            Status::Removing | Status::Removed => "removing",
        }
    }

    /// Whether it has a process.
    pub fn has_process(self) -> bool {
        matches!(self, Status::Running | Status::Paused)
    }
}

/// How one container is.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerState {
    /// 64 hex digits.
    pub id: String,
    /// Without slash.
    pub name: String,
    /// Its labels, the image's merged in.
    pub labels: Arc<BTreeMap<String, String>>,
    /// What it is doing.
    pub status: Status,
    /// The process id of its first process as this machine sees it.
    pub pid: Option<i32>,
    /// The last exit code; 0 before the first end.
    pub exit_code: i64,
    /// Whether the kernel killed one of its processes for lack of memory.
    pub oom_killed: bool,
    /// Why it could not be started, or why its end is unusual; usually empty.
    pub error: String,
    /// Whether it did not end by itself: the machine went down under it.
    pub went_with_machine: bool,
    /// Its health, when it has a health check and was started.
    pub health: Option<health::Status>,
    /// Ids of the networks that it is on.
    pub networks: Vec<String>,
    /// When it last started; zero before.
    pub started_at: Timestamp,
    /// When it last ended; zero before.
    pub finished_at: Timestamp,
}

/// One thing a reader of [`StateChanges`] learns.
#[derive(Debug, Clone)]
pub enum StateChange {
    /// A container is now so.
    Changed(Arc<ContainerState>),
    /// There were more changes than the reader kept up with: read [`crate::Engine::states`] again.
    Missed,
}

/// A stream of container states from the moment it was made.
pub struct StateChanges {
    receiver: broadcast::Receiver<Arc<ContainerState>>,
}

impl StateChanges {
    /// The next change; `None` once the engine has been dropped.
    pub async fn next(&mut self) -> Option<StateChange> {
        match self.receiver.recv().await {
            Ok(state) => Some(StateChange::Changed(state)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(StateChange::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// The sending side.
pub(crate) struct Announcer {
    sender: broadcast::Sender<Arc<ContainerState>>,
}

impl Announcer {
    pub(crate) fn new() -> Self {
        Announcer { sender: broadcast::channel(BACKLOG).0 }
    }

    pub(crate) fn subscribe(&self) -> StateChanges {
        StateChanges { receiver: self.sender.subscribe() }
    }

    pub(crate) fn announce(&self, state: ContainerState) {
        // Nobody listening is fine.
        let _ = self.sender.send(Arc::new(state));
    }
}

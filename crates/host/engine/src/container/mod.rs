//! One container in memory: its record, its shim while it runs, and whoever waits for it.
//!
//! In: operations, one at a time for what changes whether it runs. Out: its record and state. Each operation is a file of
//! its own beside this one; none holds the inner lock across an await.

pub(crate) mod archive;
pub(crate) mod attach;
pub(crate) mod changes;
pub(crate) mod commit;
pub(crate) mod create;
pub(crate) mod create_parts;
pub(crate) mod export;
pub(crate) mod files;
pub(crate) mod inspect;
pub(crate) mod layer;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod merge;
pub(crate) mod mounts;
pub(crate) mod names;
pub(crate) mod networks;
pub(crate) mod pause;
pub(crate) mod record;
pub(crate) mod registry;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod resolver;
pub(crate) mod signal;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod supervise;
pub(crate) mod top;
pub(crate) mod update;
pub(crate) mod validate;
pub(crate) mod wait;

use std::sync::{Arc, Mutex, MutexGuard};

use shim::client::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::attach::Pending;
use self::record::Record;
use crate::error::EngineError;
use crate::watch::{ContainerState, Status};

/// One container.
pub(crate) struct Container {
    /// 64 hex digits.
    pub(crate) id: String,
    /// Held by whoever starts it, takes in its end, renames or removes it. Waiting for its end happens without.
    pub(crate) turn: tokio::sync::Mutex<()>,
    live: Mutex<Live>,
    phase: watch::Sender<Phase>,
}

/// What changes while a container exists.
pub(crate) struct Live {
    /// What is on disk, or will be with the commit that is under way.
    pub(crate) record: Record,
    /// Its labels, shared with every state that is announced.
    pub(crate) labels: Arc<std::collections::BTreeMap<String, String>>,
    /// Its process, while it has one.
    pub(crate) running: Option<Running>,
    /// Clients that attached before it was started.
    pub(crate) pending: Vec<Pending>,
    /// How many requests are restarting it: its end then doesn't remove it.
    pub(crate) held: u32,
    /// Cancels the wait before a restart.
    pub(crate) restart: Option<CancellationToken>,
}

/// A container's process.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) shim: Handle,
    /// True once it ended and its log is complete.
    pub(crate) ended: Arc<watch::Sender<bool>>,
    /// Cancelled when it ended: health probes stop.
    pub(crate) over: CancellationToken,
}

/// What somebody who waits for a container looks at.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    pub(crate) status: Status,
    /// How many runs have ended since the daemon knows it.
    pub(crate) ends: u64,
    pub(crate) exit_code: i64,
    pub(crate) error: String,
    /// How many attempts to remove it failed, and why the last one did.
    pub(crate) failed_removals: u64,
    pub(crate) removal_error: String,
}

impl Container {
    /// A container from its record, without a process.
    pub(crate) fn new(record: Record) -> Arc<Container> {
        let phase = Phase {
            status: record.run.status,
            ends: 0,
            exit_code: record.run.exit_code,
            error: record.run.error.clone(),
            failed_removals: 0,
            removal_error: String::new(),
        };
        Arc::new(Container {
            id: record.id.clone(),
            turn: tokio::sync::Mutex::new(()),
            live: Mutex::new(Live {
                labels: Arc::new(record.config.labels.clone()),
                record,
                running: None,
                pending: Vec::new(),
                held: 0,
                restart: None,
            }),
            phase: watch::Sender::new(phase),
        })
    }

    /// Its inner state; never held across an await.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().expect("nothing panics while it holds this lock")
    }

    /// A copy of its record.
    pub(crate) fn record(&self) -> Record {
        self.live().record.clone()
    }

    pub(crate) fn status(&self) -> Status {
        self.live().record.run.status
    }

    /// For whoever has waited for its turn: it may have been removed meanwhile.
    pub(crate) fn check_exists(&self) -> Result<(), EngineError> {
        match self.status() {
            Status::Removing | Status::Removed => Err(EngineError::NoSuchContainer(self.id.clone())),
            _ => Ok(()),
        }
    }

    /// Its name without slash.
    pub(crate) fn name(&self) -> String {
        self.live().record.name.clone()
    }

    /// Its process, or Docker's refusal.
    pub(crate) fn running(&self) -> Result<Running, EngineError> {
        let live = self.live();
        live.running.clone().ok_or_else(|| match live.record.run.status.has_process() {
            true => EngineError::ShimSilent(self.id.clone()),
            false => EngineError::wrong_state(format!("container {} is not running", self.id)),
        })
    }

    /// Shows the record's state to whoever waits. `ended` counts one more run as over.
    pub(crate) fn publish_phase(&self, ended: bool) {
        let run = self.live().record.run.clone();
        self.phase.send_modify(|phase| {
            phase.status = run.status;
            phase.ends += u64::from(ended);
            phase.exit_code = run.exit_code;
            phase.error = run.error;
        });
    }

    /// Tells whoever waits for its removal that there is nothing to wait for.
    pub(crate) fn publish_not_removed(&self, error: String) {
        let status = self.status();
        self.phase.send_modify(|phase| {
            phase.status = status;
            phase.failed_removals += 1;
            phase.removal_error = error;
        });
    }

    /// The last thing anybody hears of it.
    pub(crate) fn publish_gone(&self) {
        self.phase.send_modify(|phase| phase.status = Status::Removed);
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Its state as the agent sees it.
    pub(crate) fn state(&self) -> ContainerState {
        let live = self.live();
        let run = &live.record.run;
        ContainerState {
            id: self.id.clone(),
            name: live.record.name.clone(),
            labels: Arc::clone(&live.labels),
            status: run.status,
            pid: run.pid.filter(|_| run.status.has_process()),
            exit_code: run.exit_code,
            oom_killed: run.oom_killed,
            error: run.error.clone(),
            went_with_machine: run.went_with_machine,
            health: run.health.as_ref().filter(|_| run.status.has_process()).map(|health| health.status()),
            networks: run
                .attachment
                .iter()
                .flat_map(|it| &it.endpoints)
                .map(|it| it.network_id.clone())
                .collect(),
            started_at: run.started_at,
            finished_at: run.finished_at,
        }
    }
}

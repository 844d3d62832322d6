//! Execs: further processes in running containers.
//!
//! In: what clients ask, and probes. Out: processes through shims of their own. Execs live in memory; one that a client
//! started detached is also noted in its directory, so that it survives the daemon.

pub(crate) mod adopt;
pub(crate) mod create;
pub(crate) mod inspect;
pub(crate) mod start;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use docker::ExecConfig;
use serde::{Deserialize, Serialize};
use shim::client::Handle;

pub(crate) use self::start::probe;
use crate::engine::Inner;
use crate::error::EngineError;

/// One exec.
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) container: String,
    pub(crate) config: ExecConfig,
    live: Mutex<Live>,
}

#[derive(Default)]
pub(crate) struct Live {
    pub(crate) phase: Phase,
    pub(crate) shim: Option<Handle>,
    pub(crate) pid: i32,
    pub(crate) exit_code: Option<i64>,
}

/// How far an exec is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    #[default]
    Created,
    /// Somebody is starting it: nobody else may.
    Starting,
    Running,
    Over,
}

/// What is noted on disk of a detached exec.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) id: String,
    pub(crate) container: String,
    pub(crate) config: ExecConfig,
}

/// The file of a [`Note`] in an exec's directory.
pub(crate) const NOTE_FILE: &str = "exec.json";

impl Exec {
    pub(crate) fn new(id: String, container: String, config: ExecConfig) -> Arc<Exec> {
        Arc::new(Exec { id, container, config, live: Mutex::default() })
    }

    /// Its inner state; never held across an await.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().expect("nothing panics while it holds this lock")
    }
}

/// All execs that clients may still ask about.
#[derive(Default)]
pub(crate) struct Execs {
    all: Mutex<BTreeMap<String, Arc<Exec>>>,
}

impl Execs {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        self.all.lock().expect("nothing panics while it holds this lock")
    }

    pub(crate) fn insert(&self, exec: Arc<Exec>) {
        self.all().insert(exec.id.clone(), exec);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.all().remove(id);
    }

    /// The exec with this id or id prefix.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Exec>, EngineError> {
        let all = self.all();
        let missing = || EngineError::NoSuchExec(id.to_owned());
        if id.is_empty() {
            return Err(missing());
        }
        if let Some(exec) = all.get(id) {
            return Ok(Arc::clone(exec));
        }
        let mut fitting = all.range(id.to_owned()..).take_while(|(known, _)| known.starts_with(id));
        match (fitting.next(), fitting.next()) {
            (Some((_, exec)), None) => Ok(Arc::clone(exec)),
            (Some(_), Some(_)) => Err(EngineError::AmbiguousPrefix(id.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    /// Ids of a container's execs that aren't over.
    pub(crate) fn of_container(&self, container: &str) -> Vec<String> {
        let all = self.all();
        let of_it = all.values().filter(|exec| exec.container == container);
        of_it.filter(|exec| exec.live().phase != Phase::Over).map(|exec| exec.id.clone()).collect()
    }

    /// A container is gone: so are its execs, whose processes ended with it.
    pub(crate) async fn forget_container(&self, inner: &Inner, container: &str) {
        let gone: Vec<String> = {
            let mut all = self.all();
            let ids: Vec<String> =
                all.values().filter(|exec| exec.container == container).map(|exec| exec.id.clone()).collect();
            for id in &ids {
                all.remove(id);
            }
            ids
        };
        for id in gone {
            start::remove_dir(inner, &id).await;
        }
    }
}

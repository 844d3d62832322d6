//! Keeps the shims out of the daemon's cgroup, in one beside their containers': what limits or stops the daemon as a unit
//! of systemd (`KillMode=control-group`, `MemoryMax=`) does not reach them.
//!
//! In: shims that were started or adopted, and containers that were removed. Out: `<parent>/shims` in every tree, made for
//! the first shim and removed after the last container. A shim is moved a moment after its start, many at once: moving
//! one makes the kernel wait for all processors, which no start should. Never ends a shim.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use runtime::cgroup::{Cgroup, CgroupError};
use shim::client::Handle;
use tokio::sync::Notify;

use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::files::blocking;

/// The group's name below the parent of the containers' groups; theirs are ids of 64 digits.
pub(crate) const NAME: &str = "shims";
/// How long a shim has run before it is moved. Chosen: most health probes and one-shot commands are over by then, and
/// nobody stops a unit that fast.
const SETTLED: Duration = Duration::from_millis(250);
/// How often, and how soon, the group is tried to be removed after the last container. Chosen: a shim ends within
/// milliseconds of its container; what stays belongs to another daemon below the same parent.
const REMOVALS: (u32, Duration) = (12, Duration::from_millis(2));

/// The shims that are still to be moved.
#[derive(Default)]
pub(crate) struct ShimGroup {
    /// Process id → its start time, so that no other process is moved.
    waiting: Mutex<BTreeMap<i32, u64>>,
    rung: Notify,
}

impl ShimGroup {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<i32, u64>> {
        self.waiting.lock().expect("nothing panics while it holds this lock")
    }

    /// Has a shim moved soon.
    pub(crate) fn take_in(&self, shim: &Handle) {
        // One that has ended has no start time.
        if let Some(started) = runtime::start_time(shim.shim_pid()) {
            self.waiting().insert(shim.shim_pid(), started);
            self.rung.notify_one();
        }
    }

    /// Has the group removed soon if that was the last container.
    pub(crate) fn container_removed(&self) {
        self.rung.notify_one();
    }
}

/// Moves shims until the engine shuts down, and then those that are left.
pub(crate) async fn run(engine: Engine) {
    let inner = Arc::clone(&engine.inner);
    let stop = &inner.shutdown;
    while stop.run_until_cancelled(inner.shim_group.rung.notified()).await.is_some() {
        if inner.registry.is_empty() {
            remove(&inner).await;
        } else if stop.run_until_cancelled(tokio::time::sleep(SETTLED)).await.is_some() {
            move_all(&inner).await;
        }
    }
    move_all(&inner).await;
    remove(&inner).await;
}

async fn move_all(inner: &Inner) {
    let shims = std::mem::take(&mut *inner.shim_group.waiting());
    if shims.is_empty() {
        return;
    }
    let parent = inner.config.cgroup_parent.clone();
    if let Err(error) = inner.cgroup_parents.note(&format!("{}/{NAME}", parent.trim_end_matches('/'))) {
        tracing::warn!(error = &error as &dyn std::error::Error, "the cgroup of shims may be left behind");
    }
    let moved =
        blocking(move || move_in(&parent, &shims).map_err(|error| EngineError::Cgroup(Box::new(error))));
    if let Err(error) = moved.await {
        tracing::warn!(error = &error as &dyn std::error::Error, "shims stay in the daemon's cgroup");
    }
}

fn move_in(parent: &str, shims: &BTreeMap<i32, u64>) -> Result<(), CgroupError> {
    let is_there = |(pid, started): &(&i32, &u64)| runtime::start_time(**pid) == Some(**started);
    let mut failed = Ok(());
    for (pid, _) in shims.iter().filter(is_there) {
        // Another daemon below the same parent may take the group away, empty as it is: then it is made again.
        let put = || Cgroup::unlimited(parent, NAME)?.add(*pid);
        if let Err(error) = put().or_else(|_| put())
            && runtime::start_time(*pid).is_some()
        {
            failed = Err(error);
        }
    }
    failed
}

/// Removes the group when no container is left that could have a shim in it.
async fn remove(inner: &Inner) {
    let (mut left, mut pause) = REMOVALS;
    while inner.registry.is_empty() && left > 0 {
        let parent = inner.config.cgroup_parent.clone();
        let gone = blocking(move || {
            Cgroup::open(&parent, NAME)
                .map(|group| group.remove_if_empty())
                .map_err(|error| EngineError::Cgroup(Box::new(error)))
        });
        if gone.await.unwrap_or(true) {
            return;
        }
        tokio::time::sleep(pause).await;
        (left, pause) = (left - 1, 2 * pause);
    }
}

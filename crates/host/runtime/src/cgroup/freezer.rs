//! Stops a group's processes where they are, and lets them go on.
//!
//! In: a group. Out: all its processes, also below it, frozen when this returns, or none of them. Never leaves a group
//! half frozen after an error.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Cgroup, CgroupError, stats, write_file};

/// How long to wait until every process is frozen; one that waits for a dead disk never is.
/// Source: runc, `libcontainer/cgroups/fs2/freezer.go` (1000 looks, 10 ms apart).
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops all processes where they are (`docker pause`), or lets them go on.
    ///
    /// # Errors
    /// When the host can do neither kind of freezing, or a process does not freeze within ten seconds; all go on then.
    pub fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        self.order_freeze(frozen)?;
        if !frozen {
            return Ok(());
        }
        let deadline = Instant::now() + FREEZE_TIMEOUT;
        let mut pause = Duration::from_micros(200);
        while !self.is_frozen() {
            if Instant::now() >= deadline {
                self.order_freeze(false)?;
                return Err(CgroupError::NotFrozen { path: self.freezer()?.to_owned() });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether the last process has stopped. Reading version 1's file makes its kernel look again.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        if let Some(own) = self.v1("freezer") {
            return std::fs::read_to_string(own.join("freezer.state"))
                .is_ok_and(|state| state.trim() == "FROZEN");
        }
        self.v2().is_some_and(|own| stats::field(&stats::table(own, "cgroup.events"), "frozen") == 1)
    }

    /// Asks the kernel to freeze or thaw, which it does in its own time.
    pub(super) fn order_freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        let (file, text) = match (self.v1("freezer").is_some(), frozen) {
            (true, true) => ("freezer.state", "FROZEN"),
            (true, false) => ("freezer.state", "THAWED"),
            (false, true) => ("cgroup.freeze", "1"),
            (false, false) => ("cgroup.freeze", "0"),
        };
        write_file(&self.freezer()?.join(file), text)
    }

    fn freezer(&self) -> Result<&Path, CgroupError> {
        let own = self.v1("freezer").or_else(|| self.v2());
        own.ok_or(CgroupError::NoController { controller: "freezer" })
    }
}

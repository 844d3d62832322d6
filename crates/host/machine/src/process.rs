//! The processes of machines as seen from outside: found again by pid and start time, since pids are reused.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags};

/// A process that is not another one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks since the machine started. Source: proc(5), field 22 of `/proc/PID/stat`.
    started: u64,
}

impl Process {
    /// The process of this number, if it lives.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in parentheses that may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let is_dead = matches!(fields.next()?, "Z" | "X");
        let started = fields.nth(18)?.parse().ok()?;
        (!is_dead).then_some(Self { pid, started })
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.trim().split_once(' ')?;
        let known = Self { pid: pid.parse().ok()?, started: started.parse().ok()? };
        (Self::of(known.pid)? == known).then_some(known)
    }

    pub(crate) fn to_text(self) -> String {
        format!("{} {}\n", self.pid, self.started)
    }

    /// A handle that stays this process, whatever its number means later.
    pub(crate) fn open(self) -> Option<OwnedFd> {
        let handle = rustix::process::pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // It may have ended, and another one begun, before the handle was there.
        (Self::of(self.pid)? == self).then_some(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_again_until_it_ends() {
        let own = Process::of(std::process::id().cast_signed()).expect("this one lives");
        assert_eq!(Process::parse(&own.to_text()), Some(own));
        assert!(own.open().is_some());
        let mut child = std::process::Command::new("true").spawn().expect("a child");
        let pid = child.id().cast_signed();
        child.wait().expect("it ends");
        assert_eq!(Process::of(pid), None);
        assert_eq!(Process::parse(&format!("{} 1", own.pid)), None, "another start time is another process");
    }
}

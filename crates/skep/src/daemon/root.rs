//! The daemon's folders: made with the right mode, locked against a second daemon, and the pid file.
//!
//! In: paths. Out: a guard; dropping it gives the folders free and removes the pid file, and the exec root if no
//! container is in it. A lock ends with its process, so a daemon that was killed leaves nothing to clear.

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What only one daemon may hold.
pub(crate) struct RootGuard {
    _data: File,
    _exec: File,
    exec_root: PathBuf,
    pidfile: PathBuf,
}

/// The file in a root that is locked.
const LOCK: &str = "skep.lock";

/// How long the heirs of a killed daemon may hold its lock. A child that it was just starting has a copy of every open
/// file until it executes its program, which takes milliseconds. chosen: far more than that.
const HEIRS_LET_GO: Duration = Duration::from_secs(2);

/// Pause between two looks at a lock that an heir holds; there is no event for its end.
const ASK_AGAIN: Duration = Duration::from_millis(2);

/// Makes both roots and takes them for this process.
///
/// # Errors
/// When another daemon runs on one of them, or a folder cannot be made.
pub(crate) fn take(data_root: &Path, exec_root: &Path, pidfile: &Path) -> anyhow::Result<RootGuard> {
    let data = lock(data_root, "data-root", 0o710)?;
    let exec = lock(exec_root, "exec-root", 0o700)?;
    write_pid(pidfile)?;
    Ok(RootGuard { _data: data, _exec: exec, exec_root: exec_root.to_owned(), pidfile: pidfile.to_owned() })
}

fn lock(folder: &Path, flag: &str, mode: u32) -> anyhow::Result<File> {
    loop {
        let locked = lock_once(folder, flag, mode, || std::thread::sleep(ASK_AGAIN))?;
        // The one who held it before may have removed the file just after it was opened here.
        if is_in_place(folder, &locked) {
            return Ok(locked);
        }
    }
}

/// Whether the file that is locked is the one that others will try to lock.
fn is_in_place(folder: &Path, locked: &File) -> bool {
    match (fs::metadata(folder.join(LOCK)), locked.metadata()) {
        (Ok(named), Ok(held)) => (named.dev(), named.ino()) == (held.dev(), held.ino()),
        _ => false,
    }
}

/// `pause` passes the time between two looks at a lock whose holder is no daemon any more.
fn lock_once(folder: &Path, flag: &str, mode: u32, mut pause: impl FnMut()) -> anyhow::Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .with_context(|| format!("create {flag} {}", folder.display()))?;
    let path = folder.join(LOCK);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.with_context(|| format!("open {}", path.display()))?;
    let patience = Instant::now() + HEIRS_LET_GO;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let holder = fs::read_to_string(&path).unwrap_or_default();
        let holder = holder.trim();
        if is_running_daemon(holder) || Instant::now() > patience {
            bail!(
                "{flag} {} is in use by another skep daemon (pid {holder}); stop it, or give this one a --{flag} of its own",
                folder.display(),
            );
        }
        pause();
    }
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()))?;
    Ok(file)
}

/// Refuses when the file names a live process that is not this one.
fn write_pid(path: &Path) -> anyhow::Result<()> {
    if let Ok(text) = fs::read_to_string(path)
        && let Ok(pid) = text.trim().parse::<u32>()
        && pid != std::process::id()
        && is_running_daemon(text.trim())
    {
        bail!(
            "process with PID {pid} is still running (pid file {}); give this daemon a --pidfile of its own",
            path.display()
        );
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    let written = fs::write(path, format!("{}\n", std::process::id()));
    written.with_context(|| format!("write pid file {}", path.display()))
}

/// Whether a daemon has this pid: one is reused after a reboot, and a killed process has no command line any more.
fn is_running_daemon(pid: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"daemon")
}

impl Drop for RootGuard {
    fn drop(&mut self) {
        // A pid file that stays is recognised as stale by the next start.
        let _ = fs::remove_file(&self.pidfile);
        // What runs is adopted from the exec root; without anything in it but the lock, the root can go. The lock is
        // still held, and whoever opened its file meanwhile sees that it is not the one in the folder any more.
        let is_empty = fs::read_dir(&self.exec_root)
            .is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name() == LOCK));
        if is_empty {
            let _ = fs::remove_file(self.exec_root.join(LOCK));
            // Refused when somebody has put something there in this moment.
            let _ = fs::remove_dir(&self.exec_root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_holds_the_root() {
        let base = tempfile::tempdir().expect("a folder");
        let at = |name: &str| base.path().join(name);
        let guard = take(&at("data"), &at("exec"), &at("pid")).expect("nobody holds it");
        let error = take(&at("data"), &at("exec2"), &at("pid2")).err().expect("it is held").to_string();
        assert!(error.contains("is in use by another skep daemon"), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(guard);
        assert!(!at("pid").exists());
        assert!(!at("exec").exists());
        take(&at("data"), &at("exec"), &at("pid")).expect("the lock ended with its holder");
    }

    #[test]
    fn a_lock_that_only_heirs_of_a_dead_daemon_hold_is_waited_for() {
        let base = tempfile::tempdir().expect("a folder");
        let mut heir = Some(lock(base.path(), "data-root", 0o700).expect("nobody holds it"));
        // This process is no daemon, as a child that has not executed its program yet is none.
        let mut pauses = 0;
        lock_once(base.path(), "data-root", 0o700, || {
            pauses += 1;
            drop(heir.take());
        })
        .expect("the heir let go");
        assert_eq!(pauses, 1);
    }

    #[test]
    fn an_exec_root_with_containers_in_it_stays() {
        let base = tempfile::tempdir().expect("a folder");
        let at = |name: &str| base.path().join(name);
        let guard = take(&at("data"), &at("exec"), &at("pid")).expect("nobody holds it");
        fs::create_dir(at("exec/containers")).expect("a folder");
        drop(guard);
        assert!(at("exec/containers").exists() && at("exec").join(LOCK).exists());
    }

    #[test]
    fn the_lock_of_a_file_that_was_removed_is_none() {
        let base = tempfile::tempdir().expect("a folder");
        let held = lock(base.path(), "exec-root", 0o700).expect("nobody holds it");
        assert!(is_in_place(base.path(), &held));
        fs::remove_file(base.path().join(LOCK)).expect("it is there");
        assert!(!is_in_place(base.path(), &held));
        let next = lock(base.path(), "exec-root", 0o700).expect("nobody holds the new one");
        assert!(!is_in_place(base.path(), &held) && is_in_place(base.path(), &next));
    }
}

//! The daemon's folders: made with the right mode, locked against a second daemon, and the pid file.
//!
//! In: paths. Out: a guard; dropping it gives the folders free and removes the pid file, and the exec root if no
//! container is in it. A lock ends with its process, so a daemon that was killed leaves nothing to clear.

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// What only one daemon may hold.
pub(crate) struct RootGuard {
    _data: File,
    _exec: File,
    exec_root: PathBuf,
    pidfile: PathBuf,
}

/// The file in a root that is locked.
const LOCK: &str = "skep.lock";

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
        let locked = lock_once(folder, flag, mode)?;
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

fn lock_once(folder: &Path, flag: &str, mode: u32) -> anyhow::Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .with_context(|| format!("create {flag} {}", folder.display()))?;
    let path = folder.join(LOCK);
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.as_mut().map_err(|error| anyhow::anyhow!("open {}: {error}", path.display()))?;
    if flock(&*file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        // The pid only helps the reader; without it the message still holds.
        let _ = file.read_to_string(&mut holder);
        bail!(
            "{flag} {} is in use by another skep daemon (pid {}); stop it, or give this one a --{flag} of its own",
            folder.display(),
            holder.trim()
        );
    }
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()))?;
    Ok(file.try_clone()?)
}

/// Refuses when the file names a live process that is not this one.
fn write_pid(path: &Path) -> anyhow::Result<()> {
    if let Ok(text) = fs::read_to_string(path)
        && let Ok(pid) = text.trim().parse::<u32>()
        && pid != std::process::id()
        && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is_daemon(&line))
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

/// A pid is reused after a reboot; only a daemon counts.
fn is_daemon(cmdline: &[u8]) -> bool {
    cmdline.split(|byte| *byte == 0).nth(1) == Some(b"daemon")
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

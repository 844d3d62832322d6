//! The daemon's folders: made with the right mode, locked against a second daemon, and the pid file.
//!
//! In: paths. Out: a guard; dropping it gives the folders free and removes the pid file. A lock ends with its process,
//! so a daemon that was killed leaves nothing to clear.

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What only one daemon may hold.
pub(crate) struct RootGuard {
    _data: File,
    _exec: File,
    pidfile: PathBuf,
}

/// Makes both roots and takes them for this process.
///
/// # Errors
/// When another daemon runs on one of them, or a folder cannot be made.
pub(crate) fn take(data_root: &Path, exec_root: &Path, pidfile: &Path) -> anyhow::Result<RootGuard> {
    let data = lock(data_root, "data-root", 0o710)?;
    let exec = lock(exec_root, "exec-root", 0o700)?;
    write_pid(pidfile)?;
    Ok(RootGuard { _data: data, _exec: exec, pidfile: pidfile.to_owned() })
}

fn lock(folder: &Path, flag: &str, mode: u32) -> anyhow::Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .with_context(|| format!("create {flag} {}", folder.display()))?;
    let path = folder.join("skep.lock");
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
        take(&at("data"), &at("exec"), &at("pid")).expect("the lock ended with its holder");
    }
}

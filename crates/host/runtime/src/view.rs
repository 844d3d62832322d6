//! Shows a container's files to this program, whether or not the container runs.
//!
//! In: the pid of a container's first process, or the root and the mounts it would get. Out: its root directory, lent
//! to a piece of work for as long as that takes. What is mounted for it is mounted in a namespace of a thread of its
//! own and goes with that thread, also when this program is killed. Never runs anything of the container.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::inside::Inside;
use crate::mounts;
use crate::root;
use crate::spec::{Mount, Root};
use crate::sys;
use crate::wire::Failure;

/// Whose files are looked at.
#[derive(Debug, Clone)]
pub enum Files {
    /// Those that a running process sees, mounts included.
    OfProcess(i32),
    /// Those of a running process's root file system alone, without what is mounted on it.
    BelowMountsOf(i32),
    /// Those of a container without a process: its layers, with these binds. No other process may have the same upper
    /// directory mounted meanwhile. Mounts that aren't binds are left out: what they hold begins and ends with a run.
    Stopped(Root, Vec<Mount>),
}

/// Why files can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The process has ended.
    #[error("process {pid} is gone")]
    Gone {
        /// Its id.
        pid: i32,
    },
    /// Something could not be opened or mounted.
    #[error("{action} `{}`", path.display())]
    System {
        /// What was tried.
        action: String,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Lends the root directory of `files`, as a mere reference, to `work` and returns what that returns. Blocks.
///
/// # Errors
/// When the process is gone, or a mount fails; `work` was not called then.
pub fn lend<T: Send>(files: &Files, work: impl FnOnce(BorrowedFd<'_>) -> T + Send) -> Result<T, ViewError> {
    match files {
        Files::OfProcess(pid) => Ok(work(root_of(*pid)?.as_fd())),
        // The work is done here: in the container's namespace, `/proc` is the container's.
        Files::BelowMountsOf(pid) => Ok(work(on_a_thread(|| bare_root_of(*pid))?.as_fd())),
        Files::Stopped(root, binds) => on_a_thread(|| {
            let mounted = mount_all(root, binds)?;
            let done = work(mounted.as_fd());
            drop(mounted);
            // At once rather than when the thread is gone, for its upper directory may be mounted next. A failure only
            // means that it happens then.
            let _ = unmount(&root.merged, UnmountFlags::DETACH);
            Ok(done)
        }),
    }
}

fn system(action: &str, path: impl Into<PathBuf>) -> impl FnOnce(Errno) -> ViewError {
    let path = path.into();
    move |errno| ViewError::System { action: action.to_owned(), path, source: errno.into() }
}

/// A thread may leave the file system view that all threads share; it never comes back, so it is one of its own.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T, ViewError> + Send) -> Result<T, ViewError> {
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new().name("container-files".into()).spawn_scoped(scope, work);
        let spawned = spawned.map_err(|source| ViewError::System {
            action: "start thread".into(),
            path: PathBuf::new(),
            source,
        })?;
        spawned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn root_of(pid: i32) -> Result<OwnedFd, ViewError> {
    let path = PathBuf::from(format!("/proc/{pid}/root"));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(&path, flags, Mode::empty()).map_err(|errno| match errno {
        // A process that has ended and was not waited for has no root any more.
        Errno::NOENT | Errno::SRCH | Errno::ACCESS => ViewError::Gone { pid },
        errno => system("open", path)(errno),
    })
}

fn bare_root_of(pid: i32) -> Result<OwnedFd, ViewError> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/mnt"));
    let namespace =
        open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::SRCH | Errno::ACCESS => ViewError::Gone { pid },
            errno => system("open", &path)(errno),
        })?;
    sys::unshare(libc::CLONE_FS).map_err(system("leave the common view for", &path))?;
    sys::setns(&namespace, libc::CLONE_NEWNS).map_err(system("enter", &path))?;
    root::copy_of(CWD, Path::new("/"), false).map_err(system("copy mount", "/"))
}

fn mount_all(root: &Root, binds: &[Mount]) -> Result<OwnedFd, ViewError> {
    sys::unshare(libc::CLONE_NEWNS).map_err(system("make a mount namespace for", &root.merged))?;
    let mounted = root::detach_from_host().and_then(|()| root::mount(root)).map_err(told)?;
    let inside = Inside::of(mounted);
    mounts::bind_all(&inside, binds).map_err(told)?;
    Ok(inside.into_root())
}

fn told(failure: Failure) -> ViewError {
    let (action, path, errno) = match failure {
        Failure::BindSource { path, errno } => ("open bind source".to_owned(), path, errno),
        Failure::Step { step, subject, errno } => (step.to_string(), subject, errno),
        other => (format!("{other:?}"), String::new(), Errno::INVAL),
    };
    ViewError::System { action, path: path.into(), source: errno.into() }
}

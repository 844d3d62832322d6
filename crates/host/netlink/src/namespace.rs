//! Network namespaces: made, entered, named.
//!
//! In: open namespaces. Out: what a job did inside one. A thread of its own goes in and ends there, so that no thread of
//! the caller can be left in the wrong place. Never moves the calling thread.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

const OWN: &str = "/proc/thread-self/ns/net";

/// The calling thread's network namespace.
pub fn own() -> io::Result<OwnedFd> {
    Ok(File::open(OWN)?.into())
}

/// The network namespace of a process.
pub fn of_process(pid: u32) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/{pid}/ns/net"))?.into())
}

/// Opens a pinned namespace. Fails with `InvalidInput` when nothing is mounted on the file.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let file = File::open(path)?;
    let kind = rustix::fs::fstatfs(&file)?.f_type;
    if i128::from(kind) == i128::from(libc::NSFS_MAGIC) {
        Ok(file.into())
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// Makes a new network namespace, in which there is a loopback that is down.
pub fn make() -> io::Result<OwnedFd> {
    in_a_thread(|| {
        // SAFETY: only this thread, which shares no descriptor table or signal state through the flag given, gets another
        // network namespace; it ends right after.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        own()
    })
}

/// Makes a new network namespace that stays while it is mounted on `path`, an existing empty file.
pub fn make_pinned(path: &Path) -> io::Result<OwnedFd> {
    in_a_thread(|| {
        // SAFETY: as in `make`.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        rustix::mount::mount_bind(OWN, path)?;
        own()
    })
}

/// Takes what is mounted on `path` away; the namespace ends with its last user.
pub fn unpin(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH)?)
}

/// Does a job inside a namespace. Sockets that the job opens stay in that namespace wherever they are used.
pub fn within<T: Send>(namespace: BorrowedFd<'_>, job: impl FnOnce() -> T + Send) -> io::Result<T> {
    in_a_thread(|| {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(job())
    })
}

fn in_a_thread<T: Send>(job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, job)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

//! Makes a program that containers may come to see impossible to write to.
//!
//! In: a path. Out: a descriptor of the same file on a read-only mount of its own, which is attached nowhere: whoever
//! reaches the file through `/proc/PID/exe` of a process that was executed by way of it can read, and no more. It is the
//! same file, so that its pages in memory are shared, and it stays the same when something else takes its name. Source of
//! the danger: CVE-2019-5736 (runc). Whoever holds `CAP_SYS_ADMIN` outside user namespaces may undo it, and needs no such
//! detour. Never changes the mount that the path is on.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::CWD;

use crate::{root, sys};

/// A read-only view of the file at `path`, for execution through `/proc/self/fd`. Closed by `execve`.
///
/// # Errors
/// When the kernel is older than 5.12, the caller may not mount, or the file is on no mount of the caller's namespace.
pub fn read_only_view(path: &Path) -> io::Result<OwnedFd> {
    let view = root::copy_of(CWD, path, false)?;
    let attr = sys::MountAttr {
        set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID,
        propagation: libc::MS_PRIVATE,
        ..Default::default()
    };
    sys::mount_setattr(&view, c"", libc::AT_EMPTY_PATH, attr)?;
    Ok(view)
}

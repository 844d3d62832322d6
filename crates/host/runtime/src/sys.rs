//! Wraps the system calls that have no safe wrapper in `rustix`.
//!
//! In: plain values. Out: the kernel's answer as `Errno`. Never decides anything.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// Result of a system call.
pub(crate) type SysResult<T> = Result<T, Errno>;

/// Turns a system call's return value into a result.
fn check(value: libc::c_long) -> SysResult<libc::c_long> {
    if value < 0 { Err(last_errno()) } else { Ok(value) }
}

/// The error of the last failed call of the C library.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Arguments of `clone3`, as in `linux/sched.h`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Source: `linux/sched.h`; the C library's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a fork the caller is on.
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The caller, with the child's process id and a descriptor that refers to it.
    Parent(i32, OwnedFd),
}

/// Forks with new namespaces, optionally straight into a cgroup of version 2.
///
/// # Safety
/// The calling process must have a single thread: the child goes on with a copy of its memory and locks.
pub(crate) unsafe fn clone3(flags: u64, cgroup: Option<RawFd>) -> SysResult<Forked> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(fd).map_err(|_| Errno::BADF)?;
    }
    // SAFETY: `args` has the layout and size that the kernel expects, lives across the call, and asks for no shared
    // memory, so the child runs on its own copy of this stack.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: the kernel has stored a new descriptor, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent(i32::try_from(pid).map_err(|_| Errno::RANGE)?, pidfd))
}

/// Leaves what `flags` name behind and gets a copy of its own, for this thread alone.
pub(crate) fn unshare(flags: i32) -> SysResult<()> {
    // SAFETY: plain integers only. Of the flags that are used here, none touches memory or descriptors.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}

/// Joins the namespace or namespaces that `fd` (a namespace file or a pidfd) stands for.
pub(crate) fn setns(fd: impl AsFd, flags: i32) -> SysResult<()> {
    // SAFETY: plain integers only.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_fd().as_raw_fd(), flags) }).map(drop)
}

/// Attributes of `mount_setattr`, as in `linux/mount.h`.
#[repr(C)]
#[derive(Default, Clone, Copy)]
pub(crate) struct MountAttr {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) userns_fd: u64,
}

/// Changes the attributes of the mount that `fd` refers to, or of the one at `path` below it.
pub(crate) fn mount_setattr(fd: impl AsFd, path: &CStr, flags: i32, attr: MountAttr) -> SysResult<()> {
    // SAFETY: `path` ends with a nul byte, `attr` has the kernel's layout and its size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// `prctl` with integer arguments.
pub(crate) fn prctl(option: i32, a: u64, b: u64) -> SysResult<()> {
    // SAFETY: used with options that take integers only.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, a, b, 0u64, 0u64) }).map(drop)
}

/// Sets the effective, permitted and inheritable capabilities of this thread.
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> SysResult<()> {
    // Source: `linux/capability.h`, `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION_3, 0];
    let low = |set: u64| (set & 0xffff_ffff) as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data: [u32; 6] = [
        low(effective),
        low(permitted),
        low(inheritable),
        high(effective),
        high(permitted),
        high(inheritable),
    ];
    // SAFETY: both arrays have the layout of version 3 (two words; two times three words) and outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// Sets user id, real, effective and saved.
pub(crate) fn setresuid(uid: u32) -> SysResult<()> {
    // SAFETY: plain integers only. The raw call changes this thread alone, which is the only one.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets group id, real, effective and saved.
pub(crate) fn setresgid(gid: u32) -> SysResult<()> {
    // SAFETY: plain integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets the supplementary groups.
pub(crate) fn setgroups(groups: &[u32]) -> SysResult<()> {
    // SAFETY: pointer and length come from one slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Loads a system call filter for this thread and what it executes.
pub(crate) fn seccomp_load(filter: &[libc::sock_filter]) -> SysResult<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::TOOBIG)?,
        filter: filter.as_ptr().cast_mut(),
    };
    let load = |flags: libc::c_ulong| {
        // SAFETY: `program` points to `filter`, which outlives the call; the kernel copies and checks it.
        check(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        })
    };
    // Without this flag kernels before 5.16 switch a costly processor mitigation on. Source: runc 1.2, default flags.
    match load(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW) {
        Err(Errno::INVAL) => load(0).map(drop),
        other => other.map(drop),
    }
}

/// Marks every descriptor from `first` on to be closed by `execve`.
pub(crate) fn close_on_exec_from(first: u32) -> SysResult<()> {
    // SAFETY: plain integers only; nothing is closed now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Puts a copy of `fd` at number `target` (0 to 2), to survive `execve`.
pub(crate) fn dup_to_stdio(fd: impl AsFd, target: RawFd) -> SysResult<()> {
    // SAFETY: replacing one of the three standard descriptors, which no owner in this program closes.
    let done = unsafe { libc::dup2(fd.as_fd().as_raw_fd(), target) };
    check(done.into()).map(drop)
}

/// Gives every signal its default action and unblocks all of them.
///
/// By raw calls: the C library refuses to touch the two signals it keeps for itself, which may be ignored since long
/// before this program started.
pub(crate) fn reset_signals() {
    /// The kernel's `struct sigaction`: handler, flags, restorer, mask; all zero is the default action.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    let none = 0u64;
    for signal in 1..=64 {
        // SAFETY: `DEFAULT` is at least as large as the kernel's structure on every architecture, and no old action is
        // asked for. KILL and STOP only make the call fail.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null::<u64>(),
                MASK_BYTES,
            )
        };
    }
    // SAFETY: `none` is a whole signal set and outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null::<u64>(),
            MASK_BYTES,
        );
    }
}

/// Sets a resource limit of this process.
pub(crate) fn setrlimit(resource: u32, soft: u64, hard: u64) -> SysResult<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call; no old value is asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })
    .map(drop)
}

/// Replaces the program of this process. Returns only on failure.
pub(crate) fn execve(path: &CStr, args: &[*const libc::c_char], env: &[*const libc::c_char]) -> Errno {
    debug_assert!(args.last().is_some_and(|last| last.is_null()));
    debug_assert!(env.last().is_some_and(|last| last.is_null()));
    // SAFETY: the lists end with a null pointer and their strings are owned by the caller, who outlives the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    last_errno()
}

/// Ends this process at once, without running anything that its parent registered.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Waits for a child's end and returns its wait status.
pub(crate) fn wait_for(pid: i32) -> SysResult<i32> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writing.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into()) {
            Ok(_) => return Ok(status),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Gives an open file to a user; the group stays.
pub(crate) fn fchown_user(fd: RawFd, uid: u32) -> SysResult<()> {
    // SAFETY: plain integers only; all ones leaves the group alone.
    check(unsafe { libc::fchown(fd, uid, u32::MAX) }.into()).map(drop)
}

/// Whether this process may execute the file at `path`, by its effective ids.
pub(crate) fn may_execute(path: &CStr) -> SysResult<()> {
    // SAFETY: `path` ends with a nul byte.
    check(unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS)
    })
    .map(drop)
}

/// Sets the NIS domain name of this UTS namespace.
pub(crate) fn setdomainname(name: &str) -> SysResult<()> {
    // SAFETY: pointer and length come from one string.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// Sets the host name of this UTS namespace.
pub(crate) fn sethostname(name: &str) -> SysResult<()> {
    // SAFETY: pointer and length come from one string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

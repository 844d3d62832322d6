//! What a shim does to itself: it leaves the daemon's session, descriptors and signals behind.
//!
//! In: a process as the daemon spawned it. Out: one that depends on nothing but its directory. Never touches the container's
//! process, which is made before the signals change, so that it inherits nothing of them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::SystemTime;

use objects::Timestamp;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

/// How unwillingly the kernel kills a shim. Source: moby sets the same for containerd's shims (-999; -1000 is never).
const OOM_SCORE_ADJ: &str = "-999";

/// Signals that stop programs and mustn't stop a shim: only the end of its container does.
const IGNORED: [libc::c_int; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGPIPE,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
];

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChildEnd {
    /// As in a shell: 128 + signal when a signal ended it.
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
}

/// Takes the connection to the daemon from standard input and lets go of everything else.
pub(crate) fn detach() -> io::Result<OwnedFd> {
    // SAFETY: no descriptor above 2 is in use by this process yet; the standard library only cares for 0 to 2.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    restore_library_signals();
    // A group leader is the daemon's choice; then there is a session of its own already, or it can't matter.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    let connection = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let nothing = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok(connection)
}

/// The C library's `posix_spawn` leaves its two internal signals ignored, and wouldn't let us change that; the container
/// would inherit it. Source: glibc, `sysdeps/unix/sysv/linux/spawni.c`.
fn restore_library_signals() {
    const INTERNAL: [libc::c_int; 2] = [32, 33];
    /// The kernel's `struct sigaction` is four words, and all zero is the default action.
    static DEFAULT_ACTION: [u64; 4] = [0; 4];
    for signal in INTERNAL {
        // SAFETY: the kernel reads four words behind the first pointer, writes nothing through the null one, and a mask is
        // eight bytes.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const DEFAULT_ACTION, 0_usize, 8_usize) };
    }
}

/// Makes this process hard to kill and the parent of its container's orphans. Call once the container's process exists.
pub(crate) fn harden() {
    for signal in IGNORED {
        // SAFETY: ignoring a signal runs no code of ours, and nothing else in this process sets a disposition.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // Each of these is a comfort: without CAP_SYS_RESOURCE, or below an older kernel, a shim works all the same.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let _ = rustix::thread::set_name(c"skep-shim");
}

/// A descriptor that is readable when a child has ended.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: `mask` is a valid set on this stack during all calls; this process has one thread.
    let fd = unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut mask);
        libc::sigaddset(&raw mut mask, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const mask, std::ptr::null_mut());
        libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes the pending notices; [`reap`] finds out whom they are about.
pub(crate) fn drain_signals(fd: impl AsFd) {
    let mut buffer = [0_u8; 1024];
    // They merge anyway; an error means that there is none left.
    while rustix::io::read(&fd, &mut buffer).is_ok_and(|count| count > 0) {}
}

/// Collects every child that has ended; returns how `pid` did, if it is among them.
pub(crate) fn reap(pid: i32) -> Option<ChildEnd> {
    let mut found = None;
    while let Ok(Some((child, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if child.as_raw_nonzero().get() == pid {
            let signal = status.terminating_signal();
            let code = status.exit_status().unwrap_or_else(|| 128 + signal.unwrap_or(0));
            found = Some(ChildEnd { code, signal });
        }
    }
    found
}

/// Kills one child and waits for its end.
pub(crate) fn kill_and_reap(pid: i32, pidfd: impl AsFd) {
    // It may have ended already.
    let _ = send_signal(pidfd, libc::SIGKILL);
    if let Some(pid) = Pid::from_raw(pid) {
        while let Err(Errno::INTR) = rustix::process::waitpid(Some(pid), WaitOptions::empty()) {}
    }
}

/// Sends a signal to the process behind a descriptor; a reused process id can't be hit.
pub(crate) fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the kernel reads nothing from the null pointer and reports a bad signal or descriptor.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0_u32)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to one of several processes by its id.
pub(crate) fn send_signal_to_pid(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved; callers pass ids greater than one, never a group.
    let result = unsafe { libc::kill(pid, signal) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives unused heap back to the kernel: a shim needs much for a moment at its start, and then hardly any for days.
pub(crate) fn trim_heap() {
    // SAFETY: allocates nothing and moves nothing; free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// The time of day.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}

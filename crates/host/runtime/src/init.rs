//! A small process 1 for programs that are not made to be one (`docker run --init`).
//!
//! In: a fork of the prepared process. Out: signals go to the program, orphans are reaped, and its end is our end with the
//! same exit code. Never restarts anything.

use rustix::io::Errno;

use crate::error::Step;
use crate::sys;
use crate::wire::{AtStep, Failure};

/// Forks: the child returns and executes the program, the parent stays as process 1 and never returns.
pub(crate) fn stay_behind() -> Result<(), Failure> {
    // SAFETY: this process has a single thread, so the child's copy of memory and locks is consistent.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(sys::last_errno()).at(Step::Init, ""),
        0 => {
            // A process group of its own, in the foreground if there is a terminal. Source: tini, `isolate_child`.
            // Failing only means that signals of the terminal reach process 1 as well, which passes them on.
            let _ = rustix::process::setpgid(None, None);
            let group = rustix::process::getpgrp();
            // SAFETY: changes how this process takes one signal, which background processes get for the next call.
            unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
            let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group);
            // SAFETY: as above, back to the default.
            unsafe { libc::signal(libc::SIGTTOU, libc::SIG_DFL) };
            Ok(())
        }
        child => {
            // Our copy of the socket must not keep the parent waiting.
            // SAFETY: everything from 3 on is closed; this process uses no descriptor any more but the streams.
            unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
            sys::exit_now(serve(child))
        }
    }
}

/// Passes signals on and reaps until `child` has ended; gives its exit code.
fn serve(child: i32) -> i32 {
    // SAFETY: plain operations on a local signal set that `sigfillset` initialises.
    let all = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
        all
    };
    loop {
        if let Some(code) = reap(child) {
            return code;
        }
        // SAFETY: `all` is an initialised set; no details of the signal are asked for.
        let signal = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
        if signal > 0 && signal != libc::SIGCHLD {
            // SAFETY: plain integers; the child may be gone, which only makes the call fail.
            unsafe { libc::kill(child, signal) };
        }
    }
}

/// Reaps all that has ended; the exit code if `child` was among them.
fn reap(child: i32) -> Option<i32> {
    let mut code = None;
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writing.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid < 0 && sys::last_errno() == Errno::INTR {
            continue;
        }
        if pid <= 0 {
            return code;
        }
        if pid == child {
            let by_signal = libc::WIFSIGNALED(status);
            code = Some(if by_signal { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) });
        }
    }
}

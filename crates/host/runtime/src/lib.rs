//! Starts one process in namespaces, cgroups and a root of its own.
//!
//! In: a `Spec` (a container) or an `ExecSpec` (one more process in it). Out: a process blocked just before `execve`, with
//! our ends of its streams. Called only by the single-threaded shim. Never waits for the process to end and never
//! remembers anything: what is running is the kernel's to say. Apart from that, `view` lends a container's files to the
//! daemon, on threads.
//!
//! ```text
//! create ── clone3 ──► child: mounts, pivot_root ──► user, rights, seccomp ──► blocked ──► execve
//!    │                   ▲
//!    ├─ cgroup ──────────┤  one socket: "go on", "ready" with the terminal, "start", errors
//!    └─ veth pair ───────┘
//! exec ─── clone3 ──► child: setns ────────────────► user, rights, seccomp ──► blocked ──► execve
//! ```
#![allow(unsafe_code, reason = "namespaces, cgroups and seccomp are reached by raw system calls")]

pub mod cgroup;
mod child;
mod create;
pub mod defaults;
mod devices;
mod error;
mod init;
mod inside;
mod mounts;
mod network;
mod process;
mod program;
mod protect;
mod root;
pub mod seccomp;
mod spec;
mod sys;
mod sysctl;
pub mod user;
pub mod view;
mod wire;

pub use create::{Created, Stdio, create, exec, start_time};
pub use error::{StartError, Step};
pub use inside::find_below;
pub use protect::read_only_view;
pub use spec::{
    Address, Capabilities, CgroupSpec, Device, DeviceKind, DeviceRule, ExecSpec, Interface, Limits,
    MacvlanMode, MacvlanParent, Mount, MountFlags, MountSource, Namespace, Namespaces, Network, ProcessSpec,
    Propagation, Rlimit, Root, Spec, WindowSize,
};

/// The number of a resource limit from Docker's name (`nofile`, `RLIMIT_NOFILE`), or `None`.
#[must_use]
pub fn rlimit_number(name: &str) -> Option<u32> {
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("rlimit_").unwrap_or(&name);
    Some(match name {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    })
}

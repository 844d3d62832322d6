//! Starts a container's first process, or one more in a running container, up to the point of `execve`.
//!
//! In: a spec. Out: a child process that waits for its start, or a typed error and nothing left behind. Never waits for the
//! process to end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cgroup::Cgroup;
use crate::child::{self, Inherited};
use crate::error::StartError;
use crate::spec::{ExecSpec, Namespace, Network, ProcessSpec, Spec};
use crate::sys::{self, Forked};
use crate::wire::{self, Channel, Order, Report};
use crate::{network, program};

/// A process that is ready and waits for [`Created::start`].
///
/// Dropping it without a start ends the process; the caller still reaps it and removes the cgroup.
#[derive(Debug)]
pub struct Created {
    /// Process id as the host sees it; a direct child of the caller.
    pub pid: i32,
    /// Refers to the process; readable when it has ended.
    pub pidfd: OwnedFd,
    /// Our ends of its standard streams; `None` once taken.
    pub stdio: Option<Stdio>,
    /// The container's group, to be removed after its end; `None` for an extra process.
    pub cgroup: Option<Cgroup>,
    /// Its closing ends a process that was not started.
    channel: Channel,
}

/// Our ends of a process's standard streams. All are close-on-exec and blocking.
#[derive(Debug)]
pub enum Stdio {
    /// Three pipes.
    Pipes {
        /// Where to write its input; `None` when it is `/dev/null`.
        stdin: Option<OwnedFd>,
        /// Its output.
        stdout: OwnedFd,
        /// Its error output.
        stderr: OwnedFd,
    },
    /// One pseudo terminal for all three.
    Terminal {
        /// The controlling side.
        master: OwnedFd,
    },
}

/// Makes a container: everything up to `execve` of its program is done when this returns.
///
/// The caller must have a single thread.
///
/// # Errors
/// With the reason. Nothing is left then: no process, no cgroup, no interface.
pub fn create(spec: &Spec) -> Result<Created, StartError> {
    validate(&spec.process)?;
    let group = Cgroup::create(&spec.cgroup, &spec.device_rules).map_err(StartError::Cgroup)?;
    match start_container(spec, &group) {
        Ok(created) => Ok(Created { cgroup: Some(group), ..created }),
        Err(error) => {
            // The first error is the one to tell; what is left of the group is found by the next sweep.
            drop(group.remove());
            Err(error)
        }
    }
}

/// Makes a process in a running container, in its namespaces and its cgroups.
///
/// The caller must have a single thread.
///
/// # Errors
/// With the reason, [`StartError::TargetGone`] when the container has ended. Nothing is left then.
pub fn exec(spec: &ExecSpec) -> Result<Created, StartError> {
    validate(&spec.process)?;
    let gone = || StartError::TargetGone { pid: spec.target_pid };
    let pid = Pid::from_raw(spec.target_pid).filter(|_| spec.target_pid > 0).ok_or_else(gone)?;
    let target = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    if let Some(expected) = spec.target_start_time
        && start_time(spec.target_pid) != Some(expected)
    {
        return Err(gone());
    }
    let group = Cgroup::of_process(spec.target_pid).map_err(|_| gone())?;
    let born = group.open_v2();
    let mut start = Start::open(&spec.process)?;
    let home = PidNamespace::enter(&target)?;
    let forked = start.fork(0, born.as_ref());
    if let Ok(Forked::Child) = forked {
        child::extra(spec, &target, start.inherit());
    }
    home.return_to()?;
    let (pid, pidfd) = start.parent(forked)?;
    let ready = group.add_except(pid, start.born_in_group).map_err(StartError::Cgroup);
    start.finish(pid, pidfd, ready)
}

/// What cannot be checked later without a worse error.
fn validate(process: &ProcessSpec) -> Result<(), StartError> {
    let invalid = |what: &str| Err(StartError::Invalid { what: what.to_owned() });
    if process.args.is_empty() {
        return invalid("no command specified");
    }
    if process.args.iter().chain(&process.env).any(|text| text.contains('\0')) {
        return invalid("a zero byte in an argument or in the environment");
    }
    if let Some(limit) = process.rlimits.iter().find(|limit| crate::rlimit_number(&limit.name).is_none()) {
        return invalid(&format!("unknown resource limit `{}`", limit.name));
    }
    Ok(())
}

fn start_container(spec: &Spec, group: &Cgroup) -> Result<Created, StartError> {
    let born = group.open_v2();
    let mut start = Start::open(&spec.process)?;
    let home = match &spec.namespaces.pid {
        Namespace::Path(path) => {
            let target = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| system("open PID namespace", errno))?;
            Some(PidNamespace::enter(&target)?)
        }
        Namespace::New | Namespace::Host => None,
    };
    let forked = start.fork(clone_flags(spec), born.as_ref());
    if let Ok(Forked::Child) = forked {
        child::container(spec, group, start.inherit());
    }
    if let Some(home) = home {
        home.return_to()?;
    }
    let (pid, pidfd) = start.parent(forked)?;
    let interfaces = match &spec.network {
        Network::Interfaces(interfaces) => interfaces.as_slice(),
        Network::Host | Network::None | Network::Path(_) => &[],
    };
    let ready = group.add_except(pid, start.born_in_group).map_err(StartError::Cgroup);
    let ready = ready.and_then(|()| network::connect(interfaces, pid));
    start.finish(pid, pidfd, ready).inspect_err(|_| network::disconnect(interfaces))
}

/// The namespaces that come with the fork.
fn clone_flags(spec: &Spec) -> u64 {
    let mut flags = libc::CLONE_NEWNS;
    for (namespace, flag) in [
        (&spec.namespaces.pid, libc::CLONE_NEWPID),
        (&spec.namespaces.ipc, libc::CLONE_NEWIPC),
        (&spec.namespaces.uts, libc::CLONE_NEWUTS),
    ] {
        if *namespace == Namespace::New {
            flags |= flag;
        }
    }
    if matches!(spec.network, Network::None | Network::Interfaces(_)) {
        flags |= libc::CLONE_NEWNET;
    }
    u64::from(flags.cast_unsigned())
}

/// Both ends of everything, until the fork parts them.
struct Start {
    channel: Channel,
    stdio: Option<Stdio>,
    inherited: Option<Inherited>,
    born_in_group: bool,
}

impl Start {
    fn open(process: &ProcessSpec) -> Result<Self, StartError> {
        let (channel, theirs) = wire::channel().map_err(|errno| system("make socket", errno))?;
        let (stdio, pipes) = match process.terminal {
            Some(_) => (None, None),
            None => {
                let (ours, theirs) = pipes(process.stdin).map_err(|errno| system("make pipes", errno))?;
                (Some(ours), Some(theirs))
            }
        };
        let inherited = Inherited { channel: theirs, pipes, own_program: program::own_file() };
        Ok(Self { channel, stdio, inherited: Some(inherited), born_in_group: false })
    }

    /// Forks, into the version 2 group where the kernel can.
    fn fork(&mut self, flags: u64, group: Option<&OwnedFd>) -> Result<Forked, rustix::io::Errno> {
        if let Some(group) = group {
            // SAFETY: the caller of this crate has a single thread.
            let forked = unsafe { sys::clone3(flags, Some(group.as_raw_fd())) };
            if forked.is_ok() {
                self.born_in_group = true;
                return forked;
            }
        }
        // SAFETY: as above.
        unsafe { sys::clone3(flags, None) }
    }

    /// The child's side: takes its ends and closes ours, so that our death is noticed.
    fn inherit(self) -> Inherited {
        self.inherited.expect("only the child takes it")
    }

    /// The parent's side: closes the child's ends.
    fn parent(&mut self, forked: Result<Forked, rustix::io::Errno>) -> Result<(i32, OwnedFd), StartError> {
        self.inherited = None;
        match forked.map_err(|errno| system("start process", errno))? {
            Forked::Parent(pid, pidfd) => Ok((pid, pidfd)),
            Forked::Child => unreachable!("the child never gets here"),
        }
    }

    /// Lets the child go on when all was ready, and waits until it is.
    fn finish(self, pid: i32, pidfd: OwnedFd, ready: Result<(), StartError>) -> Result<Created, StartError> {
        if let Err(error) = ready {
            end(pid, &pidfd);
            // A child that failed meanwhile may be the reason, and knows better.
            return Err(match self.channel.report() {
                Ok(Report::Failed(cause)) => cause,
                Ok(Report::Ready(_) | Report::Closed) | Err(_) => error,
            });
        }
        // A child that failed already has said why.
        let _ = self.channel.order(Order::GoOn);
        let report = self.channel.report().map_err(|errno| system("read report", errno));
        let error = match report {
            Ok(Report::Ready(terminal)) => {
                let stdio = terminal.map(|master| Stdio::Terminal { master }).or(self.stdio);
                return Ok(Created { pid, pidfd, stdio, cgroup: None, channel: self.channel });
            }
            Ok(Report::Failed(error)) => error,
            Ok(Report::Closed) => StartError::Died { how: end(pid, &pidfd) },
            Err(error) => error,
        };
        end(pid, &pidfd);
        Err(error)
    }
}

/// Kills and reaps a child; says how it ended.
fn end(pid: i32, pidfd: &OwnedFd) -> String {
    // It may have ended by itself, and may have been reaped already.
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    match sys::wait_for(pid) {
        Ok(status) if libc::WIFSIGNALED(status) => format!("signal {}", libc::WTERMSIG(status)),
        Ok(status) => format!("exit code {}", libc::WEXITSTATUS(status)),
        Err(errno) => errno.to_string(),
    }
}

fn system(step: &'static str, errno: rustix::io::Errno) -> StartError {
    StartError::System { step, cause: io::Error::from(errno) }
}

/// Our ends and the child's.
fn pipes(stdin: bool) -> Result<(Stdio, [OwnedFd; 3]), rustix::io::Errno> {
    let (their_input, our_input) = if stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        (read, Some(write))
    } else {
        (openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?, None)
    };
    let (our_output, their_output) = pipe_with(PipeFlags::CLOEXEC)?;
    let (our_errors, their_errors) = pipe_with(PipeFlags::CLOEXEC)?;
    let ours = Stdio::Pipes { stdin: our_input, stdout: our_output, stderr: our_errors };
    Ok((ours, [their_input, their_output, their_errors]))
}

/// A visit to another PID namespace: children are born there until it ends.
struct PidNamespace {
    home: OwnedFd,
}

impl PidNamespace {
    fn enter(target: impl AsFd) -> Result<Self, StartError> {
        let path = "/proc/self/ns/pid";
        let home = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| system("open own PID namespace", errno))?;
        sys::setns(target, libc::CLONE_NEWPID).map_err(|errno| system("join PID namespace", errno))?;
        Ok(Self { home })
    }

    fn return_to(self) -> Result<(), StartError> {
        sys::setns(&self.home, libc::CLONE_NEWPID).map_err(|errno| system("leave PID namespace", errno))
    }
}

impl Created {
    /// Lets the process execute its program; returns when it did.
    ///
    /// # Errors
    /// With the reason why it could not; the process has then ended and been reaped, and the cgroup is still the
    /// caller's to remove.
    pub fn start(&mut self) -> Result<(), StartError> {
        // A process that is gone already shows in the report.
        let _ = self.channel.order(Order::Start);
        match self.channel.report() {
            // Also when it was killed in this moment: the caller will see its end like any other.
            Ok(Report::Closed | Report::Ready(_)) => Ok(()),
            Ok(Report::Failed(error)) => {
                end(self.pid, &self.pidfd);
                Err(error)
            }
            Err(errno) => {
                end(self.pid, &self.pidfd);
                Err(system("read report", errno))
            }
        }
    }
}

/// When a process started, in clock ticks since boot; `None` when there is no such process.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain anything. Field 22 is the 20th after it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

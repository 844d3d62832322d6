//! Names what can go wrong while a process is started, in the words that Docker's clients know.
//!
//! In: what the child process reported over its socket, or the parent found itself. Out: `StartError` with its text and
//! exit code. Never decides whether to try again.

use std::io;
use std::path::PathBuf;

use crate::cgroup::CgroupError;

/// Why a container or an extra process did not start. Nothing of it is left behind.
///
/// Its text is complete, causes included, because the shim hands it on as text; so it has no `source`.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A program without a slash is in no directory of `PATH`.
    /// Source of the text: Go `os/exec`, which runc shows.
    #[error("exec: \"{program}\": executable file not found in $PATH")]
    NotInPath {
        /// `args[0]`.
        program: String,
    },
    /// A program with a slash does not exist, or a part of its path is no directory.
    #[error("exec: \"{program}\": stat {program}: {}", errno_text(*errno))]
    NoProgram {
        /// `args[0]`.
        program: String,
        /// `ENOENT`, `ENOTDIR` and the like.
        errno: i32,
    },
    /// A program exists but may not be executed, or is a directory.
    #[error("exec: \"{program}\": {}", errno_text(*errno))]
    NotExecutable {
        /// `args[0]`.
        program: String,
        /// `EACCES` or `EISDIR`.
        errno: i32,
    },
    /// The kernel refused to execute the program: its interpreter is missing, or its format is unknown.
    #[error("exec {path}: {}", errno_text(*errno))]
    Exec {
        /// Where the program was found.
        path: String,
        /// The kernel's answer.
        errno: i32,
    },
    /// The user or a group is not in the container's files. The text is Docker's.
    #[error("{0}")]
    User(crate::user::UserError),
    /// The spec asks for something that cannot be.
    #[error("invalid container specification: {what}")]
    Invalid {
        /// What is wrong, in words.
        what: String,
    },
    /// The source of a bind mount is missing or unreadable.
    #[error("bind mount source `{}`: {}", path.display(), errno_text(*errno))]
    BindSource {
        /// Path on the host.
        path: PathBuf,
        /// The kernel's answer.
        errno: i32,
    },
    /// A step inside the new process failed.
    #[error("{step}{}: {}", Subject(subject), errno_text(*errno))]
    Step {
        /// What was tried.
        step: Step,
        /// On what: a path, a name, or nothing.
        subject: String,
        /// The kernel's answer.
        errno: i32,
    },
    /// The container that a process should be started in is gone.
    #[error("container process {pid} is not running")]
    TargetGone {
        /// Process id of the container's init.
        pid: i32,
    },
    /// The new process ended before it reported anything, for example killed for lack of memory.
    #[error("container process ended during its preparation ({how})")]
    Died {
        /// Its exit status or signal, in words.
        how: String,
    },
    /// The cgroup could not be made or joined.
    #[error("prepare cgroup: {0}")]
    Cgroup(CgroupError),
    /// The network could not be connected.
    #[error("connect interface `{interface}`: {}", Chain(cause))]
    Network {
        /// Which interface.
        interface: String,
        /// What the kernel said.
        cause: netlink::NetlinkError,
    },
    /// A system call of the parent failed.
    #[error("{step}: {cause}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// Declares the steps once: their names for the code, their texts for people, and their numbers for the socket.
macro_rules! steps {
    ($($name:ident = $text:literal,)*) => {
        /// What a new process was doing when it failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Step {
            $(#[doc = $text] $name,)*
        }

        impl Step {
            /// The step of a number that came over the socket.
            pub(crate) fn from_number(number: u8) -> Option<Self> {
                const ALL: &[Step] = &[$(Step::$name,)*];
                ALL.get(usize::from(number)).copied()
            }
        }

        impl std::fmt::Display for Step {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

steps! {
    Prepare = "prepare process",
    JoinNamespace = "join namespace",
    Detach = "detach mounts from the host",
    MountRoot = "mount root file system",
    PivotRoot = "change root file system",
    Mount = "mount",
    MountTarget = "prepare mount target",
    ForbiddenTarget = "mount inside /proc at",
    Propagation = "share mounts of",
    MakeDevice = "make device",
    MakeLink = "make link",
    CgroupNamespace = "make cgroup namespace",
    Hostname = "set host name",
    Network = "configure interface",
    Sysctl = "set kernel parameter",
    Mask = "mask path",
    ReadOnly = "make read-only",
    Terminal = "open terminal",
    Stdio = "set up standard streams",
    Session = "start session",
    Rlimit = "set resource limit",
    OomScore = "set oom_score_adj",
    UserFiles = "read user database",
    WorkingDir = "change to working directory",
    Groups = "set groups",
    User = "set user",
    Capabilities = "set capabilities",
    NoNewPrivileges = "set no_new_privs",
    Seccomp = "load system call filter",
    ParentDeath = "bind to parent process",
    OwnProgram = "execute the engine's own program",
    Init = "start init",
}

impl StartError {
    /// The exit code that Docker shows for a container that could not be started for this reason.
    ///
    /// Source: moby, `daemon/start.go` and `daemon/errors.go`: 127 not found, 126 not executable, 128 all else.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotInPath { .. } => 127,
            Self::NoProgram { errno, .. } | Self::NotExecutable { errno, .. } | Self::Exec { errno, .. } => {
                match *errno {
                    libc::ENOENT => 127,
                    libc::EACCES | libc::EISDIR | libc::ENOTDIR | libc::ENOEXEC | libc::EPERM => 126,
                    _ => 128,
                }
            }
            _ => 128,
        }
    }
}

/// What the kernel's number means, in Go's words (lower case), because clients compare them.
pub(crate) fn errno_text(errno: i32) -> String {
    match errno {
        libc::ENOENT => "no such file or directory".into(),
        libc::EACCES => "permission denied".into(),
        libc::EISDIR => "is a directory".into(),
        libc::ENOTDIR => "not a directory".into(),
        libc::ENOEXEC => "exec format error".into(),
        libc::EPERM => "operation not permitted".into(),
        libc::EINVAL => "invalid argument".into(),
        libc::ENOSPC => "no space left on device".into(),
        libc::ELOOP => "too many levels of symbolic links".into(),
        libc::EROFS => "read-only file system".into(),
        libc::EBUSY => "device or resource busy".into(),
        libc::E2BIG => "argument list too long".into(),
        libc::ENODEV => "no such device".into(),
        libc::ENOMEM => "cannot allocate memory".into(),
        other => {
            let text = io::Error::from_raw_os_error(other).to_string();
            let words = text.split(" (os error").next().unwrap_or(&text);
            words.to_lowercase()
        }
    }
}

/// Shows an error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Shows ` (subject)`-less texts without a stray space.
struct Subject<'a>(&'a str);

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " `{}`", self.0) }
    }
}

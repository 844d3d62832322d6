//! Turns the new process into the one that was asked for: streams, user, rights, filter, and at last its program.
//!
//! In: a `ProcessSpec`, inside the container's root and namespaces. Out: `execve`, or the reason why not. One way for a
//! container's first process and for every later one, so that none of them can miss a restriction.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;
use rustix::termios::Winsize;

use crate::error::Step;
use crate::inside::{Inside, Missing, clean};
use crate::spec::{Capabilities, ProcessSpec, WindowSize};
use crate::user::{self, Identity};
use crate::wire::{AtStep, Channel, Failure, Order};
use crate::{defaults, init, program, seccomp, sys};

/// Largest user database that is read.
/// chosen: a hundred thousand users; the file is the image's, and must not fill our memory.
const MAX_USER_FILE_BYTES: u64 = 8 << 20;

/// The process's ends of its standard streams.
#[derive(Debug)]
pub(crate) enum Streams {
    /// Input, output, error output.
    Pipes([OwnedFd; 3]),
    /// A terminal: the end that the shim gets, and the process's own.
    Terminal { master: OwnedFd, own: OwnedFd },
}

/// What `run` needs besides the spec.
pub(crate) struct Setting<'a> {
    pub(crate) inside: &'a Inside,
    pub(crate) channel: &'a Channel,
    pub(crate) streams: Streams,
    /// Device and inode of our own program, which must not be executed in a container: its processes could then open
    /// it for writing through `/proc`.
    pub(crate) own_program: Option<(u64, u64)>,
    /// Whether a small init of ours stays process 1.
    pub(crate) init: bool,
}

/// What has to be done first, while the host's `/proc` is in sight.
pub(crate) fn begin(process: &ProcessSpec) -> Result<(), Failure> {
    // Nobody in a container may look into this process, which still holds descriptors of the host.
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Step::Prepare, "dumpable")?;
    bind_to_parent()?;
    sys::reset_signals();
    let adjustment = process.oom_score_adj.unwrap_or(0);
    let file = std::fs::write("/proc/self/oom_score_adj", adjustment.to_string());
    file.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .at(Step::OomScore, adjustment.to_string())?;
    rustix::process::umask(Mode::empty());
    Ok(())
}

/// Dies with the parent. A parent that is dead already is noticed when the next order is awaited.
fn bind_to_parent() -> Result<(), Failure> {
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0).at(Step::ParentDeath, "")
}

/// Opens a terminal in the container's own instance.
pub(crate) fn open_terminal(inside: &Inside, size: WindowSize) -> Result<Streams, Failure> {
    let name = "/dev/pts/ptmx";
    let master = inside.open(Path::new(name), OFlags::RDWR | OFlags::NOCTTY).at(Step::Terminal, name)?;
    rustix::pty::unlockpt(&master).at(Step::Terminal, name)?;
    let flags =
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let own = rustix::pty::ioctl_tiocgptpeer(&master, flags).at(Step::Terminal, name)?;
    // 0 by 0 means that the client does not know yet and will tell.
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&own, size).at(Step::Terminal, name)?;
    Ok(Streams::Terminal { master, own })
}

/// Does everything, waits for the order to start, and executes the program.
pub(crate) fn run(process: &ProcessSpec, setting: Setting<'_>) -> Result<Infallible, Failure> {
    let identity = identify(process, setting.inside)?;
    let env = environment(process, &identity);
    let filter = match process.seccomp {
        seccomp::Profile::Default => Some(seccomp::compile(process.capabilities)),
        seccomp::Profile::Unconfined => None,
    };
    let master = connect(setting.streams, identity.uid)?;
    let entered = enter_working_dir(setting.inside, &process.cwd)?;
    limit_resources(process)?;
    rustix::process::umask(Mode::from(0o022));
    if process.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).at(Step::NoNewPrivileges, "")?;
    } else if let Some(filter) = &filter {
        // Without that promise only CAP_SYS_ADMIN may load a filter, and it is about to be given up. The profile allows
        // all that follows. Source: runc, `standard_init_linux.go`.
        sys::seccomp_load(filter).at(Step::Seccomp, "")?;
    }
    give_up_rights(process.capabilities, &identity)?;
    // Changing the user has cleared it.
    bind_to_parent()?;
    if !entered {
        rustix::process::chdir(working_dir(&process.cwd)).at(Step::WorkingDir, &process.cwd)?;
    }
    let program = find_program(process, &env, setting.own_program)?;
    if process.no_new_privileges
        && let Some(filter) = &filter
    {
        sys::seccomp_load(filter).at(Step::Seccomp, "")?;
    }
    sys::close_on_exec_from(3).at(Step::Prepare, "descriptors")?;
    setting.channel.ready(master.as_ref().map(AsFd::as_fd)).at(Step::Prepare, "report")?;
    drop(master);
    if !setting.channel.await_order(Order::Start) {
        sys::exit_now(1);
    }
    if setting.init {
        init::stay_behind()?;
    }
    execute(process, &program, &env)
}

fn identify(process: &ProcessSpec, inside: &Inside) -> Result<Identity, Failure> {
    let passwd = read_user_file(inside, "/etc/passwd")?;
    let group = read_user_file(inside, "/etc/group")?;
    Ok(user::resolve(&process.user, &process.groups, &passwd, &group)?)
}

/// Reads a file of the image; a missing one is empty, anything but a file is ignored rather than waited for.
fn read_user_file(inside: &Inside, name: &str) -> Result<String, Failure> {
    use std::io::Read as _;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match inside.open(Path::new(name), flags) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(errno).at(Step::UserFiles, name),
    };
    let kind = FileType::from_raw_mode(fstat(&fd).at(Step::UserFiles, name)?.st_mode);
    if kind != FileType::RegularFile {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(fd).take(MAX_USER_FILE_BYTES);
    file.read_to_end(&mut bytes)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .at(Step::UserFiles, name)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The environment, with `HOME` when it was missing or empty.
fn environment(process: &ProcessSpec, identity: &Identity) -> Vec<String> {
    let mut env: Vec<String> = process.env.iter().filter(|entry| *entry != "HOME=").cloned().collect();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    env
}

/// Puts the streams at 0, 1 and 2 in a session of their own. Gives back the terminal's end for the shim.
fn connect(streams: Streams, uid: u32) -> Result<Option<OwnedFd>, Failure> {
    rustix::process::setsid().at(Step::Session, "")?;
    let master = match streams {
        Streams::Pipes(fds) => {
            for (fd, number) in fds.iter().zip(0..) {
                sys::dup_to_stdio(fd, number).at(Step::Stdio, "")?;
            }
            None
        }
        Streams::Terminal { master, own } => {
            rustix::process::ioctl_tiocsctty(&own).at(Step::Terminal, "controlling terminal")?;
            for number in 0..=2 {
                sys::dup_to_stdio(&own, number).at(Step::Stdio, "")?;
            }
            Some(master)
        }
    };
    // A process of another user can then open its streams anew, as `/dev/stdout`. Source: runc, `fixStdioPermissions`.
    for (number, stream) in
        (0..).zip([rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()])
    {
        let stat = fstat(stream).at(Step::Stdio, "")?;
        let is_null = stat.st_rdev == rustix::fs::makedev(1, 3);
        if stat.st_uid != uid && !is_null {
            sys::fchown_user(number, uid).at(Step::Stdio, "")?;
        }
    }
    Ok(master)
}

fn working_dir(cwd: &str) -> &str {
    if cwd.is_empty() { "/" } else { cwd }
}

/// Goes to the working directory, made when missing. `false` when only the process's user may go there.
fn enter_working_dir(inside: &Inside, cwd: &str) -> Result<bool, Failure> {
    let path = clean(Path::new(working_dir(cwd)));
    let folder = inside.find_or_make(&path, Missing::Directory).at(Step::WorkingDir, cwd)?;
    match rustix::process::fchdir(&folder) {
        Ok(()) => Ok(true),
        Err(Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno).at(Step::WorkingDir, cwd),
    }
}

fn limit_resources(process: &ProcessSpec) -> Result<(), Failure> {
    for limit in &process.rlimits {
        let number = crate::rlimit_number(&limit.name).ok_or(Errno::INVAL).at(Step::Rlimit, &limit.name)?;
        sys::setrlimit(number, limit.soft, limit.hard).at(Step::Rlimit, &limit.name)?;
    }
    Ok(())
}

/// Becomes the user and keeps only the rights given. The order matters: each step needs a right that a later one drops.
fn give_up_rights(capabilities: Capabilities, identity: &Identity) -> Result<(), Failure> {
    for number in 0..=defaults::last_capability() {
        if capabilities.0 >> number & 1 == 0 {
            sys::prctl(libc::PR_CAPBSET_DROP, number.into(), 0).at(Step::Capabilities, "bounding set")?;
        }
    }
    sys::setgroups(&identity.groups).at(Step::Groups, "")?;
    sys::setresgid(identity.gid).at(Step::User, identity.gid.to_string())?;
    sys::setresuid(identity.uid).at(Step::User, identity.uid.to_string())?;
    sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)
        .at(Step::Capabilities, "ambient set")?;
    // Another user than root has none but what set-user-id programs get it from the bounding set.
    // Source: moby, `daemon/pkg/oci/oci.go`, `SetCapabilities`.
    let own = if identity.uid == 0 { capabilities.0 & defaults::all_capabilities().0 } else { 0 };
    sys::capset(own, own, 0).at(Step::Capabilities, "")
}

fn find_program(process: &ProcessSpec, env: &[String], own: Option<(u64, u64)>) -> Result<CString, Failure> {
    let name = process.args.first().map_or("", String::as_str);
    let path = program::find(name, env)?;
    if own.is_some_and(|own| program::is_file(&path, own)) {
        return Err(Errno::PERM).at(Step::OwnProgram, name);
    }
    Ok(path)
}

fn execute(process: &ProcessSpec, program: &CString, env: &[String]) -> Result<Infallible, Failure> {
    let strings = |list: &[String]| -> Result<Vec<CString>, Failure> {
        list.iter()
            .map(|text| CString::new(text.as_str()).map_err(|_| Errno::INVAL).at(Step::Prepare, text))
            .collect()
    };
    let (args, env) = (strings(&process.args)?, strings(env)?);
    let pointers = |list: &[CString]| {
        list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let errno = sys::execve(program, &pointers(&args), &pointers(&env));
    Err(Failure::Exec { path: program.to_string_lossy().into_owned(), errno })
}

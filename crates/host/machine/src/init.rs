//! Process 1 of a machine: sets up what is inside, keeps the daemon's processes reaped, and obeys signals.
//!
//! In: one order on standard input, then signals ([`crate::power`] sends them). Out: a daemon. When it ends, the kernel
//! ends everything else on the machine. A daemon that dies stays dead until somebody starts it: that is what people who
//! try out failures want to see.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use netlink::route::RouteSocket;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::spec::Machine;

/// The order that everything outside is prepared.
pub(crate) const GO: &[u8] = b"go\n";

type Failure = Box<dyn std::error::Error>;

/// `skep machine-init DIR`: runs a machine until it is switched off.
#[must_use]
pub fn main(arguments: &[OsString]) -> ExitCode {
    let [folder] = arguments else { return ExitCode::FAILURE };
    match run(Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The console is all there is to tell it to.
            let _ = writeln!(std::io::stderr(), "init: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path) -> Result<(), Failure> {
    let machine = Machine::open(folder)?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    rustix::system::sethostname(machine.spec.name.as_bytes())?;
    let mut order = Vec::new();
    std::io::stdin().read_to_end(&mut order)?;
    if order != GO {
        return Err("whoever switched this machine on is gone".into());
    }
    connect(&machine)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(obey(&machine))
}

fn connect(machine: &Machine) -> Result<(), Failure> {
    let spec = &machine.spec;
    let mut socket = RouteSocket::open()?;
    let (loopback, cable) = (socket.index("lo")?, socket.index("eth0")?);
    socket.set_up(loopback)?;
    for (ip, prefix) in spec.addresses() {
        socket.add_address(cable, ip, prefix)?;
    }
    socket.set_up(cable)?;
    socket.add_default_route(IpAddr::V4(spec.gateway), Some(cable))?;
    Ok(())
}

async fn obey(machine: &Machine) -> Result<(), Failure> {
    let mut ended = signal(SignalKind::child())?;
    let mut power_off = signal(SignalKind::terminate())?;
    let mut start = signal(SignalKind::user_defined1())?;
    let mut kill = signal(SignalKind::user_defined2())?;
    let mut stop = signal(SignalKind::interrupt())?;
    let mut daemon =
        Daemon { machine, pid: Some(start_daemon(machine)?), is_told_to_end: false, is_wanted: true };
    let mut is_powering_off = false;
    loop {
        if is_powering_off && daemon.pid.is_none() {
            return Ok(());
        }
        tokio::select! {
            _ = ended.recv() => daemon.reap()?,
            _ = power_off.recv() => {
                is_powering_off = true;
                daemon.end(Signal::TERM);
            }
            _ = stop.recv() => daemon.end(Signal::TERM),
            _ = kill.recv() => daemon.end(Signal::KILL),
            _ = start.recv() => daemon.start()?,
        }
    }
}

/// The daemon of the machine, on or off.
struct Daemon<'a> {
    machine: &'a Machine,
    pid: Option<Pid>,
    /// It got a signal and ends sooner or later.
    is_told_to_end: bool,
    /// The last order was to start it. One that is ending is started again after its end.
    is_wanted: bool,
}

impl Daemon<'_> {
    fn start(&mut self) -> Result<(), Failure> {
        self.is_wanted = true;
        // It may have died just now.
        self.reap()?;
        if self.pid.is_none() {
            self.pid = Some(start_daemon(self.machine)?);
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) {
        self.is_wanted = false;
        if let Some(pid) = self.pid {
            self.is_told_to_end = true;
            // One that has just ended is being reaped.
            let _ = kill_process(pid, signal);
        }
    }

    fn reap(&mut self) -> Result<(), Failure> {
        while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::NOHANG) {
            if self.pid == Some(pid) {
                self.pid = None;
            }
        }
        if self.pid.is_none() && std::mem::take(&mut self.is_told_to_end) && self.is_wanted {
            self.pid = Some(start_daemon(self.machine)?);
        }
        Ok(())
    }
}

fn start_daemon(machine: &Machine) -> Result<Pid, Failure> {
    let log = OpenOptions::new().create(true).append(true).open(machine.daemon_log())?;
    let at = |name: &str| machine.folder.join(name);
    let mut host = OsString::from("unix://");
    host.push(machine.socket());
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0("skep").arg("daemon").arg("--host").arg(host);
    command.arg("--data-root").arg(machine.data_root()).arg("--exec-root").arg(at("exec"));
    command.arg("--pidfile").arg(at("daemon.pid"));
    command.arg("--cgroup-parent").arg(&machine.spec.cgroup_parent).args(&machine.spec.daemon_flags);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Not kept: process 1 reaps whatever ends on its machine.
    let child = command.spawn()?;
    Pid::from_raw(child.id().cast_signed()).ok_or_else(|| "the daemon has no pid".into())
}

//! Switching a machine on: the launcher, and what is prepared for it out here.
//!
//! The launcher is a process of its own because namespaces are left for good, and only its children enter the new
//! process namespace. It tells the number of process 1 and ends; process 1 waits until its cable is plugged in.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitCode, Stdio};

use netlink::route::{Mac, Namespace, RouteSocket, VethPair};
use rustix::thread::UnshareFlags;

use crate::error::{MachineError, file, network, system};
use crate::files;
use crate::init::GO;
use crate::process::Process;
use crate::spec::Machine;

/// Largest packet on the wire between machines. Source: IEEE 802.3.
const MTU: u32 = 1500;

/// How much of the console an error shows. chosen: the last few lines.
const CONSOLE_SHOWN: u64 = 2000;

impl Machine {
    /// Switches it on and starts its daemon; returns when the daemon's process is there. Nothing happens when it is on.
    ///
    /// `program` is skep itself.
    pub fn boot(&self, program: &Path) -> Result<(), MachineError> {
        if self.process().is_some() {
            return Ok(());
        }
        // Process 1 ends by itself when the order never comes.
        let (mut order, process) = self.launch(program)?;
        self.plug_in(process)?;
        files::replace(&self.pid_file(), process.to_text().as_bytes())?;
        order.write_all(GO).map_err(system("start the machine"))
    }

    fn launch(&self, program: &Path) -> Result<(ChildStdin, Process), MachineError> {
        let path = self.console();
        let console = OpenOptions::new().create(true).append(true).open(&path);
        let console = console.map_err(file("open", &path))?;
        let mut launcher = Command::new(program)
            .arg("machine")
            .arg(&self.folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(console)
            .spawn()
            .map_err(system("start the launcher"))?;
        // Before `wait`, which would close it.
        let order = launcher.stdin.take().expect("it was piped");
        let mut line = String::new();
        let told = launcher.stdout.take().expect("it was piped");
        let read = BufReader::new(told).read_line(&mut line);
        let ended = launcher.wait();
        read.and(ended).map_err(system("follow the launcher"))?;
        let process = line.trim().parse().ok().and_then(Process::of);
        process.map(|process| (order, process)).ok_or_else(|| self.did_not_boot())
    }

    /// Gives the machine its end of a cable whose other end is a port of the bridge.
    fn plug_in(&self, process: Process) -> Result<(), MachineError> {
        let failed = "plug the machine into its network";
        let mut socket = RouteSocket::open().map_err(network(failed))?;
        if let Some(stale) = socket.link(&self.spec.link).map_err(network(failed))? {
            socket.delete_link(stale.index).map_err(network(failed))?;
        }
        let bridge = socket.index(&self.spec.bridge).map_err(network(failed))?;
        let [_, b, c, d] = self.spec.address.addr().octets();
        let pair = VethPair {
            name: &self.spec.link,
            master: Some(bridge),
            mtu: MTU,
            up: true,
            peer_name: "eth0",
            // The same after every start, as a network card's: others remember it for seconds. The bridge's begins 02:53:00.
            peer_mac: Some(Mac([0x02, 0x53, 1, b, c, d])),
            peer_namespace: Some(Namespace::Pid(process.pid.cast_unsigned())),
        };
        socket.add_veth(&pair).map_err(network(failed))
    }

    fn did_not_boot(&self) -> MachineError {
        let mut text = Vec::new();
        if let Ok(mut console) = std::fs::File::open(self.console()) {
            let length = console.metadata().map_or(0, |data| data.len());
            use std::io::Seek as _;
            let from = std::io::SeekFrom::Start(length.saturating_sub(CONSOLE_SHOWN));
            // Without the console the error still tells which machine.
            let _ = console.seek(from).and_then(|_| console.read_to_end(&mut text));
        }
        let console = String::from_utf8_lossy(&text).trim().to_owned();
        MachineError::DidNotBoot { name: self.spec.name.clone(), console }
    }
}

/// `skep machine DIR`: makes the namespaces, starts process 1 in them, tells its number and ends.
#[must_use]
pub fn main(arguments: &[OsString]) -> ExitCode {
    let [folder] = arguments else { return ExitCode::FAILURE };
    match start_first_process(folder) {
        Ok(pid) => {
            let told = writeln!(std::io::stdout(), "{pid}");
            if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            // The console is all there is to tell it to.
            let _ = writeln!(std::io::stderr(), "launcher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_first_process(folder: &OsStr) -> std::io::Result<u32> {
    let program = std::env::current_exe()?;
    // Its own session: what is typed at the terminal is not for a machine.
    rustix::process::setsid()?;
    let all = UnshareFlags::NEWNET
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWIPC;
    // SAFETY: this process has one thread, and no file table is unshared, so that no descriptor changes its meaning.
    unsafe { rustix::thread::unshare_unsafe(all) }?;
    let first = Command::new(program).arg("machine-init").arg(folder).stdout(Stdio::null()).spawn()?;
    Ok(first.id())
}

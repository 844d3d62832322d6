//! Switches and cables of a machine, seen from outside: off, pulled plug, daemon stopped or killed, cable cut.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use netlink::nft::{BaseChain, Batch, ChainKind, Direction, Family, Hook, NftSocket, Rule, Verdict};
use netlink::route::RouteSocket;
use runtime::cgroup;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, pidfd_send_signal};

use crate::error::{MachineError, file, network, system};
use crate::process::Process;
use crate::spec::Machine;

/// How long a machine that is switched off may take to stop its daemon before the plug is pulled.
/// chosen: twice what a daemon with many containers needs.
const POWER_OFF_WITHIN: Duration = Duration::from_secs(20);

/// Pause between two looks whether a daemon has ended, which is no child of this process.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Name of the table that drops packets of one direction.
const CUT_TABLE: &str = "skep-play-cut";

/// What a cut cable no longer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Anything.
    Both,
    /// What others send to the machine.
    Inbound,
    /// What the machine sends.
    Outbound,
}

impl Machine {
    /// Its process 1, if it is on.
    pub(crate) fn process(&self) -> Option<Process> {
        Process::parse(&fs::read_to_string(self.pid_file()).ok()?)
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.process().is_some()
    }

    pub(crate) fn handle(&self) -> Result<OwnedFd, MachineError> {
        let handle = self.process().and_then(Process::open);
        handle.ok_or_else(|| MachineError::Off { name: self.spec.name.clone() })
    }

    fn signal(&self, signal: Signal) -> Result<OwnedFd, MachineError> {
        let handle = self.handle()?;
        pidfd_send_signal(&handle, signal).map_err(system("signal the machine"))?;
        Ok(handle)
    }

    /// Pulls the plug: everything on it ends at once; returns when it has. Nothing happens when it is off.
    pub fn pull_plug(&self) -> Result<(), MachineError> {
        match self.signal(Signal::KILL) {
            Ok(handle) => wait_for_end(&handle, None).map(drop),
            Err(MachineError::Off { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Switches it off: the daemon stops in order, then everything else ends.
    pub fn power_off(&self) -> Result<(), MachineError> {
        let handle = match self.signal(Signal::TERM) {
            Err(MachineError::Off { .. }) => return Ok(()),
            other => other?,
        };
        if wait_for_end(&handle, Some(POWER_OFF_WITHIN))? { Ok(()) } else { self.pull_plug() }
    }

    /// Starts its daemon, if that does not run; one that is ending is started again afterwards.
    pub fn start_daemon(&self) -> Result<(), MachineError> {
        self.signal(Signal::USR1).map(drop)
    }

    /// Stops its daemon and returns when it has ended; containers go on.
    pub fn stop_daemon(&self) -> Result<(), MachineError> {
        self.end_daemon(Signal::INT)
    }

    /// Kills its daemon with SIGKILL and returns when it has ended; containers go on.
    pub fn kill_daemon(&self) -> Result<(), MachineError> {
        self.end_daemon(Signal::USR2)
    }

    fn end_daemon(&self, signal: Signal) -> Result<(), MachineError> {
        self.signal(signal)?;
        // What a daemon holds as long as it lives.
        let path = self.data_root().join("skep.lock");
        let lock = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(file("open", &path))?,
        };
        let began = Instant::now();
        // Shared, so that a daemon that begins this moment only asks once more.
        while flock(&lock, FlockOperation::NonBlockingLockShared).is_err() {
            if began.elapsed() > POWER_OFF_WITHIN {
                return Err(MachineError::DoesNotStop { name: self.spec.name.clone() });
            }
            std::thread::sleep(ASK_AGAIN);
        }
        Ok(())
    }

    /// Cuts its cable. The machine is not told: packets just don't arrive.
    pub fn cut(&self, what: Cut) -> Result<(), MachineError> {
        let failed = "cut the machine's cable";
        let hook = match what {
            Cut::Both => {
                let mut socket = RouteSocket::open().map_err(network(failed))?;
                let port = socket.index(&self.spec.link).map_err(network(failed))?;
                return socket.set_master(port, None).map_err(network(failed));
            }
            Cut::Inbound => (Hook::Input, Direction::In),
            Cut::Outbound => (Hook::Output, Direction::Out),
        };
        self.inside_network(move || {
            let mut batch = Batch::new(Family::Inet, CUT_TABLE);
            batch.replace_table();
            // Before connections are followed, so that nothing learns of what was dropped.
            let base = BaseChain { kind: ChainKind::Filter, hook: hook.0, priority: -300 };
            batch.add_base_chain("cut", base);
            batch.add_rule("cut", &Rule::new().interface(hook.1, "eth0", true).verdict(&Verdict::Drop));
            NftSocket::open()?.commit(batch)
        })?
        .map_err(network(failed))
    }

    /// Mends its cable.
    pub fn heal(&self) -> Result<(), MachineError> {
        let failed = "mend the machine's cable";
        self.inside_network(|| {
            let mut batch = Batch::new(Family::Inet, CUT_TABLE);
            batch.add_table();
            batch.delete_table();
            NftSocket::open()?.commit(batch)
        })?
        .map_err(network(failed))?;
        let mut socket = RouteSocket::open().map_err(network(failed))?;
        let port = socket.index(&self.spec.link).map_err(network(failed))?;
        let bridge = socket.index(&self.spec.bridge).map_err(network(failed))?;
        socket.enslave(port, bridge).map_err(network(failed))
    }

    /// Whether its cable is plugged into the bridge.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let link = RouteSocket::open().and_then(|mut socket| socket.link(&self.spec.link));
        link.is_ok_and(|link| link.is_some_and(|link| link.master.is_some()))
    }

    /// Pulls the plug and removes everything of it: control groups, cable and disk.
    pub fn remove(&self) -> Result<(), MachineError> {
        self.pull_plug()?;
        remove_groups(&self.spec.cgroup_parent)?;
        let failed = "remove the machine's cable";
        let mut socket = RouteSocket::open().map_err(network(failed))?;
        if let Some(link) = socket.link(&self.spec.link).map_err(network(failed))? {
            // It goes with the machine's namespace, which the kernel clears away on its own time.
            match socket.delete_link(link.index) {
                Err(error) if !error.is_missing() => return Err(network(failed)(error)),
                _ => {}
            }
        }
        fs::remove_dir_all(&self.folder).map_err(file("remove", &self.folder))
    }
}

/// Removes a control group and all below it, such as `/skep-play-x/n1`, with whatever still runs in them.
pub fn remove_groups(path: &str) -> Result<(), MachineError> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let failed = |source| MachineError::Cgroups { path: path.to_owned(), source };
    cgroup::Cgroup::open(parent, name).and_then(|group| group.remove()).map_err(failed)
}

/// Waits until the process has ended; `false` when it has not in time.
fn wait_for_end(handle: &OwnedFd, limit: Option<Duration>) -> Result<bool, MachineError> {
    let limit = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    });
    loop {
        let mut waited = [PollFd::new(handle, PollFlags::IN)];
        match poll(&mut waited, limit.as_ref()) {
            Ok(ended) => return Ok(ended > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(system("wait for the machine's end")(error)),
        }
    }
}

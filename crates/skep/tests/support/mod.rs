//! A machine for one real daemon: its folders, its client, and namespaces around the test.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test panics when it can't go on")]
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const SKEP: &str = env!("CARGO_BIN_EXE_skep");
pub const BUSYBOX: &str = "/usr/bin/busybox";
const INSIDE: &str = "SKEP_TEST_INSIDE";
const BRIDGE: &str = "skepstop0";
/// No condition may take longer. Chosen: far longer than any does.
const LONGEST: Duration = Duration::from_secs(30);

/// Runs `test` of this file again in new namespaces; true inside of them.
pub fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success(), "loopback does not come up");
        return true;
    }
    if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
        eprintln!("!!! NOT RUN: {test}: needs root and {BUSYBOX}");
        return false;
    }
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(status.unwrap().success(), "failed in its namespaces");
    false
}

/// A machine for one daemon at a time.
pub struct Machine {
    pub root: tempfile::TempDir,
    cgroup: String,
    pub daemon: Option<Child>,
}

impl Machine {
    pub fn new() -> Machine {
        let root = tempfile::Builder::new().prefix("skep-stop-").tempdir().unwrap();
        let name = root.path().file_name().unwrap().to_str().unwrap().replace('.', "-");
        Machine { root, cgroup: format!("/{name}"), daemon: None }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.at("skep.sock").display())
    }

    pub fn start(&mut self) {
        let path = |name: &str| self.at(name).into_os_string();
        let daemon = Command::new(SKEP)
            .args(["daemon", "--bridge", BRIDGE, "--cgroup-parent", &self.cgroup, "--host", &self.host()])
            .args(["--data-root".into(), path("data"), "--exec-root".into(), path("exec")])
            .args(["--pidfile".into(), path("pid"), "--log-level".into(), "info".into()])
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.at("log")).unwrap())
            .spawn();
        self.daemon = Some(daemon.unwrap());
        self.until("the daemon answers", |machine| machine.try_skep(&["version"]).is_some());
    }

    /// SIGKILL to the daemon.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    pub fn try_skep(&self, args: &[&str]) -> Option<String> {
        let output = Command::new(SKEP).args(["--host", &self.host()]).args(args).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    pub fn skep(&self, args: &[&str]) -> String {
        self.try_skep(args).unwrap_or_else(|| panic!("{args:?} failed; {}", self.log()))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    pub fn until(&self, what: &str, is_so: impl Fn(&Machine) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < LONGEST, "not in time: {what}; {}", self.log());
        }
    }

    pub fn cgroups(&self) -> Vec<PathBuf> {
        let trees = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|tree| tree.path());
        let trees = trees.chain([PathBuf::from("/sys/fs/cgroup")]);
        let groups = trees.map(|tree| tree.join(self.cgroup.trim_start_matches('/')));
        groups.filter(|group| group.exists()).collect()
    }
}

impl Machine {
    /// What a case that failed left running; their shims clean up.
    fn kill_containers(&self) {
        for group in self.cgroups() {
            for container in fs::read_dir(group).into_iter().flatten().flatten() {
                let pids = fs::read_to_string(container.path().join("cgroup.procs")).unwrap_or_default();
                let pids = pids.lines().filter_map(|pid| pid.parse().ok());
                for pid in pids.filter_map(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return self.kill_containers() };
        let _ = daemon.kill();
        let _ = daemon.wait();
        self.kill_containers();
    }
}

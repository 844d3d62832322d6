//! Containers of busybox for the tests of the shim.
//!
//! In: a shell script. Out: a spec, a directory, a log, and everything removed afterwards. Never touches what others made.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use logs::{JsonFileSpec, LogMessage, LogSpec, OutputStream, ReadOptions, Reader};
use runtime::cgroup::Cgroup;
use runtime::{
    CgroupSpec, ExecSpec, Namespaces, Network, ProcessSpec, Root, Spec, WindowSize, defaults, seccomp,
};
use shim::client::{self, Attached, Ended, Handle, Output};
use shim::{Exit, Launch, ShimSpec};

/// Longest wait for something that must happen. Never waited for when the code is right.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A place for one container, removed with this value.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) parent: String,
    pub(crate) name: String,
}

/// `None`, loudly, where containers can't be made.
pub(crate) fn place() -> Option<Place> {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/busybox").exists() {
        eprintln!("NOT RUN: containers need root and /usr/bin/busybox");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("upper/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy("/usr/bin/busybox", bin.join("busybox")).unwrap();
    for applet in ["sh", "cat", "sleep", "head", "stty", "yes", "kill", "true"] {
        symlink("busybox", bin.join(applet)).unwrap();
    }
    for sub in ["work", "merged"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    let name = format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed));
    Some(Place { dir, parent: format!("/skep-shim-test-{}", std::process::id()), name })
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Cgroup::open(&self.parent, &self.name).and_then(|group| group.remove());
        if Cgroup::list(&self.parent).is_ok_and(|names| names.is_empty()) {
            let _ = Cgroup::open("/", &self.parent[1..]).and_then(|group| group.remove());
        }
    }
}

impl Place {
    pub(crate) fn shim_dir(&self) -> PathBuf {
        self.dir.path().join("shim")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.dir.path().join("c-json.log")
    }

    pub(crate) fn log(&self) -> LogSpec {
        let path = self.log_path();
        LogSpec::JsonFile(JsonFileSpec { path, max_size: None, max_files: 1, attrs: BTreeMap::new() })
    }

    pub(crate) fn container(&self, script: &str) -> Spec {
        let at = |name: &str| self.dir.path().join(name);
        Spec {
            root: Root {
                lower: Vec::new(),
                upper: at("upper"),
                work: at("work"),
                merged: at("merged"),
                readonly: false,
            },
            namespaces: Namespaces::default(),
            hostname: "test".into(),
            domainname: String::new(),
            mounts: defaults::mounts(Vec::new(), defaults::SHM_BYTES, false),
            masked_paths: defaults::masked_paths(),
            readonly_paths: defaults::readonly_paths(),
            devices: Vec::new(),
            device_rules: defaults::device_rules(false),
            sysctls: BTreeMap::new(),
            cgroup: CgroupSpec {
                parent: self.parent.clone(),
                name: self.name.clone(),
                ..CgroupSpec::default()
            },
            network: Network::None,
            process: process(script),
            init: false,
        }
    }

    pub(crate) fn spec(&self, script: &str) -> ShimSpec {
        ShimSpec::new(Launch::Container(Box::new(self.container(script))), self.log(), false)
    }

    /// With standard input, or with a terminal of 24 lines and 80 columns.
    pub(crate) fn interactive(&self, script: &str, is_terminal: bool) -> ShimSpec {
        let mut spec = self.container(script);
        spec.process.stdin = true;
        spec.process.terminal = is_terminal.then_some(WindowSize { rows: 24, cols: 80 });
        ShimSpec::new(Launch::Container(Box::new(spec)), self.log(), true)
    }

    pub(crate) async fn spawn(&self, spec: &ShimSpec) -> Handle {
        soon(client::spawn(&self.shim_dir(), spec, Some(&exe()))).await.unwrap()
    }

    pub(crate) async fn start(&self, script: &str) -> Handle {
        let handle = self.spawn(&self.spec(script)).await;
        soon(handle.go()).await.unwrap();
        handle
    }

    /// Starts one more process in a running container.
    pub(crate) async fn exec(&self, container: &Handle, script: &str) -> Handle {
        let exec = ExecSpec {
            target_pid: container.pid(),
            target_start_time: container.pid_start_time(),
            process: process(script),
        };
        let spec = ShimSpec::new(Launch::Exec(Box::new(exec)), LogSpec::None, true);
        let dir = self.dir.path().join(format!("exec{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        soon(client::spawn(&dir, &spec, Some(&exe()))).await.unwrap()
    }

    pub(crate) async fn logged(&self) -> Vec<LogMessage> {
        let mut reader = Reader::open(&self.log_path(), ReadOptions::default()).await.unwrap();
        let mut messages = Vec::new();
        while let Some(message) = soon(reader.next()).await.unwrap() {
            messages.push(message);
        }
        messages
    }

    /// What was written to one stream, according to the log.
    pub(crate) async fn logged_text(&self, stream: OutputStream) -> String {
        let messages = self.logged().await;
        let lines = messages.into_iter().filter(|message| message.stream == stream);
        String::from_utf8(lines.flat_map(|message| message.line).collect()).unwrap()
    }

    pub(crate) fn has_cgroup(&self) -> bool {
        Cgroup::list(&self.parent).is_ok_and(|names| names.contains(&self.name))
    }
}

pub(crate) fn process(script: &str) -> ProcessSpec {
    ProcessSpec {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: String::new(),
        groups: Vec::new(),
        capabilities: defaults::capabilities(),
        no_new_privileges: true,
        rlimits: Vec::new(),
        terminal: None,
        stdin: false,
        oom_score_adj: None,
        seccomp: seccomp::Profile::Unconfined,
    }
}

/// The program that is a shim, built together with all tests of this crate (`cargo test -p shim`); asking for a single test
/// target (`--test life`) doesn't build it anew.
pub(crate) fn exe() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(Path::parent).unwrap().join("examples/shim")
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

pub(crate) async fn exited(handle: &Handle) -> Exit {
    match soon(handle.wait()).await {
        Ended::Exited(exit) => exit,
        Ended::Lost(lost) => panic!("lost: {lost:?}"),
    }
}

/// Everything an attached client is given, per stream.
pub(crate) async fn read_all(attached: &mut Attached) -> [Vec<u8>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    while let Some(Output { stream, bytes }) = soon(attached.reader.next()).await.unwrap() {
        found[stream as usize].extend(bytes);
    }
    found
}

/// Waits until something that the kernel does on its own has happened.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// Whether a process is there and not just waiting to be collected.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

pub(crate) fn kill(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Whether this process may do what a capability, by its number, allows.
pub(crate) fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() & (1 << number) != 0
}

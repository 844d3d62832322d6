//! The daemon is told to stop: it goes at once, and leaves nothing behind when nothing runs.
//!
//! The real binary is the daemon and the client. As root, in a network and a mount namespace of the test's own.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test panics when it can't go on")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{BUSYBOX, Machine, SKEP, is_inside};

/// An idle daemon needs less than 0.1 s, one that lets go of stops less than 0.3 s. Chosen: room for a busy machine
/// and for an unoptimised binary, and far below the 10 s that the containers ask for.
const AT_ONCE: Duration = Duration::from_millis(1500);

impl Machine {
    /// SIGTERM; returns how long it took. What is logged from then on are no warnings.
    fn stop(&mut self) -> Duration {
        let mut daemon = self.daemon.take().unwrap();
        let began = Instant::now();
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(daemon.wait().unwrap().success());
        let took = began.elapsed();
        let log = fs::read_to_string(self.at("log")).unwrap();
        let (_, last) = log.split_once(" stopping").expect("it says so");
        assert!(!last.contains("WARN") && !last.contains("ERROR"), "{last}");
        took
    }

    /// An image whose command hears SIGTERM, says so, and goes on.
    fn import_stubborn(&self) {
        let bin = self.at("image/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
        for name in ["sh", "sleep", "echo"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        let archive = self.at("image.tar").into_os_string().into_string().unwrap();
        let tar = Command::new("tar").arg("-C").arg(self.at("image")).args(["-cf", &archive, "."]).status();
        assert!(tar.unwrap().success());
        let script =
            r#"CMD ["sh", "-c", "trap 'echo heard' TERM; echo ready; while :; do sleep 0.05; done"]"#;
        self.skep(&["import", "--change", script, &archive, "stubborn:1"]);
    }

    fn has_logged(&self, container: &str, text: &str) -> bool {
        self.try_skep(&["logs", container]).is_some_and(|log| log.contains(text))
    }

    /// Nothing runs and no daemon is there.
    fn assert_nothing_is_left(&self) {
        for name in ["exec", "pid", "skep.sock"] {
            assert!(!self.at(name).exists(), "{name} is left");
        }
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(self.root.path().to_str().unwrap()), "{mounts}");
        let links = Command::new("ip").args(["-o", "link"]).output().unwrap();
        let links = String::from_utf8(links.stdout).unwrap();
        assert!(links.lines().count() == 1 && links.contains("lo:"), "{links}");
        match Command::new("nft").args(["list", "tables"]).output() {
            Ok(tables) => assert_eq!(String::from_utf8(tables.stdout).unwrap(), ""),
            Err(error) => eprintln!("!!! NOT CHECKED: rules that are left: no nft: {error}"),
        }
    }
}

#[test]
fn a_stop_under_way_does_not_hold_the_daemon_and_nothing_is_left() {
    if !is_inside("a_stop_under_way_does_not_hold_the_daemon_and_nothing_is_left") {
        return;
    }
    let mut machine = Machine::new();
    machine.start();
    machine.import_stubborn();
    machine.skep(&["run", "--detach", "--name", "box", "stubborn:1"]);
    machine.until("the trap is set", |machine| machine.has_logged("box", "ready"));
    assert!(!machine.cgroups().is_empty());
    let host = machine.host();
    let mut client = Command::new(SKEP)
        .args(["--host", &host, "stop", "--time", "10", "box"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    machine.until("the signal is heard", |machine| machine.has_logged("box", "heard"));
    let took = machine.stop();
    assert!(took < AT_ONCE, "with a stop under way: {took:?}");
    assert!(!client.wait().unwrap().success());
    assert!(!machine.cgroups().is_empty(), "it runs on");
    machine.start();
    machine.skep(&["rm", "--force", "box"]);
    let took = machine.stop();
    assert!(took < AT_ONCE, "idle: {took:?}");
    machine.assert_nothing_is_left();
}

#[test]
fn a_task_that_is_being_stopped_does_not_hold_the_daemon_and_is_stopped_by_the_next() {
    if !is_inside("a_task_that_is_being_stopped_does_not_hold_the_daemon_and_is_stopped_by_the_next") {
        return;
    }
    let mut machine = Machine::new();
    machine.start();
    machine.import_stubborn();
    machine.skep(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
    machine.skep(&[
        "service",
        "create",
        "--detach",
        "--name",
        "web",
        "--stop-grace-period",
        "4s",
        "--publish",
        "8080:80",
        "stubborn:1",
    ]);
    let task = |machine: &Machine| machine.skep(&["ps", "--all", "--quiet"]).trim().to_owned();
    machine.until("the task runs", |machine| {
        let id = task(machine);
        !id.is_empty() && machine.has_logged(&id, "ready")
    });
    let id = task(&machine);
    machine.skep(&["service", "scale", "--detach", "web=0"]);
    machine.until("the signal is heard", |machine| machine.has_logged(&id, "heard"));
    let took = machine.stop();
    assert!(took < AT_ONCE, "{took:?}");
    machine.start();
    machine.until("the next daemon has stopped it", |machine| machine.skep(&["ps", "--quiet"]).is_empty());
    machine.until("its manager is there", |machine| machine.try_skep(&["service", "rm", "web"]).is_some());
    machine.skep(&["swarm", "leave", "--force"]);
    machine.until("all containers are gone", |machine| task(machine).is_empty());
    assert!(machine.stop() < AT_ONCE);
    machine.assert_nothing_is_left();
}

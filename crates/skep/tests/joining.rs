//! A join that takes longer than its client waits goes on in the background, and after a restart of the daemon, too.
//!
//! The real binary is the daemon and the client; the manager is a socket that never answers. As root, in a network and a
//! mount namespace of the test's own.

#![allow(clippy::unwrap_used, reason = "a test panics when it can't go on")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use support::{Machine, SKEP, is_inside};

const TOKEN: &str = "SWMTKN-1-1pxnfl5foujw4y3xgk6pjitcuwjd0m184q4ac8l149g0aqrmya-3hhz1eqyltuq8sl40l3ula10m";

fn state(machine: &Machine) -> String {
    machine.skep(&["info", "--format", "{{.Swarm.LocalNodeState}}"]).trim().to_owned()
}

#[test]
fn a_join_that_timed_out_goes_on_after_a_crash_until_somebody_leaves() {
    if !is_inside("a_join_that_timed_out_goes_on_after_a_crash_until_somebody_leaves") {
        return;
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let manager = silent.local_addr().unwrap().to_string();
    let mut machine = Machine::new();
    machine.start();
    let kept = machine.at("data/swarm/joining.json");
    let join = Command::new(SKEP)
        .args(["--host", &machine.host(), "swarm", "join", "--token", TOKEN, &manager])
        .output()
        .unwrap();
    let refusal = String::from_utf8(join.stderr).unwrap();
    assert!(refusal.contains("Timeout was reached before node joined."), "{refusal}");
    assert_eq!(state(&machine), "pending");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    machine.kill();
    while silent.accept().is_ok() {}

    machine.start();
    machine.until("the manager is asked again", |_| silent.accept().is_ok());
    assert_eq!(state(&machine), "pending");
    machine.skep(&["swarm", "leave"]);
    assert_eq!(state(&machine), "inactive");
    assert!(!kept.exists());
    assert!(!machine.log().contains(&TOKEN[60..]), "the log names the secret");
}

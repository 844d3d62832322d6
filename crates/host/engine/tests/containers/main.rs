//! Real containers through the whole engine: as root, in a network and a mount namespace of their own.
//!
//! The binary is three things: the outer test, which runs itself again inside new namespaces; the inner test, which runs
//! the cases one after another; and the shim of the containers that they start.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test panics when it can't go on, and reports itself"
)]

mod adopting;
mod basics;
mod checks;
mod crashes;
mod execs;
mod names;
mod storage;
mod world;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use world::World;

/// A script in a container that the kernel executes by this program: it stays until it is killed.
pub(crate) const HOLD: &str = "/bin/hold";
const INSIDE: &str = "inside-namespaces";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("shim") => shim::main(&args[2..]),
        Some(HOLD) => loop {
            std::thread::park();
        },
        Some(INSIDE) => inside(args.get(2).and_then(|arg| arg.to_str()).unwrap_or_default()),
        Some(crashes::LOAD) => {
            let word =
                |at: usize| args.get(at).and_then(|arg| arg.to_str()).expect("root, cgroup parent, seed");
            crashes::load(word(2), word(3), word(4))
        }
        // What `cargo test -- --list` and IDEs ask of a test binary.
        Some("--list") => ExitCode::SUCCESS,
        filter => outside(filter.filter(|text| !text.starts_with('-')).unwrap_or_default()),
    }
}

fn outside(filter: &str) -> ExitCode {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new(world::BUSYBOX).exists() {
        eprintln!("!!! NOT RUN: containers: needs root and {}", world::BUSYBOX);
        return ExitCode::SUCCESS;
    }
    let exe = std::env::current_exe().expect("a running program has a path");
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(exe)
        .args([INSIDE, filter])
        .status()
        .expect("util-linux has `unshare`");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Case = (&'static str, fn(World) -> world::Running);

fn inside(filter: &str) -> ExitCode {
    world::log_to_stderr();
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|status| status.success()), "loopback does not come up");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the tests");
    let mut failed = Vec::new();
    let cases: Vec<Case> = [
        basics::CASES,
        execs::CASES,
        names::CASES,
        storage::CASES,
        checks::CASES,
        adopting::CASES,
        crashes::CASES,
    ]
    .concat();
    for (name, case) in cases.into_iter().filter(|(name, _)| name.contains(filter)) {
        let began = std::time::Instant::now();
        let outcome = runtime.block_on(async move {
            let world = World::new().await;
            let cleanup = world.cleanup();
            let run = tokio::spawn(tokio::time::timeout(world::LONGEST, case(world)));
            let outcome = run.await;
            cleanup.finish().await;
            match outcome {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err("took too long".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        });
        let spent = began.elapsed();
        match outcome {
            Ok(()) => eprintln!("test {name} ... ok ({spent:.2?})"),
            Err(error) => {
                eprintln!("test {name} ... FAILED ({spent:.2?}): {error}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("failed: {failed:?}");
    ExitCode::FAILURE
}

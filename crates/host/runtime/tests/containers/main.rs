//! Runs real containers: needs root, and busybox as the program inside.
//!
//! In: nothing but the kernel. Out: one line per test, and exit code 1 if one failed. Has one thread, because the runtime
//! clones processes without exec. Everything it makes is gone afterwards; the last test checks that.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test program talks to a person")]
#![allow(unsafe_code, reason = "tests fork and try system calls")]

mod bed;
mod cgroups;
mod execs;
mod files;
mod lifecycle;
mod networks;
mod rights;
mod speed;
mod users;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use bed::Bed;

type Test = (&'static str, fn(&Bed));

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new(bed::BUSYBOX).exists() {
        println!("NOT RUN: these tests need root and {}", bed::BUSYBOX);
        return ExitCode::SUCCESS;
    }
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let lists = [
        lifecycle::TESTS,
        files::TESTS,
        users::TESTS,
        rights::TESTS,
        cgroups::TESTS,
        networks::TESTS,
        execs::TESTS,
        speed::TESTS,
    ];
    let bed = Bed::new();
    let (mut run, mut failed) = (0, Vec::new());
    for (name, test) in lists.into_iter().flatten().filter(|(name, _)| name.contains(&filter)) {
        run += 1;
        let passed = catch_unwind(AssertUnwindSafe(|| test(&bed))).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(*name);
        }
    }
    let left = bed.take_down();
    println!("{run} run, {} failed: {failed:?}; left behind: {left:?}", failed.len());
    if failed.is_empty() && left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

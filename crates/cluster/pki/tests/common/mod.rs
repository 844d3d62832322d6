//! What the tests of this crate share: names, times, and the `openssl` program as an outside judge.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part of it; a test that panics has failed"
)]

pub(crate) mod outside;

use std::path::Path;
use std::process::{Command, Output};
use std::time::SystemTime;

use objects::{Nanos, NodeRole, Timestamp};
use pki::Identity;

pub(crate) const DAY: i64 = 86_400;
pub(crate) const NINETY_DAYS: Nanos = Nanos::from_secs(90 * DAY);

/// The time of this machine, to the second, as `openssl` judges by it.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_secs(i64::try_from(since.as_secs()).expect("before the year 292 billion"))
}

pub(crate) fn identity(node: &str, role: NodeRole) -> Identity {
    Identity { node: node.into(), role, cluster: "swarmid".into() }
}

/// Runs `openssl` in a directory; fails loudly where it is not installed.
pub(crate) fn openssl(directory: &Path, line: &str) -> Output {
    Command::new("openssl")
        .current_dir(directory)
        .args(line.split_whitespace())
        .output()
        .expect("these tests need the `openssl` program: apt-get install openssl")
}

/// As [`openssl`], and it must succeed; what it printed.
pub(crate) fn openssl_ok(directory: &Path, line: &str) -> String {
    let output = openssl(directory, line);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "openssl {line}\n{out}\n{err}");
    out.into_owned()
}

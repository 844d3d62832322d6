//! A program that is nothing but a shim: `shim shim <directory>`. For tests, and for measuring what one costs.
//!
//! In and out: see `shim::main`. Never used by the daemon, which runs its own program as the shim.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(2).collect();
    shim::main(&args)
}

//! The binary: one program that is the daemon, the shim of each container, and the command line.
//!
//! ```text
//! skep shim DIR    one small process per container (no async runtime, nothing else of this program runs)
//! skep daemon      the engine and, when in a swarm, manager and agent
//! skep play        several machines on this one; each has a process 1 (`skep machine-init DIR`) and a daemon
//! skep COMMAND     a client of the daemon's API
//! ```

mod daemon;

use clap::{Parser, Subcommand};
use std::ffi::OsStr;
use std::process::ExitCode;

/// A container engine with Swarm mode built in.
#[derive(Debug, Parser)]
#[command(name = "skep", version, about, propagate_version = false, disable_help_subcommand = true)]
struct Skep {
    /// Daemon socket to connect to [default: $DOCKER_HOST or unix:///var/run/docker.sock]
    #[arg(short = 'H', long, value_name = "socket")]
    host: Option<String>,
    #[command(subcommand)]
    command: Top,
}

#[derive(Debug, Subcommand)]
enum Top {
    /// Run the engine: containers, images, networks, and this node's part in a swarm
    Daemon(Box<daemon::flags::DaemonFlags>),
    /// Start a swarm of several machines on this one, to try things out
    Play(Box<play::PlayFlags>),
    #[command(flatten)]
    Client(Box<cli::commands::Command>),
}

fn main() -> ExitCode {
    // Before anything else: a shim lives as long as its container, and what is touched here is its memory.
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    let rest: Vec<_> = arguments.collect();
    match first.as_deref().map(OsStr::as_encoded_bytes) {
        Some(b"shim") => return shim::main(&rest),
        Some(b"machine") => return machine::launcher_main(&rest),
        Some(b"machine-init") => return machine::init_main(&rest),
        _ => {}
    }
    let skep: Skep = cli::grammar::parse();
    match skep.command {
        Top::Daemon(flags) => match daemon::run(*flags) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                cli::output::note(&format!("skep daemon: {error:#}"));
                ExitCode::FAILURE
            }
        },
        Top::Play(flags) => ExitCode::from(u8::try_from(play::run(*flags)).unwrap_or(1)),
        Top::Client(command) => {
            let named =
                skep.host.or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()));
            let code = cli::run(*command, named.as_deref().unwrap_or(cli::client::DEFAULT_HOST));
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
    }
}

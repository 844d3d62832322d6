//! The shim itself: one small process per container or exec.
//!
//! In: `skep shim <directory>`, with a connection to the daemon as standard input. Out: a process that is started when the
//! daemon says so, and a record of its end. One thread, no async runtime, buffers of fixed size; after its start it needs the
//! daemon no more.
//!
//! ```text
//! main: detach ─► orders ─► log, socket ─► runtime::create ─► shim.json ─► Hello
//! serve: epoll { connections, output, input, queries for names, end of the process } ─► drained ─► exit.json ─► Exited
//! ```

mod client;
mod ending;
mod files;
mod poll;
mod process;
mod requests;
mod resolver;
mod serve;
mod streams;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use logs::{OpenLogError, Writer};
use runtime::{Created, Network, StartError};

use crate::Launch;
use crate::client::EXIT_CODE_OTHER;
use crate::protocol::{Failure, Kind, Processes, json_frame};

use files::{ReadSpecError, ShimDir};
use resolver::Resolver;
use serve::{Parts, Shim};

/// Why there is no process to wait for.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error(transparent)]
    Spec(#[from] ReadSpecError),
    #[error("failed to initialize logging driver: {0}: {source}", source = .0.source)]
    Log(OpenLogError),
    #[error("{step}: {source}")]
    System { step: &'static str, source: io::Error },
    #[error(transparent)]
    Create(#[from] StartError),
}

impl PrepareError {
    fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { step, source }
    }

    fn failure(&self) -> Failure {
        let exit_code = match self {
            Self::Create(error) => error.exit_code(),
            _ => EXIT_CODE_OTHER,
        };
        Failure { message: self.to_string(), exit_code: Some(exit_code) }
    }
}

/// Runs a shim: `args` are what follows `skep shim`. To be called before anything else has happened in the process, since
/// it closes every descriptor above 2.
///
/// Returns when the container has ended and its end is on record.
pub fn main(args: &[OsString]) -> ExitCode {
    let [dir] = args else { return ExitCode::from(2) };
    let Ok(connection) = process::detach() else { return ExitCode::FAILURE };
    let dir = ShimDir::new(PathBuf::from(dir));
    keep_last_words(&dir);
    let ended = run(dir, connection);
    if ended { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether a process came to be and its end is on record.
fn run(mut dir: ShimDir, connection: OwnedFd) -> bool {
    let connection = UnixStream::from(connection);
    let shim = match prepare(&mut dir) {
        Ok(parts) => Shim::new(dir, parts, connection),
        Err(error) => {
            dir.remove_all();
            report(&connection, &error);
            return false;
        }
    };
    match shim {
        Ok(shim) => shim.serve(),
        // The process dies with this one.
        Err(_) => false,
    }
}

/// Everything up to the moment in which only `execve` is missing.
fn prepare(dir: &mut ShimDir) -> Result<Parts, PrepareError> {
    let spec = dir.read_spec()?;
    let log = Writer::open(&spec.log).map_err(PrepareError::Log)?;
    let listener = dir.listen().map_err(PrepareError::at("listen on the shim's socket"))?;
    let mut created = match &spec.launch {
        Launch::Container(container) => runtime::create(container)?,
        Launch::Exec(exec) => runtime::exec(exec)?,
    };
    process::harden();
    let pid = created.pid;
    let shim_pid = rustix::process::getpid().as_raw_nonzero().get();
    let processes = Processes { shim_pid, pid, pid_start_time: runtime::start_time(pid) };
    if let Err(source) = dir.write_state(&processes) {
        discard(&created);
        return Err(PrepareError::System { step: "write the shim's state", source });
    }
    let has_namespace = has_namespace(&spec.launch);
    let wanted = spec.resolver.as_ref().filter(|_| has_namespace);
    let opened = wanted.map(|_| Resolver::open(pid, dir.resolver_file(), true)).transpose();
    let resolver = opened.map_err(|source| {
        discard(&created);
        PrepareError::System { step: "open the container's resolver", source }
    })?;
    let stdio = created.stdio.take().expect("a process that was just made has its streams");
    let stdin_once = spec.stdin_once;
    drop(spec);
    process::trim_heap();
    Ok(Parts { created, stdio, log, listener, processes, stdin_once, resolver, has_namespace })
}

/// Whether the container has a network namespace that nobody else looks after.
fn has_namespace(launch: &Launch) -> bool {
    match launch {
        Launch::Container(container) => matches!(container.network, Network::None | Network::Interfaces(_)),
        Launch::Exec(_) => false,
    }
}

/// Ends a process that was never started, and what was made for it.
fn discard(created: &Created) {
    process::kill_and_reap(created.pid, &created.pidfd);
    if let Some(cgroup) = &created.cgroup {
        // The daemon sweeps up cgroups without a container when it starts; there is nobody else to tell.
        let _ = cgroup.remove();
    }
}

fn report(mut connection: &UnixStream, error: &PrepareError) {
    // A daemon that is gone needs no answer.
    let _ = io::Write::write_all(&mut connection, &json_frame(Kind::Failed, &error.failure()));
}

/// Leaves the text of a panic where somebody may look for it: standard error leads nowhere.
fn keep_last_words(dir: &ShimDir) {
    let path = dir.panic_file();
    std::panic::set_hook(Box::new(move |panic| {
        // Nothing can be done about a failure in here.
        let _ = std::fs::write(&path, panic.to_string());
    }));
}

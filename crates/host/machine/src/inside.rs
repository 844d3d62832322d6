//! Doing something inside a machine: a command of a person, or a question to its network.

use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitStatus};
use std::thread;

use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{MachineError, system};
use crate::spec::Machine;

impl Machine {
    /// Runs a command on the machine with this terminal, and waits for its end. `DOCKER_HOST` is the machine's daemon.
    ///
    /// For a process with one thread, which stays on the machine afterwards.
    pub fn run(&self, command: &[OsString]) -> Result<ExitStatus, MachineError> {
        let handle = self.handle()?;
        let all = ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::PROCESS_ID
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
        move_into_thread_name_spaces(std::os::fd::AsFd::as_fd(&handle), all)
            .map_err(system("enter the machine"))?;
        let mut host = OsString::from("unix://");
        host.push(self.socket());
        let (program, arguments) = command.split_first().expect("the grammar asks for a command");
        let mut command = Command::new(program);
        command.args(arguments).env("DOCKER_HOST", host).current_dir("/");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(system("follow the command"))?;
        runtime.block_on(follow(command)).map_err(system("run the command"))
    }

    /// Calls `act` in the network of the machine.
    pub(crate) fn inside_network<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T, MachineError> {
        let handle = self.handle()?;
        // A thread of its own: it does not come back.
        let joined = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_thread_name_spaces(
                    std::os::fd::AsFd::as_fd(&handle),
                    ThreadNameSpaceType::NETWORK,
                )?;
                Ok(act())
            });
            inside.join().expect("a question to the kernel does not panic")
        });
        joined.map_err(|error: rustix::io::Errno| system("enter the machine's network")(error))
    }
}

/// Keys that interrupt are for the command: this process only passes its end on.
async fn follow(mut command: Command) -> io::Result<ExitStatus> {
    let mut ended = signal(SignalKind::child())?;
    let _interrupt = signal(SignalKind::interrupt())?;
    let _quit = signal(SignalKind::quit())?;
    let mut child = command.spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        ended.recv().await;
    }
}

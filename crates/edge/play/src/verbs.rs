//! What is done with the machines of a play.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use cli::{CliError, output};
use machine::{Cut, Machine, MachineError};

use crate::failed;
use crate::flags::{PlayFlags, Verb};
use crate::list::list;
use crate::start::{answers, start};
use crate::state::Play;

/// Added to the number of a signal that ended a command. Source: POSIX shells.
const SIGNALLED: i32 = 128;

pub(crate) fn run(flags: PlayFlags) -> Result<i32, CliError> {
    let verb = match (flags.verb, flags.start) {
        (None, options) => return start(&flags.name, &options.unwrap_or_default()).map(|()| 0),
        (Some(_), Some(_)) => {
            let text = "flags that say how a play starts, such as --nodes, cannot be used with a command";
            return Err(CliError::new(text.to_owned()));
        }
        (Some(verb), None) => verb,
    };
    let play = Play::load(&flags.name)?;
    match verb {
        Verb::Ls => list(&play)?,
        Verb::Exec { node, command } => {
            let ended = play.machine(&node)?.run(&command).map_err(|error| failed(&error))?;
            return Ok(code(ended));
        }
        Verb::Stop { node, daemon: false } => each(&play, &node, Machine::power_off)?,
        Verb::Stop { node, daemon: true } => each(&play, &node, Machine::stop_daemon)?,
        Verb::Start { node } => power_on(&play, &node)?,
        Verb::Kill { node, daemon: false } => each(&play, &node, Machine::pull_plug)?,
        Verb::Kill { node, daemon: true } => each(&play, &node, Machine::kill_daemon)?,
        Verb::Cut { node, r#in, out } => {
            let what = match (r#in, out) {
                (true, _) => Cut::Inbound,
                (_, true) => Cut::Outbound,
                _ => Cut::Both,
            };
            each(&play, &node, |machine| machine.cut(what))?;
        }
        Verb::Heal { node } => each(&play, &node, Machine::heal)?,
        Verb::Rm => remove(&play)?,
    }
    Ok(0)
}

fn code(ended: ExitStatus) -> i32 {
    ended.code().or_else(|| ended.signal().map(|signal| SIGNALLED + signal)).unwrap_or(1)
}

/// Does it to each machine and names it, as docker names what it stopped.
fn each(
    play: &Play,
    nodes: &[String],
    act: impl Fn(&Machine) -> Result<(), MachineError>,
) -> Result<(), CliError> {
    for node in nodes {
        act(&play.machine(node)?).map_err(|error| failed(&error))?;
        output::line(node);
    }
    Ok(())
}

fn power_on(play: &Play, nodes: &[String]) -> Result<(), CliError> {
    let program = std::env::current_exe().map_err(|error| CliError::file("find", "this program", &error))?;
    each(
        play,
        nodes,
        |machine| {
            if machine.is_on() { machine.start_daemon() } else { machine.boot(&program) }
        },
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(error.to_string()))?;
    runtime.block_on(async {
        for node in nodes {
            answers(&play.machine(node)?).await?;
        }
        Ok(())
    })
}

fn remove(play: &Play) -> Result<(), CliError> {
    let folder = Play::folder(&play.name)?;
    for node in &play.nodes {
        match play.machine(node) {
            Ok(machine) => machine.remove().map_err(|error| failed(&error))?,
            // It was never made, or is removed already.
            Err(_) if !folder.join(node).join("machine.json").exists() => {}
            Err(error) => return Err(error),
        }
    }
    machine::remove_groups(&play.cgroup()).map_err(|error| failed(&error))?;
    play.lan.remove().map_err(|error| failed(&error))?;
    std::fs::remove_dir_all(&folder)
        .map_err(|error| CliError::file("remove", &folder.to_string_lossy(), &error))
}

//! The grammar of docker's command line, laid over clap's: flags, counts of arguments, help and the texts of refusals.
//!
//! In: the commands as declared, and the arguments. Out: the same commands reading flags as docker's client does
//! (`--flag=false`, the last of two wins, a value may begin with `-`) and showing help in its form; and for what cannot
//! be read, its words and exit code.

mod help;
mod refusal;
mod usage;

use clap::builder::TypedValueParser as _;
use clap::{Arg, ArgAction, ArgMatches, Command, Parser};
use std::any::TypeId;

/// Reads the program's arguments; ends the program with docker's words when they make no sense, or with help.
pub fn parse<P: Parser>() -> P {
    let arguments = with_help_first(std::env::args().collect());
    let read: Result<P, clap::Error> = P::command()
        .try_get_matches_from(&arguments)
        .and_then(|mut matches: ArgMatches| P::from_arg_matches_mut(&mut matches));
    match read {
        Ok(read) => read,
        Err(error) => {
            let refusal = refusal::of(&error, &P::command(), &arguments);
            match refusal.code {
                0 => crate::output::line(&refusal.text),
                _ => crate::output::note(&refusal.text),
            }
            std::process::exit(refusal.code)
        }
    }
}

/// `skep help WORD…` is `skep WORD… --help`.
fn with_help_first(mut arguments: Vec<String>) -> Vec<String> {
    if arguments.get(1).is_some_and(|word| word == "help") {
        arguments.remove(1);
        arguments.push("--help".to_owned());
    }
    arguments
}

/// What ends a message on a flag's value: the usage of the command that this program was called with.
pub(crate) fn usage_hint() -> String {
    let words = refusal::words(&std::env::args().collect::<Vec<_>>());
    let path = usage::known(&words);
    format!("\n\nUsage:  {}\n\nRun '{path} --help' for more information", usage::line(&path))
}

/// Makes `root` and all below it read arguments and show help as docker's client does.
pub(crate) fn dress(root: Command) -> Command {
    let shortcuts: Vec<String> = root.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let name = "skep".to_owned();
    let root = flags(root)
        .about("A container engine with Swarm mode built in")
        .mut_subcommands(|below| dress_at(below, &name, &shortcuts, &[]));
    let text = help::root(&root);
    root.override_help(text).subcommand_required(true).arg_required_else_help(true)
}

/// `inherited` are the flags of the commands above that this one takes, too.
fn dress_at(command: Command, above: &str, shortcuts: &[String], inherited: &[Arg]) -> Command {
    let path = format!("{above} {}", usage::shown_name(above, command.get_name()));
    let for_below: Vec<Arg> = command.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    let command = flags(command).mut_subcommands(|below| dress_at(below, &path, shortcuts, &for_below));
    let text = help::page(&command, &path, shortcuts, inherited);
    let command = command.override_help(text).disable_help_subcommand(true);
    if command.has_subcommands() { command.arg_required_else_help(true) } else { command }
}

fn flags(command: Command) -> Command {
    command.args_override_self(true).mut_args(|arg| if arg.is_positional() { arg } else { flag(arg) })
}

fn flag(arg: Arg) -> Arg {
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue) || is_of::<bool>(&arg);
    match arg.get_action() {
        _ if is_switch => {
            let usually = arg.get_default_values().first().map_or("false".into(), |value| value.to_owned());
            arg.action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value(usually)
                .value_parser(clap::builder::NonEmptyStringValueParser::new().try_map(|text| truth(&text)))
        }
        ArgAction::Set | ArgAction::Append => arg.allow_hyphen_values(true),
        _ => arg,
    }
}

fn is_of<T: 'static>(arg: &Arg) -> bool {
    arg.get_action().takes_values() && arg.get_value_parser().type_id() == TypeId::of::<T>()
}

/// Source: Go `strconv.ParseBool`.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing \"{text}\": invalid syntax")),
    }
}

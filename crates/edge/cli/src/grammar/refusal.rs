//! Says why arguments could not be read, in docker's words.
//!
//! In: clap's error, the commands and the arguments. Out: the text and the exit code: 0 for help, 1 for a wrong number
//! of arguments or an unknown command, 125 for a wrong flag. Source: docker/cli 28.2, observed.

use super::{is_of, usage};
use crate::CliError;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

/// Exit code of a wrong flag.
const WRONG_FLAG: i32 = 125;

pub(super) struct Refusal {
    pub(super) text: String,
    pub(super) code: i32,
}

/// The words of `arguments` that are neither flags nor the program: the command, then its arguments.
pub(super) fn words(arguments: &[String]) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = arguments.iter().skip(1);
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-H" | "--host" if words.is_empty() => drop(rest.next()),
            flag if flag.starts_with('-') => {}
            _ => words.push(word.clone()),
        }
    }
    words
}

/// The command that `arguments` name, and its path.
fn called<'a>(root: &'a Command, arguments: &[String]) -> (&'a Command, String) {
    let mut command = root;
    let mut path = "skep".to_owned();
    for word in words(arguments) {
        let Some(below) = command.find_subcommand(&word) else { break };
        path.push_str(&format!(" {word}"));
        command = below;
    }
    (command, path)
}

pub(super) fn of(error: &clap::Error, root: &Command, arguments: &[String]) -> Refusal {
    let (command, path) = called(root, arguments);
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.first().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let argument = context(ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Refusal { text: error.to_string().trim_end().to_owned(), code: 0 }
        }
        ErrorKind::InvalidSubcommand => unknown_command(&path, &context(ContextKind::InvalidSubcommand)),
        ErrorKind::UnknownArgument if argument.starts_with("--") => {
            let flag = argument.split('=').next().unwrap_or_default();
            wrong_flag(&path, &format!("unknown flag: {flag}"))
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            let letter = argument.chars().nth(1).unwrap_or('-');
            let typed = arguments.iter().find(|typed| is_cluster_with(typed, letter)).unwrap_or(&argument);
            // Letters before it are flags that were read already.
            let rest = &typed[typed.find(letter).unwrap_or(1)..];
            wrong_flag(&path, &format!("unknown shorthand flag: '{letter}' in -{rest}"))
        }
        ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument | ErrorKind::TooManyValues => {
            wrong_count(command, &path)
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = context(ContextKind::InvalidValue);
            let named = argument.split([' ', '=', '[']).next().unwrap_or_default().trim_start_matches('-');
            let arg = command
                .get_arguments()
                .chain(root.get_arguments())
                .find(|arg| arg.get_long().is_some_and(|long| long == named));
            match arg {
                Some(arg) => wrong_value(&path, arg, &value, error, arguments),
                None => Refusal { text: error.to_string(), code: WRONG_FLAG },
            }
        }
        _ => Refusal { text: error.to_string().trim_end().to_owned(), code: WRONG_FLAG },
    }
}

fn is_cluster_with(typed: &str, letter: char) -> bool {
    typed.starts_with('-') && !typed.starts_with("--") && typed.contains(letter)
}

fn wrong_flag(path: &str, what: &str) -> Refusal {
    let usage = usage::line(path);
    let text = format!("{what}\n\nUsage:  {usage}\n\nRun '{path} --help' for more information");
    Refusal { text, code: WRONG_FLAG }
}

fn unknown_command(path: &str, word: &str) -> Refusal {
    let usage = if path == "skep" { String::new() } else { format!("Usage:  {path}\n\n") };
    let text =
        format!("skep: unknown command: {path} {word}\n\n{usage}Run '{path} --help' for more information");
    Refusal { text, code: 1 }
}

fn wrong_value(path: &str, arg: &Arg, value: &str, error: &clap::Error, arguments: &[String]) -> Refusal {
    let long = arg.get_long().unwrap_or_default();
    let typed_short = arg.get_short().and_then(|short| {
        let at_end = arguments.last().filter(|typed| is_cluster_with(typed, short))?;
        Some(format!("'{short}' in {at_end}"))
    });
    if value.is_empty() && error.kind() == ErrorKind::InvalidValue {
        let which = typed_short.unwrap_or_else(|| format!("--{long}"));
        return wrong_flag(path, &format!("flag needs an argument: {which}"));
    }
    let flag = match arg.get_short() {
        Some(short) => format!("-{short}, --{long}"),
        None => format!("--{long}"),
    };
    let parser = match () {
        () if is_of::<i64>(arg) || is_of::<i32>(arg) => Some("ParseInt"),
        () if is_of::<u64>(arg) || is_of::<u32>(arg) || is_of::<u16>(arg) => Some("ParseUint"),
        () if is_of::<f64>(arg) => Some("ParseFloat"),
        () => None,
    };
    let own = std::error::Error::source(error).and_then(|source| source.downcast_ref::<CliError>());
    let why = match (parser, std::error::Error::source(error)) {
        _ if own.is_some() => own.map(ToString::to_string).unwrap_or_default(),
        (Some(parser), _) => format!("strconv.{parser}: parsing \"{value}\": invalid syntax"),
        (None, Some(source)) => source.to_string(),
        (None, None) => {
            let known = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(known)) => known.join("\", \""),
                _ => String::new(),
            };
            format!("must be one of \"{known}\"")
        }
    };
    wrong_flag(path, &format!("invalid argument {value:?} for \"{flag}\" flag: {why}"))
}

/// How many arguments the command takes, and where to read more.
fn wrong_count(command: &Command, path: &str) -> Refusal {
    let positionals: Vec<&Arg> = command.get_positionals().collect();
    let least = positionals.iter().filter(|arg| arg.is_required_set()).count();
    let is_open = positionals.last().is_some_and(|arg| {
        matches!(arg.get_action(), clap::ArgAction::Append) || arg.is_trailing_var_arg_set()
    });
    let most = positionals.len();
    let arguments =
        |count: usize| if count == 1 { "1 argument".to_owned() } else { format!("{count} arguments") };
    let (what, see) = match (least, most, is_open) {
        (_, 0, _) => ("accepts no arguments".to_owned(), "Run"),
        (least, _, true) => (format!("requires at least {}", arguments(least)), "See"),
        (0, most, false) => (format!("requires at most {}", arguments(most)), "Run"),
        (least, most, false) if least == most => (format!("requires {}", arguments(most)), "Run"),
        (least, most, false) => (format!("requires at least {least} and at most {}", arguments(most)), "Run"),
    };
    let usage = usage::line(path);
    let text =
        format!("skep: '{path}' {what}\n\nUsage:  {usage}\n\n{see} '{path} --help' for more information");
    Refusal { text, code: 1 }
}

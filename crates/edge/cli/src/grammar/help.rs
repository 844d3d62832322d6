//! Writes the help of a command: usage, summary, aliases, commands, options.
//!
//! In: a declared command. Out: text in the form of docker's help, folded at 80 columns. Source: docker/cli 28.2
//! `cli/cobra.go` and pflag's `FlagUsagesWrapped`, observed.

use super::{is_of, usage};
use clap::{Arg, Command};

/// Columns of a help page. Source: docker/cli, 80 less one.
const WIDTH: usize = 79;
/// A last word may reach this far beyond the fold. Source: pflag `wrap`.
const SLOP: usize = 5;
/// The commands everybody needs first. Source: docker's help, less what skep has not.
const COMMON: [&str; 12] =
    ["run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version", "info"];
const MANAGEMENT: [&str; 4] = ["container", "image", "network", "volume"];
const SWARM: [&str; 3] = ["node", "service", "swarm"];

/// What `--format` takes. Source: docker/cli `cli/flags/options.go`.
const FORMAT: &str = "Format output using a custom template:\n";
const FORMAT_TABLE: &str = "\
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
";
const FORMAT_ANY: &str = "\
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

/// The help of the program itself.
pub(super) fn root(root: &Command) -> String {
    let mut commands: Vec<(&str, String)> = root
        .get_subcommands()
        .map(|below| (usage::shown_name("skep", below.get_name()), about(below)))
        .collect();
    commands.sort();
    let mut out = format!("Usage:  skep [OPTIONS] COMMAND\n\n{}\n", about(root));
    let mut grouped: Vec<&str> = Vec::new();
    for (title, names) in
        [("Common Commands", &COMMON[..]), ("Management Commands", &MANAGEMENT), ("Swarm Commands", &SWARM)]
    {
        let found = names.iter().filter_map(|name| commands.iter().find(|(known, _)| known == name));
        out.push_str(&section(title, found));
        grouped.extend(names);
    }
    out.push_str(&section("Commands", commands.iter().filter(|(name, _)| !grouped.contains(name))));
    out.push_str(&format!("\nGlobal Options:\n{}", options(root.get_arguments())));
    out.push_str("\nRun 'skep COMMAND --help' for more information on a command.\n");
    out
}

/// The help of the command at `path`; `shortcuts` are the commands at the top, `inherited` the flags of those above it.
pub(super) fn page(command: &Command, path: &str, shortcuts: &[String], inherited: &[Arg]) -> String {
    let mut out = format!("Usage:  {}\n\n{}\n", usage::line(path), about(command));
    if let Some(aliases) = aliases(command, path, shortcuts) {
        out.push_str(&format!("\nAliases:\n  {aliases}\n"));
    }
    if command.has_subcommands() {
        let mut commands: Vec<(&str, String)> =
            command.get_subcommands().map(|below| (below.get_name(), about(below))).collect();
        commands.sort();
        out.push_str(&section("Commands", commands.iter()));
    }
    let options = options(command.get_arguments().chain(inherited));
    if !options.is_empty() {
        out.push_str(&format!("\nOptions:\n{options}"));
    }
    if let Some(more) = command.get_after_help() {
        out.push_str(&format!("\n{more}\n"));
    }
    if command.has_subcommands() {
        out.push_str(&format!("\nRun '{path} COMMAND --help' for more information on a command.\n"));
    }
    out
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default().trim_end_matches('.').to_owned()
}

fn section<'a>(title: &str, commands: impl Iterator<Item = &'a (&'a str, String)>) -> String {
    let lines: Vec<String> = commands.map(|(name, about)| format!("  {name:<11} {about}\n")).collect();
    format!("\n{title}:\n{}", lines.concat())
}

/// Every way to call the command, when there are several.
fn aliases(command: &Command, path: &str, shortcuts: &[String]) -> Option<String> {
    let words: Vec<&str> = path.split(' ').collect();
    let name = command.get_name();
    let (noun, long) = match words.as_slice() {
        [_, "images"] => ("image", "ls"),
        [_, "rmi"] => ("image", "rm"),
        [_, "build" | "history" | "import" | "load" | "pull" | "push" | "save" | "tag"] => ("image", name),
        [_, "inspect" | "version" | "info" | "events" | "daemon" | "login" | "logout" | "search"] => {
            return None;
        }
        [_, _] if !command.has_subcommands() => ("container", name),
        [_, noun, _] => (*noun, name),
        _ => return None,
    };
    let short = match (noun, long) {
        (_, "inspect") => None,
        ("image", "ls") => Some("images"),
        ("image", "rm") => Some("rmi"),
        ("container", "ls") => Some("ps"),
        ("container" | "image", other) => shortcuts.iter().any(|known| known == other).then_some(other),
        _ => None,
    };
    let mut other_names: Vec<&str> = command.get_visible_aliases().collect();
    match (words.len(), long) {
        (2, "ls") if noun == "image" => other_names.push("list"),
        (2, "rm") if noun == "image" => other_names.push("remove"),
        _ => {}
    }
    let mut all: Vec<String> =
        std::iter::once(long).chain(other_names).map(|name| format!("skep {noun} {name}")).collect();
    all.extend(short.map(|short| format!("skep {short}")));
    (all.len() > 1).then(|| all.join(", "))
}

/// The flags, sorted by name, their texts folded.
fn options<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut flags: Vec<(String, String, String)> = arguments
        .filter(|arg| !arg.is_positional() && !arg.is_hide_set())
        .filter_map(|arg| arg.get_long().map(|long| (long.to_owned(), front(arg, long), text(arg))))
        .filter(|(long, _, _)| long != "help")
        .collect();
    flags.sort();
    let widest = flags.iter().map(|(_, front, _)| front.len()).max().unwrap_or(0);
    let lines =
        flags.iter().map(|(_, front, text)| format!("{front:<widest$}   {}\n", fold(text, widest + 3)));
    lines.collect()
}

/// `  -f, --filter filter`
fn front(arg: &Arg, long: &str) -> String {
    let short = arg.get_short().map_or("      ".to_owned(), |short| format!("  -{short}, "));
    match value_word(arg) {
        Some(word) => format!("{short}--{long} {word}"),
        None => format!("{short}--{long}"),
    }
}

/// What a flag's value is called; switches have none.
fn value_word(arg: &Arg) -> Option<String> {
    if !arg.get_action().takes_values() || is_of::<bool>(arg) {
        return None;
    }
    let named = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let named = named.filter(|name| name.chars().any(char::is_lowercase));
    let by_type = || match () {
        () if is_of::<i64>(arg) || is_of::<i32>(arg) => "int",
        () if is_of::<u64>(arg) || is_of::<u32>(arg) || is_of::<u16>(arg) => "uint",
        () if is_of::<f64>(arg) => "float",
        () => "string",
    };
    Some(named.unwrap_or_else(|| by_type().to_owned()))
}

fn text(arg: &Arg) -> String {
    let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if arg.get_long() == Some("format") {
        return if text.contains("'table'") {
            format!("{FORMAT}{FORMAT_TABLE}{FORMAT_ANY}")
        } else {
            format!("{FORMAT}{FORMAT_ANY}")
        };
    }
    let is_quoted = value_word(arg).as_deref() == Some("string");
    let usual = arg.get_default_values().first().and_then(|value| value.to_str());
    match usual.filter(|usual| !["", "false", "0"].contains(usual) && !text.contains("(default")) {
        Some(usual) if is_quoted => format!("{text} (default \"{usual}\")"),
        Some(usual) => format!("{text} (default {usual})"),
        None => text,
    }
}

/// Folds at blanks; further lines begin at column `indent`.
fn fold(text: &str, indent: usize) -> String {
    let width = WIDTH.saturating_sub(indent + SLOP).max(24);
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        fold_line(line, width, &mut lines);
    }
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

fn fold_line<'a>(mut rest: &'a str, width: usize, lines: &mut Vec<&'a str>) {
    while rest.len() >= width + SLOP {
        let end = (0..=width).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(0);
        match rest[..end].rfind(' ').filter(|at| *at > 0) {
            Some(at) => {
                lines.push(&rest[..at]);
                rest = &rest[at + 1..];
            }
            None => break,
        }
    }
    lines.push(rest);
}

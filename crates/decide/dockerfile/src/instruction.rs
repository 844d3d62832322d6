//! What one instruction says, checked, with its variables still in it.
//!
//! In: a line. Out: the instruction, or why it is none, in Docker's words.
//! Source: buildkit, `frontend/dockerfile/instructions/parse.go`.

use docker::units::parse_duration;
use docker::{HealthcheckConfig, Nanos};

use crate::words::{self, Split};

/// An instruction, where it stands and how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// As the builder prints it.
    pub source: String,
    /// First line, from 1.
    pub line: usize,
    /// What it says.
    pub instruction: Instruction,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq)]
pub enum Instruction {
    /// Begins a stage: base, name (lower case, may be empty), platform (may be empty).
    From {
        /// Image or earlier stage.
        base: String,
        /// In lower case; empty for none.
        name: String,
        /// Empty for none.
        platform: String,
    },
    /// Environment.
    Env(Vec<(String, String)>),
    /// Labels. `is_literal`: they come from the command line and hold no variables.
    Label {
        /// Keys and values.
        pairs: Vec<(String, String)>,
        /// Whether variables are not put in.
        is_literal: bool,
    },
    /// Build arguments with their defaults.
    Arg(Vec<(String, Option<String>)>),
    /// Author.
    Maintainer(String),
    /// Copies files, unpacks archives and fetches URLs.
    Add(Copy),
    /// Copies files.
    Copy(Copy),
    /// Runs a command.
    Run(CommandLine),
    /// Default command.
    Cmd(CommandLine),
    /// Entry point.
    Entrypoint(CommandLine),
    /// Shell of what follows.
    Shell(Vec<String>),
    /// Working folder.
    Workdir(String),
    /// User.
    User(String),
    /// Signal that ends the container.
    StopSignal(String),
    /// Ports.
    Expose(Vec<String>),
    /// Places of volumes.
    Volume(Vec<String>),
    /// Health check.
    Healthcheck(HealthcheckConfig),
    /// An instruction for builds on the image.
    OnBuild(String),
}

impl Eq for Instruction {}

/// What COPY and ADD are told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// At least one.
    pub sources: Vec<String>,
    /// Where to.
    pub destination: String,
    /// Stage or image; empty is the context.
    pub from: String,
    /// `user[:group]`; empty for none.
    pub chown: String,
    /// Octal digits; empty for none.
    pub chmod: String,
    /// `sha256:…` of what a URL must give; empty for none.
    pub checksum: String,
}

/// A command as a list, or as a text for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// For the shell.
    Shell(String),
    /// As it is.
    Exec(Vec<String>),
}

type Parsed = Result<Instruction, String>;

/// Flags of one instruction, to be asked for one by one.
struct Flags {
    given: Vec<(String, Option<String>)>,
}

impl Flags {
    fn new(flags: &[String]) -> Flags {
        let split = |flag: &String| {
            let flag = flag.trim_start_matches("--");
            match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), None),
            }
        };
        Flags { given: flags.iter().map(split).collect() }
    }

    /// The value of a flag; empty when it is not given.
    fn take(&mut self, name: &str) -> Result<String, String> {
        let Some(at) = self.given.iter().position(|(given, _)| given == name) else {
            return Ok(String::new());
        };
        let (_, value) = self.given.remove(at);
        if self.given.iter().any(|(given, _)| given == name) {
            return Err(format!("duplicate flag specified: {name}"));
        }
        value.ok_or_else(|| format!("missing a value on flag: {name}"))
    }

    /// Whether a flag without a value, or with one of true and false, is set.
    fn is_set(&mut self, name: &str) -> Result<bool, String> {
        let Some(at) = self.given.iter().position(|(given, _)| given == name) else { return Ok(false) };
        match self.given.remove(at).1.as_deref() {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(format!("expecting boolean value for flag {name}, not: {other}")),
        }
    }

    /// No other flag is given.
    fn end(self) -> Result<(), String> {
        match self.given.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(format!("unknown flag: --{name}")),
        }
    }
}

/// Reads one line; `escape` holds words together.
pub(crate) fn parse(line: &str, escape: char) -> Parsed {
    let split = words::split_command(line);
    let mut flags = Flags::new(&split.flags);
    match split.name.as_str() {
        "from" => return from(&split, flags),
        "add" | "copy" => return copy(&split, flags, escape),
        "run" => return run(&split, flags),
        "healthcheck" => return healthcheck(&split, flags),
        _ => {}
    }
    let parsed = plain(&split, line, escape);
    if parsed.is_ok() {
        // Only the instructions above have any.
        flags.given.drain(..).next().map_or(Ok(()), |(name, _)| Err(format!("unknown flag: --{name}")))?;
    }
    parsed
}

fn plain(split: &Split, line: &str, escape: char) -> Parsed {
    let (name, rest) = (split.name.to_ascii_uppercase(), split.rest.as_str());
    let at_least_one = || format!("{name} requires at least one argument");
    let exactly_one = || match rest.is_empty() {
        true => Err(format!("{name} requires exactly one argument")),
        false => Ok(rest.to_owned()),
    };
    Ok(match split.name.as_str() {
        "env" => Instruction::Env(pairs(&name, rest, escape)?),
        "label" => Instruction::Label { pairs: pairs(&name, rest, escape)?, is_literal: false },
        "arg" => Instruction::Arg(arguments(rest, escape)?),
        "maintainer" => Instruction::Maintainer(exactly_one()?),
        "cmd" => Instruction::Cmd(command_line(rest)?),
        "entrypoint" => Instruction::Entrypoint(command_line(rest)?),
        "shell" => match words::json(rest).map_err(|e| e.to_string())? {
            Some(list) if list.is_empty() => return Err(at_least_one()),
            Some(list) => Instruction::Shell(list),
            None => return Err("SHELL requires the arguments to be in JSON form".to_owned()),
        },
        "workdir" => Instruction::Workdir(exactly_one()?),
        "user" => Instruction::User(exactly_one()?),
        "stopsignal" => Instruction::StopSignal(exactly_one()?),
        "expose" => match words::plain_words(rest) {
            ports if ports.is_empty() => return Err(at_least_one()),
            ports => Instruction::Expose(ports),
        },
        "volume" => volume(rest)?,
        "onbuild" => on_build(rest, line)?,
        _ => return Err(format!("unknown instruction: {name}")),
    })
}

fn pairs(name: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let pairs = words::pairs(name, rest, escape).map_err(|e| e.to_string())?;
    match pairs.first() {
        None => Err(format!("{name} requires at least one argument")),
        _ if pairs.iter().any(|(key, _)| key.is_empty()) => Err(format!("{name} names can not be blank")),
        _ => Ok(pairs),
    }
}

fn arguments(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    let words = words::quoted_words(rest, escape);
    if words.is_empty() {
        return Err("ARG requires at least one argument".to_owned());
    }
    let split = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err("ARG names can not be blank".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), Some(value.to_owned()))),
        None => Ok((word.clone(), None)),
    };
    words.iter().map(split).collect()
}

fn command_line(rest: &str) -> Result<CommandLine, String> {
    match words::json(rest).map_err(|e| e.to_string())? {
        Some(list) => Ok(CommandLine::Exec(list)),
        None => Ok(CommandLine::Shell(rest.to_owned())),
    }
}

fn no_heredoc(name: &str, words: &[String]) -> Result<(), String> {
    match words.iter().find(|word| words::is_heredoc(word)) {
        None => Ok(()),
        Some(word) => Err(format!(
            "{name} with a here-document ({word}) needs BuildKit, which this engine does not have: copy a file instead"
        )),
    }
}

fn from(split: &Split, mut flags: Flags) -> Parsed {
    let words = words::plain_words(&split.rest);
    let (base, name) = match &words[..] {
        [base] => (base, String::new()),
        [base, as_word, name] if as_word.eq_ignore_ascii_case("as") => (base, stage_name(name)?),
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    let platform = flags.take("platform")?;
    flags.end()?;
    Ok(Instruction::From { base: base.clone(), name, platform })
}

fn stage_name(text: &str) -> Result<String, String> {
    let name = text.to_lowercase();
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    match is_name {
        true => Ok(name),
        false => Err(format!(
            "invalid name for build stage: {text:?}, name can't start with a number or contain symbols"
        )),
    }
}

fn copy(split: &Split, mut flags: Flags, _escape: char) -> Parsed {
    let name = split.name.to_ascii_uppercase();
    let list = words::json(&split.rest).map_err(|e| e.to_string())?;
    let is_json = list.is_some();
    let mut words = list.unwrap_or_else(|| words::plain_words(&split.rest));
    if !is_json {
        no_heredoc(&name, &words)?;
    }
    let destination = words.pop().filter(|_| !words.is_empty()).ok_or_else(|| {
        format!("{name} requires at least two arguments, but only one was provided. Destination could not be determined")
    })?;
    let mut copy = Copy {
        sources: words,
        destination,
        chown: flags.take("chown")?,
        chmod: flags.take("chmod")?,
        ..Copy::default()
    };
    if split.name == "copy" {
        copy.from = flags.take("from")?;
    } else {
        copy.checksum = flags.take("checksum")?;
    }
    for only_buildkit in ["link", "parents", "keep-git-dir"] {
        if flags.is_set(only_buildkit)? {
            return Err(needs_buildkit(only_buildkit));
        }
    }
    if !flags.take("exclude")?.is_empty() {
        return Err(needs_buildkit("exclude"));
    }
    flags.end()?;
    Ok(if split.name == "copy" { Instruction::Copy(copy) } else { Instruction::Add(copy) })
}

/// Source: moby 28, `builder/dockerfile/dispatchers.go`.
fn needs_buildkit(flag: &str) -> String {
    format!(
        "the --{flag} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build \
         images with BuildKit enabled"
    )
}

fn run(split: &Split, flags: Flags) -> Parsed {
    for (name, _) in &flags.given {
        if ["mount", "network", "security", "device"].contains(&name.as_str()) {
            return Err(needs_buildkit(name));
        }
    }
    flags.end()?;
    let line = command_line(&split.rest)?;
    if let CommandLine::Shell(text) = &line {
        no_heredoc("RUN", &words::plain_words(text))?;
        if text.is_empty() {
            return Err("RUN requires at least one argument".to_owned());
        }
    }
    Ok(Instruction::Run(line))
}

fn volume(rest: &str) -> Parsed {
    let list = words::json(rest).map_err(|e| e.to_string())?.unwrap_or_else(|| words::plain_words(rest));
    if list.is_empty() {
        return Err("VOLUME requires at least one argument".to_owned());
    }
    let trimmed: Vec<String> = list.iter().map(|place| place.trim().to_owned()).collect();
    match trimmed.iter().any(String::is_empty) {
        true => Err("VOLUME specified can not be an empty string".to_owned()),
        false => Ok(Instruction::Volume(trimmed)),
    }
}

fn on_build(rest: &str, line: &str) -> Parsed {
    let trigger = words::split_command(rest).name.to_ascii_uppercase();
    match trigger.as_str() {
        "" => return Err("ONBUILD requires at least one argument".to_owned()),
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        "MAINTAINER" | "FROM" => return Err(format!("{trigger} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    let text = line.trim_start();
    let text = text.get("ONBUILD".len()..).unwrap_or_default().trim_start_matches(char::is_whitespace);
    Ok(Instruction::OnBuild(text.to_owned()))
}

fn healthcheck(split: &Split, mut flags: Flags) -> Parsed {
    let (kind, rest) = split.rest.split_once(words::is_space).unwrap_or((&split.rest, ""));
    let rest = rest.trim();
    if kind.is_empty() {
        return Err("HEALTHCHECK requires at least one argument".to_owned());
    }
    let mut check = HealthcheckConfig {
        interval: duration(&mut flags, "interval")?,
        timeout: duration(&mut flags, "timeout")?,
        start_period: duration(&mut flags, "start-period")?,
        start_interval: duration(&mut flags, "start-interval")?,
        ..HealthcheckConfig::default()
    };
    let retries = flags.take("retries")?;
    if !retries.is_empty() {
        let parsed: i32 =
            retries.parse().map_err(|_| format!("strconv.ParseInt: parsing {retries:?}: invalid syntax"))?;
        let retries =
            u32::try_from(parsed).map_err(|_| format!("--retries cannot be negative ({parsed})"))?;
        check.retries = retries.into();
    }
    flags.end()?;
    check.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.is_empty() => vec!["NONE".to_owned()],
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "CMD" => match command_line(rest)? {
            CommandLine::Shell(text) if text.is_empty() => {
                return Err("Missing command after HEALTHCHECK CMD".to_owned());
            }
            CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text],
            CommandLine::Exec(list) if list.is_empty() => {
                return Err("Missing command after HEALTHCHECK CMD".to_owned());
            }
            CommandLine::Exec(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
        },
        other => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    };
    Ok(Instruction::Healthcheck(check))
}

fn duration(flags: &mut Flags, name: &str) -> Result<Nanos, String> {
    let text = flags.take(name)?;
    if text.is_empty() {
        return Ok(Nanos::ZERO);
    }
    let parsed = parse_duration(&text).map_err(|e| e.to_string())?;
    // Source: moby, `container.MinimumDuration`.
    if parsed != Nanos::ZERO && parsed < Nanos::from_millis(1) {
        return Err(format!("Interval {name:?} cannot be less than 1ms"));
    }
    Ok(parsed)
}

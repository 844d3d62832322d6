//! `run` and `create`: pull if missing, create, attach, start, wait.

use super::flags::CreateFlags;
use crate::client::Client;
use crate::commands::image::pull::{Place, pull};
use crate::commands::read;
use crate::detach::Keys;
use crate::output::{line, note};
use crate::stream::{self, Ended, Join};
use crate::terminal::{self, RawMode};
use crate::{CliError, Outcome};
use clap::Args;

/// `run [OPTIONS] IMAGE [COMMAND] [ARG...]`
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Run {
    /// Run container in background and print container ID
    #[arg(short, long)]
    detach: bool,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short, long, value_name = "list", value_parser = read::stream)]
    attach: Vec<String>,
    /// Proxy received signals to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    sig_proxy: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Suppress the pull output
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    flags: CreateFlags,
    /// Print usage
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    /// Image to run
    image: String,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// `create [OPTIONS] IMAGE [COMMAND] [ARG...]`
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Create {
    /// Suppress the pull output
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    flags: CreateFlags,
    /// Print usage
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    /// Image to create the container from
    image: String,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Create {
    /// Creates the container and prints its id.
    pub async fn run(self, client: &Client) -> Outcome {
        let wanted = Wanted {
            flags: &self.flags,
            image: &self.image,
            command: &self.command,
            attached: false,
            quiet: self.quiet,
        };
        let created = wanted.create(client).await;
        line(&created.map_err(|error| refused(CliError { code: 125, ..error }, "create"))?);
        Ok(())
    }
}

impl Run {
    /// Runs the container; the exit code is the container's when attached.
    pub async fn run(self, client: &Client) -> Outcome {
        if self.flags.tty && !self.detach && self.flags.interactive && !terminal::stdin_is_terminal() {
            return Err(CliError::new("the input device is not a TTY"));
        }
        if self.detach && !self.attach.is_empty() {
            return Err(CliError::new("conflicting options: cannot specify both --attach and --detach"));
        }
        let attached = !self.detach;
        let wanted = Wanted {
            flags: &self.flags,
            image: &self.image,
            command: &self.command,
            attached,
            quiet: self.quiet,
        };
        let id =
            wanted.create(client).await.map_err(|error| refused(CliError { code: 125, ..error }, "run"))?;
        if self.detach {
            start(client, &id).await.map_err(|error| refused(error, "run"))?;
            line(&id);
            return Ok(());
        }
        let code = self.attached(client, &id).await?;
        if code == 0 { Ok(()) } else { Err(CliError::silent(code)) }
    }

    async fn attached(&self, client: &Client, id: &str) -> Result<i32, CliError> {
        let wants =
            |stream: &str| self.attach.is_empty() || self.attach.iter().any(|attached| attached == stream);
        let stdin = self.flags.interactive && wants("stdin");
        let connection = client
            .post(format!("/containers/{id}/attach"))
            .query("stream", "1")
            .flag("stdin", stdin)
            .flag("stdout", wants("stdout"))
            .flag("stderr", wants("stderr"))
            .query_some("detachKeys", self.detach_keys.as_deref())
            .hijack()
            .await?;
        // The wait begins before the start: a container that is removed when it ends can't be asked afterwards.
        let condition = if self.flags.rm { "removed" } else { "next-exit" };
        let waiting =
            client.post(format!("/containers/{id}/wait")).query("condition", condition).send().await?;
        let raw = if self.flags.tty { RawMode::enter() } else { None };
        let signals = (!self.flags.tty && self.sig_proxy).then(|| stream::signals(client, id));
        let keys = Keys::of(self.detach_keys.as_deref());
        let join = Join { terminal: self.flags.tty, stdin, keys };
        let streams = tokio::spawn(async move { stream::join(connection, &join).await });
        if let Err(error) = start(client, id).await {
            streams.abort();
            drop(raw);
            if self.flags.rm {
                // The daemon removes it too; whoever comes second finds nothing.
                let _ = client.delete(format!("/containers/{id}")).query("force", "1").send().await;
            }
            return Err(refused(error, "run"));
        }
        let sizes = self.flags.tty.then(|| stream::sizes(client, format!("/containers/{id}/resize")));
        let joined =
            streams.await.map_err(|error| CliError::new(format!("copy container output: {error}")))?;
        drop(raw);
        drop((sizes, signals));
        match joined? {
            Ended::Detached => Ok(0),
            Ended::ByContainer => super::lifecycle::exit_code(waiting).await,
        }
    }
}

/// An error as `run` and `create` show it. A wrong flag has its hint already.
fn refused(error: CliError, verb: &str) -> CliError {
    if error.message.starts_with("invalid argument ") {
        return error;
    }
    let message = format!("skep: {error}\n\nRun 'skep {verb} --help' for more information");
    CliError { message, ..error }
}

/// A container to be created.
struct Wanted<'a> {
    flags: &'a CreateFlags,
    image: &'a str,
    command: &'a [String],
    attached: bool,
    quiet: bool,
}

impl Wanted<'_> {
    /// Creates the container, pulling its image if it is missing; its id.
    async fn create(&self, client: &Client) -> Result<String, CliError> {
        let (flags, image) = (self.flags, self.image);
        if flags.rm && flags.restart != "no" && !flags.restart.is_empty() {
            return Err(CliError::new("conflicting options: cannot specify both --restart and --rm"));
        }
        if !["always", "missing", "never"].contains(&flags.pull.as_str()) {
            let known = "must be one of \"always\", \"missing\" or \"never\"";
            return Err(CliError::new(format!("invalid pull option: '{}': {known}", flags.pull)));
        }
        if !docker::reference::is_identifier(image) {
            docker::Reference::parse(image).map_err(|error| CliError::new(error.to_string()))?;
        }
        let body = flags.body(image, self.command, self.attached)?;
        let place = if self.quiet { Place::Nowhere } else { Place::Stderr };
        if flags.pull == "always" {
            pull(client, image, flags.platform.as_deref(), place).await?;
        }
        let attempt = || {
            client
                .post("/containers/create")
                .query_some("name", flags.name.as_deref())
                .query_some("platform", flags.platform.as_deref())
                .json(&body)
                .value()
        };
        let created = match attempt().await {
            Err(error) if error.status == Some(404) && flags.pull == "missing" => {
                let shown = docker::Reference::parse(image).map(|name| name.with_default_tag().familiar());
                note(&format!("Unable to find image '{}' locally", shown.as_deref().unwrap_or(image)));
                pull(client, image, flags.platform.as_deref(), place).await?;
                attempt().await?
            }
            other => other?,
        };
        for warning in created["Warnings"].as_array().into_iter().flatten() {
            note(&format!("WARNING: {}", warning.as_str().unwrap_or_default()));
        }
        let id = created["Id"].as_str().unwrap_or_default().to_owned();
        if let Some(file) = &flags.cidfile {
            write_new(file, &id)?;
        }
        Ok(id)
    }
}

fn write_new(file: &str, id: &str) -> Result<(), CliError> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).open(file);
    let written = opened.and_then(|mut file| std::io::Write::write_all(&mut file, id.as_bytes()));
    written.map_err(|error| {
        let error = CliError::file("open", file, &error);
        CliError::new(format!("failed to create the container ID file: {error}"))
    })
}

/// Starts a container; the exit code of a refusal is the one docker's client gives (125, 126, 127).
async fn start(client: &Client, id: &str) -> Outcome {
    let started = client.post(format!("/containers/{id}/start")).send().await;
    started.map(drop).map_err(|error| {
        let text = error.to_string();
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let code = if has(&["executable file not found", "no such file or directory"]) {
            127
        } else if has(&["permission denied", "is a directory"]) {
            126
        } else {
            125
        };
        CliError { code, ..error }
    })
}

//! `exec`: a further process in a running container.

use crate::client::Client;
use crate::commands::read;
use crate::detach::Keys;
use crate::stream::{self, Join};
use crate::terminal::{self, RawMode};
use crate::{CliError, Outcome};
use clap::Args;
use serde_json::json;

/// `exec [OPTIONS] CONTAINER COMMAND [ARG...]`
#[derive(Debug, Args)]
pub struct Exec {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "list", value_parser = read::variable)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long)]
    workdir: Option<String>,
    /// Container to run the command in
    container: String,
    /// Command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    /// Runs the command; the exit code is the command's.
    pub async fn run(self, client: &Client) -> Outcome {
        client.get(format!("/containers/{}/json", self.container)).send().await?;
        if self.tty && self.interactive && !self.detach && !terminal::stdin_is_terminal() {
            return Err(CliError::new("the input device is not a TTY"));
        }
        let attached = !self.detach;
        let size = if self.tty { terminal::size() } else { None };
        let mut body = json!({
            "AttachStdin": attached && self.interactive,
            "AttachStdout": attached,
            "AttachStderr": attached,
            "Tty": self.tty,
            "Env": read::environment(&self.env, &self.env_file)?,
            "Cmd": self.command,
            "Privileged": self.privileged,
            "User": self.user.clone().unwrap_or_default(),
            "WorkingDir": self.workdir.clone().unwrap_or_default(),
            "DetachKeys": self.detach_keys.clone().unwrap_or_default(),
        });
        if let Some((rows, columns)) = size {
            body["ConsoleSize"] = json!([rows, columns]);
        }
        let created = client.post(format!("/containers/{}/exec", self.container)).json(&body).value().await?;
        let id = created["Id"].as_str().unwrap_or_default().to_owned();
        let start = client.post(format!("/exec/{id}/start"));
        let options = json!({"Detach": self.detach, "Tty": self.tty});
        if self.detach {
            start.json(&options).send().await?;
            return Ok(());
        }
        let connection = start.json(&options).hijack().await?;
        let raw = if self.tty && self.interactive { RawMode::enter() } else { None };
        let _sizes = self.tty.then(|| stream::sizes(client, format!("/exec/{id}/resize")));
        let keys = Keys::of(self.detach_keys.as_deref());
        let join = Join { terminal: self.tty, stdin: self.interactive, keys };
        let joined = stream::join(connection, &join).await;
        drop(raw);
        joined?.unless_detached()?;
        let state = client.get(format!("/exec/{id}/json")).value().await?;
        match state["ExitCode"].as_i64().unwrap_or(0) {
            0 => Ok(()),
            code => Err(CliError::silent(i32::try_from(code).unwrap_or(125))),
        }
    }
}

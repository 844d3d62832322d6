//! `start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `wait`, `rm`, `rename`: one call per container.

use crate::client::Client;
use crate::detach::Keys;
use crate::output::line;
use crate::stream::{self, Join};
use crate::terminal::RawMode;
use crate::{CliError, Outcome, each};
use clap::Args;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::Value;

/// `start [OPTIONS] CONTAINER [CONTAINER...]`
#[derive(Debug, Args)]
pub struct Start {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Attach container's STDIN
    #[arg(short, long)]
    interactive: bool,
    /// Containers to start
    #[arg(required = true)]
    containers: Vec<String>,
}

/// `stop` and `restart`
#[derive(Debug, Args)]
pub struct Stop {
    /// Signal to send to the container
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short = 't', long, alias = "time", allow_hyphen_values = true)]
    timeout: Option<i64>,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// `kill [OPTIONS] CONTAINER [CONTAINER...]`
#[derive(Debug, Args)]
pub struct Kill {
    /// Signal to send to the container
    #[arg(short, long)]
    signal: Option<String>,
    /// Containers to kill
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Commands that take container names only.
#[derive(Debug, Args)]
pub struct Names {
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Narrowest column of `top`. Source: docker/cli `container/top.go`, tabwriter with minwidth 20.
const TOP_MIN: usize = 20;

/// `top CONTAINER [ps OPTIONS]`
#[derive(Debug, Args)]
pub struct Top {
    /// Container
    container: String,
    /// Options of ps
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// `rm [OPTIONS] CONTAINER [CONTAINER...]`
#[derive(Debug, Args)]
pub struct Remove {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    volumes: bool,
    /// Containers to remove
    #[arg(required = true)]
    containers: Vec<String>,
}

/// `rename CONTAINER NEW_NAME`
#[derive(Debug, Args)]
pub struct Rename {
    /// Container to rename
    container: String,
    /// Its new name
    name: String,
}

impl Start {
    /// Starts each container, or joins one.
    pub async fn run(self, client: &Client) -> Outcome {
        if !self.attach && !self.interactive {
            let failed = std::cell::RefCell::new(Vec::new());
            let outcome = each(&self.containers, async |name| {
                client.post(format!("/containers/{name}/start")).send().await.inspect_err(|_| {
                    failed.borrow_mut().push(name.clone());
                })?;
                line(name);
                Ok(())
            })
            .await;
            let failed = failed.into_inner().join(", ");
            return outcome.map_err(|error| CliError {
                message: format!("{error}\nError: failed to start containers: {failed}"),
                ..error
            });
        }
        let [name] = self.containers.as_slice() else {
            return Err(CliError::new("you cannot start and attach multiple containers at once"));
        };
        let container = client.get(format!("/containers/{name}/json")).value().await?;
        let terminal = container["Config"]["Tty"] == Value::Bool(true);
        let stdin = self.interactive && container["Config"]["OpenStdin"] == Value::Bool(true);
        let connection = client
            .post(format!("/containers/{name}/attach"))
            .query("stream", 1)
            .query("stdout", 1)
            .query("stderr", 1)
            .flag("stdin", stdin)
            .query_some("detachKeys", self.detach_keys.as_deref())
            .hijack()
            .await?;
        let waiting =
            client.post(format!("/containers/{name}/wait")).query("condition", "next-exit").send().await?;
        let raw = if terminal && stdin { RawMode::enter() } else { None };
        let _signals = (!terminal).then(|| stream::signals(client, name));
        client.post(format!("/containers/{name}/start")).send().await?;
        let _sizes = terminal.then(|| stream::sizes(client, format!("/containers/{name}/resize")));
        let keys = Keys::of(self.detach_keys.as_deref());
        let joined = stream::join(connection, &Join { terminal, stdin, keys }).await;
        drop(raw);
        joined?.unless_detached()?;
        match exit_code(waiting).await? {
            0 => Ok(()),
            code => Err(CliError::silent(code)),
        }
    }
}

/// What a `/wait` answers, as an exit code.
///
/// # Errors
/// When the connection breaks or the daemon reports an error.
pub async fn exit_code(waiting: Response<Incoming>) -> Result<i32, CliError> {
    let body = waiting.into_body().collect().await;
    let body = body.map_err(|error| CliError::new(format!("error waiting for container: {error}")))?;
    let answer: Value = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| CliError::new(format!("error waiting for container: {error}")))?;
    if let Some(message) = answer["Error"]["Message"].as_str().filter(|message| !message.is_empty()) {
        return Err(CliError {
            code: 125,
            ..CliError::new(format!("error waiting for container: {message}"))
        });
    }
    let code = answer["StatusCode"].as_i64().unwrap_or(125);
    Ok(i32::try_from(code).unwrap_or(125))
}

impl Stop {
    /// Calls `verb` (`stop` or `restart`) for each container.
    pub async fn run(self, client: &Client, verb: &str) -> Outcome {
        each(&self.containers, async |name| {
            let call = client.post(format!("/containers/{name}/{verb}"));
            call.query_some("signal", self.signal.as_deref()).query_some("t", self.timeout).send().await?;
            line(name);
            Ok(())
        })
        .await
    }
}

impl Kill {
    /// Signals each container.
    pub async fn run(self, client: &Client) -> Outcome {
        each(&self.containers, async |name| {
            let call = client.post(format!("/containers/{name}/kill"));
            call.query_some("signal", self.signal.as_deref()).send().await?;
            line(name);
            Ok(())
        })
        .await
    }
}

impl Names {
    /// Calls `verb` (`pause`, `unpause`) for each container.
    pub async fn call(self, client: &Client, verb: &str) -> Outcome {
        each(&self.containers, async |name| {
            client.post(format!("/containers/{name}/{verb}")).send().await?;
            line(name);
            Ok(())
        })
        .await
    }

    /// Waits for each container and prints its exit code.
    pub async fn wait(self, client: &Client) -> Outcome {
        each(&self.containers, async |name| {
            let waiting = client.post(format!("/containers/{name}/wait")).send().await?;
            line(&exit_code(waiting).await?.to_string());
            Ok(())
        })
        .await
    }
}

impl Top {
    /// Prints the processes of the one container named; further words go to `ps`.
    pub async fn run(self, client: &Client) -> Outcome {
        let (name, ps) = (&self.container, &self.arguments);
        let call = client.get(format!("/containers/{name}/top")).query_some("ps_args", Some(ps.join(" ")));
        let top = call.value().await?;
        let cells = |row: &Value| -> Vec<String> {
            row.as_array()
                .into_iter()
                .flatten()
                .map(|cell| cell.as_str().unwrap_or_default().to_owned())
                .collect()
        };
        let rows = top["Processes"].as_array().into_iter().flatten().map(cells);
        crate::output::print(&crate::output::table(
            std::iter::once(cells(&top["Titles"])).chain(rows).collect(),
            TOP_MIN,
        ));
        Ok(())
    }
}

impl Remove {
    /// Removes each container.
    pub async fn run(self, client: &Client) -> Outcome {
        each(&self.containers, async |name| {
            let call = client.delete(format!("/containers/{name}"));
            match call.flag("force", self.force).flag("v", self.volumes).send().await {
                Err(error) if self.force && error.status == Some(404) => Err(error),
                other => other.map(|_| line(name)),
            }
        })
        .await
    }
}

impl Rename {
    /// Renames the container.
    pub async fn run(self, client: &Client) -> Outcome {
        let call = client.post(format!("/containers/{}/rename", self.container));
        call.query("name", self.name).send().await.map(drop).map_err(|error| CliError {
            message: format!("{error}\nError: failed to rename container named {}", self.container),
            ..error
        })
    }
}

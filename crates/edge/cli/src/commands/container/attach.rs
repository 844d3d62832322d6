//! `attach` and `logs`: what a container prints, now or before.

use crate::client::{Call, Client};
use crate::commands::show::moment;
use crate::detach::Keys;
use crate::stream::{self, Join};
use crate::terminal::RawMode;
use crate::{CliError, Outcome};
use clap::Args;
use futures_util::TryStreamExt as _;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::StreamReader;

/// `attach [OPTIONS] CONTAINER`
#[derive(Debug, Args)]
pub struct Attach {
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    sig_proxy: bool,
    /// Container to attach to
    container: String,
}

/// Flags of every `logs` command.
#[derive(Debug, Clone, Args)]
pub struct LogFlags {
    /// Show extra details provided to logs
    #[arg(long)]
    pub details: bool,
    /// Follow log output
    #[arg(short, long)]
    pub follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long)]
    pub since: Option<String>,
    /// Show timestamps
    #[arg(short, long)]
    pub timestamps: bool,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all")]
    pub tail: String,
}

/// `logs [OPTIONS] CONTAINER`
#[derive(Debug, Args)]
pub struct Logs {
    #[command(flatten)]
    flags: LogFlags,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long)]
    until: Option<String>,
    /// Container whose logs to show
    container: String,
}

impl Attach {
    /// Joins the container; the exit code is the container's.
    pub async fn run(self, client: &Client) -> Outcome {
        let name = &self.container;
        let container = client.get(format!("/containers/{name}/json")).value().await?;
        if container["State"]["Running"] != Value::Bool(true) {
            return Err(CliError::new("You cannot attach to a stopped container, start it first"));
        }
        let terminal = container["Config"]["Tty"] == Value::Bool(true);
        let stdin = !self.no_stdin && container["Config"]["OpenStdin"] == Value::Bool(true);
        let waiting = client.post(format!("/containers/{name}/wait")).send().await?;
        let connection = client
            .post(format!("/containers/{name}/attach"))
            .query("stream", 1)
            .query("stdout", 1)
            .query("stderr", 1)
            .flag("stdin", stdin)
            .query_some("detachKeys", self.detach_keys.as_deref())
            .hijack()
            .await?;
        let raw = if terminal && stdin { RawMode::enter() } else { None };
        let _sizes = terminal.then(|| stream::sizes(client, format!("/containers/{name}/resize")));
        let _signals = (!terminal && self.sig_proxy).then(|| stream::signals(client, name));
        let keys = Keys::of(self.detach_keys.as_deref());
        let joined = stream::join(connection, &Join { terminal, stdin, keys }).await;
        drop(raw);
        joined?.unless_detached()?;
        match super::lifecycle::exit_code(waiting).await? {
            0 => Ok(()),
            code => Err(CliError::silent(code)),
        }
    }
}

impl Logs {
    /// Prints the logs.
    pub async fn run(self, client: &Client) -> Outcome {
        let container = client.get(format!("/containers/{}/json", self.container)).value().await?;
        let until = moment_of("until", self.until.as_deref())?;
        let call = self.flags.call(client, &format!("/containers/{}/logs", self.container))?;
        let response = call.query_some("until", until).send().await?;
        show(response, container["Config"]["Tty"] == Value::Bool(true)).await
    }
}

impl LogFlags {
    /// A request for the logs at `path`.
    ///
    /// # Errors
    /// When a time has the wrong form.
    pub fn call<'a>(&self, client: &'a Client, path: &str) -> Result<Call<'a>, CliError> {
        let call = client
            .get(path)
            .query("stdout", 1)
            .query("stderr", 1)
            .flag("details", self.details)
            .flag("follow", self.follow)
            .flag("timestamps", self.timestamps)
            .query("tail", &self.tail);
        Ok(call.query_some("since", moment_of("since", self.since.as_deref())?))
    }
}

fn moment_of(flag: &str, text: Option<&str>) -> Result<Option<String>, CliError> {
    let wrong = |error: CliError| CliError::new(format!("invalid value for \"{flag}\": {error}"));
    text.map(|text| moment(text).map_err(wrong)).transpose()
}

/// Prints a log stream: framed, or raw when the container has a terminal.
///
/// # Errors
/// When the connection breaks.
pub async fn show(response: Response<Incoming>, terminal: bool) -> Outcome {
    let mut body = response.into_body();
    if terminal {
        let mut out = tokio::io::stdout();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| CliError::new(format!("read logs: {error}")))?;
            if let Ok(data) = frame.into_data() {
                out.write_all(&data).await.map_err(|error| CliError::new(format!("write logs: {error}")))?;
                out.flush().await.map_err(|error| CliError::new(format!("write logs: {error}")))?;
            }
        }
        return Ok(());
    }
    stream::copy_framed(frames(body)).await.map_err(|error| CliError::new(error.to_string()))
}

/// The body of an answer as a reader of frames.
pub fn frames(body: Incoming) -> impl tokio::io::AsyncRead + Unpin {
    StreamReader::new(body.into_data_stream().map_err(std::io::Error::other))
}

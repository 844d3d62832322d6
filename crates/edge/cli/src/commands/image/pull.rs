//! `pull`, and the progress that pulling, loading and importing show.
//!
//! In: the daemon's stream of JSON messages. Out: a line per layer, redrawn in place on a terminal, else one line per
//! change of state.

use crate::client::Client;
use crate::output::{line, note};
use crate::{CliError, Outcome};
use clap::Args;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::collections::BTreeMap;

/// `pull [OPTIONS] NAME[:TAG|@DIGEST]`
#[derive(Debug, Args)]
pub struct Pull {
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Image to pull
    image: String,
}

impl Pull {
    /// Pulls the image and prints its full name.
    pub async fn run(self, client: &Client) -> Outcome {
        if !self.image.contains('@') && super::split_tag(&self.image).1.is_empty() && !self.quiet {
            line("Using default tag: latest");
        }
        pull(client, &self.image, self.platform.as_deref(), self.quiet).await?;
        let name = super::familiar(&self.image);
        let registry =
            name.split('/').next().filter(|first| name.contains('/') && first.contains(['.', ':']));
        let full = match registry {
            Some(_) => name,
            None if name.contains('/') => format!("docker.io/{name}"),
            None => format!("docker.io/library/{name}"),
        };
        line(&full);
        Ok(())
    }
}

/// Pulls `image`; progress goes to stderr unless `quiet`.
///
/// # Errors
/// When the daemon or the registry refuses.
pub async fn pull(client: &Client, image: &str, platform: Option<&str>, quiet: bool) -> Outcome {
    let (name, tag) = match image.split_once('@') {
        Some((name, digest)) => (name.to_owned(), digest.to_owned()),
        None => super::split_tag(image),
    };
    let tag = if tag.is_empty() { "latest".to_owned() } else { tag };
    let call = client
        .post("/images/create")
        .query("fromImage", name)
        .query("tag", tag)
        .query_some("platform", platform);
    let call = match crate::credentials::for_image(image) {
        Some(header) => call.header("x-registry-auth", header),
        None => call,
    };
    follow(call.send().await?, !quiet).await
}

/// Shows a stream of progress messages until it ends.
///
/// # Errors
/// When the stream carries an error or breaks.
pub async fn follow(response: Response<Incoming>, shown: bool) -> Outcome {
    let mut body = response.into_body();
    let mut pending = Vec::new();
    let mut board = Board::new(shown);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CliError::new(format!("read progress: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let message: Vec<u8> = pending.drain(..=end).collect();
            board.message(&message)?;
        }
    }
    board.message(&pending)
}

struct Board {
    shown: bool,
    bars: MultiProgress,
    layers: BTreeMap<String, ProgressBar>,
    states: BTreeMap<String, String>,
    terminal: bool,
}

impl Board {
    fn new(shown: bool) -> Board {
        let terminal = crate::output::to_terminal();
        let target = if terminal { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::hidden() };
        Board {
            shown,
            bars: MultiProgress::with_draw_target(target),
            layers: BTreeMap::new(),
            states: BTreeMap::new(),
            terminal,
        }
    }

    fn message(&mut self, text: &[u8]) -> Outcome {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let message: Value = serde_json::from_slice(text)
            .map_err(|error| CliError::new(format!("the daemon's progress is not JSON: {error}")))?;
        if let Some(error) = message["errorDetail"]["message"].as_str().or(message["error"].as_str()) {
            return Err(CliError::new(error));
        }
        if !self.shown {
            return Ok(());
        }
        if let Some(text) = message["stream"].as_str() {
            crate::output::print(text);
            return Ok(());
        }
        let status = message["status"].as_str().unwrap_or_default();
        match message["id"].as_str().filter(|id| !id.is_empty()) {
            Some(id) if self.terminal => self.bar(id, status, &message["progressDetail"]),
            Some(id) => self.state(id, status),
            None if self.terminal => drop(self.bars.println(status)),
            None => line(status),
        }
        Ok(())
    }

    /// Without a terminal, each state of a layer is one line; moving bytes are not.
    fn state(&mut self, id: &str, status: &str) {
        if ["Downloading", "Extracting"].contains(&status) {
            return;
        }
        if self.states.insert(id.to_owned(), status.to_owned()).as_deref() != Some(status) {
            line(&format!("{id}: {status}"));
        }
    }

    fn bar(&mut self, id: &str, status: &str, detail: &Value) {
        let bar = self.layers.entry(id.to_owned()).or_insert_with(|| self.bars.add(ProgressBar::new(0)));
        let total = detail["total"].as_u64().unwrap_or(0);
        let style = if total > 0 {
            "{prefix}: {msg} [{bar:50.=>}] {bytes:>8}/{total_bytes}"
        } else {
            "{prefix}: {msg}"
        };
        match ProgressStyle::with_template(style) {
            Ok(style) => bar.set_style(style.progress_chars("=> ")),
            Err(error) => note(&format!("progress: {error}")),
        }
        bar.set_prefix(id.to_owned());
        bar.set_message(status.to_owned());
        bar.set_length(total);
        bar.set_position(detail["current"].as_u64().unwrap_or(0));
        if ["Pull complete", "Already exists"].contains(&status) {
            bar.abandon();
        }
    }
}

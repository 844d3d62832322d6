//! `pull`, and the progress that pulling, loading and importing show.
//!
//! In: the daemon's stream of JSON messages. Out: its progress, or its error.

use crate::client::Client;
use crate::output::{self, line};
use crate::progress::{Board, Message};
use crate::{CliError, Outcome};
use clap::Args;
use docker::Reference;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;

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

/// Where progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To stdout: of a command that does nothing else.
    Stdout,
    /// To stderr: of a command whose data is something else.
    Stderr,
    /// It is not shown; errors are.
    Nowhere,
}

impl Pull {
    /// Pulls the image and prints its full name.
    pub async fn run(self, client: &Client) -> Outcome {
        let name = reference(&self.image)?;
        if name.is_name_only() && !self.quiet {
            line("Using default tag: latest");
        }
        let place = if self.quiet { Place::Nowhere } else { Place::Stdout };
        pull(client, &self.image, self.platform.as_deref(), place).await?;
        line(&name.with_default_tag().canonical());
        Ok(())
    }
}

fn reference(image: &str) -> Result<Reference, CliError> {
    Reference::parse(image).map_err(|error| CliError::new(error.to_string()))
}

/// Pulls `image`; progress goes to `place`.
///
/// # Errors
/// When the daemon or the registry refuses.
pub async fn pull(client: &Client, image: &str, platform: Option<&str>, place: Place) -> Outcome {
    let name = reference(image)?.with_default_tag();
    let call = client
        .post("/images/create")
        .query("fromImage", name.familiar_name())
        .query_some("tag", name.digest.as_ref().or(name.tag.as_ref()))
        .query_some("platform", platform);
    let call = match crate::credentials::for_image(image) {
        Some(header) => call.header("x-registry-auth", header),
        None => call,
    };
    follow(call.send().await?, place).await
}

/// Shows a stream of progress messages at `place` until it ends.
///
/// # Errors
/// When the stream carries an error or breaks.
pub async fn follow(response: Response<Incoming>, place: Place) -> Outcome {
    follow_build(response, place).await.map(drop)
}

/// As [`follow`]; the last image id that the stream has for programs.
///
/// # Errors
/// As [`follow`].
pub async fn follow_build(response: Response<Incoming>, place: Place) -> Result<Option<String>, CliError> {
    let mut made = None;
    let mut body = response.into_body();
    let mut pending = Vec::new();
    let mut board = Board::new(match place {
        Place::Stdout => output::columns(),
        Place::Stderr => output::error_columns(),
        Place::Nowhere => None,
    });
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CliError::new(format!("read progress: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let text: Vec<u8> = pending.drain(..=end).collect();
            made = show(&mut board, &text, place)?.or(made);
        }
    }
    Ok(show(&mut board, &pending, place)?.or(made))
}

fn show(board: &mut Board, text: &[u8], place: Place) -> Result<Option<String>, CliError> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let message: Message = serde_json::from_slice(text)
        .map_err(|error| CliError::new(format!("the daemon's progress is not JSON: {error}")))?;
    if let Some(error) = message.error() {
        let code = message.failed.as_ref().map_or(0, |failed| failed.code);
        return Err(CliError { code: if code == 0 { 1 } else { code }, ..CliError::new(error) });
    }
    match place {
        Place::Stdout => output::print(&board.draw(&message)),
        Place::Stderr => output::print_error(&board.draw(&message)),
        Place::Nowhere => {}
    }
    Ok(message.aux["ID"].as_str().map(str::to_owned))
}

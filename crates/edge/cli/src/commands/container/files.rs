//! `commit`, `diff` and `export`: what a container has made of its image's files.

use crate::client::Client;
use crate::commands::image::split_tag;
use crate::output::line;
use crate::{CliError, Outcome};
use clap::Args;
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::io::IsTerminal as _;

/// `commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]`
#[derive(Debug, Args)]
pub struct Commit {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short, long)]
    author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "list")]
    change: Vec<String>,
    /// Commit message
    #[arg(short, long)]
    message: Option<String>,
    /// Pause container during commit
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: bool,
    /// Container
    container: String,
    /// Name of the new image
    reference: Option<String>,
}

/// `diff CONTAINER`
#[derive(Debug, Args)]
pub struct Diff {
    /// Container
    container: String,
}

/// `export [OPTIONS] CONTAINER`
#[derive(Debug, Args)]
pub struct Export {
    /// Write to a file, instead of STDOUT
    #[arg(short, long)]
    output: Option<String>,
    /// Container
    container: String,
}

impl Commit {
    /// Makes the image and prints its id.
    pub async fn run(self, client: &Client) -> Outcome {
        let (repository, tag) = self.reference.as_deref().map(split_tag).unwrap_or_default();
        let mut call = client
            .post("/commit")
            .query("container", &self.container)
            .query_some("repo", Some(repository))
            .query_some("tag", Some(tag))
            .query_some("comment", self.message)
            .query_some("author", self.author)
            .query("pause", if self.pause { "1" } else { "0" });
        for change in self.change {
            call = call.query("changes", change);
        }
        let made = call.json(&Value::Null).value().await?;
        line(made["Id"].as_str().unwrap_or_default());
        Ok(())
    }
}

impl Diff {
    /// Prints each path with what became of it.
    pub async fn run(self, client: &Client) -> Outcome {
        let found = client.get(format!("/containers/{}/changes", self.container)).value().await?;
        for change in found.as_array().into_iter().flatten() {
            let kind = match change["Kind"].as_u64() {
                Some(0) => "C",
                Some(1) => "A",
                _ => "D",
            };
            line(&format!("{kind} {}", change["Path"].as_str().unwrap_or_default()));
        }
        Ok(())
    }
}

impl Export {
    /// Writes the archive to a file, or to stdout unless that is a terminal.
    pub async fn run(self, client: &Client) -> Outcome {
        if self.output.is_none() && std::io::stdout().is_terminal() {
            // Source: docker/cli `export.go`.
            return Err(CliError::new(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        let response = client.get(format!("/containers/{}/export", self.container)).send().await?;
        let path = self.output.as_deref().unwrap_or("/dev/stdout");
        let failed = |error: &std::io::Error| CliError::file("write", path, error);
        // Beside its place first, so that a file of that name is whole or as it was.
        let beside = self.output.as_ref().map(|path| format!("{path}.partial-{}", std::process::id()));
        let mut out: Box<dyn std::io::Write> = match &beside {
            Some(beside) => Box::new(std::fs::File::create(beside).map_err(|error| failed(&error))?),
            None => Box::new(std::io::stdout()),
        };
        let written = copy(response.into_body(), &mut out).await;
        drop(out);
        match (written, beside) {
            (Ok(()), Some(beside)) => std::fs::rename(beside, path).map_err(|error| failed(&error)),
            (Err(error), Some(beside)) => {
                // What is left of it is of no use; that it stays is no further error.
                let _ = std::fs::remove_file(beside);
                Err(failed(&error))
            }
            (written, None) => written.map_err(|error| failed(&error)),
        }
    }
}

async fn copy(mut body: hyper::body::Incoming, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(std::io::Error::other)?.into_data() {
            out.write_all(&data)?;
        }
    }
    out.flush()
}

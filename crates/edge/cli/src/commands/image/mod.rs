//! Commands on images.

pub mod build;
pub mod list;
pub mod pull;
pub mod push;

use crate::client::Client;
use crate::commands::inspect::{self, Kind};
use crate::commands::show::{ago_text, rfc3339, shorten, size};
use crate::output::{self, Row, Shape, Wish, line};
use crate::{CliError, Outcome, each};
use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use pull::Place;
use serde_json::Value;
use std::io;
use tokio_util::io::ReaderStream;

const HISTORY: Shape = Shape {
    columns: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    quiet: "ID",
    others: &[],
};
/// As [`HISTORY`] with moments instead of spans.
const EXACT_HISTORY: Shape = Shape {
    columns: &[
        ("ID", "IMAGE"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    quiet: "ID",
    others: &[("CreatedSince", "CREATED")],
};

/// `image COMMAND`
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Build an image from a Dockerfile
    Build(Box<build::Build>),
    /// Show the history of an image
    History(History),
    /// Import the contents from a tarball to create a filesystem image
    Import(Import),
    /// Display detailed information on one or more images
    Inspect(inspect::Inspect),
    /// Load an image from a tar archive or STDIN
    Load(Load),
    /// List images
    #[command(visible_alias = "list")]
    Ls(list::List),
    /// Remove unused images
    Prune(push::Prune),
    /// Download an image from a registry
    Pull(pull::Pull),
    /// Upload an image to a registry
    Push(push::Push),
    /// Remove one or more images
    #[command(visible_alias = "remove")]
    Rm(Remove),
    /// Save one or more images to a tar archive (streamed to STDOUT by default)
    Save(push::Save),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(Tag),
}

/// `history [OPTIONS] IMAGE`
#[derive(Debug, Args)]
pub struct History {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, default_value_t = true)]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Image
    image: String,
}

/// `import [OPTIONS] file|- [REPOSITORY[:TAG]]`
#[derive(Debug, Args)]
pub struct Import {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "list")]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long)]
    message: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    /// Archive, or - for standard input
    file: String,
    /// Name of the new image
    reference: Option<String>,
}

/// `load [OPTIONS]`
#[derive(Debug, Args)]
pub struct Load {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long)]
    input: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

/// `rmi [OPTIONS] IMAGE [IMAGE...]`
#[derive(Debug, Args)]
pub struct Remove {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Images to remove
    #[arg(required = true)]
    images: Vec<String>,
}

/// `tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]`
#[derive(Debug, Args)]
pub struct Tag {
    /// Image to name
    source: String,
    /// Its further name
    target: String,
}

impl Image {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            Image::Build(it) => it.run(client).await,
            Image::History(it) => it.run(client).await,
            Image::Import(it) => it.run(client).await,
            Image::Inspect(it) => it.run(client, Kind::Image).await,
            Image::Load(it) => it.run(client).await,
            Image::Ls(it) => it.run(client).await,
            Image::Prune(it) => it.run(client).await,
            Image::Push(it) => it.run(client).await,
            Image::Save(it) => it.run(client).await,
            Image::Pull(it) => it.run(client).await,
            Image::Rm(it) => it.run(client).await,
            Image::Tag(it) => it.run(client).await,
        }
    }
}

async fn read_input(
    path: &str,
) -> Result<futures_util::stream::BoxStream<'static, io::Result<bytes::Bytes>>, CliError> {
    if path == "-" {
        return Ok(ReaderStream::new(tokio::io::stdin()).boxed());
    }
    let file = tokio::fs::File::open(path).await.map_err(|error| CliError::file("open", path, &error))?;
    Ok(ReaderStream::with_capacity(file, 256 * 1024).boxed())
}

impl Import {
    /// Sends the archive and prints the new image's id.
    pub async fn run(self, client: &Client) -> Outcome {
        let mut call = client.post("/images/create");
        call = if self.file.starts_with("http://") || self.file.starts_with("https://") {
            call.query("fromSrc", &self.file)
        } else {
            call.query("fromSrc", "-").stream("application/x-tar", read_input(&self.file).await?)
        };
        let (repository, tag) = self.reference.as_deref().map(split_tag).unwrap_or_default();
        call = call
            .query_some("repo", Some(repository))
            .query_some("tag", Some(tag))
            .query_some("message", self.message)
            .query_some("platform", self.platform);
        for change in self.change {
            call = call.query("changes", change);
        }
        pull::follow(call.send().await?, Place::Stdout).await
    }
}

/// Splits the tag off; a colon before a slash belongs to the registry's port.
pub fn split_tag(reference: &str) -> (String, String) {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (reference.to_owned(), String::new()),
    }
}

impl Load {
    /// Sends the archive and prints the loaded names.
    pub async fn run(self, client: &Client) -> Outcome {
        let path = match self.input.as_deref() {
            None if crate::terminal::stdin_is_terminal() => {
                return Err(CliError::new("requested load from stdin, but stdin is empty"));
            }
            path => path.unwrap_or("-"),
        };
        // Without a terminal nobody watches: only the names are wanted.
        let quiet = self.quiet || output::columns().is_none();
        let call = client.post("/images/load").flag("quiet", quiet);
        pull::follow(call.stream("application/x-tar", read_input(path).await?).send().await?, Place::Stdout)
            .await
    }
}

impl Remove {
    /// Removes each image and prints what went.
    pub async fn run(self, client: &Client) -> Outcome {
        each(&self.images, async |name| {
            let call = client
                .delete(format!("/images/{name}"))
                .flag("force", self.force)
                .flag("noprune", self.no_prune);
            let removed = match call.value().await {
                Err(error) if self.force && error.status == Some(404) => return Ok(()),
                other => other?,
            };
            for item in removed.as_array().into_iter().flatten() {
                for kind in ["Untagged", "Deleted"] {
                    if let Some(what) = item[kind].as_str() {
                        line(&format!("{kind}: {what}"));
                    }
                }
            }
            Ok(())
        })
        .await
    }
}

impl Tag {
    /// Adds the name.
    pub async fn run(self, client: &Client) -> Outcome {
        let wrong = |error: &dyn std::fmt::Display| {
            let target = &self.target;
            CliError::new(format!(
                "Error parsing reference: \"{target}\" is not a valid repository/tag: {error}"
            ))
        };
        docker::Reference::parse(&self.target).map_err(|error| wrong(&error))?;
        let (repository, tag) = split_tag(&self.target);
        let call = client.post(format!("/images/{}/tag", self.source));
        call.query("repo", repository).query_some("tag", Some(tag)).send().await?;
        Ok(())
    }
}

impl History {
    /// Prints the steps that made the image, newest first.
    pub async fn run(self, client: &Client) -> Outcome {
        let found = client.get(format!("/images/{}/history", self.image)).value().await?;
        let rows: Vec<Row> = found.as_array().into_iter().flatten().map(|step| self.row(step)).collect();
        let shape = if self.human { &HISTORY } else { &EXACT_HISTORY };
        output::list(shape, &Wish { format: self.format.as_deref(), quiet: self.quiet }, &rows)
    }

    fn row(&self, step: &Value) -> Row {
        let text = |key: &str| step[key].as_str().unwrap_or_default();
        let created = step["Created"].as_i64().unwrap_or(0);
        let since = match (self.human, created) {
            (true, ..=0) => "N/A".to_owned(),
            (true, _) => format!("{} ago", super::show::ago(created)),
            (false, _) => rfc3339(created),
        };
        let by = text("CreatedBy").replace('\t', " ");
        let id = text("Id").trim_start_matches("sha256:");
        let bytes = step["Size"].as_i64().unwrap_or(0);
        Row::new()
            .with("ID", if self.no_trunc { text("Id").to_owned() } else { id.chars().take(12).collect() })
            .with("CreatedSince", since)
            .with("CreatedAt", rfc3339(created))
            .with("CreatedBy", if self.no_trunc { by } else { shorten(&by, 45) })
            .with("Size", if self.human { size(bytes) } else { bytes.to_string() })
            .with("Comment", text("Comment"))
    }
}

/// When an object was made, as two cells.
pub fn created_cells(row: Row, time: &str) -> Row {
    row.with("CreatedAt", time).with("CreatedSince", format!("{} ago", ago_text(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_tag() {
        assert_eq!(split_tag("127.0.0.1:5000/a"), ("127.0.0.1:5000/a".to_owned(), String::new()));
        assert_eq!(split_tag("a:1"), ("a".to_owned(), "1".to_owned()));
    }
}

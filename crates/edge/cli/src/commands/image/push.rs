//! `push`, `save`, `search`, `image prune`: what leaves the daemon, and what goes.

use super::pull::{self, Place};
use crate::client::Client;
use crate::commands::show::size;
use crate::output::{self, line};
use crate::{CliError, Outcome};
use clap::Args;
use docker::Reference;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// `push [OPTIONS] NAME[:TAG]`
#[derive(Debug, Args)]
pub struct Push {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Push only a platform-specific manifest: os[/arch[/variant]]
    #[arg(long)]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Image to push
    image: String,
}

/// `save [OPTIONS] IMAGE [IMAGE...]`
#[derive(Debug, Args)]
pub struct Save {
    /// Write to a file, instead of STDOUT
    #[arg(short, long)]
    output: Option<String>,
    /// Save only the given platform: os[/arch[/variant]]
    #[arg(long)]
    platform: Option<String>,
    /// Images to save
    #[arg(required = true)]
    images: Vec<String>,
}

/// `search [OPTIONS] TERM`
#[derive(Debug, Args)]
pub struct Search {
    /// Filter output based on conditions provided
    #[arg(short, long)]
    filter: Vec<String>,
    /// Pretty-print search using a Go template
    #[arg(long)]
    format: Option<String>,
    /// Max number of search results
    #[arg(long)]
    limit: Option<u32>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// What to look for
    term: String,
}

/// `image prune [OPTIONS]`
#[derive(Debug, Args)]
pub struct Prune {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

/// A platform as the API wants it: JSON. Source: docker/cli, `cli/command/image/push.go`.
fn platform(text: Option<&str>) -> Option<String> {
    let mut parts = text?.split('/');
    let os = parts.next()?;
    let (architecture, variant) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Some(serde_json::json!({"os": os, "architecture": architecture, "variant": variant}).to_string())
}

impl Push {
    /// Pushes the image and shows how far it is.
    pub async fn run(self, client: &Client) -> Outcome {
        let name = Reference::parse(&self.image).map_err(|error| CliError::new(error.to_string()))?;
        if self.all_tags && name.tag.is_some() {
            return Err(CliError::new("tag can't be used with --all-tags/-a"));
        }
        if !self.all_tags && name.is_name_only() && !self.quiet {
            line("Using default tag: latest");
        }
        let shown = if self.all_tags { name.clone() } else { name.clone().with_default_tag() };
        let header = crate::credentials::for_image(&self.image);
        let call = client
            .post(format!("/images/{}/push", name.familiar_name()))
            .query_some("tag", shown.tag.as_ref())
            .query_some("platform", platform(self.platform.as_deref()))
            // The daemon wants the header even from somebody who has no credentials. Source: docker/cli.
            .header("x-registry-auth", header.unwrap_or_else(|| docker::AuthConfig::default().to_header()));
        let place = if self.quiet { Place::Nowhere } else { Place::Stdout };
        pull::follow(call.send().await?, place).await?;
        if self.quiet {
            line(&shown.familiar());
        }
        Ok(())
    }
}

impl Save {
    /// Writes the archive.
    pub async fn run(self, client: &Client) -> Outcome {
        if self.output.is_none() && output::columns().is_some() {
            return Err(CliError::new(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        let mut call = client.get("/images/get").query_some("platform", platform(self.platform.as_deref()));
        for image in &self.images {
            call = call.query("names", image);
        }
        let mut body = call.send().await?.into_body();
        let path = self.output.as_deref().unwrap_or("standard output");
        let failed = |error: std::io::Error| CliError::file("write", path, &error);
        let mut out: Box<dyn AsyncWrite + Unpin> = match &self.output {
            Some(path) => Box::new(tokio::fs::File::create(path).await.map_err(failed)?),
            None => Box::new(tokio::io::stdout()),
        };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| CliError::new(format!("read archive: {error}")))?;
            if let Ok(data) = frame.into_data() {
                out.write_all(&data).await.map_err(failed)?;
            }
        }
        out.flush().await.map_err(failed)
    }
}

impl Search {
    /// Asks; what an engine answers that searches nothing is an error that says so.
    pub async fn run(self, client: &Client) -> Outcome {
        let found = client.get("/images/search").query("term", &self.term).query_some("limit", self.limit);
        let found = found.value().await?;
        for row in found.as_array().into_iter().flatten() {
            line(row["name"].as_str().unwrap_or_default());
        }
        Ok(())
    }
}

impl Prune {
    /// Asks, removes, and prints what went.
    pub async fn run(self, client: &Client) -> Outcome {
        let warning = match self.all {
            true => "WARNING! This will remove all images without at least one container associated to them.",
            false => "WARNING! This will remove all dangling images.",
        };
        if !self.force && !confirm(warning)? {
            return Err(CliError::new("image prune has been canceled"));
        }
        let mut filters = docker::Filters::default();
        filters.add("dangling", if self.all { "false" } else { "true" });
        for filter in &self.filter {
            let (name, value) = filter
                .split_once('=')
                .ok_or_else(|| CliError::new(format!("invalid argument \"{filter}\" for \"--filter\" flag: invalid filter format (should be name=[value])")))?;
            filters.add(name.trim(), value);
        }
        let report = client.post("/images/prune").query("filters", filters.to_query()).value().await?;
        let deleted = report["ImagesDeleted"].as_array().cloned().unwrap_or_default();
        if !deleted.is_empty() {
            line("Deleted Images:");
        }
        for item in &deleted {
            for (key, word) in [("Untagged", "untagged"), ("Deleted", "deleted")] {
                if let Some(what) = item[key].as_str() {
                    line(&format!("{word}: {what}"));
                }
            }
        }
        if !deleted.is_empty() {
            line("");
        }
        line(&format!("Total reclaimed space: {}", size(report["SpaceReclaimed"].as_i64().unwrap_or(0))));
        Ok(())
    }
}

/// Asks before something is removed; anything but a yes is a no. Source: docker/cli, `cli/command/utils.go`.
fn confirm(warning: &str) -> Result<bool, CliError> {
    output::print(&format!("{warning}\nAre you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| CliError::file("read", "stdin", &error))?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_platform_is_sent_as_json() {
        let sent: Value = serde_json::from_str(&platform(Some("linux/arm/v7")).unwrap()).unwrap();
        assert_eq!(sent, serde_json::json!({"os": "linux", "architecture": "arm", "variant": "v7"}));
        assert_eq!(platform(None), None);
    }
}

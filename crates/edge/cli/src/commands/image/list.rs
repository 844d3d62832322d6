//! `images` / `image ls`.

use crate::Outcome;
use crate::client::Client;
use crate::commands::read;
use crate::commands::show::{ago, size, unix_time};
use crate::output::{self, Row, Shape, Wish};
use clap::Args;
use serde_json::{Value, json};

const SHAPE: Shape = Shape {
    columns: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
    ],
    quiet: "ID",
    others: &[("VirtualSize", "SIZE")],
};
const SHAPE_WITH_DIGESTS: Shape = Shape {
    columns: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
    ],
    quiet: "ID",
    others: &[("VirtualSize", "SIZE")],
};

/// `images [OPTIONS] [REPOSITORY[:TAG]]`
#[derive(Debug, Args)]
pub struct List {
    /// Show all images (default hides intermediate images)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Only images of this name
    reference: Option<String>,
}

impl List {
    /// Prints the images, one line per name.
    pub async fn run(self, client: &Client) -> Outcome {
        let mut filters = self.filter.clone();
        filters.extend(self.reference.as_ref().map(|reference| format!("reference={reference}")));
        let call =
            client.get("/images/json").flag("all", self.all).query_some("filters", read::filters(&filters)?);
        let found = call.value().await?;
        let mut rows: Vec<Row> = Vec::new();
        for image in found.as_array().into_iter().flatten() {
            rows.extend(self.rows(image));
        }
        let wish = Wish { format: self.format.as_deref(), quiet: self.quiet };
        output::list(if self.digests { &SHAPE_WITH_DIGESTS } else { &SHAPE }, &wish, &rows)
    }

    fn rows(&self, image: &Value) -> Vec<Row> {
        let names = |key: &str| -> Vec<String> {
            let all = image[key].as_array().into_iter().flatten();
            all.filter_map(|name| name.as_str().map(str::to_owned)).collect()
        };
        let mut tags = names("RepoTags");
        let digests = names("RepoDigests");
        if tags.is_empty() {
            tags.push("<none>:<none>".to_owned());
        }
        let full = image["Id"].as_str().unwrap_or_default();
        let short: String = full.trim_start_matches("sha256:").chars().take(12).collect();
        let created = image["Created"].as_i64().unwrap_or(0);
        let row = |name: &String| {
            let (repository, tag) = super::split_tag(name);
            let digest = digests.iter().filter_map(|digest| digest.split_once('@'));
            let digest = digest.filter(|(of, _)| *of == repository).map(|(_, digest)| digest).next();
            Row::new()
                .with("Repository", repository)
                .with("Tag", tag)
                .with("Digest", digest.unwrap_or("<none>"))
                .with("ID", if self.no_trunc { full } else { &short })
                .with("CreatedSince", format!("{} ago", ago(created)))
                .with("CreatedAt", unix_time(created))
                .with("Size", size(image["Size"].as_i64().unwrap_or(0)))
                .with("VirtualSize", docker::units::human_size(image["Size"].as_u64().unwrap_or(0), 4))
                .with("SharedSize", "N/A")
                .with("UniqueSize", "N/A")
                .with(
                    "Containers",
                    json!(
                        image["Containers"]
                            .as_i64()
                            .filter(|count| *count >= 0)
                            .map_or("N/A".to_owned(), |count| count.to_string())
                    ),
                )
        };
        tags.iter().map(row).collect()
    }
}

//! `ps` / `container ls`.

use crate::Outcome;
use crate::client::Client;
use crate::commands::read;
use crate::commands::show::{ago, shorten, size, unix_time};
use crate::output::{self, Row, Shape, Wish};
use clap::Args;
use serde_json::Value;

const SHAPE: Shape = Shape {
    columns: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
    ],
    quiet: "ID",
    others: &[],
};
const SHAPE_WITH_SIZE: Shape = Shape {
    columns: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
        ("Size", "SIZE"),
    ],
    quiet: "ID",
    others: &[],
};

/// `ps [OPTIONS]`
#[derive(Debug, Args)]
pub struct List {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, allow_hyphen_values = true)]
    last: Option<i64>,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

impl List {
    /// Prints the containers.
    pub async fn run(self, client: &Client) -> Outcome {
        let wants_size = self.format.as_deref().is_some_and(|format| format.contains(".Size"));
        let limit = if self.latest { Some(1) } else { self.last };
        let found = client
            .get("/containers/json")
            .flag("all", self.all)
            .flag("size", self.size || wants_size)
            .query_some("limit", limit)
            .query_some("filters", read::filters(&self.filter)?)
            .value()
            .await?;
        let rows: Vec<Row> =
            found.as_array().into_iter().flatten().map(|container| self.row(container)).collect();
        let wish = Wish { format: self.format.as_deref(), quiet: self.quiet };
        output::list(if self.size { &SHAPE_WITH_SIZE } else { &SHAPE }, &wish, &rows)
    }

    /// The image's name as typed; an image that lost its name is shown by its short id.
    fn image<'a>(&self, name: &'a str, id: &str) -> &'a str {
        let bare = name.strip_prefix("sha256:").unwrap_or(name);
        match bare.len() == 64 && id.ends_with(bare) && !self.no_trunc {
            true => &bare[..12],
            false => name,
        }
    }

    fn row(&self, container: &Value) -> Row {
        let text = |key: &str| container[key].as_str().unwrap_or_default();
        let cut = |text: &str, keep: usize| if self.no_trunc { text.to_owned() } else { shorten(text, keep) };
        let id = text("Id");
        let names: Vec<&str> = container["Names"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(|name| name.trim_start_matches('/')))
            .collect();
        let created = container["Created"].as_i64().unwrap_or(0);
        let mounts: Vec<&str> = container["Mounts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|mount| mount["Name"].as_str().or(mount["Source"].as_str()))
            .collect();
        let volumes = container["Mounts"].as_array().into_iter().flatten();
        let volumes = volumes.filter(|mount| mount["Driver"] == "local").count();
        let networks = container["NetworkSettings"]["Networks"].as_object();
        Row::new()
            .with("ID", if self.no_trunc { id } else { &id[..id.len().min(12)] })
            .with("Image", self.image(text("Image"), text("ImageID")))
            .with("Command", format!("\"{}\"", cut(text("Command"), 20)))
            .with("CreatedAt", unix_time(created))
            .with("RunningFor", format!("{} ago", ago(created)))
            .with("Status", text("Status"))
            .with("State", text("State"))
            .with("Ports", ports(&container["Ports"]))
            .with("Names", names.join(","))
            .labelled(&container["Labels"])
            .with("Platform", container["ImageManifestDescriptor"]["platform"].clone())
            .with("Mounts", mounts.join(","))
            .with("LocalVolumes", volumes.to_string())
            .with(
                "Networks",
                networks.map(|all| all.keys().cloned().collect::<Vec<_>>().join(",")).unwrap_or_default(),
            )
            .with("Size", sizes(container))
    }
}

fn sizes(container: &Value) -> String {
    let written = container["SizeRw"].as_i64().unwrap_or(0);
    match container["SizeRootFs"].as_i64() {
        Some(root) if root > 0 => format!("{} (virtual {})", size(written), size(root)),
        _ => size(written),
    }
}

/// `0.0.0.0:8080->80/tcp, 443/tcp`
fn ports(ports: &Value) -> String {
    let mut shown: Vec<(bool, u64, String)> = ports
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            let inside = port["PrivatePort"].as_u64().unwrap_or(0);
            let kind = port["Type"].as_str().unwrap_or("tcp");
            match (port["PublicPort"].as_u64(), port["IP"].as_str()) {
                (Some(public), Some(ip)) if ip.contains(':') => {
                    (false, inside, format!("[{ip}]:{public}->{inside}/{kind}"))
                }
                (Some(public), Some(ip)) => (false, inside, format!("{ip}:{public}->{inside}/{kind}")),
                _ => (true, inside, format!("{inside}/{kind}")),
            }
        })
        .collect();
    shown.sort();
    shown.into_iter().map(|(_, _, text)| text).collect::<Vec<_>>().join(", ")
}

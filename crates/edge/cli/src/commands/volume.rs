//! Commands on volumes.

use crate::client::Client;
use crate::commands::inspect::{self, Kind};
use crate::commands::read;
use crate::output::{self, Row, Shape, Wish, line};
use crate::{Outcome, each};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// `volume COMMAND`
#[derive(Debug, Subcommand)]
pub enum Volume {
    /// Create a volume
    Create(Create),
    /// Display detailed information on one or more volumes
    Inspect(inspect::Inspect),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(List),
    /// Remove one or more volumes
    #[command(visible_alias = "remove")]
    Rm(Remove),
}

/// `volume create [OPTIONS] [VOLUME]`
#[derive(Debug, Args)]
pub struct Create {
    /// Specify volume driver name
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Set metadata for a volume
    #[arg(long, value_name = "list", value_parser = read::label)]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "map")]
    opt: Vec<String>,
    /// Name; random when left out
    name: Option<String>,
}

/// `volume ls [OPTIONS]`
#[derive(Debug, Args)]
pub struct List {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display volume names
    #[arg(short, long)]
    quiet: bool,
}

/// `volume rm [OPTIONS] VOLUME [VOLUME...]`
#[derive(Debug, Args)]
pub struct Remove {
    /// Force the removal of one or more volumes
    #[arg(short, long)]
    force: bool,
    /// Volumes to remove
    #[arg(required = true)]
    volumes: Vec<String>,
}

impl Volume {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            Volume::Create(it) => it.run(client).await,
            Volume::Inspect(it) => it.run(client, Kind::Volume).await,
            Volume::Ls(it) => it.run(client).await,
            Volume::Rm(it) => it.run(client).await,
        }
    }
}

impl Create {
    async fn run(self, client: &Client) -> Outcome {
        let body = json!({
            "Name": self.name.unwrap_or_default(),
            "Driver": self.driver,
            "DriverOpts": read::pairs(&self.opt),
            "Labels": read::pairs(&self.label),
        });
        let volume = client.post("/volumes/create").json(&body).value().await?;
        line(volume["Name"].as_str().unwrap_or_default());
        Ok(())
    }
}

impl List {
    async fn run(self, client: &Client) -> Outcome {
        const SHAPE: Shape =
            Shape { columns: &[("Driver", "DRIVER"), ("Name", "VOLUME NAME")], quiet: "Name", others: &[] };
        let found =
            client.get("/volumes").query_some("filters", read::filters(&self.filter)?).value().await?;
        let row = |volume: &Value| {
            let text = |key: &str| volume[key].as_str().unwrap_or_default().to_owned();
            Row::new()
                .with("Name", text("Name"))
                .with("Driver", text("Driver"))
                .with("Scope", text("Scope"))
                .with("Mountpoint", text("Mountpoint"))
                .labelled(&volume["Labels"])
                .with("Links", "N/A")
                .with("Size", "N/A")
                .with("Status", "N/A")
                .with("Availability", "N/A")
                .with("Group", "N/A")
        };
        let mut all: Vec<&Value> = found["Volumes"].as_array().into_iter().flatten().collect();
        all.sort_by_key(|volume| volume["Name"].as_str().map(str::to_owned));
        let rows: Vec<Row> = all.into_iter().map(row).collect();
        output::list(&SHAPE, &Wish { format: self.format.as_deref(), quiet: self.quiet }, &rows)
    }
}

impl Remove {
    async fn run(self, client: &Client) -> Outcome {
        each(&self.volumes, async |name| {
            client.delete(format!("/volumes/{name}")).flag("force", self.force).send().await?;
            line(name);
            Ok(())
        })
        .await
    }
}

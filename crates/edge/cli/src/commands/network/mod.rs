//! Commands on networks.

mod change;
mod create;

use crate::Outcome;
use crate::client::Client;
use crate::commands::inspect::{self, Kind};
use crate::commands::read;
use crate::commands::show::go_time;
use crate::output::{self, Row, Shape, Wish};
use clap::{Args, Subcommand};
use serde_json::Value;

/// `network COMMAND`
#[derive(Debug, Subcommand)]
pub enum Network {
    /// Connect a container to a network
    Connect(change::Connect),
    /// Create a network
    Create(create::Create),
    /// Disconnect a container from a network
    Disconnect(change::Disconnect),
    /// Display detailed information on one or more networks
    Inspect(inspect::Inspect),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(List),
    /// Remove all unused networks
    Prune(change::Prune),
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm(change::Remove),
}

/// `network ls [OPTIONS]`
#[derive(Debug, Args)]
pub struct List {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Only display network IDs
    #[arg(short, long)]
    quiet: bool,
}

impl Network {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            Network::Connect(it) => it.run(client).await,
            Network::Create(it) => it.run(client).await,
            Network::Disconnect(it) => it.run(client).await,
            Network::Inspect(it) => it.run(client, Kind::Network).await,
            Network::Ls(it) => it.run(client).await,
            Network::Prune(it) => it.run(client).await,
            Network::Rm(it) => it.run(client).await,
        }
    }
}

impl List {
    async fn run(self, client: &Client) -> Outcome {
        const SHAPE: Shape = Shape {
            columns: &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")],
            quiet: "ID",
            others: &[],
        };
        let found =
            client.get("/networks").query_some("filters", read::filters(&self.filter)?).value().await?;
        let row = |network: &Value| {
            let text = |key: &str| network[key].as_str().unwrap_or_default().to_owned();
            let id = text("Id");
            Row::new()
                .with("ID", if self.no_trunc { id } else { id.chars().take(12).collect() })
                .with("Name", text("Name"))
                .with("Driver", text("Driver"))
                .with("Scope", text("Scope"))
                .labelled(&network["Labels"])
                .with("CreatedAt", go_time(&text("Created")))
                .with("Internal", (network["Internal"] == Value::Bool(true)).to_string())
                .with("IPv4", (network["EnableIPv4"] != Value::Bool(false)).to_string())
                .with("IPv6", (network["EnableIPv6"] == Value::Bool(true)).to_string())
        };
        let mut all: Vec<&Value> = found.as_array().into_iter().flatten().collect();
        all.sort_by_key(|network| network["Name"].as_str().map(str::to_owned));
        let rows: Vec<Row> = all.into_iter().map(row).collect();
        output::list(&SHAPE, &Wish { format: self.format.as_deref(), quiet: self.quiet }, &rows)
    }
}

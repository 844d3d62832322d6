//! Commands on the nodes of a swarm.

use crate::client::Client;
use crate::commands::inspect::{self, Kind};
use crate::commands::read;
use crate::commands::service::tasks::{self, TaskFlags};
use crate::output::{self, Row, Shape, Wish, line};
use crate::{CliError, Outcome};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// `node COMMAND`
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Display detailed information on one or more nodes
    Inspect(inspect::Inspect),
    /// List nodes in the swarm
    #[command(visible_alias = "list")]
    Ls(List),
    /// List tasks running on one or more nodes, defaults to current node
    Ps(Tasks),
    /// Update a node
    Update(Update),
}

/// `node ls [OPTIONS]`
#[derive(Debug, Args)]
pub struct List {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display IDs
    #[arg(short, long)]
    quiet: bool,
}

/// `node ps [OPTIONS] [NODE...]`
#[derive(Debug, Args)]
pub struct Tasks {
    #[command(flatten)]
    flags: TaskFlags,
    /// Nodes; the current one when left out
    nodes: Vec<String>,
}

/// `node update [OPTIONS] NODE`
#[derive(Debug, Args)]
pub struct Update {
    /// Availability of the node ("active", "pause", "drain")
    #[arg(long, value_parser = ["active", "pause", "drain"])]
    availability: Option<String>,
    /// Role of the node ("worker", "manager")
    #[arg(long, value_parser = ["worker", "manager"])]
    role: Option<String>,
    /// Add or update a node label (key=value)
    #[arg(long, value_name = "list")]
    label_add: Vec<String>,
    /// Remove a node label if exists
    #[arg(long, value_name = "list")]
    label_rm: Vec<String>,
    /// Node to update
    node: String,
}

impl Node {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            Node::Inspect(it) => it.run(client, Some(Kind::Node)).await,
            Node::Ls(it) => it.run(client).await,
            Node::Ps(it) => it.run(client).await,
            Node::Update(it) => it.run(client).await,
        }
    }
}

/// The id that `self` stands for; other names as they are.
///
/// # Errors
/// When this node is not in a swarm.
pub async fn self_id(client: &Client, name: &str) -> Result<String, CliError> {
    if name != "self" {
        return Ok(name.to_owned());
    }
    let info = client.get("/info").value().await?;
    match info["Swarm"]["NodeID"].as_str() {
        Some(id) if !id.is_empty() => Ok(id.to_owned()),
        // The daemon's own words say why.
        _ => client.get("/nodes").value().await.map(|_| name.to_owned()),
    }
}

/// `active` → `Active`.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

impl List {
    async fn run(self, client: &Client) -> Outcome {
        const SHAPE: Shape = Shape {
            columns: &[
                ("ID", "ID"),
                ("Hostname", "HOSTNAME"),
                ("Status", "STATUS"),
                ("Availability", "AVAILABILITY"),
                ("ManagerStatus", "MANAGER STATUS"),
                ("EngineVersion", "ENGINE VERSION"),
            ],
            quiet: "ID",
            others: &[("Self", ""), ("TLSStatus", "TLS STATUS")],
        };
        let found = client.get("/nodes").query_some("filters", read::filters(&self.filter)?).value().await?;
        let info = client.get("/info").value().await?;
        let own = info["Swarm"]["NodeID"].as_str().unwrap_or_default();
        let root = info["Swarm"]["Cluster"]["TLSInfo"].clone();
        let row = |node: &Value| {
            let id = node["ID"].as_str().unwrap_or_default();
            let manager = match node["ManagerStatus"].as_object() {
                None => "",
                Some(status) if status.get("Leader") == Some(&Value::Bool(true)) => "Leader",
                Some(status) => status.get("Reachability").and_then(Value::as_str).unwrap_or_default(),
            };
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Row::new()
                .with("ID", id)
                .shown("ID", if id == own { format!("{id} *") } else { format!("{id}  ") })
                .with("TLSStatus", tls_status(node, &root))
                .with("Self", id == own)
                .with("Hostname", text(&node["Description"]["Hostname"]))
                .with("Status", capital(&text(&node["Status"]["State"])))
                .with("Availability", capital(&text(&node["Spec"]["Availability"])))
                .with("ManagerStatus", capital(manager))
                .with("EngineVersion", text(&node["Description"]["Engine"]["EngineVersion"]))
        };
        let mut nodes: Vec<&Value> = found.as_array().into_iter().flatten().collect();
        nodes.sort_by_key(|node| node["Description"]["Hostname"].as_str().map(str::to_owned));
        let rows: Vec<Row> = nodes.into_iter().map(row).collect();
        output::list(&SHAPE, &Wish { format: self.format.as_deref(), quiet: self.quiet }, &rows)
    }
}

/// Whether a node's certificate is of the swarm's current root.
fn tls_status(node: &Value, root: &Value) -> &'static str {
    match node["Description"]["TLSInfo"].as_object() {
        None => "Unknown",
        Some(_) if node["Description"]["TLSInfo"] == *root => "Ready",
        Some(_) => "Needs Rotation",
    }
}

impl Tasks {
    async fn run(self, client: &Client) -> Outcome {
        let nodes = if self.nodes.is_empty() { vec!["self".to_owned()] } else { self.nodes };
        let mut filters = self.flags.filter.clone();
        for node in nodes {
            filters.push(format!("node={}", self_id(client, &node).await?));
        }
        tasks::print(client, &self.flags, &filters).await
    }
}

impl Update {
    async fn run(self, client: &Client) -> Outcome {
        let id = self_id(client, &self.node).await?;
        let node = client.get(format!("/nodes/{id}")).value().await?;
        let mut spec = node["Spec"].clone();
        if let Some(availability) = self.availability {
            spec["Availability"] = json!(availability);
        }
        if let Some(role) = self.role {
            spec["Role"] = json!(role);
        }
        let mut labels = spec["Labels"].as_object().cloned().unwrap_or_default();
        for key in &self.label_rm {
            labels.remove(key);
        }
        if let Value::Object(added) = read::pairs(&self.label_add) {
            labels.extend(added);
        }
        spec["Labels"] = Value::Object(labels);
        let id = node["ID"].as_str().unwrap_or_default();
        let call = client.post(format!("/nodes/{id}/update")).query("version", &node["Version"]["Index"]);
        call.json(&spec).send().await?;
        line(&self.node);
        Ok(())
    }
}

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
    /// Demote one or more nodes from manager in the swarm
    Demote(Names),
    /// Display detailed information on one or more nodes
    Inspect(inspect::Pretty),
    /// List nodes in the swarm
    #[command(visible_alias = "list")]
    Ls(List),
    /// Promote one or more nodes to manager in the swarm
    Promote(Names),
    /// List tasks running on one or more nodes, defaults to current node
    Ps(Tasks),
    /// Remove one or more nodes from the swarm
    #[command(visible_alias = "remove")]
    Rm(Remove),
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
    #[arg(long)]
    availability: Option<String>,
    /// Role of the node ("worker", "manager")
    #[arg(long)]
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

/// `node promote NODE [NODE...]`, `node demote NODE [NODE...]`
#[derive(Debug, Args)]
pub struct Names {
    /// Nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// `node rm [OPTIONS] NODE [NODE...]`
#[derive(Debug, Args)]
pub struct Remove {
    /// Force remove a node from the swarm
    #[arg(short, long)]
    force: bool,
    /// Nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

impl Node {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            Node::Demote(it) => it.give_role(client, "worker").await,
            Node::Inspect(it) => it.run(client, Kind::Node).await,
            Node::Ls(it) => it.run(client).await,
            Node::Promote(it) => it.give_role(client, "manager").await,
            Node::Ps(it) => it.run(client).await,
            Node::Rm(it) => it.run(client).await,
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
        let (mut filters, mut refused) = (self.flags.filter.clone(), Vec::new());
        for node in &nodes {
            let id = self_id(client, node).await?;
            match client.get(format!("/nodes/{id}")).value().await {
                Ok(node) => filters.push(format!("node={}", node["ID"].as_str().unwrap_or_default())),
                Err(error) => refused.push(error),
            }
        }
        if refused.len() < nodes.len() {
            tasks::print(client, &self.flags, &filters).await?;
        }
        CliError::all(refused)
    }
}

impl Names {
    /// Gives the nodes a role, and says what was done to each. The first failure is the last word.
    /// Source of the words: docker/cli, `node/promote.go`.
    async fn give_role(self, client: &Client, role: &str) -> Outcome {
        for name in &self.nodes {
            let id = self_id(client, name).await?;
            let node = client.get(format!("/nodes/{id}")).value().await?;
            if node["Spec"]["Role"] == role {
                let id = node["ID"].as_str().unwrap_or_default();
                line(&format!("Node {id} is already a {role}."));
                continue;
            }
            let mut spec = node["Spec"].clone();
            spec["Role"] = json!(role);
            put_spec(client, &node, &spec).await?;
            line(&if role == "manager" {
                format!("Node {name} promoted to a manager in the swarm.")
            } else {
                format!("Manager {name} demoted in the swarm.")
            });
        }
        Ok(())
    }
}

impl Remove {
    async fn run(self, client: &Client) -> Outcome {
        crate::each(&self.nodes, async |name: &String| {
            let id = self_id(client, name).await?;
            client.delete(format!("/nodes/{id}")).flag("force", self.force).send().await?;
            line(name);
            Ok(())
        })
        .await
    }
}

/// Replaces the spec of a node as it was read.
async fn put_spec(client: &Client, node: &Value, spec: &Value) -> Outcome {
    let id = node["ID"].as_str().unwrap_or_default();
    let call = client.post(format!("/nodes/{id}/update")).query("version", &node["Version"]["Index"]);
    call.json(spec).send().await.map(drop)
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
            if labels.remove(key).is_none() {
                return Err(CliError::new(format!("key {key} doesn't exist in node's labels")));
            }
        }
        if let Value::Object(added) = read::pairs(&self.label_add) {
            labels.extend(added);
        }
        spec["Labels"] = Value::Object(labels);
        put_spec(client, &node, &spec).await?;
        line(&self.node);
        Ok(())
    }
}

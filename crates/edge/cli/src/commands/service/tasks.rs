//! `service ps` and `node ps`: tasks, newest of a slot first, its history below it.

use crate::client::Client;
use crate::commands::node::capital;
use crate::commands::read;
use crate::commands::show::{ago_text, shorten};
use crate::output::{self, Row, Shape, Wish};
use crate::{CliError, Outcome};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;

const SHAPE: Shape = Shape {
    columns: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Node", "NODE"),
        ("DesiredState", "DESIRED STATE"),
        ("CurrentState", "CURRENT STATE"),
        ("Error", "ERROR"),
        ("Ports", "PORTS"),
    ],
    quiet: "ID",
    others: &[],
};
/// Characters of an error that a table shows. Source: docker/cli `cli/command/task/formatter.go` `maxErrLength`.
const ERROR_WIDTH: usize = 30;

/// Flags of both commands.
#[derive(Debug, Clone, Args)]
pub struct TaskFlags {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter")]
    pub filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not map IDs to Names
    #[arg(long)]
    no_resolve: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display task IDs
    #[arg(short, long)]
    quiet: bool,
}

/// `service ps [OPTIONS] SERVICE [SERVICE...]`
#[derive(Debug, Args)]
pub struct Tasks {
    #[command(flatten)]
    flags: TaskFlags,
    /// Services
    #[arg(required = true)]
    services: Vec<String>,
}

impl Tasks {
    /// Prints the tasks of the services.
    pub async fn run(self, client: &Client) -> Outcome {
        let mut filters = self.flags.filter.clone();
        let mut missing = Vec::new();
        for name in &self.services {
            match client.get(format!("/services/{name}")).value().await {
                Ok(service) => {
                    filters.push(format!("service={}", service["ID"].as_str().unwrap_or_default()))
                }
                Err(error) if error.status == Some(404) => {
                    missing.push(CliError::new(format!("no such service: {name}")))
                }
                Err(error) => return Err(error),
            }
        }
        if missing.len() < self.services.len() {
            // Source: docker/cli 28.2, observed: here `-q` prints whole ids, in `node ps` short ones.
            let flags = TaskFlags { no_trunc: self.flags.no_trunc || self.flags.quiet, ..self.flags.clone() };
            print(client, &flags, &filters).await?;
        }
        CliError::all(missing)
    }
}

struct Names {
    nodes: BTreeMap<String, String>,
    services: BTreeMap<String, String>,
}

/// Prints the tasks that match `filters`.
///
/// # Errors
/// When the daemon refuses or the format is wrong.
pub async fn print(client: &Client, flags: &TaskFlags, filters: &[String]) -> Outcome {
    let found = client.get("/tasks").query_some("filters", read::filters(filters)?).value().await?;
    let names = if flags.no_resolve { Names::none() } else { Names::ask(client).await? };
    let mut tasks: Vec<&Value> = found.as_array().into_iter().flatten().collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let service = |task: &Value| {
        let id = text(&task["ServiceID"]);
        names.services.get(&id).cloned().unwrap_or(id)
    };
    let slot = |task: &Value| (service(task), task["Slot"].as_u64().unwrap_or(0), task_node(task));
    tasks.sort_by(|a, b| {
        slot(a).cmp(&slot(b)).then_with(|| text(&b["CreatedAt"]).cmp(&text(&a["CreatedAt"])))
    });
    let mut last = None;
    let mut rows = Vec::new();
    for task in tasks {
        let this = Some(slot(task));
        let older = last == this && !flags.quiet && flags.format.is_none();
        last = this;
        rows.push(row(task, &names, flags, older));
    }
    output::list(&SHAPE, &Wish { format: flags.format.as_deref(), quiet: flags.quiet }, &rows)
}

/// A global task has no slot: its node stands for it.
fn task_node(task: &Value) -> String {
    let has_slot = task["Slot"].as_u64().is_some_and(|slot| slot > 0);
    if has_slot { String::new() } else { task["NodeID"].as_str().unwrap_or_default().to_owned() }
}

impl Names {
    fn none() -> Names {
        Names { nodes: BTreeMap::new(), services: BTreeMap::new() }
    }

    async fn ask(client: &Client) -> Result<Names, CliError> {
        let by_id = |list: &Value, name: fn(&Value) -> &Value| -> BTreeMap<String, String> {
            let all = list.as_array().into_iter().flatten();
            all.filter_map(|item| Some((item["ID"].as_str()?.to_owned(), name(item).as_str()?.to_owned())))
                .collect()
        };
        let nodes = client.get("/nodes").value().await?;
        let services = client.get("/services").value().await?;
        Ok(Names {
            nodes: by_id(&nodes, |node| &node["Description"]["Hostname"]),
            services: by_id(&services, |service| &service["Spec"]["Name"]),
        })
    }
}

fn row(task: &Value, names: &Names, flags: &TaskFlags, older: bool) -> Row {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resolve = |all: &BTreeMap<String, String>, id: String| all.get(&id).cloned().unwrap_or(id);
    let (id, node) = (text(&task["ID"]), text(&task["NodeID"]));
    let service = resolve(&names.services, text(&task["ServiceID"]));
    let place = match task["Slot"].as_u64() {
        Some(slot) if slot > 0 => slot.to_string(),
        _ => node.clone(),
    };
    let name = format!("{}{service}.{place}", if older { " \\_ " } else { "" });
    let image = text(&task["Spec"]["ContainerSpec"]["Image"]);
    let status = &task["Status"];
    let error = text(&status["Err"]);
    let error = match (error.is_empty(), flags.no_trunc) {
        (true, _) => String::new(),
        (false, true) => format!("\"{error}\""),
        (false, false) => format!("\"{}\"", shorten(&error, ERROR_WIDTH)),
    };
    let since = ago_text(&text(&status["Timestamp"])).to_lowercase();
    Row::new()
        .with("ID", if flags.no_trunc { id } else { id.chars().take(12).collect() })
        .with("Name", name)
        .with(
            "Image",
            if flags.no_trunc {
                image
            } else {
                image.split("@sha256:").next().unwrap_or_default().to_owned()
            },
        )
        .with("Node", resolve(&names.nodes, node))
        .with("DesiredState", capital(&text(&task["DesiredState"])))
        .with("CurrentState", format!("{} {} ago", capital(&text(&status["State"])), since))
        .with("Error", error)
        .with("Ports", ports(&status["PortStatus"]["Ports"]))
}

/// Ports in host mode: `*:32768->80/tcp`.
fn ports(ports: &Value) -> String {
    let shown = ports.as_array().into_iter().flatten().map(|port| {
        let number = |key: &str| port[key].as_u64().unwrap_or(0);
        let protocol = port["Protocol"].as_str().unwrap_or("tcp");
        format!("*:{}->{}/{protocol}", number("PublishedPort"), number("TargetPort"))
    });
    shown.collect::<Vec<_>>().join(",")
}

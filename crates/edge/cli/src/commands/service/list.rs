//! `service ls`.

use crate::Outcome;
use crate::client::Client;
use crate::commands::read;
use crate::output::{self, Row, Shape, Wish};
use clap::Args;
use serde_json::Value;

const SHAPE: Shape = Shape {
    columns: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Mode", "MODE"),
        ("Replicas", "REPLICAS"),
        ("Image", "IMAGE"),
        ("Ports", "PORTS"),
    ],
    quiet: "ID",
    others: &[],
};

/// `service ls [OPTIONS]`
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

impl List {
    /// Prints the services.
    pub async fn run(self, client: &Client) -> Outcome {
        let call =
            client.get("/services").query("status", "1").query_some("filters", read::filters(&self.filter)?);
        let found = call.value().await?;
        let mut services: Vec<&Value> = found.as_array().into_iter().flatten().collect();
        services.sort_by_key(|service| service["Spec"]["Name"].as_str().map(str::to_owned));
        let rows: Vec<Row> = services.into_iter().map(row).collect();
        output::list(&SHAPE, &Wish { format: self.format.as_deref(), quiet: self.quiet }, &rows)
    }
}

/// `replicated`, `global`, `replicated job` or `global job`.
pub(crate) fn mode(spec: &Value) -> &'static str {
    let has = |key: &str| spec["Mode"].get(key).is_some_and(|mode| !mode.is_null());
    match () {
        () if has("Global") => "global",
        () if has("ReplicatedJob") => "replicated job",
        () if has("GlobalJob") => "global job",
        () => "replicated",
    }
}

fn row(service: &Value) -> Row {
    let id = service["ID"].as_str().unwrap_or_default();
    let spec = &service["Spec"];
    let status = |key: &str| service["ServiceStatus"][key].as_u64().unwrap_or(0);
    let most = spec["TaskTemplate"]["Placement"]["MaxReplicas"].as_u64().unwrap_or(0);
    let mut replicas = format!("{}/{}", status("RunningTasks"), status("DesiredTasks"));
    if most > 0 {
        replicas.push_str(&format!(" (max {most} per node)"));
    }
    let image = spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default();
    Row::new()
        .with("ID", id.chars().take(12).collect::<String>())
        .with("Name", spec["Name"].as_str().unwrap_or_default())
        .with("Mode", mode(spec))
        .with("Replicas", replicas)
        .with("Image", image.split("@sha256:").next().unwrap_or_default())
        .with("Ports", ports(&service["Endpoint"]["Ports"]))
}

/// `*:8080->80/tcp`, the ports in ingress mode.
fn ports(ports: &Value) -> String {
    let ingress = ports.as_array().into_iter().flatten().filter(|port| port["PublishMode"] != "host");
    let shown = ingress.map(|port| {
        let number = |key: &str| port[key].as_u64().unwrap_or(0);
        let protocol = port["Protocol"].as_str().unwrap_or("tcp");
        format!("*:{}->{}/{protocol}", number("PublishedPort"), number("TargetPort"))
    });
    shown.collect::<Vec<_>>().join(", ")
}

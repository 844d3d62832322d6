//! `version`, `info`, `events`.

use crate::Outcome;
use crate::client::Client;
use crate::commands::read;
use crate::commands::show::moment;
use crate::output::{line, print};
use crate::{CliError, commands::show};
use clap::Args;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// `version [OPTIONS]`
#[derive(Debug, Args)]
pub struct Version {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

/// `info [OPTIONS]`
#[derive(Debug, Args)]
pub struct Info {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

/// `events [OPTIONS]`
#[derive(Debug, Args)]
pub struct Events {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long)]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long)]
    until: Option<String>,
}

impl Version {
    /// Prints the versions of both sides.
    pub async fn run(self, client: &Client) -> Outcome {
        let server = client.get("/version").value().await;
        let own = json!({
            "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": "1.51",
            "Os": std::env::consts::OS, "Arch": std::env::consts::ARCH,
        });
        if let Some(format) = &self.format {
            let both = json!({"Client": own, "Server": server?});
            line(&render(format, &both)?);
            return Ok(());
        }
        let mut text =
            format!("Client: skep\n Version:     {}\n API version: 1.51\n", env!("CARGO_PKG_VERSION"));
        if let Ok(server) = &server {
            let get = |key: &str| server[key].as_str().unwrap_or_default();
            let _ = write!(
                text,
                "\nServer: {}\n Version:     {}\n API version: {} (minimum version {})\n OS/Arch:     {}/{}\n Kernel:      {}\n",
                server["Platform"]["Name"].as_str().unwrap_or("skep"),
                get("Version"),
                get("ApiVersion"),
                get("MinAPIVersion"),
                get("Os"),
                get("Arch"),
                get("KernelVersion"),
            );
        }
        print(&text);
        server.map(drop)
    }
}

fn render(format: &str, value: &Value) -> Result<String, CliError> {
    if format == "json" { Ok(value.to_string()) } else { Ok(template::render(format, value)?) }
}

impl Info {
    /// Prints what the daemon says of itself.
    pub async fn run(self, client: &Client) -> Outcome {
        let info = client.get("/info").value().await?;
        if let Some(format) = &self.format {
            line(&render(format, &info)?);
            return Ok(());
        }
        print(&info_text(&info));
        for warning in info["Warnings"].as_array().into_iter().flatten() {
            crate::output::note(warning.as_str().unwrap_or_default());
        }
        Ok(())
    }
}

fn info_text(info: &Value) -> String {
    let text = |key: &str| match &info[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let mut out = String::from("Server:\n");
    let mut row = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, " {name}: {value}");
    };
    for (name, key) in [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ] {
        row(name, text(key));
    }
    let swarm = &info["Swarm"];
    row("Swarm", swarm["LocalNodeState"].as_str().unwrap_or("inactive").to_owned());
    if swarm["NodeID"].as_str().is_some_and(|id| !id.is_empty()) {
        row(" NodeID", swarm["NodeID"].as_str().unwrap_or_default().to_owned());
        row(" Is Manager", swarm["ControlAvailable"].to_string());
        if swarm["ControlAvailable"] == Value::Bool(true) {
            row(" ClusterID", swarm["Cluster"]["ID"].as_str().unwrap_or_default().to_owned());
            row(" Managers", swarm["Managers"].to_string());
            row(" Nodes", swarm["Nodes"].to_string());
        }
        row(" Node Address", swarm["NodeAddr"].as_str().unwrap_or_default().to_owned());
    }
    for (name, key) in [
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ] {
        row(name, text(key));
    }
    row("Total Memory", show::size(info["MemTotal"].as_i64().unwrap_or(0)));
    for (name, key) in [("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir")] {
        row(name, text(key));
    }
    out
}

impl Events {
    /// Prints events as they come.
    pub async fn run(self, client: &Client) -> Outcome {
        let call = client
            .get("/events")
            .query_some("since", self.since.as_deref().map(moment).transpose()?)
            .query_some("until", self.until.as_deref().map(moment).transpose()?)
            .query_some("filters", read::filters(&self.filter)?);
        let mut body = call.send().await?.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| CliError::new(format!("read events: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let text: Vec<u8> = pending.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&text)
                    .map_err(|error| CliError::new(format!("the daemon's event is not JSON: {error}")))?;
                match &self.format {
                    Some(format) => line(&render(format, &event)?),
                    None => line(&event_text(&event)),
                }
            }
        }
        Ok(())
    }
}

fn event_text(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attributes = event["Actor"]["Attributes"].as_object().into_iter().flatten();
    let attributes: Vec<String> = attributes.map(|(key, value)| format!("{key}={}", text(value))).collect();
    let time = objects::Timestamp(event["timeNano"].as_i64().unwrap_or(0));
    let shown = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!(
        "{time} {} {} {}{shown}",
        text(&event["Type"]),
        text(&event["Action"]),
        text(&event["Actor"]["ID"])
    )
}

//! `service create`.

use super::flags::SharedFlags;
use super::{ports, progress, registry_header};
use crate::client::Client;
use crate::commands::{mounts, read};
use crate::output::{line, note};
use crate::{CliError, Outcome};
use clap::Args;
use serde_json::{Value, json};

/// `service create [OPTIONS] IMAGE [COMMAND] [ARG...]`
#[derive(Debug, Args)]
pub struct Create {
    /// Service name
    #[arg(long)]
    name: Option<String>,
    /// Service mode ("replicated", "global", "replicated-job", "global-job")
    #[arg(long, default_value = "replicated")]
    mode: String,
    /// Service labels
    #[arg(short, long, value_name = "list")]
    label: Vec<String>,
    /// Container labels
    #[arg(long, value_name = "list")]
    container_label: Vec<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "list")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    env_file: Vec<String>,
    /// Attach a filesystem mount to the service
    #[arg(long, value_name = "mount")]
    mount: Vec<String>,
    /// Placement constraints
    #[arg(long, value_name = "list")]
    constraint: Vec<String>,
    /// Add a placement preference
    #[arg(long, value_name = "pref")]
    placement_pref: Vec<String>,
    /// Network attachments
    #[arg(long, value_name = "network")]
    network: Vec<String>,
    /// Publish a port as a node port
    #[arg(short, long, value_name = "port")]
    publish: Vec<String>,
    /// Set one or more supplementary user groups for the container
    #[arg(long, value_name = "list")]
    group: Vec<String>,
    /// Set custom DNS servers
    #[arg(long, value_name = "list")]
    dns: Vec<String>,
    /// Set DNS options
    #[arg(long, value_name = "list")]
    dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "list")]
    dns_search: Vec<String>,
    /// Set one or more custom host-to-IP mappings (host:ip)
    #[arg(long, value_name = "list")]
    host: Vec<String>,
    /// Sysctl options
    #[arg(long, value_name = "list")]
    sysctl: Vec<String>,
    /// Ulimit options
    #[arg(long, value_name = "ulimit")]
    ulimit: Vec<String>,
    /// Add Linux capabilities
    #[arg(long, value_name = "list")]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "list")]
    cap_drop: Vec<String>,
    #[command(flatten)]
    shared: SharedFlags,
    /// Image to run
    image: String,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Create {
    /// Creates the service and waits until it runs, unless detached.
    pub async fn run(self, client: &Client) -> Outcome {
        let spec = self.spec()?;
        let call = client.post("/services/create").json(&spec);
        let created = registry_header(call, &self.image, self.shared.with_registry_auth).value().await?;
        for warning in created["Warnings"].as_array().into_iter().flatten() {
            note(&format!("WARNING: {}", warning.as_str().unwrap_or_default()));
        }
        let id = created["ID"].as_str().unwrap_or_default();
        line(id);
        if self.shared.detach {
            return Ok(());
        }
        progress::converge(client, id, self.shared.quiet).await
    }

    fn spec(&self) -> Result<Value, CliError> {
        let mode = match self.mode.as_str() {
            "replicated" => json!({"Replicated": {}}),
            "global" => json!({"Global": {}}),
            "replicated-job" => json!({"ReplicatedJob": {}}),
            "global-job" => json!({"GlobalJob": {}}),
            other => {
                let known = "only replicated and global supported";
                return Err(CliError::new(format!("Unknown mode: {other}, {known}")));
            }
        };
        let mut spec = json!({
            "Name": self.name.clone().unwrap_or_default(),
            "Labels": read::pairs(&self.label),
            "TaskTemplate": {"ContainerSpec": self.container()?, "ForceUpdate": 0},
            "Mode": mode,
        });
        if !self.publish.is_empty() {
            spec["EndpointSpec"]["Ports"] = ports::parse_all("-p, --publish", &self.publish)?;
        }
        let preferences: Result<Vec<Value>, CliError> =
            self.placement_pref.iter().map(|text| preference(text)).collect();
        let preferences = preferences?;
        if !self.constraint.is_empty() || !preferences.is_empty() {
            spec["TaskTemplate"]["Placement"] =
                json!({"Constraints": self.constraint, "Preferences": preferences});
        }
        if !self.network.is_empty() {
            let targets: Vec<Value> = self.network.iter().map(|name| json!({"Target": name})).collect();
            spec["TaskTemplate"]["Networks"] = json!(targets);
        }
        self.shared.write(&mut spec)?;
        Ok(spec)
    }

    fn container(&self) -> Result<Value, CliError> {
        let mut container = json!({"Image": self.image});
        let mut list = |key: &str, values: &[String]| {
            if !values.is_empty() {
                container[key] = json!(values);
            }
        };
        list("Args", &self.command);
        list("Env", &read::environment(&self.env, &self.env_file)?);
        list("Groups", &self.group);
        list("Hosts", &self.host.iter().map(|host| hosts_line(host)).collect::<Result<Vec<_>, _>>()?);
        list("CapabilityAdd", &self.cap_add);
        list("CapabilityDrop", &self.cap_drop);
        if !self.container_label.is_empty() {
            container["Labels"] = read::pairs(&self.container_label);
        }
        if !self.sysctl.is_empty() {
            container["Sysctls"] = read::pairs(&self.sysctl);
        }
        if !self.mount.is_empty() {
            let mounts: Result<Vec<Value>, CliError> =
                self.mount.iter().map(|text| mounts::parse_flag("--mount", text)).collect();
            container["Mounts"] = json!(mounts?);
        }
        if !self.ulimit.is_empty() {
            let limits: Result<Vec<Value>, CliError> =
                self.ulimit.iter().map(|text| read::ulimit(text)).collect();
            container["Ulimits"] = json!(limits?);
        }
        for (key, values) in
            [("Nameservers", &self.dns), ("Options", &self.dns_option), ("Search", &self.dns_search)]
        {
            if !values.is_empty() {
                container["DNSConfig"][key] = json!(values);
            }
        }
        Ok(container)
    }
}

/// `name:ip` as the line of a hosts file.
fn hosts_line(text: &str) -> Result<String, CliError> {
    let (name, ip) = text
        .split_once([':', '='])
        .ok_or_else(|| CliError::new(format!("bad format for add-host: {text:?}")))?;
    Ok(format!("{ip} {name}"))
}

/// `spread=node.labels.zone`.
pub(crate) fn preference(text: &str) -> Result<Value, CliError> {
    match text.split_once('=') {
        Some((strategy, descriptor)) if strategy.trim().eq_ignore_ascii_case("spread") => {
            Ok(json!({"Spread": {"SpreadDescriptor": descriptor.trim()}}))
        }
        Some((strategy, _)) => Err(CliError::new(format!(
            "unsupported placement preference {strategy} (only spread is supported)"
        ))),
        None => Err(CliError::new("placement preference must be of the format \"<strategy>=<arg>\"")),
    }
}

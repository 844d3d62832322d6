//! `service create`.

use super::flags::SharedFlags;
use super::{converge, networks, ports, registry_header, resolve, warn};
use crate::client::Client;
use crate::commands::{mounts, read};
use crate::output::line;
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
    #[arg(short, long, value_name = "list", value_parser = read::label)]
    label: Vec<String>,
    /// Container labels
    #[arg(long, value_name = "list", value_parser = read::label)]
    container_label: Vec<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "list", value_parser = read::variable)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    env_file: Vec<String>,
    /// Attach a filesystem mount to the service
    #[arg(long, value_name = "mount", value_parser = mounts::parse)]
    mount: Vec<Value>,
    /// Placement constraints
    #[arg(long, value_name = "list")]
    constraint: Vec<String>,
    /// Add a placement preference
    #[arg(long, value_name = "pref", value_parser = preference)]
    placement_pref: Vec<Value>,
    /// Network attachments
    #[arg(long, value_name = "network", value_parser = networks::parse)]
    network: Vec<Value>,
    /// Publish a port as a node port
    #[arg(short, long, value_name = "port", value_parser = ports::parse)]
    publish: Vec<Value>,
    /// Set one or more supplementary user groups for the container
    #[arg(long, value_name = "list")]
    group: Vec<String>,
    /// Set custom DNS servers
    #[arg(long, value_name = "list", value_parser = read::address)]
    dns: Vec<String>,
    /// Set DNS options
    #[arg(long, value_name = "list")]
    dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "list", value_parser = read::domain)]
    dns_search: Vec<String>,
    /// Set one or more custom host-to-IP mappings (host:ip)
    #[arg(long, value_name = "list", value_parser = read::extra_host)]
    host: Vec<String>,
    /// Sysctl options
    #[arg(long, value_name = "list")]
    sysctl: Vec<String>,
    /// Ulimit options
    #[arg(long, value_name = "ulimit", value_parser = read::ulimit)]
    ulimit: Vec<Value>,
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
        let mut spec = self.spec()?;
        let shared = &self.shared;
        let warning =
            resolve::resolve(client, &mut spec, !shared.no_resolve_image, shared.with_registry_auth).await;
        let call = client.post("/services/create").json(&spec);
        let created = registry_header(call, &self.image, shared.with_registry_auth).value().await?;
        warn(&created, warning);
        let id = created["ID"].as_str().unwrap_or_default();
        line(id);
        if shared.detach {
            return Ok(());
        }
        converge::wait(client, id, shared.quiet).await
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
            spec["EndpointSpec"]["Ports"] = Value::Array(ports::flat(&self.publish));
        }
        if !self.constraint.is_empty() || !self.placement_pref.is_empty() {
            spec["TaskTemplate"]["Placement"] =
                json!({"Constraints": self.constraint, "Preferences": self.placement_pref});
        }
        if !self.network.is_empty() {
            spec["TaskTemplate"]["Networks"] = Value::Array(self.network.clone());
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
        list("Hosts", &self.host.iter().map(|host| hosts_line(host)).collect::<Vec<_>>());
        list("CapabilityAdd", &self.cap_add);
        list("CapabilityDrop", &self.cap_drop);
        if !self.container_label.is_empty() {
            container["Labels"] = read::pairs(&self.container_label);
        }
        if !self.sysctl.is_empty() {
            container["Sysctls"] = read::pairs(&self.sysctl);
        }
        if !self.mount.is_empty() {
            container["Mounts"] = json!(self.mount);
        }
        if !self.ulimit.is_empty() {
            container["Ulimits"] = json!(self.ulimit);
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
fn hosts_line(text: &str) -> String {
    let (name, ip) = text.split_once(':').unwrap_or((text, ""));
    format!("{ip} {name}")
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

//! `service update`, `service scale`, `service rollback`: read the spec, change it, send it back with its version.

use super::flags::{self, SharedFlags};
use super::{converge, create, networks, ports, registry_header, resolve, warn};
use crate::client::Client;
use crate::commands::mounts;
use crate::commands::read::{self, Words};
use crate::output::line;
use crate::{CliError, Outcome};
use clap::Args;
use serde_json::{Value, json};

/// `service update [OPTIONS] SERVICE`
#[derive(Debug, Args)]
#[group(skip)]
pub struct Update {
    /// Service image tag
    #[arg(long)]
    image: Option<String>,
    /// Service command args
    #[arg(long, value_name = "command", value_parser = read::words)]
    args: Option<Words>,
    /// Force update even if no changes require it
    #[arg(long)]
    force: bool,
    /// Rollback to previous specification
    #[arg(long)]
    rollback: bool,
    /// Add or update an environment variable
    #[arg(long, value_name = "list", value_parser = read::variable)]
    env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "list")]
    env_rm: Vec<String>,
    /// Add or update a service label
    #[arg(long, value_name = "list", value_parser = read::label)]
    label_add: Vec<String>,
    /// Remove a label by its key
    #[arg(long, value_name = "list")]
    label_rm: Vec<String>,
    /// Add or update a container label
    #[arg(long, value_name = "list", value_parser = read::label)]
    container_label_add: Vec<String>,
    /// Remove a container label by its key
    #[arg(long, value_name = "list")]
    container_label_rm: Vec<String>,
    /// Add or update a placement constraint
    #[arg(long, value_name = "list")]
    constraint_add: Vec<String>,
    /// Remove a constraint
    #[arg(long, value_name = "list")]
    constraint_rm: Vec<String>,
    /// Add a placement preference
    #[arg(long, value_name = "pref", value_parser = create::preference)]
    placement_pref_add: Vec<Value>,
    /// Remove a placement preference
    #[arg(long, value_name = "pref", value_parser = create::preference)]
    placement_pref_rm: Vec<Value>,
    /// Add or update a mount on a service
    #[arg(long, value_name = "mount", value_parser = mounts::parse)]
    mount_add: Vec<Value>,
    /// Remove a mount by its target path
    #[arg(long, value_name = "list")]
    mount_rm: Vec<String>,
    /// Add or update a published port
    #[arg(long, value_name = "port", value_parser = ports::parse)]
    publish_add: Vec<Value>,
    /// Remove a published port by its target port
    #[arg(long, value_name = "port", value_parser = ports::target)]
    publish_rm: Vec<Value>,
    /// Add a network
    #[arg(long, value_name = "network", value_parser = networks::parse)]
    network_add: Vec<Value>,
    /// Remove a network
    #[arg(long, value_name = "list")]
    network_rm: Vec<String>,
    #[command(flatten)]
    shared: SharedFlags,
    /// Service to update
    service: String,
}

/// `service scale SERVICE=REPLICAS [SERVICE=REPLICAS...]`
#[derive(Debug, Args)]
pub struct Scale {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    detach: bool,
    /// SERVICE=REPLICAS
    #[arg(required = true)]
    services: Vec<String>,
}

/// `service rollback [OPTIONS] SERVICE`
#[derive(Debug, Args)]
pub struct Rollback {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// Service to roll back
    service: String,
}

async fn read_service(client: &Client, name: &str) -> Result<Value, CliError> {
    client.get(format!("/services/{name}")).value().await
}

/// Sends the spec back; what the daemon answered.
async fn send(
    client: &Client,
    service: &Value,
    spec: &Value,
    rollback: bool,
    auth: bool,
) -> Result<Value, CliError> {
    let id = service["ID"].as_str().unwrap_or_default();
    let call = client.post(format!("/services/{id}/update")).query("version", &service["Version"]["Index"]);
    let call = if rollback { call.query("rollback", "previous") } else { call };
    let image = spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned();
    let call = if auth { call } else { call.query("registryAuthFrom", "spec") };
    registry_header(call.json(spec), &image, auth).value().await
}

impl Update {
    /// Updates the service and waits until it has converged, unless detached.
    pub async fn run(self, client: &Client) -> Outcome {
        let service = read_service(client, &self.service).await?;
        let mut spec = service["Spec"].clone();
        self.write(&mut spec)?;
        networks::change(client, &mut spec, &self.network_add, &self.network_rm).await?;
        if self.rollback && spec != service["Spec"] {
            return Err(CliError::new("other flags may not be combined with --rollback"));
        }
        let shared = &self.shared;
        let warning = if self.image.is_some() && !self.rollback {
            resolve::resolve(client, &mut spec, !shared.no_resolve_image, shared.with_registry_auth).await
        } else {
            None
        };
        let answer = send(client, &service, &spec, self.rollback, shared.with_registry_auth).await?;
        warn(&answer, warning);
        line(&self.service);
        if self.shared.detach {
            return Ok(());
        }
        converge::wait(client, &self.service, self.shared.quiet).await
    }

    fn write(&self, spec: &mut Value) -> Result<(), CliError> {
        self.shared.write(spec).map_err(|error| match self.shared.replicas {
            // Docker's words on an update are others than on a create.
            Some(_) => CliError::new("replicas can only be used with replicated mode"),
            None => error,
        })?;
        let task = &mut spec["TaskTemplate"];
        if self.force {
            task["ForceUpdate"] = json!(task["ForceUpdate"].as_u64().unwrap_or(0) + 1);
        }
        change_list(
            &mut task["Placement"],
            "Constraints",
            &self.constraint_add,
            &self.constraint_rm,
            str::to_owned,
        );
        self.write_preferences(task);
        let container = &mut task["ContainerSpec"];
        if let Some(image) = &self.image {
            container["Image"] = json!(image);
        }
        if let Some(args) = &self.args {
            container["Args"] = json!(args.0);
        }
        let name_of = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
        change_list(container, "Env", &read::environment(&self.env_add, &[])?, &self.env_rm, name_of);
        change_map(container, &self.container_label_add, &self.container_label_rm);
        self.write_mounts(container);
        change_map(spec, &self.label_add, &self.label_rm);
        self.write_ports(spec);
        Ok(())
    }

    fn write_preferences(&self, task: &mut Value) {
        if self.placement_pref_add.is_empty() && self.placement_pref_rm.is_empty() {
            return;
        }
        let (added, removed) = (&self.placement_pref_add, &self.placement_pref_rm);
        let held = task["Placement"]["Preferences"].as_array().cloned().unwrap_or_default();
        let kept = held.into_iter().filter(|preference| !removed.contains(preference));
        task["Placement"]["Preferences"] = Value::Array(kept.chain(added.iter().cloned()).collect());
    }

    fn write_mounts(&self, container: &mut Value) {
        if self.mount_add.is_empty() && self.mount_rm.is_empty() {
            return;
        }
        let added = &self.mount_add;
        let goes = |mount: &Value| {
            let target = mount["Target"].as_str().unwrap_or_default();
            self.mount_rm.iter().any(|removed| removed == target)
                || added.iter().any(|new| new["Target"] == target)
        };
        let held = container["Mounts"].as_array().cloned().unwrap_or_default();
        let kept: Vec<Value> = held.into_iter().filter(|mount| !goes(mount)).collect();
        container["Mounts"] = Value::Array(kept.into_iter().chain(added.iter().cloned()).collect());
    }

    fn write_ports(&self, spec: &mut Value) {
        if self.publish_add.is_empty() && self.publish_rm.is_empty() {
            return;
        }
        let added = ports::flat(&self.publish_add);
        let same =
            |a: &Value, b: &Value| a["TargetPort"] == b["TargetPort"] && a["Protocol"] == b["Protocol"];
        let held = spec["EndpointSpec"]["Ports"].as_array().cloned().unwrap_or_default();
        let goes = |port: &Value| added.iter().chain(&self.publish_rm).any(|other| same(port, other));
        let kept: Vec<Value> = held.into_iter().filter(|port| !goes(port)).collect();
        spec["EndpointSpec"]["Ports"] = Value::Array(kept.into_iter().chain(added.iter().cloned()).collect());
    }
}

fn change_list(
    place: &mut Value,
    key: &str,
    added: &[String],
    removed: &[String],
    name_of: fn(&str) -> String,
) {
    if added.is_empty() && removed.is_empty() {
        return;
    }
    let held = place[key].as_array().cloned().unwrap_or_default();
    let goes = |entry: &str| {
        let name = name_of(entry);
        removed.contains(&name) || added.iter().any(|new| name_of(new) == name)
    };
    let kept: Vec<Value> = held.into_iter().filter(|entry| !entry.as_str().is_some_and(goes)).collect();
    place[key] = Value::Array(kept.into_iter().chain(added.iter().map(|entry| json!(entry))).collect());
}

fn change_map(place: &mut Value, added: &[String], removed: &[String]) {
    if added.is_empty() && removed.is_empty() {
        return;
    }
    let mut labels = place["Labels"].as_object().cloned().unwrap_or_default();
    for key in removed {
        labels.remove(key);
    }
    if let Value::Object(new) = read::pairs(added) {
        labels.extend(new);
    }
    place["Labels"] = Value::Object(labels);
}

impl Scale {
    /// Scales each service, then waits for all unless detached.
    pub async fn run(self, client: &Client) -> Outcome {
        let mut wishes = Vec::new();
        for text in &self.services {
            wishes.push(text.split_once('=').ok_or_else(|| {
                let usage = "SERVICE=REPLICAS [SERVICE=REPLICAS...]";
                CliError::new(format!(
                    "invalid scale specifier '{text}'.\nSee 'skep service scale --help'.\n\n\
                     Usage:  skep service scale {usage}\n\nScale one or multiple replicated services"
                ))
            })?);
        }
        let named = |name: &str, error: CliError| CliError { message: format!("{name}: {error}"), ..error };
        let (mut scaled, mut failed) = (Vec::new(), Vec::new());
        for (name, count) in wishes {
            match scale_one(client, name, count).await {
                Ok(()) => scaled.push(name),
                Err(error) => failed.push(named(name, error)),
            }
        }
        if !self.detach {
            for name in scaled {
                if let Err(error) = converge::wait(client, name, false).await {
                    failed.push(named(name, error));
                }
            }
        }
        CliError::all(failed)
    }
}

async fn scale_one(client: &Client, name: &str, count: &str) -> Outcome {
    let count: u64 = count.parse().map_err(|_| {
        let why = format!("strconv.ParseUint: parsing \"{count}\": invalid syntax");
        CliError::new(format!("invalid replicas value {count}: {why}"))
    })?;
    let service = read_service(client, name).await?;
    let mut spec = service["Spec"].clone();
    flags::scale(&mut spec, count)
        .map_err(|_| CliError::new("scale can only be used with replicated or replicated-job mode"))?;
    let answer = send(client, &service, &spec, false, false).await?;
    warn(&answer, None);
    line(&format!("{name} scaled to {count}"));
    Ok(())
}

impl Rollback {
    /// Rolls the service back and waits unless detached.
    pub async fn run(self, client: &Client) -> Outcome {
        let service = read_service(client, &self.service).await?;
        let answer = send(client, &service, &service["Spec"], true, false).await?;
        warn(&answer, None);
        line(&self.service);
        if self.detach {
            return Ok(());
        }
        converge::wait(client, &self.service, self.quiet).await
    }
}

//! `service update`, `service scale`, `service rollback`: read the spec, change it, send it back with its version.

use super::flags::{self, SharedFlags};
use super::{create, ports, progress, registry_header};
use crate::client::Client;
use crate::commands::{mounts, read};
use crate::output::{line, note};
use crate::{CliError, Outcome, each};
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
    #[arg(long, allow_hyphen_values = true)]
    args: Option<String>,
    /// Force update even if no changes require it
    #[arg(long)]
    force: bool,
    /// Rollback to previous specification
    #[arg(long)]
    rollback: bool,
    /// Add or update an environment variable
    #[arg(long, value_name = "list")]
    env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "list")]
    env_rm: Vec<String>,
    /// Add or update a service label
    #[arg(long, value_name = "list")]
    label_add: Vec<String>,
    /// Remove a label by its key
    #[arg(long, value_name = "list")]
    label_rm: Vec<String>,
    /// Add or update a container label
    #[arg(long, value_name = "list")]
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
    #[arg(long, value_name = "pref")]
    placement_pref_add: Vec<String>,
    /// Remove a placement preference
    #[arg(long, value_name = "pref")]
    placement_pref_rm: Vec<String>,
    /// Add or update a mount on a service
    #[arg(long, value_name = "mount")]
    mount_add: Vec<String>,
    /// Remove a mount by its target path
    #[arg(long, value_name = "list")]
    mount_rm: Vec<String>,
    /// Add or update a published port
    #[arg(long, value_name = "port")]
    publish_add: Vec<String>,
    /// Remove a published port by its target port
    #[arg(long, value_name = "port")]
    publish_rm: Vec<String>,
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

async fn send(client: &Client, service: &Value, spec: &Value, rollback: bool, auth: bool) -> Outcome {
    let id = service["ID"].as_str().unwrap_or_default();
    let call = client.post(format!("/services/{id}/update")).query("version", &service["Version"]["Index"]);
    let call = if rollback { call.query("rollback", "previous") } else { call };
    let image = spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned();
    let call = if auth { call } else { call.query("registryAuthFrom", "spec") };
    let answer = registry_header(call.json(spec), &image, auth).value().await?;
    for warning in answer["Warnings"].as_array().into_iter().flatten() {
        note(&format!("WARNING: {}", warning.as_str().unwrap_or_default()));
    }
    Ok(())
}

impl Update {
    /// Updates the service and waits until it has converged, unless detached.
    pub async fn run(self, client: &Client) -> Outcome {
        let service = read_service(client, &self.service).await?;
        let mut spec = service["Spec"].clone();
        if !self.rollback {
            self.write(&mut spec)?;
        }
        send(client, &service, &spec, self.rollback, self.shared.with_registry_auth).await?;
        line(&self.service);
        if self.shared.detach {
            return Ok(());
        }
        progress::converge(client, service["ID"].as_str().unwrap_or_default(), self.shared.quiet).await
    }

    fn write(&self, spec: &mut Value) -> Result<(), CliError> {
        self.shared.write(spec)?;
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
        self.write_preferences(task)?;
        let container = &mut task["ContainerSpec"];
        if let Some(image) = &self.image {
            container["Image"] = json!(image);
        }
        if let Some(args) = &self.args {
            container["Args"] = json!(args.split_whitespace().collect::<Vec<_>>());
        }
        let name_of = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
        change_list(container, "Env", &read::environment(&self.env_add, &[])?, &self.env_rm, name_of);
        change_map(container, &self.container_label_add, &self.container_label_rm);
        self.write_mounts(container)?;
        change_map(spec, &self.label_add, &self.label_rm);
        self.write_ports(spec)
    }

    fn write_preferences(&self, task: &mut Value) -> Result<(), CliError> {
        if self.placement_pref_add.is_empty() && self.placement_pref_rm.is_empty() {
            return Ok(());
        }
        let read = |texts: &[String]| {
            texts.iter().map(|text| create::preference(text)).collect::<Result<Vec<_>, _>>()
        };
        let (added, removed) = (read(&self.placement_pref_add)?, read(&self.placement_pref_rm)?);
        let held = task["Placement"]["Preferences"].as_array().cloned().unwrap_or_default();
        let kept = held.into_iter().filter(|preference| !removed.contains(preference));
        task["Placement"]["Preferences"] = Value::Array(kept.chain(added).collect());
        Ok(())
    }

    fn write_mounts(&self, container: &mut Value) -> Result<(), CliError> {
        if self.mount_add.is_empty() && self.mount_rm.is_empty() {
            return Ok(());
        }
        let added: Vec<Value> = self
            .mount_add
            .iter()
            .map(|text| mounts::parse_flag("--mount-add", text))
            .collect::<Result<_, _>>()?;
        let goes = |mount: &Value| {
            let target = mount["Target"].as_str().unwrap_or_default();
            self.mount_rm.iter().any(|removed| removed == target)
                || added.iter().any(|new| new["Target"] == target)
        };
        let held = container["Mounts"].as_array().cloned().unwrap_or_default();
        let kept: Vec<Value> = held.into_iter().filter(|mount| !goes(mount)).collect();
        container["Mounts"] = Value::Array(kept.into_iter().chain(added.iter().cloned()).collect());
        Ok(())
    }

    fn write_ports(&self, spec: &mut Value) -> Result<(), CliError> {
        if self.publish_add.is_empty() && self.publish_rm.is_empty() {
            return Ok(());
        }
        let added = ports::parse_all("--publish-add", &self.publish_add)?;
        let added = added.as_array().cloned().unwrap_or_default();
        let same =
            |a: &Value, b: &Value| a["TargetPort"] == b["TargetPort"] && a["Protocol"] == b["Protocol"];
        let mut removed = Vec::new();
        for text in &self.publish_rm {
            let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let port: u16 = port.parse().map_err(|_| CliError::new(format!("invalid port: {text}")))?;
            removed.push(json!({"TargetPort": port, "Protocol": protocol}));
        }
        let held = spec["EndpointSpec"]["Ports"].as_array().cloned().unwrap_or_default();
        let goes = |port: &Value| added.iter().chain(&removed).any(|other| same(port, other));
        let kept: Vec<Value> = held.into_iter().filter(|port| !goes(port)).collect();
        spec["EndpointSpec"]["Ports"] = Value::Array(kept.into_iter().chain(added.iter().cloned()).collect());
        Ok(())
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
        let scaled = std::cell::RefCell::new(Vec::new());
        let outcome = each(&self.services, async |text| {
            let wrong = || {
                let usage = "SERVICE=REPLICAS [SERVICE=REPLICAS...]";
                CliError::new(format!(
                    "invalid scale specifier '{text}'.\nSee 'skep service scale --help'.\n\n\
                     Usage:  skep service scale {usage}\n\nScale one or multiple replicated services"
                ))
            };
            let named = |error: CliError| CliError {
                message: format!("{}: {error}", text.split('=').next().unwrap_or_default()),
                ..error
            };
            let (name, count) = text.split_once('=').ok_or_else(wrong)?;
            let count: u64 = count.parse().map_err(|_| {
                let why = format!("strconv.ParseUint: parsing \"{count}\": invalid syntax");
                named(CliError::new(format!("invalid replicas value {count}: {why}")))
            })?;
            let service = read_service(client, name).await.map_err(named)?;
            let mut spec = service["Spec"].clone();
            flags::scale(&mut spec, count).map_err(|_| {
                named(CliError::new("scale can only be used with replicated or replicated-job mode"))
            })?;
            send(client, &service, &spec, false, false).await?;
            line(&format!("{name} scaled to {count}"));
            scaled.borrow_mut().push(service["ID"].as_str().unwrap_or_default().to_owned());
            Ok(())
        })
        .await;
        if !self.detach {
            for id in scaled.into_inner() {
                progress::converge(client, &id, false).await?;
            }
        }
        outcome
    }
}

impl Rollback {
    /// Rolls the service back and waits unless detached.
    pub async fn run(self, client: &Client) -> Outcome {
        let service = read_service(client, &self.service).await?;
        send(client, &service, &service["Spec"], true, false).await?;
        line(&self.service);
        if self.detach {
            return Ok(());
        }
        progress::converge(client, service["ID"].as_str().unwrap_or_default(), self.quiet).await
    }
}

//! `inspect`: whole objects, by kind or by whichever kind has the name.

use super::pretty;
use crate::client::Client;
use crate::output;
use crate::{CliError, Outcome};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;

/// What can be inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A volume.
    Volume,
    /// A network.
    Network,
    /// A node of the swarm.
    Node,
    /// A service.
    Service,
    /// A task.
    Task,
}

/// The order in which `inspect` without a kind looks. Source: docker/cli `cli/command/system/inspect.go`.
const ALL: [Kind; 7] =
    [Kind::Container, Kind::Image, Kind::Network, Kind::Volume, Kind::Service, Kind::Task, Kind::Node];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Volume => "volume",
            Kind::Network => "network",
            Kind::Node => "node",
            Kind::Service => "service",
            Kind::Task => "task",
        }
    }

    fn path(self, name: &str) -> String {
        match self {
            Kind::Container => format!("/containers/{name}/json"),
            Kind::Image => format!("/images/{name}/json"),
            Kind::Volume => format!("/volumes/{name}"),
            Kind::Network => format!("/networks/{name}"),
            Kind::Node => format!("/nodes/{name}"),
            Kind::Service => format!("/services/{name}"),
            Kind::Task => format!("/tasks/{name}"),
        }
    }
}

/// `inspect` of objects of one kind.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Names or ids
    #[arg(required = true)]
    names: Vec<String>,
}

/// `inspect [OPTIONS] NAME|ID [NAME|ID...]`: of whatever kind.
#[derive(Debug, Args)]
pub struct Any {
    #[command(flatten)]
    inspect: Inspect,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Only inspect objects of the given type
    #[arg(long)]
    r#type: Option<String>,
}

/// `container inspect`
#[derive(Debug, Args)]
pub struct OfContainers {
    #[command(flatten)]
    inspect: Inspect,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

/// `service inspect` and `node inspect`
#[derive(Debug, Args)]
pub struct Pretty {
    #[command(flatten)]
    inspect: Inspect,
    /// Print the information in a human friendly format
    #[arg(long)]
    pretty: bool,
}

impl Any {
    /// Prints each object; what is missing is reported after what was found.
    pub async fn run(self, client: &Client) -> Outcome {
        let kind = self.r#type.as_ref().map(|name| {
            ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
                let known = "\"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"";
                CliError::new(format!("unknown type: \"{name}\": must be one of {known}"))
            })
        });
        self.inspect.print(client, kind.transpose()?, self.size).await
    }
}

impl OfContainers {
    /// Prints each container.
    pub async fn run(self, client: &Client) -> Outcome {
        self.inspect.print(client, Some(Kind::Container), self.size).await
    }
}

impl Pretty {
    /// Prints each object, as JSON or for people.
    pub async fn run(self, client: &Client, kind: Kind) -> Outcome {
        if !self.pretty {
            return self.inspect.run(client, kind).await;
        }
        if self.inspect.format.as_deref().is_some_and(|format| !format.is_empty()) {
            return Err(CliError::new("--format is incompatible with human friendly format"));
        }
        let mut pages = String::new();
        for name in &self.inspect.names {
            let text = one(client, Some(kind), name, false).await?;
            let found = serde_json::from_str(&text)
                .map_err(|error| CliError::new(format!("the daemon's answer is not JSON: {error}")))?;
            pages.push_str(&match kind {
                Kind::Service => pretty::service::page(&found, &networks_of(client, &found).await),
                _ => pretty::node::page(&found),
            });
        }
        output::print(&pages);
        Ok(())
    }
}

/// Names of a service's networks, by id.
async fn networks_of(client: &Client, service: &Value) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for network in service["Spec"]["TaskTemplate"]["Networks"].as_array().into_iter().flatten() {
        let target = network["Target"].as_str().unwrap_or_default();
        // A network that is gone is shown by its id.
        if let Ok(found) = client.get(format!("/networks/{target}")).value().await {
            names.insert(target.to_owned(), found["Name"].as_str().unwrap_or_default().to_owned());
        }
    }
    names
}

impl Inspect {
    /// Prints each object of `kind`; what is missing is reported after what was found.
    pub async fn run(self, client: &Client, kind: Kind) -> Outcome {
        self.print(client, Some(kind), false).await
    }

    async fn print(&self, client: &Client, kind: Option<Kind>, size: bool) -> Outcome {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for name in &self.names {
            match one(client, kind, name, size).await {
                Ok(text) => found.push(text),
                Err(error) => missing.push(error),
            }
        }
        if !found.is_empty() || self.format.is_none() {
            output::inspect(&found, self.format.as_deref())?;
        }
        CliError::all(missing)
    }
}

async fn one(client: &Client, kind: Option<Kind>, name: &str, size: bool) -> Result<String, CliError> {
    let ask = async |kind: Kind| {
        let name =
            if kind == Kind::Node { super::node::self_id(client, name).await? } else { name.to_owned() };
        let call = client.get(kind.path(&name)).flag("size", size);
        let call = if kind == Kind::Service { call.query("insertDefaults", "true") } else { call };
        call.text().await
    };
    if let Some(kind) = kind {
        return ask(kind).await.map_err(|error| match error.status {
            // Source: docker/cli `cli/command/service/inspect.go`.
            Some(404) if kind == Kind::Service => CliError::new(format!("Error: no such service: {name}")),
            _ => error,
        });
    }
    for kind in ALL {
        match ask(kind).await {
            Ok(text) => return Ok(text),
            // 503: not a swarm manager, so it holds no such object.
            Err(error) if matches!(error.status, Some(404 | 503 | 501)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(CliError::new(format!("Error: No such object: {name}")))
}

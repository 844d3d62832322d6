//! `inspect`: whole objects, by kind or by whichever kind has the name.

use crate::client::Client;
use crate::output;
use crate::{CliError, Outcome};
use clap::Args;

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

/// `inspect [OPTIONS] NAME|ID [NAME|ID...]`
#[derive(Debug, Args)]
pub struct Inspect {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Only objects of this type
    #[arg(long, value_name = "type")]
    r#type: Option<String>,
    /// Names or ids
    #[arg(required = true)]
    names: Vec<String>,
}

impl Inspect {
    /// Prints each object; what is missing is reported after what was found.
    pub async fn run(self, client: &Client, kind: Option<Kind>) -> Outcome {
        let kind = match (&self.r#type, kind) {
            (None, kind) => kind,
            (Some(name), _) => {
                let found = ALL.into_iter().find(|kind| kind.name() == name);
                Some(found.ok_or_else(|| {
                        let known = "\"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"";
                        CliError::new(format!("unknown type: \"{name}\": must be one of {known}"))
                    })?)
            }
        };
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for name in &self.names {
            match self.one(client, kind, name).await {
                Ok(text) => found.push(text),
                Err(error) => missing.push(error),
            }
        }
        if !found.is_empty() || self.format.is_none() {
            output::inspect(&found, self.format.as_deref())?;
        }
        CliError::all(missing)
    }

    async fn one(&self, client: &Client, kind: Option<Kind>, name: &str) -> Result<String, CliError> {
        let ask = async |kind: Kind| {
            let name =
                if kind == Kind::Node { super::node::self_id(client, name).await? } else { name.to_owned() };
            let call = client.get(kind.path(&name)).flag("size", self.size);
            let call = if kind == Kind::Service { call.query("insertDefaults", "true") } else { call };
            call.text().await
        };
        if let Some(kind) = kind {
            return ask(kind).await.map_err(|error| match error.status {
                // Source: docker/cli `cli/command/service/inspect.go`.
                Some(404) if kind == Kind::Service => {
                    CliError::new(format!("Error: no such service: {name}"))
                }
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
}

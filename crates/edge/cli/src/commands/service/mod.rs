//! Commands on services.

pub mod create;
pub mod flags;
pub mod list;
pub mod ports;
pub mod progress;
pub mod tasks;
pub mod update;

use crate::client::{Call, Client};
use crate::commands::container::attach::{self, LogFlags};
use crate::commands::inspect::{self, Kind};
use crate::output::line;
use crate::{CliError, Outcome, each};
use clap::{Args, Subcommand};
use serde_json::Value;

/// `service COMMAND`
#[derive(Debug, Subcommand)]
pub enum Service {
    /// Create a new service
    Create(Box<create::Create>),
    /// Display detailed information on one or more services
    Inspect(inspect::Inspect),
    /// Fetch the logs of a service or task
    Logs(Logs),
    /// List services
    #[command(visible_alias = "list")]
    Ls(list::List),
    /// List the tasks of one or more services
    Ps(tasks::Tasks),
    /// Remove one or more services
    #[command(visible_alias = "remove")]
    Rm(Remove),
    /// Revert changes to a service's configuration
    Rollback(update::Rollback),
    /// Scale one or multiple replicated services
    Scale(update::Scale),
    /// Update a service
    Update(Box<update::Update>),
}

/// `service rm SERVICE [SERVICE...]`
#[derive(Debug, Args)]
pub struct Remove {
    /// Services to remove
    #[arg(required = true)]
    services: Vec<String>,
}

/// `service logs [OPTIONS] SERVICE|TASK`
#[derive(Debug, Args)]
pub struct Logs {
    #[command(flatten)]
    flags: LogFlags,
    /// Service or task whose logs to show
    name: String,
}

impl Service {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            Service::Create(it) => it.run(client).await,
            Service::Inspect(it) => it.run(client, Some(Kind::Service)).await,
            Service::Logs(it) => it.run(client).await,
            Service::Ls(it) => it.run(client).await,
            Service::Ps(it) => it.run(client).await,
            Service::Rm(it) => it.run(client).await,
            Service::Rollback(it) => it.run(client).await,
            Service::Scale(it) => it.run(client).await,
            Service::Update(it) => it.run(client).await,
        }
    }
}

/// Adds the user's credentials for `image`, if they are to be sent.
pub(crate) fn registry_header<'a>(call: Call<'a>, image: &str, wanted: bool) -> Call<'a> {
    match crate::credentials::for_image(image).filter(|_| wanted) {
        Some(header) => call.header("x-registry-auth", header),
        None => call,
    }
}

impl Remove {
    async fn run(self, client: &Client) -> Outcome {
        each(&self.services, async |name| {
            client.delete(format!("/services/{name}")).send().await?;
            line(name);
            Ok(())
        })
        .await
    }
}

impl Logs {
    async fn run(self, client: &Client) -> Outcome {
        let name = &self.name;
        let (path, spec) = match client.get(format!("/services/{name}")).value().await {
            Ok(service) => (format!("/services/{name}/logs"), service["Spec"]["TaskTemplate"].clone()),
            Err(error) if error.status == Some(404) => {
                let task = client.get(format!("/tasks/{name}")).value().await;
                let task = task.map_err(|_| CliError::new(format!("no such task or service: {name}")))?;
                (format!("/tasks/{name}/logs"), task["Spec"].clone())
            }
            Err(error) => return Err(error),
        };
        let terminal = spec["ContainerSpec"]["TTY"] == Value::Bool(true);
        attach::show(self.flags.ask(client, &path).await?, terminal).await
    }
}

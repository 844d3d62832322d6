//! Commands on services.

pub mod converge;
pub mod create;
pub mod flags;
pub mod list;
pub mod logs;
mod networks;
pub mod ports;
mod resolve;
pub mod tasks;
pub mod update;

use crate::client::{Call, Client};
use crate::commands::inspect::{self, Kind};
use crate::output::{line, note};
use crate::{Outcome, each};
use clap::{Args, Subcommand};
use serde_json::Value;

/// `service COMMAND`
#[derive(Debug, Subcommand)]
pub enum Service {
    /// Create a new service
    Create(Box<create::Create>),
    /// Display detailed information on one or more services
    Inspect(inspect::Pretty),
    /// Fetch the logs of a service or task
    Logs(logs::Logs),
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

impl Service {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            Service::Create(it) => it.run(client).await,
            Service::Inspect(it) => it.run(client, Kind::Service).await,
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

/// What the daemon, or the look at the registry, has to say about a service that it took.
fn warn(answer: &Value, resolved: Option<String>) {
    let told = answer["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    told.map(str::to_owned).chain(resolved).for_each(|warning| note(&warning));
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

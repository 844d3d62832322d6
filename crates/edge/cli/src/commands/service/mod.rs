//! Commands on services.

pub mod create;
pub mod flags;
pub mod list;
pub mod logs;
pub mod ports;
pub mod progress;
pub mod tasks;
pub mod update;

use crate::client::{Call, Client};
use crate::commands::inspect::{self, Kind};
use crate::output::line;
use crate::{Outcome, each};
use clap::{Args, Subcommand};

/// `service COMMAND`
#[derive(Debug, Subcommand)]
pub enum Service {
    /// Create a new service
    Create(Box<create::Create>),
    /// Display detailed information on one or more services
    Inspect(inspect::Inspect),
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

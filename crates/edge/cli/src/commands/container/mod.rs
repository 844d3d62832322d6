//! Commands on containers.

pub mod attach;
pub mod exec;
pub mod flags;
pub mod lifecycle;
pub mod list;
pub mod port;
pub mod run;

use crate::Outcome;
use crate::client::Client;
use crate::commands::inspect::{self, Kind};
use clap::Subcommand;

/// `container COMMAND`; each is a command of its own as well.
#[derive(Debug, Subcommand)]
pub enum Container {
    /// Attach local standard input, output, and error streams to a running container
    Attach(attach::Attach),
    /// Create a new container
    Create(Box<run::Create>),
    /// Execute a command in a running container
    Exec(exec::Exec),
    /// Display detailed information on one or more containers
    Inspect(inspect::Inspect),
    /// Kill one or more running containers
    Kill(lifecycle::Kill),
    /// Fetch the logs of a container
    Logs(attach::Logs),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(list::List),
    /// Pause all processes within one or more containers
    Pause(lifecycle::Names),
    /// List port mappings or a specific mapping for the container
    Port(port::Port),
    /// Rename a container
    Rename(lifecycle::Rename),
    /// Restart one or more containers
    Restart(lifecycle::Stop),
    /// Remove one or more containers
    #[command(visible_alias = "remove")]
    Rm(lifecycle::Remove),
    /// Create and run a new container from an image
    Run(Box<run::Run>),
    /// Start one or more stopped containers
    Start(lifecycle::Start),
    /// Stop one or more running containers
    Stop(lifecycle::Stop),
    /// Display the running processes of a container
    Top(lifecycle::Names),
    /// Unpause all processes within one or more containers
    Unpause(lifecycle::Names),
    /// Block until one or more containers stop, then print their exit codes
    Wait(lifecycle::Names),
}

impl Container {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            Container::Attach(it) => it.run(client).await,
            Container::Create(it) => it.run(client).await,
            Container::Exec(it) => it.run(client).await,
            Container::Inspect(it) => it.run(client, Some(Kind::Container)).await,
            Container::Kill(it) => it.run(client).await,
            Container::Logs(it) => it.run(client).await,
            Container::Ls(it) => it.run(client).await,
            Container::Pause(it) => it.call(client, "pause").await,
            Container::Port(it) => it.run(client).await,
            Container::Rename(it) => it.run(client).await,
            Container::Restart(it) => it.run(client, "restart").await,
            Container::Rm(it) => it.run(client).await,
            Container::Run(it) => it.run(client).await,
            Container::Start(it) => it.run(client).await,
            Container::Stop(it) => it.run(client, "stop").await,
            Container::Top(it) => it.top(client).await,
            Container::Unpause(it) => it.call(client, "unpause").await,
            Container::Wait(it) => it.wait(client).await,
        }
    }
}
